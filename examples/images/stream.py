"""Where the images of ImageNet come from: files that the host reads and cuts while devices train.

epoch = training batches in a new order, then the batches to judge by; one stream through all epochs

What an image is depends on its place in that stream alone: `order(seed, epoch)` says which record
it is, and `(seed, epoch, record)` how it is cut. So a run may go on from any batch, with any number
of workers and processes, and sees what it would have seen.
"""

import dataclasses
import functools
import math
import os
import signal
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import jax
import numpy as np
import tensorflow_datasets as tfds

from examples import meshes
from examples.images import crops
from examples.images.streamed import Streamed, judge

AT_ONCE = 32  # Most images that a worker makes before it hands them on.
BUFFERED = 2  # Such portions that each worker is ahead.


class Dataset(NamedTuple):
    """Image files by TensorFlow Datasets, in ArrayRecord.

    Attributes:
      folder: of one version, such as `imagenet2012/5.1.0`.
      train: the split to train on.
      held_out: the split to judge by.
      train_images: images in the first.
      held_out_images: images in the second.
      classes: how many there are.
    """

    folder: str
    train: str
    held_out: str
    train_images: int
    held_out_images: int
    classes: int

    def identity(self) -> dict[str, Any]:
        """What tells it from others: its size, and a checksum of its first files."""
        crc = 0
        for split in (self.train, self.held_out):
            crc = zlib.crc32(_source(self.folder, split)[0]["image"], crc)
        sizes = f"{self.train_images} + {self.held_out_images} images"
        return {"data": f"version {Path(self.folder).name}, {sizes}, {crc:08x}"}


def imagenet(data_dir: Path | None = None, train_images: int | None = None) -> Dataset:
    """Finds ImageNet.

    Args:
      data_dir: the folder that TensorFlow Datasets prepared it in; None for its default,
        `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      train_images: how many to train on, the first; None for all.

    Raises:
      FileNotFoundError: where it is not prepared.
      ValueError: for more images than there are.
    """
    folder = str(data_dir.expanduser()) if data_dir else None
    builder = tfds.builder("imagenet2012", data_dir=folder, file_format="array_record")
    if not builder.data_path.exists():
        raise FileNotFoundError(
            f"imagenet2012 is not prepared in {builder.data_path}. Download"
            " ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org (an"
            " account is needed) to DIR/downloads/manual, and prepare it once, with TensorFlow (pip"
            " install tensorflow-cpu): tfds build imagenet2012 --file_format array_record"
            f" --data_dir DIR; then give --data-dir DIR, which holds"
            f" imagenet2012/{builder.version}. To try without: --dataset generated."
        )
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    count = sizes["train"] if train_images is None else train_images
    if not 1 <= count <= sizes["train"]:
        raise ValueError(
            f"train_images={train_images} must lie between 1 and the {sizes['train']} there are."
        )
    return Dataset(
        folder=str(builder.data_path),
        train=f"train[:{count}]",
        held_out="validation",
        train_images=count,
        held_out_images=sizes["validation"],
        classes=builder.info.features["label"].num_classes,
    )


class Rounds(NamedTuple):
    """How an epoch is cut into batches and parts.

    Attributes:
      batch: images in a train step.
      steps: train steps in a part.
      parts: parts in an epoch.
      held_out_images: images to judge by.
    """

    batch: int
    steps: int
    parts: int
    held_out_images: int

    @property
    def train_batches(self) -> int:
        """In an epoch."""
        return self.steps * self.parts

    @property
    def held_out_batches(self) -> int:
        """In an epoch; the last is filled up with its last image."""
        return math.ceil(self.held_out_images / self.batch)

    @property
    def batches(self) -> int:
        """In an epoch, both together."""
        return self.train_batches + self.held_out_batches


def cut(train_batches: int, batch: int, steps_at_once: int, held_out_images: int) -> Rounds:
    """Parts of as many steps as may be, all of the same number, so that one program trains them."""
    steps = max(n for n in range(1, steps_at_once + 1) if train_batches % n == 0)
    return Rounds(batch, steps, train_batches // steps, held_out_images)


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of all epochs that one process needs, one after the other, from some batch on.

    Attributes:
      dataset: what to read.
      rounds: how an epoch is cut.
      epochs: how many.
      size: rows and columns that an image is resized to.
      seed: of all that is random.
      rows: which images of each batch.
      first: batches to leave out.
    """

    dataset: Dataset
    rounds: Rounds
    epochs: int
    size: int
    seed: int
    rows: tuple[int, ...]
    first: int = 0

    def __len__(self) -> int:
        return (self.epochs * self.rounds.batches - self.first) * len(self.rows)

    def __getitem__(self, place: SupportsIndex) -> dict[str, Any]:
        """`image` `(size, size, 3)` uint8 and `label` int32."""
        dataset, rounds = self.dataset, self.rounds
        batch, row = divmod(place.__index__(), len(self.rows))
        epoch, batch = divmod(self.first + batch, rounds.batches)
        if batch < rounds.train_batches:
            records = order(self.seed, epoch, dataset.train_images)
            record = int(records[batch * rounds.batch + self.rows[row]])
            example = _source(dataset.folder, dataset.train)[record]
            rng = np.random.default_rng([1, self.seed, epoch, record])
            pixels = crops.for_training(example["image"], self.size, rng)
        else:
            image = (batch - rounds.train_batches) * rounds.batch + self.rows[row]
            record = min(image, dataset.held_out_images - 1)
            example = _source(dataset.folder, dataset.held_out)[record]
            pixels = crops.for_evaluation(example["image"], self.size)
        return {"image": pixels, "label": np.int32(example["label"])}


@functools.lru_cache(maxsize=2)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """`(count,)`: which record comes when."""
    return np.random.default_rng([0, seed, epoch]).permutation(count)


@functools.cache
def _source(folder: str, split: str) -> Any:
    """The examples of a split, with images as the bytes of their files."""
    undecoded = {"image": tfds.decode.SkipDecoding()}
    return tfds.builder_from_directory(folder).as_data_source(split, decoders=undecoded)


class Stream:
    """Feeds a task with the images of a dataset, read ahead by threads or processes."""

    def __init__(
        self,
        task: Streamed,
        dataset: Dataset,
        rounds: Rounds,
        *,
        epochs: int,
        size: int,
        seed: int,
        workers: int,
    ):
        """Reads nothing yet but the first files.

        Args:
          task: as a whole.
          dataset: what to read.
          rounds: how an epoch is cut.
          epochs: how many.
          size: rows and columns that an image is resized to.
          seed: of all that is random.
          workers: processes that read; 0 for a thread a core.
        """
        self.identity: Mapping[str, Any] = dataset.identity()
        self.parts_per_epoch = rounds.parts
        self.rounds, self._task = rounds, task
        self._images = functools.partial(Images, dataset, rounds, epochs, size, seed)
        self._workers = workers
        self._iterator: Any = None
        self._rows: tuple[int, ...] = ()
        self._next = self._portion = 0

    def parts(self, epoch: int, done: int) -> Iterator[Streamed]:
        """Parts with `(steps, batch, ...)`, placed on the mesh."""
        rounds = self.rounds
        for part in range(done, rounds.parts):
            first = (epoch - 1) * rounds.batches + part * rounds.steps
            yield self._part(self._read(first, rounds.steps), axis=1)

    def held_out(self, epoch: int) -> Iterator[Streamed]:
        """Parts with `(batch, ...)`."""
        first = (epoch - 1) * self.rounds.batches + self.rounds.train_batches
        for batch in range(self.rounds.held_out_batches):
            only = {name: x[0] for name, x in self._read(first + batch, 1).items()}
            yield self._part(only, axis=0)

    def judge(self, evaluated: Sequence[Any]) -> dict[str, jax.Array]:
        """Of all images held out, each counted once."""
        return judge(self._task, evaluated, self.rounds.held_out_images)

    def close(self) -> None:
        """Ends the workers."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _part(self, batches: Mapping[str, np.ndarray], axis: int) -> Streamed:
        arrays = meshes.put_parts(batches, self.rounds.batch, axis)
        return dataclasses.replace(self._task, images=arrays["image"], labels=arrays["label"])

    def _read(self, first: int, count: int) -> dict[str, np.ndarray]:
        """Batches, counted through all epochs: `(count, rows, ...)`, quick if they follow the last.

        They are copies, for what a worker has shared is gone with the worker.
        """
        if self._iterator is None or first != self._next:
            self.close()
            self._rows = tuple(map(int, meshes.rows_here(self.rounds.batch)))
            self._portion = max(n for n in range(1, AT_ONCE + 1) if len(self._rows) % n == 0)
            self._iterator = self._open(first)
        self._next = first + count
        portions = [next(self._iterator) for _ in range(count * len(self._rows) // self._portion)]
        joined = {name: np.concatenate([p[name] for p in portions]) for name in ("image", "label")}
        return {k: x.reshape(count, len(self._rows), *x.shape[1:]) for k, x in joined.items()}

    def _open(self, first: int) -> Any:
        """Portions of the batches from one on."""
        # Here, for generated images do without.
        import grain
        from absl import flags

        # Grain's workers ask for one, and only absl's own programs parse them.
        flags.FLAGS.mark_as_parsed()
        # A worker makes whole portions, so what is in one does not depend on how many there are.
        threads = 1 if self._workers else _cores()
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads * BUFFERED)
        processes = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=BUFFERED)
        images = grain.MapDataset.source(self._images(self._rows, first)).batch(self._portion)
        return iter(images.to_iter_dataset(read).mp_prefetch(processes, _leave_signals))


def _leave_signals(worker: int, workers: int) -> None:
    """Leaves it to the process that trains to stop: schedulers tell all processes at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Generated:
    """Feeds a task with the same made-up images over and over, so that no host keeps it waiting."""

    def __init__(self, task: Streamed, rounds: Rounds, *, size: int):
        """Makes nothing yet; for the arguments see `Stream`."""
        self.identity: Mapping[str, Any] = {"data": "generated"}
        self.parts_per_epoch = rounds.parts
        self.rounds, self._task, self._size = rounds, task, size

    def parts(self, epoch: int, done: int) -> Iterator[Streamed]:
        """Parts with `(steps, batch, ...)`, placed on the mesh."""
        return iter([self._to_train_on] * (self.rounds.parts - done))

    def held_out(self, epoch: int) -> Iterator[Streamed]:
        """Parts with `(batch, ...)`."""
        return iter([self._to_judge_by] * self.rounds.held_out_batches)

    def judge(self, evaluated: Sequence[Any]) -> dict[str, jax.Array]:
        """Of all images held out."""
        return judge(self._task, evaluated, self.rounds.held_out_images)

    def close(self) -> None:
        """There is nothing to end."""

    @functools.cached_property
    def _to_train_on(self) -> Streamed:
        return self._part(self.rounds.steps)

    @functools.cached_property
    def _to_judge_by(self) -> Streamed:
        return self._part()

    def _part(self, *steps: int) -> Streamed:
        shape = (*steps, len(meshes.rows_here(self.rounds.batch)))
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (*shape, self._size, self._size, 3), np.uint8)
        labels = rng.integers(0, self._task.classes, shape, np.int32)
        images, labels = meshes.put_parts((images, labels), self.rounds.batch, len(steps))
        return dataclasses.replace(self._task, images=images, labels=labels)
