"""The settings of the LAWN paper for ImageNet (Appendix B.3), by name.

All: ResNet-50 v1.5, 90 epochs, gradients clipped at norm 1 but for SGD (B.3.4), no weight decay of
normalisation, and here none of the classifier's bias either. Where the appendix gives a grid and
not what came out best, this is the middle of it. It gives no learning rate, and of the schedule
only that it warms up and decays (section 3), here both linearly. The peaks are, of

sgd         0.256 at batch 256, in proportion to the batch: NVIDIA's ResNet-50 v1.5, whose model and
            momentum of 0.875 the paper has
lamb        4 / (100 sqrt(32768 / batch)): You et al. (2020), for ResNet-50, whose weight decay of
            0.01 and, at batch 256, warmup of 0.16 epochs the paper has; lamb_lawn keeps it (B.3.4)
adam        0.001 at batch 256, Adam's usual, times the square root of the batch's growth: ours

None of them has been tried here: to repeat a number of the paper, tune --learning-rate. At batch
16k an update has 64 train steps of 256 images; with --mesh.data 8 --accumulate 8 it has 8 of 2,048.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from examples.training.traits import OptimizerName

SMALL, LARGE = 256, 16384
MOMENTUM = 0.875  # B.3.4.


class Recipe(NamedTuple):
    """Names options of `examples.imagenet`, and where they are from."""

    options: Mapping[str, Any]
    source: str


def describe(recipe: Recipe) -> str:
    """Describe a recipe in a line."""
    given = recipe.options
    return f"{given['optimizer']} at batch {given['batch_size']}; {recipe.source}."


def of_appendix(
    optimizer: OptimizerName,
    batch_size: int,
    weight_decay: float,
    warmup_epochs: float,
    free_epochs: float | None,
    source: str,
) -> Recipe:
    """Return what the appendix says of an optimizer at a batch size.

    Args:
      optimizer: its name.
      batch_size: images in an update.
      weight_decay: as in the paper; 0 for LAWN, which has none (section 4.3).
      warmup_epochs: `E_warmup`.
      free_epochs: `E_free`; None without LAWN.
      source: where in the paper, and of which grid.
    """
    options = {
        "optimizer": optimizer,
        "learning_rate": float(f"{_learning_rate(optimizer, batch_size):.5g}"),
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "clip_norm": None if optimizer == "sgd" else 1.0,
        "batch_size": batch_size,
        "accumulate": batch_size // SMALL,
    }
    free = {} if free_epochs is None else {"free_epochs": free_epochs}
    return Recipe(options | free, source)


def _learning_rate(optimizer: OptimizerName, batch_size: int) -> float:
    """Return the peak that the head of this module states."""
    match optimizer:
        case "sgd":
            return 0.256 * batch_size / SMALL
        case "lamb" | "lamb_plus" | "lamb_lawn":
            return 0.04 / math.sqrt(32768 / batch_size)
        case _:
            return 1e-3 * math.sqrt(batch_size / SMALL)


RECIPES: Mapping[str, Recipe] = {
    "sgd-256": of_appendix("sgd", SMALL, 1e-4, 0.5, None, "B.3.4: all fixed"),
    "adam-256": of_appendix("adam", SMALL, 0.0, 0.16, None, "B.3.4: all fixed"),
    "lamb-256": of_appendix("lamb", SMALL, 0.01, 0.16, None, "B.3.4: all fixed"),
    "lamb-plus-256": of_appendix("lamb_plus", SMALL, 0.01, 0.16, None, "B.3.4: all fixed"),
    "adam-lawn-256": of_appendix(
        "adam_lawn", SMALL, 0.0, 5.0, 5.0, "B.3.4: E_free and E_warmup of {1, 5, 10}"
    ),
    "lamb-lawn-256": of_appendix(
        "lamb_lawn", SMALL, 0.0, 5.0, 0.16, "B.3.4: E_free fixed, E_warmup of {1, 5, 10}"
    ),
    "sgd-16k": of_appendix(
        "sgd",
        LARGE,
        1e-4,
        5.0,
        None,
        "B.3.4: decay fixed, E_warmup of {0.16, 1, 5, 10} as Goyal et al.",
    ),
    "adam-16k": of_appendix(
        "adam", LARGE, 1e-3, 10.0, None, "B.3.4: decay of {0, 1e-3, 1e-2}, E_warmup of {5, 10, 20}"
    ),
    "lamb-16k": of_appendix(
        "lamb", LARGE, 0.01, 10.0, None, "B.3.4: decay fixed, E_warmup of {5, 10, 20}"
    ),
    "lamb-plus-16k": of_appendix(
        "lamb_plus", LARGE, 0.01, 10.0, None, "B.3.4: decay fixed, E_warmup of {5, 10, 20}"
    ),
    "adam-lawn-16k": of_appendix(
        "adam_lawn", LARGE, 0.0, 5.0, 5.0, "B.3.4: E_free and E_warmup of {1, 5, 10}"
    ),
    "lamb-lawn-16k": of_appendix(
        "lamb_lawn", LARGE, 0.0, 10.0, 10.0, "B.3.4: E_free and E_warmup of {5, 10, 20}"
    ),
}
