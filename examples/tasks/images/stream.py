"""Feeds ImageNet to the devices: images that the host reads ahead, or generated ones."""

import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from examples.tasks.images.files import Dataset, EpochPlan, Images
from examples.tasks.images.streamed import Streamed, aggregate
from examples.training import sharding

MAX_WORKER_BATCH = 32  # Most images that a worker makes before it hands them on.
BUFFERED = 2  # How many of these each worker is ahead.


class Stream:
    """Feeds a task with the images of a dataset, read ahead by threads or processes."""

    def __init__(
        self,
        task: Streamed,
        dataset: Dataset,
        plan: EpochPlan,
        *,
        epochs: int,
        size: int,
        seed: int,
        workers: int,
    ):
        """Read nothing yet but the first files.

        Args:
          task: as a whole.
          dataset: what to read.
          plan: how an epoch is divided.
          epochs: how many.
          size: rows and columns that an image is resized to.
          seed: of all that is random.
          workers: processes that read; 0 for a thread per core.
        """
        self.identity: Mapping[str, Any] = dataset.identity()
        self.chunks_per_epoch = plan.chunks
        self.plan, self._task = plan, task
        self._images = functools.partial(Images, dataset, plan, epochs, size, seed)
        self._workers = workers
        self._iterator: Any = None
        self._rows: tuple[int, ...] = ()
        self._next = self._worker_batch = 0

    def chunks(self, epoch: int, done: int) -> Iterator[Streamed]:
        """Yield chunks with `(steps, batch, ...)`, placed on the mesh."""
        plan = self.plan
        for chunk in range(done, plan.chunks):
            first = (epoch - 1) * plan.batches + chunk * plan.steps
            yield self._chunk(self._read(first, plan.steps), axis=1)

    def held_out(self, epoch: int) -> Iterator[Streamed]:
        """Yield chunks with `(batch, ...)`."""
        first = (epoch - 1) * self.plan.batches + self.plan.train_batches
        for batch in range(self.plan.held_out_batches):
            only = {name: x[0] for name, x in self._read(first + batch, 1).items()}
            yield self._chunk(only, axis=0)

    def aggregate(self, evaluated: Sequence[Any]) -> dict[str, jax.Array]:
        """Return the scores of all images held out, each counted once."""
        return aggregate(self._task, evaluated, self.plan.held_out_images)

    def close(self) -> None:
        """End the workers."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _chunk(self, batches: Mapping[str, np.ndarray], axis: int) -> Streamed:
        arrays = sharding.put_parts(batches, axis)
        return dataclasses.replace(self._task, images=arrays["image"], labels=arrays["label"])

    def _read(self, first: int, count: int) -> dict[str, np.ndarray]:
        """Return batches from the `first` of all epochs on, as arrays `(count, rows, ...)`.

        It is quick if they follow the last ones. The arrays are copies, because what a worker has
        shared is gone with the worker.
        """
        if self._iterator is None or first != self._next:
            self.close()
            self._rows = tuple(map(int, sharding.rows_here(self.plan.batch)))
            sizes = range(1, MAX_WORKER_BATCH + 1)
            self._worker_batch = max(n for n in sizes if len(self._rows) % n == 0)
            self._iterator = self._open(first)
        self._next = first + count
        parts = [next(self._iterator) for _ in range(count * len(self._rows) // self._worker_batch)]
        joined = {name: np.concatenate([p[name] for p in parts]) for name in ("image", "label")}
        return {k: x.reshape(count, len(self._rows), *x.shape[1:]) for k, x in joined.items()}

    def _open(self, first: int) -> Any:
        """Return an iterator over parts of the batches, from the `first` on."""
        # Here, for generated images do without.
        import grain
        from absl import flags

        # Grain's workers ask for one, and only absl's own programs parse them.
        flags.FLAGS.mark_as_parsed()
        # A worker makes whole parts, so what is in one does not depend on how many there are.
        threads = 1 if self._workers else _cores()
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads * BUFFERED)
        processes = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=BUFFERED)
        images = grain.MapDataset.source(self._images(self._rows, first)).batch(self._worker_batch)
        return iter(images.to_iter_dataset(read).mp_prefetch(processes, _follow))


def _follow(worker: int, workers: int) -> None:
    """Leave it to the process that trains to stop, and end when that one is gone.

    Schedulers tell all processes at once to stop; killed, the one that trains tells none.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    if trainer := multiprocessing.parent_process():
        trainer.join()
        os._exit(1)


def _cores() -> int:
    """Return how many cores this process may use, or all where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Generated:
    """Feeds a task with the same made-up images over and over, so that no host keeps it waiting."""

    def __init__(self, task: Streamed, plan: EpochPlan, *, size: int):
        """Make nothing yet; for the arguments see `Stream`."""
        self.identity: Mapping[str, Any] = {"data": "generated"}
        self.chunks_per_epoch = plan.chunks
        self.plan, self._task, self._size = plan, task, size

    def chunks(self, epoch: int, done: int) -> Iterator[Streamed]:
        """Yield chunks with `(steps, batch, ...)`, placed on the mesh."""
        return iter([self._to_train_on] * (self.plan.chunks - done))

    def held_out(self, epoch: int) -> Iterator[Streamed]:
        """Yield chunks with `(batch, ...)`."""
        return iter([self._to_evaluate_on] * self.plan.held_out_batches)

    def aggregate(self, evaluated: Sequence[Any]) -> dict[str, jax.Array]:
        """Return the scores of all images held out."""
        return aggregate(self._task, evaluated, self.plan.held_out_images)

    def close(self) -> None:
        """Do nothing."""

    @functools.cached_property
    def _to_train_on(self) -> Streamed:
        return self._chunk(self.plan.steps)

    @functools.cached_property
    def _to_evaluate_on(self) -> Streamed:
        return self._chunk()

    def _chunk(self, *steps: int) -> Streamed:
        shape = (*steps, len(sharding.rows_here(self.plan.batch)))
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (*shape, self._size, self._size, 3), np.uint8)
        labels = rng.integers(0, self._task.classes, shape, np.int32)
        images, labels = sharding.put_parts((images, labels), len(steps))
        return dataclasses.replace(self._task, images=images, labels=labels)
