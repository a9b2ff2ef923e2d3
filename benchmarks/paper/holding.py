"""Compares the moments from which on the norms of one early epoch are held.

The norms are those of a tenth of the epochs, which was chosen for no problem.
"""

import dataclasses
from typing import Any

from benchmarks.paper.problems import ON_SMALL, compared
from benchmarks.paper.studies import AnyConfig

NORMS_SHARE = 0.1
HELD_SHARES = (0.1, 0.2, 0.4, 0.6)


def variants(base: AnyConfig) -> dict[float, AnyConfig]:
    """Return Adam-LAWN by the share of the epochs after which the norms are held."""
    held_from: Any = lambda share: dataclasses.replace(
        base, free_epochs=share * base.epochs, norms_of=NORMS_SHARE * base.epochs
    )
    return {share: held_from(share) for share in HELD_SHARES}


def side_by_side(base: AnyConfig) -> list[list[AnyConfig]]:
    """Return the variants, which one program can train side by side."""
    return [list(variants(base).values())]


HOLDING = {"held-later": ON_SMALL}  # By comparison.
COMPARISONS = {name: compared(name, on, side_by_side) for name, on in HOLDING.items()}
