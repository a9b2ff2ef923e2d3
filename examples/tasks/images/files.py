"""The files of ImageNet, and which image comes when.

epoch = training batches in a new order, then the batches to judge by; one stream through all epochs

What an image is depends on its place in that stream alone: `order(seed, epoch)` says which record
it is, and `(seed, epoch, record)` how it is cut. So a run may go on from any batch, with any number
of workers and processes, and sees what it would have seen.
"""

import dataclasses
import functools
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds

from examples.tasks.images import crops


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
            crc = zlib.crc32(_record(self.folder, split, 0)["image"], crc)
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
    if not builder.data_path.exists() or not builder.info.splits:
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
            example = _record(dataset.folder, dataset.train, record)
            rng = np.random.default_rng([1, self.seed, epoch, record])
            pixels = crops.for_training(example["image"], self.size, rng)
        else:
            image = (batch - rounds.train_batches) * rounds.batch + self.rows[row]
            record = min(image, dataset.held_out_images - 1)
            example = _record(dataset.folder, dataset.held_out, record)
            pixels = crops.for_evaluation(example["image"], self.size)
        return {"image": pixels, "label": np.int32(example["label"])}


@functools.lru_cache(maxsize=2)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """`(count,)`: which record comes when."""
    return np.random.default_rng([0, seed, epoch]).permutation(count)


def _record(folder: str, split: str, number: int) -> dict[str, Any]:
    """An example; a ValueError where its file is torn."""
    try:
        example = _source(folder, split)[number]
        if example["image"] is None:
            raise ValueError("it has no image")
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"image {number} of {split} in {folder} cannot be read ({error}): a file there is torn"
            " or missing; prepare it again."
        ) from error
    return dict(example)


@functools.cache
def _source(folder: str, split: str) -> Any:
    """The examples of a split, with images as the bytes of their files."""
    undecoded = {"image": tfds.decode.SkipDecoding()}
    return tfds.builder_from_directory(folder).as_data_source(split, decoders=undecoded)
