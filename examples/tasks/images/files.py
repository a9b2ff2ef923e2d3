"""Finds the files of ImageNet, and says which image comes when.

epoch = training batches in a new order, then the batches to evaluate; one stream through all epochs

An image depends only on its place in that stream: `order(seed, epoch)` says which record it is, and
`(seed, epoch, record)` how it is cropped. So a run may go on from any batch, with any number of
workers and processes, and sees what it would have seen.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds

from examples.tasks.images import crops
from examples.tasks.images.tfds_files import check_labels, naming_file, open_builder


class Dataset(NamedTuple):
    """Describes image files that TensorFlow Datasets wrote in ArrayRecord.

    Attributes:
      folder: the folder of one version, such as `imagenet2012/5.1.0`.
      train: the split to train on.
      held_out: the split to evaluate on.
      train_images: the number of images in `train`.
      held_out_images: the number of images in `held_out`.
      classes: the number of classes.
    """

    folder: str
    train: str
    held_out: str
    train_images: int
    held_out_images: int
    classes: int

    def identity(self) -> dict[str, Any]:
        """Return what tells the dataset from others: its size, and a checksum of two images."""
        crc = 0
        for split in (self.train, self.held_out):
            source = _source(self.folder, split)
            with naming_file(source, 0):
                crc = zlib.crc32(source[0]["image"], crc)
        sizes = f"{self.train_images} + {self.held_out_images} images"
        return {"data": f"version {Path(self.folder).name}, {sizes}, {crc:08x}"}


def imagenet(data_dir: Path | None = None, train_images: int | None = None) -> Dataset:
    """Find ImageNet.

    Args:
      data_dir: the folder that TensorFlow Datasets prepared it in; None for its default,
        `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      train_images: how many images to train on, counted from the first; None for all.

    Raises:
      FileNotFoundError: if it is not prepared.
      ValueError: if more images are asked for than there are.
    """
    builder, is_prepared = open_builder("imagenet2012", data_dir)
    if not is_prepared:
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


class EpochPlan(NamedTuple):
    """Says how an epoch is divided into batches and chunks.

    Attributes:
      batch: the number of images per training step.
      steps: the number of training steps per chunk.
      chunks: the number of chunks per epoch.
      held_out_images: the number of images to evaluate on.
    """

    batch: int
    steps: int
    chunks: int
    held_out_images: int

    @property
    def train_batches(self) -> int:
        """Return the number of training batches per epoch."""
        return self.steps * self.chunks

    @property
    def held_out_batches(self) -> int:
        """Return the number of batches to evaluate on; the last repeats its last image."""
        return math.ceil(self.held_out_images / self.batch)

    @property
    def batches(self) -> int:
        """Return the number of all batches per epoch."""
        return self.train_batches + self.held_out_batches


def plan_epoch(
    train_batches: int, batch: int, steps_at_once: int, held_out_images: int
) -> EpochPlan:
    """Divide an epoch into equal chunks of at most `steps_at_once` steps, for one program."""
    steps = max(n for n in range(1, steps_at_once + 1) if train_batches % n == 0)
    return EpochPlan(batch, steps, train_batches // steps, held_out_images)


@dataclasses.dataclass(frozen=True)
class Images:
    """Lists the images of all epochs that one process needs, from some batch on.

    Attributes:
      dataset: what to read.
      plan: how an epoch is divided.
      epochs: the number of epochs.
      size: the rows and columns that an image is resized to.
      seed: the seed of the order and the crops.
      rows: which images of each batch this process needs.
      first: the number of batches to leave out.
    """

    dataset: Dataset
    plan: EpochPlan
    epochs: int
    size: int
    seed: int
    rows: tuple[int, ...]
    first: int = 0

    def __len__(self) -> int:
        return (self.epochs * self.plan.batches - self.first) * len(self.rows)

    def __getitem__(self, place: SupportsIndex) -> dict[str, Any]:
        """Return `image`, `(size, size, 3)` uint8, and `label`, int32."""
        dataset, plan = self.dataset, self.plan
        batch, row = divmod(place.__index__(), len(self.rows))
        epoch, batch = divmod(self.first + batch, plan.batches)
        if batch < plan.train_batches:
            records = order(self.seed, epoch, dataset.train_images)
            split, record = dataset.train, int(records[batch * plan.batch + self.rows[row]])
            rng = np.random.default_rng([1, self.seed, epoch, record])
            crop: Callable[..., np.ndarray] = functools.partial(crops.for_training, rng=rng)
        else:
            image = (batch - plan.train_batches) * plan.batch + self.rows[row]
            split, record = dataset.held_out, min(image, dataset.held_out_images - 1)
            crop = crops.for_evaluation
        source = _source(dataset.folder, split)
        with naming_file(source, record):
            example = source[record]
            check_labels(example["label"], dataset.classes)
            return {
                "image": crop(example["image"], self.size),
                "label": np.int32(example["label"]),
            }


@functools.lru_cache(maxsize=2)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return which record comes when, `(count,)`."""
    return np.random.default_rng([0, seed, epoch]).permutation(count)


@functools.cache
def _source(folder: str, split: str) -> Any:
    """Open the examples of a split, with images as the bytes of their files."""
    undecoded = {"image": tfds.decode.SkipDecoding()}
    return tfds.builder_from_directory(folder).as_data_source(split, decoders=undecoded)
