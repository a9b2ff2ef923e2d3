"""Compares automatic switches with free phases of several lengths, at one learning rate each.

`at_flattening` was found on mnist1d, parity, digits with wrong labels and lines of code; its two
ratios are those of `at_gradient_rise`, chosen on recommenders and digits. The others had no say.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.paper.problems import MOVIELENS_100K, ON_SMALL, compared
from benchmarks.paper.studies import AnyConfig
from examples.training.options import SwitchName

COMPARED: tuple[SwitchName, ...] = ("flattening", "rise", "hold")
FREE_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)


def by_switch(base: AnyConfig) -> list[list[AnyConfig]]:
    """Return Adam-LAWN never constrained, after some free phases, and by each automatic switch."""
    lengths = [share * base.epochs for share in (1, *FREE_SHARES)]
    with_switch: Callable[[Any], Any] = lambda free: dataclasses.replace(base, free_epochs=free)
    return [list(map(with_switch, lengths)), *([with_switch(name)] for name in COMPARED)]


SWITCHING = {"switches": ON_SMALL, "switches-100k": MOVIELENS_100K}  # By comparison.
COMPARISONS = {name: compared(name, on, by_switch) for name, on in SWITCHING.items()}
