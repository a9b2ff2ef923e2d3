"""GPUs that programs are compiled for without one being there: XLA needs only a description."""

from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

# Trying kernels out to choose among them would take the device itself.
OPTIONS: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"}


def describe(target_config: Path) -> jax.Device:
    """The device of a target config, XLA's description of one, in protobuf's text format."""
    text = target_config.read_text(encoding="utf-8")
    try:
        topology = topologies.get_topology_desc(
            "",
            "cuda",
            target_config=text,
            topology="1x1x1",  # One device of one host.
        )
    except NotImplementedError as error:
        raise RuntimeError(
            "compiling for a GPU needs JAX's CUDA plugin: pip install 'jax[cuda12]'; and, where"
            " there is no GPU, JAX_PLATFORMS=cpu in the environment."
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            f"{target_config} is no target config that this XLA can read, see above: delete the"
            f" fields that it does not know. {error}"
        ) from error
    return topology.devices[0]


def compile_for(device: jax.Device, function: Any, *args: Any) -> jax.stages.Compiled:
    """A function of arrays of these shapes, compiled for that device; it cannot be run here."""
    there = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), args)
    return jax.jit(function).lower(*shapes).compile(OPTIONS)
