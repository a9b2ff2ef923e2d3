"""Meshes: which device holds which part of a batch, and which part of a weight.

devices = data x fsdp x tensor; a batch is split over data and fsdp, a weight over fsdp and tensor

Inside `MeshConfig.use` the functions below place arrays on the mesh, and the compiler derives where
all that is computed from them lies. With one device there is no mesh, and they do nothing.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

BATCH = ("data", "fsdp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices share the work, and how; at most one size may be -1, all that are left."""

    data: int | None = None
    """Devices to copy the weights to, which share each batch.
    By default 1; with --distributed -1, unless another size is."""
    fsdp: int = 1
    """Devices to split the inputs of the weights over, embeddings by rows.
    They share each batch too."""
    tensor: int = 1
    """Devices to split the outputs of the weights over; each computes its part of a layer."""

    def __post_init__(self) -> None:
        given = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        for name, size in given.items():
            if size < 1 and size != -1:
                raise ValueError(
                    f"mesh.{name}={size} must be at least 1, or -1 for all devices that are left."
                )
        if list(given.values()).count(-1) > 1:
            raise ValueError(f"{self} has more than one -1: give the other sizes.")

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Have JAX compile for the mesh inside; for one device it does nothing.

        Raises:
          ValueError: if the devices cannot be shared out so.
        """
        sizes = self.sizes(jax.device_count(), jax.process_count())
        with contextlib.ExitStack() as stack:
            if (count := math.prod(sizes.values())) > 1:
                devices, axes = jax.devices()[:count], (AxisType.Auto,) * len(sizes)
                mesh = jax.make_mesh(tuple(sizes.values()), tuple(sizes), axes, devices=devices)
                stack.enter_context(jax.set_mesh(mesh))
            yield

    def sizes(self, devices: int, processes: int) -> dict[str, int]:
        """Return the sizes by axis, no -1 among them; devices of one process may stay idle."""
        left = processes > 1 and -1 not in (self.fsdp, self.tensor)
        data = self.data or (-1 if left else 1)
        sizes = {"data": data, "fsdp": self.fsdp, "tensor": self.tensor}
        known = math.prod(n for n in sizes.values() if n != -1)
        sizes = {name: devices // known if n == -1 else n for name, n in sizes.items()}
        count = math.prod(sizes.values())
        asked = f"the mesh {' x '.join(f'{name}={n}' for name, n in sizes.items())}"
        if known > devices:
            raise ValueError(
                f"{asked} takes {known} devices, and there are {devices}: make it smaller, or give"
                " -1 for the size that may be what is left. On CPU"
                f" XLA_FLAGS=--xla_force_host_platform_device_count={known} makes virtual devices."
            )
        if count < devices and (processes > 1 or -1 in dataclasses.astuple(self)):
            raise ValueError(
                f"{asked} leaves {devices - count} of {devices} devices idle: give sizes whose"
                f" product is {devices}."
            )
        return sizes


def shards(sizes: Mapping[str, int]) -> int:
    """Return how many parts a batch is split into, given the sizes of the mesh."""
    return math.prod(sizes[name] for name in BATCH)


def rows_here(batch: int) -> np.ndarray:
    """Return which examples of a batch this process' devices hold, ascending; outside jit."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return np.arange(batch)
    parts = NamedSharding(mesh, PartitionSpec(BATCH)).addressable_devices_indices_map((batch,))
    return np.unique(np.concatenate([np.arange(batch)[part] for part in parts.values()]))


def put_parts(tree: Any, axis: int) -> Any:
    """Make arrays of what each process holds, with the batch split as inside jit; outside jit.

    Args:
      tree: leaves on the host, along `axis` the examples of `rows_here`.
      axis: which axis the examples are on.

    Returns:
      Leaves with all of the batch along `axis`, on the devices of all processes.
    """
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.device_put(tree)
    split = NamedSharding(mesh, PartitionSpec(*[None] * axis, BATCH))
    return jax.make_array_from_process_local_data(split, tree)


def split(shape: Sequence[int], sizes: Mapping[str, int]) -> PartitionSpec:
    """Return where the parts of an array of the state lie, given the sizes of the mesh.

    A weight `(runs, ..., inputs, outputs)` has its inputs, of an embedding the rows, split over
    fsdp and its outputs, of an embedding the features, over tensor, and its moments alike. An axis
    that does not divide is left whole and the other one is split in its place: the 943 users of
    MovieLens by features. Padding would split their rows, but then a checkpoint and the random
    numbers of an initialiser would depend on the mesh. All else, such as biases and the norms that
    LAWN holds, is on every device.

    Args:
      shape: with the axis of runs.
      sizes: of each axis of the mesh.
    """
    if len(shape) < 3:
        return PartitionSpec()
    parts: dict[int, list[str]] = {-2: [], -1: []}
    for axis, places in {"fsdp": (-2, -1), "tensor": (-1, -2)}.items():
        for place in places:
            if shape[place] % math.prod(sizes[name] for name in (*parts[place], axis)) == 0:
                parts[place].append(axis)
                break
    return PartitionSpec(
        *[None] * (len(shape) - 2), *(tuple(axes) or None for axes in parts.values())
    )


def split_state(state: Any) -> Any:
    """Split what training changes, every leaf as `split` says."""
    return _place(state, lambda leaf, sizes: split(leaf.shape, sizes))


def split_batches(batches: Any) -> Any:
    """Split the examples of batches `(steps, batch, ...)`, whether they divide or not."""
    return _place(batches, lambda leaf, _: PartitionSpec(None, BATCH))


def split_rows(data: Any) -> Any:
    """Split the first axis of every leaf, whether it divides or not."""
    return _place(data, lambda leaf, _: PartitionSpec(BATCH if leaf.ndim else None))


def copy(tree: Any) -> Any:
    """Have the whole of every leaf on every device."""
    return _place(tree, lambda leaf, _: PartitionSpec())


def put(tree: Any) -> Any:
    """Copy arrays of the host, or of one device, to every device; outside jit."""
    mesh = jax.sharding.get_mesh()
    return tree if mesh.empty else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def _place(tree: Any, spec: Callable[[jax.Array, Mapping[str, int]], PartitionSpec]) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree
    place = lambda x: jax.lax.with_sharding_constraint(x, spec(x, mesh.shape))
    return jax.tree.map(place, tree)
