"""Compares automatic switches with free phases of several lengths, at one learning rate each.

The constants of `at_flattening` were chosen on the problems of `SWITCHING`, and on recommenders.
The learning rates of `CHECKING` had no say.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.paper.problems import MOVIELENS_100K, ON_SMALL, Problem, Problems, compared
from benchmarks.paper.studies import AnyConfig
from examples.training.traits import SwitchName

COMPARED: tuple[SwitchName, ...] = ("flattening", "rise", "hold")
FREE_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)


def variants(base: AnyConfig) -> dict[float | str, AnyConfig]:
    """Return Adam-LAWN by the share of the epochs that is free, 1 for Adam, and by the switch."""
    with_switch: Callable[[Any], Any] = lambda free: dataclasses.replace(base, free_epochs=free)
    free = {share: with_switch(share * base.epochs) for share in (1, *FREE_SHARES)}
    return free | {name: with_switch(name) for name in COMPARED}


def by_switch(base: AnyConfig) -> list[list[AnyConfig]]:
    """Return the free phases, which one program can train side by side, and each switch."""
    of = variants(base)
    return [[of[share] for share in (1, *FREE_SHARES)], *([of[name]] for name in COMPARED)]


SWITCHING = {"switches": ON_SMALL, "switches-100k": MOVIELENS_100K}  # By comparison.
OTHER_PEAKS: Problems = {
    Problem(problem.name, f"{problem.batch}, peak {peak:g}"): dataclasses.replace(
        base, learning_rate=peak
    )
    for problem, base in ON_SMALL.items()
    if problem.batch == "a tenth"
    for peak in (0.001, 0.01)
}
CHECKING = {"switches-peaks": OTHER_PEAKS}
COMPARISONS = {name: compared(name, on, by_switch) for name, on in (SWITCHING | CHECKING).items()}
