"""Opens image datasets that TensorFlow Datasets (TFDS) prepared, and names a broken file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format  # type: ignore[import-untyped]


def open_builder(dataset: str, data_dir: Path | None) -> tuple[tfds.core.DatasetBuilder, bool]:
    """Open a dataset, and tell whether it is prepared.

    Args:
      dataset: its name in TFDS.
      data_dir: the folder that TFDS prepares datasets in; None for its default.

    Raises:
      ValueError: if it was prepared in another format than ArrayRecord, or its description is
        broken.
    """
    folder = str(data_dir) if data_dir else None
    try:
        builder = tfds.builder(dataset, data_dir=folder, file_format="array_record")
    except (ValueError, json_format.ParseError) as error:
        where = folder or "the default folder of TensorFlow Datasets"
        reason = str(error).rpartition('}": ')[2]
        raise ValueError(
            f"{dataset} in {where} is broken or is not in ArrayRecord ({reason}): prepare it in"
            f" another folder, DIR: tfds build {dataset} --file_format array_record --data_dir DIR;"
            " then give --data-dir DIR."
        ) from error
    return builder, builder.data_path.exists() and bool(builder.info.splits)


@contextlib.contextmanager
def naming_file(source: Any, number: int) -> Iterator[None]:
    """Turn an error while an image is read into a ValueError that names its file.

    Args:
      source: the data source that has the image.
      number: which of its images is read.
    """
    try:
        yield
    # Pillow raises a SyntaxError for some broken images; an image that is lacking is None.
    except (RuntimeError, ValueError, OSError, SyntaxError, TypeError) as error:
        raise ValueError(
            f"image {number} of {source.split} in {_file_of(source, number)} cannot be read"
            f" ({error}): the file is torn or missing; prepare the dataset again."
        ) from error


def check_labels(labels: np.ndarray | int, classes: int) -> None:
    """Raise a ValueError unless every label is from 0 to `classes - 1`."""
    labels = np.atleast_1d(labels)
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(f"the label {wrong[0]} is not one of 0 to {classes - 1}")


def _file_of(source: Any, number: int) -> str:
    """Return the path of the file that has an image."""
    for file in source.dataset_info.splits[source.split].file_instructions:
        if number < file.take:
            return file.filename
        number -= file.take
    return str(source.dataset_info.data_dir)
