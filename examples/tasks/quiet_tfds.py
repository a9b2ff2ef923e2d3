"""Prepares datasets by TensorFlow Datasets (TFDS) without its own lines and progress bars."""

import contextlib
import io
from typing import Any

import tensorflow_datasets as tfds


def download_and_prepare(builder: tfds.core.DatasetBuilder, **options: Any) -> None:
    """Call `builder.download_and_prepare`, of which only warnings reach the terminal.

    The progress bars of TFDS stay off in this process, which has no use for them elsewhere.
    """
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(**options)
