"""Compares variants of Adam-LAWN on problems, at one learning rate each.

The constants of `at_flattening` were chosen on the problems of `SWITCHING`, and on recommenders.
Patterns such as those of `OF_PATTERNS` are why it marks no norms before the loss has fallen. The
learning rates of `CHECKING` and the problems of `CONFIRMING` had no say. `EARLY` was chosen for no
problem.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.paper.problems import (
    MOVIELENS_10K,
    MOVIELENS_100K,
    ON_PATTERNS,
    ON_SMALL,
    OTHER_PEAKS,
    UNSEEN,
    Problems,
)
from benchmarks.paper.studies import AnyConfig, Comparison
from examples.training.traits import SwitchName

Variants = Callable[[AnyConfig], Mapping[Any, AnyConfig]]  # From Adam-LAWN on a problem.

SWITCHES: tuple[SwitchName, ...] = ("flattening", "rise", "hold")
FREE_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
HELD_SHARES = (0.1, 0.2, 0.4, 0.6)
EARLY = 0.1  # A share of the epochs, after which norms are taken.


def by_switch(base: AnyConfig) -> dict[float | str, AnyConfig]:
    """Return Adam-LAWN by the share of the epochs that is free, 1 for Adam, and by the switch."""
    with_switch: Callable[[Any], Any] = lambda free: dataclasses.replace(base, free_epochs=free)
    free = {share: with_switch(share * base.epochs) for share in (1, *FREE_SHARES)}
    return free | {name: with_switch(name) for name in SWITCHES}


def by_projection(base: AnyConfig) -> dict[str, AnyConfig]:
    """Return Adam-LAWN with both projections onto the tangent space, and with neither."""
    projected: Any = dataclasses.replace(base, free_epochs=EARLY * base.epochs)
    return {"both": projected, "neither": dataclasses.replace(projected, project=False)}


def by_start(base: AnyConfig) -> dict[float, AnyConfig]:
    """Return Adam-LAWN by the share of the epochs after which it holds early norms."""
    held_from: Any = lambda share: dataclasses.replace(
        base, free_epochs=share * base.epochs, norms_of=EARLY * base.epochs
    )
    return {share: held_from(share) for share in HELD_SHARES}


# Problems by comparison.
SWITCHING = {"switches": ON_SMALL, "switches-100k": MOVIELENS_100K}
CHECKING = {"switches-peaks": OTHER_PEAKS}
OF_PATTERNS = {"switches-patterns": ON_PATTERNS}
CONFIRMING = {"switches-unseen": UNSEEN}
PROJECTING = {"projections": ON_SMALL, "projections-movielens": MOVIELENS_10K | MOVIELENS_100K}
HOLDING = {"held-later": ON_SMALL}


def compared(name: str, problems: Problems, variants: Variants) -> Comparison:
    """Return a comparison of variants on problems of one example."""
    groups = {
        f"{problem.name}, batch of {problem.batch}": list(variants(base).values())
        for problem, base in problems.items()
    }
    return Comparison(name=name, base=next(iter(problems.values())), groups=groups)


COMPARISONS = {
    name: compared(name, problems, variants)
    for comparisons, variants in (
        (SWITCHING | CHECKING | OF_PATTERNS | CONFIRMING, by_switch),
        (PROJECTING, by_projection),
        (HOLDING, by_start),
    )
    for name, problems in comparisons.items()
}
