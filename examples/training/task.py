"""The protocol of a task, and that of a data source for tasks too large for the device."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
from flax import nnx

from examples.training.checkpoints import checksum


class Layout(NamedTuple):
    """Modules that optimizers treat differently, by name: stacked layers, the first and the last.

    A name is that of a module, wherever it stands, and speaks of all below it.

    Attributes:
      stacked: those whose leaves have a leading axis of layers, each of which has norms of its own.
      ends: embeddings and the last layer, whose matrices Muon leaves to Adam.
    """

    stacked: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()


class Task(Protocol):
    """What differs between examples: a pytree whose leaves are the data, arguments of a program."""

    score: str
    """The name in `evaluate`'s result that the progress bar shows."""
    vmaps_runs: bool
    """Whether an accelerator runs several models at once faster than one after the other."""
    layout: Layout
    """Where the model has stacked layers, and where it begins and ends."""

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of updates per epoch."""

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Return the network, initialised."""

    def batches(self, key: jax.Array) -> Any:
        """Draw one epoch on the device: leaves `(steps_per_epoch, batch, ...)`."""

    def loss(self, model: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        """Return losses and logit margins of the examples of a batch, or of its tokens: `(n,)`."""

    def evaluate(self, model: Any) -> Any:
        """Return metrics on held-out data; for a chunk, what `DataSource.aggregate` needs."""


class DataSource(Protocol):
    """Where the chunks of a task come from that the device cannot hold whole.

    Each is a task of one shape, placed on the mesh. Which ones they are depends on the epoch and
    their place in it alone, so that a run that was stopped goes on to the bit.
    """

    @property
    def chunks_per_epoch(self) -> int:
        """Return how many chunks an epoch trains on, each of as many steps."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return what tells the data apart, for checkpoints."""

    def chunks(self, epoch: int, done: int) -> Iterable[Task]:
        """Return the chunks to train on in an epoch, counted from 1, but for the first `done`."""

    def held_out(self, epoch: int) -> Iterable[Task]:
        """Return the chunks to evaluate after an epoch."""

    def aggregate(self, evaluated: Sequence[Any]) -> dict[str, jax.Array]:
        """Return metrics of every run by name, from what all held-out chunks evaluated to."""

    def close(self) -> None:
        """End what reads ahead, as `train` does at its end; a later epoch may begin it anew."""


@dataclasses.dataclass(frozen=True)
class OnDevice:
    """The source of a task that the device holds whole: one chunk, the task itself."""

    task: Task
    chunks_per_epoch: ClassVar[int] = 1

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return a checksum of the task's arrays."""
        return {"data": checksum(self.task)}

    def task_of(self, epoch: int) -> Task:
        """Return the task of an epoch."""
        return self.task

    def chunks(self, epoch: int, done: int) -> Iterable[Task]:
        """Return the task."""
        return (self.task_of(epoch),)

    def held_out(self, epoch: int) -> Iterable[Task]:
        """Return the task."""
        return (self.task_of(epoch),)

    def aggregate(self, evaluated: Sequence[Any]) -> dict[str, jax.Array]:
        """Return what the task evaluated to."""
        return evaluated[0]

    def close(self) -> None:
        """Do nothing."""
