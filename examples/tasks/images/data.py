"""Loads CIFAR through TensorFlow Datasets, decoded, or makes images up where there is no data.

TensorFlow is needed once, to prepare the dataset as ArrayRecord, and not to read it.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from examples.tasks import quiet_tfds
from examples.tasks.images.tfds_files import check_labels, naming_file, open_builder

DatasetName = Literal["cifar10", "cifar100", "generated"]

SIZE = 32  # Rows and columns of an image.


class Images(NamedTuple):
    """Holds images and their classes.

    Attributes:
      pixels: `(n, 32, 32, 3)` uint8.
      labels: `(n,)` int32.
    """

    pixels: np.ndarray
    labels: np.ndarray


class Split(NamedTuple):
    """Holds a dataset.

    Attributes:
      train: the images to train on.
      held_out: the images to evaluate on.
      classes: the number of classes.
    """

    train: Images
    held_out: Images
    classes: int


def load(
    dataset: DatasetName,
    data_dir: Path | None = None,
    *,
    train_images: int | None = None,
    validation_images: int = 0,
) -> Split:
    """Read a dataset.

    Args:
      dataset: CIFAR, or `generated`: 2,000 noisy images of ten patterns, and 500 to evaluate on.
      data_dir: the folder that TensorFlow Datasets prepared CIFAR in; None for its default,
        `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      train_images: how many images to train on, counted from the first; None for all but those
        of validation.
      validation_images: how many of the last training images to evaluate on instead of the test
        set; 0 for the test set.

    Raises:
      ValueError: if more images are asked for than there are, or a file is broken.
      FileNotFoundError: if CIFAR is not prepared and TensorFlow, which prepares it, is missing.
      ConnectionError: if it cannot be downloaded.
    """
    if dataset == "generated":
        train, test, classes = _generated()
        parts = {"train": train, "test": test}
        read = lambda split, part: Images(*(x[part] for x in parts[split]))
        sizes = {split: len(images.labels) for split, images in parts.items()}
    else:
        builder = _prepared(dataset, data_dir)
        classes = builder.info.features["label"].num_classes
        sources = {split: builder.as_data_source(split) for split in ("train", "test")}
        read = lambda split, part: _decoded(sources[split], part)
        sizes = {split: len(source) for split, source in sources.items()}
    rest = sizes["train"] - validation_images
    count = rest if train_images is None else train_images
    if validation_images < 0 or not 1 <= count <= rest:
        raise ValueError(
            f"train_images={train_images} and validation_images={validation_images} do not fit"
            f" the {sizes['train']} training images of {dataset}: at least 1 must be trained on."
        )
    held_out = ("train", slice(rest, None)) if validation_images else ("test", slice(None))
    return Split(read("train", slice(count)), read(*held_out), classes)


def _prepared(dataset: str, data_dir: Path | None) -> Any:
    """Return TFDS's builder of a dataset, which is downloaded and prepared if necessary."""
    builder, is_prepared = open_builder(dataset, data_dir)
    if is_prepared:
        return builder
    remedy = (
        f" Where there are a network and TensorFlow (pip install tensorflow-cpu), prepare it once:"
        f" tfds build {dataset} --file_format array_record --data_dir DIR; then give --data-dir"
        f" DIR, which holds {dataset}/{builder.version}. To try without: --dataset generated."
    )
    # Without it the download would be of no use; without a network it is given up after minutes.
    if importlib.util.find_spec("tensorflow") is None:
        raise FileNotFoundError(f"{dataset} is not prepared in {builder.data_path}.{remedy}")
    print(f"Downloading and preparing {dataset} in {builder.data_path}.", file=sys.stderr)
    try:
        quiet_tfds.download_and_prepare(builder)
    except (OSError, tfds.download.DownloadError) as error:
        raise ConnectionError(f"could not download {dataset} ({error}).{remedy}") from error
    return builder


def _decoded(source: Any, part: slice) -> Images:
    """Decode some images of a data source."""
    numbers = range(*part.indices(len(source)))
    try:
        return _stacked(source, source.__getitems__(numbers))
    except (RuntimeError, ValueError, OSError, SyntaxError):
        # One by one it takes longer, but tells which image it was.
        for number in numbers:
            with naming_file(source, number):
                _stacked(source, [source[number]])
        raise


def _stacked(source: Any, examples: Sequence[Mapping[str, Any]]) -> Images:
    """Stack examples of a data source, whose shapes and labels are checked."""
    labels = np.array([example["label"] for example in examples], np.int32)
    check_labels(labels, source.dataset_info.features["label"].num_classes)
    pixels = [example["image"] for example in examples]
    if wrong := next((x.shape for x in pixels if x.shape != (SIZE, SIZE, 3)), None):
        raise ValueError(f"an image has the shape {wrong}, not {(SIZE, SIZE, 3)}")
    return Images(np.stack(pixels), labels)


def _generated(classes: int = 10) -> tuple[Images, Images, int]:
    """Make images of ten patterns, in blocks of 8 by 8 pixels, with noise of equal strength."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(classes, 4, 4, 3)).repeat(SIZE // 4, 1).repeat(SIZE // 4, 2)

    def sample(n: int) -> Images:
        labels = rng.integers(0, classes, n).astype(np.int32)
        noisy = patterns[labels] + rng.normal(size=(n, SIZE, SIZE, 3))
        return Images(np.clip(128 + 40 * noisy, 0, 255).astype(np.uint8), labels)

    return sample(2000), sample(500), classes
