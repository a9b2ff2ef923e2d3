"""Compares Adam-LAWN with and without its two projections onto the tangent space.

The free phase is a tenth of all epochs, which was chosen for neither.
"""

import dataclasses
from typing import Any

from benchmarks.paper.problems import MOVIELENS_10K, MOVIELENS_100K, ON_SMALL, compared
from benchmarks.paper.studies import AnyConfig

FREE_SHARE = 0.1


def variants(base: AnyConfig) -> dict[str, AnyConfig]:
    """Return Adam-LAWN with both projections, and with neither."""
    projected: Any = dataclasses.replace(base, free_epochs=FREE_SHARE * base.epochs)
    return {"both": projected, "neither": dataclasses.replace(projected, project=False)}


def projected_and_not(base: AnyConfig) -> list[list[AnyConfig]]:
    """Return each of the variants, a program of its own."""
    return [[variant] for variant in variants(base).values()]


# By comparison.
PROJECTING = {"projections": ON_SMALL, "projections-movielens": MOVIELENS_10K | MOVIELENS_100K}
COMPARISONS = {name: compared(name, on, projected_and_not) for name, on in PROJECTING.items()}
