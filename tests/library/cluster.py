"""A short training run with every weight sharded, on whatever devices there are; see its test.

As a program, `python cluster.py ADDRESS PROCESSES PROCESS RESULT`, it is one process of several,
and writes what it ends with to the file RESULT.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lawn_optax as lo

SWITCH, STEPS = 3, 6


def train(devices: list[jax.Device]) -> dict[str, np.ndarray]:
    """The weights and captured norms after `STEPS` updates, whole and on the host."""
    mesh = jax.make_mesh((len(devices),), ("all",), axis_types=(AxisType.Auto,), devices=devices)
    split = NamedSharding(mesh, PartitionSpec("all"))
    rng = np.random.default_rng(0)

    def spread(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, split, lambda index: array[index])

    shapes = {"in": (8, 16), "bias": (16,), "out": (16, 4)}
    params = {name: spread(np.float32(rng.normal(size=s))) for name, s in shapes.items()}
    tx = lo.adam_lawn(0.05, SWITCH)

    def loss(params, x):
        return jnp.mean((jnp.tanh(x @ params["in"] + params["bias"]) @ params["out"] - 1) ** 2)

    @jax.jit
    def step(params, state, x):
        updates, state = tx.update(jax.grad(loss)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(STEPS):
        params, state = step(params, state, spread(np.float32(rng.normal(size=(16, 8)))))
    assert all(leaf.sharding.is_equivalent_to(split, leaf.ndim) for leaf in params.values())
    assert all(c.sharding.is_fully_replicated for c in state.norms.values())
    result = params | {f"norm of {name}": c for name, c in state.norms.items()}
    return multihost_utils.process_allgather(result, tiled=True)


def main(address: str, processes: str, process: str, result: str) -> None:
    """Joins the others, trains with them, and saves the result."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, int(processes), int(process))
    assert jax.process_count() == int(processes)
    np.savez(result, **train(jax.devices()))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
