"""Prints and records the results of a trained image classifier."""

from collections.abc import Mapping
from typing import Any

from examples.results import records, tables
from examples.tasks.images.options import ImageOptions
from examples.training import Result

REPORTED = {
    "accuracy, %": ("accuracy", 100, 2),
    "ECE, 15 bins": ("ece", 1, 4),
    "NLL": ("nll", 1, 3),
    "median margin": ("held_out_margin_p50", 1, 2),
    "training images in the flat zone, %": ("flat_share", 100, 1),
}


def report(about: Mapping[str, Any], config: ImageOptions, result: Result) -> None:
    """Print the table, and append the records unless they are there.

    Args:
      about: what the records say of the runs.
      config: how they were trained.
      result: what came of it.
    """
    rows = [
        (title, tables.mean_and_error(scale * result.curve[name][:, -1], digits))
        for title, (name, scale, digits) in REPORTED.items()
    ]
    print(tables.markdown((config.optimizer, "last epoch"), rows))
    print(f"\n{config.seeds} seed(s), {config.epochs} epochs, {result.wall_s:.0f} s")
    records.keep(about, config, result)
