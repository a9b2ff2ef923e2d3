"""Lists the problems on which variants of LAWN are compared, at one learning rate each."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.paper.catalog import short
from benchmarks.paper.studies import AnyConfig
from examples import small
from examples.tasks import small as small_problems

EPOCHS_OF_BATCHES = {"a tenth": 60, "all": 150}  # Of a tenth of the examples, or all of them.
# In the plane: a network learns the easy part at once, and needs large norms for the rest.
PATTERNS: tuple[small_problems.SmallName, ...] = ("spirals", "checkerboard", "rings")
EPOCHS_OF_PATTERNS = {"a tenth": 200, "all": 1000}
EPOCHS_OF_ADDITION = 600
NOISE = 0.2


class Problem(NamedTuple):
    """Names a problem and the size of its batches."""

    name: str
    batch: str


Problems = Mapping[Problem, AnyConfig]  # Adam-LAWN on each.


def on_small(name: small_problems.SmallName, noise: float, batch: str, epochs: int) -> small.Config:
    """Return Adam-LAWN on a small problem."""
    train = small_problems.PROBLEMS[name].train
    return small.Config(
        dataset=name,
        noise=noise,
        batch_size=train if batch == "all" else train // 10,
        epochs=epochs,
        warmup_epochs=epochs / 20,
        learning_rate=0.01 if batch == "all" else 0.003,
    )


ON_SMALL: Problems = {
    Problem(f"{name}, {100 * noise:.0f}% wrong labels" if noise else name, batch): on_small(
        name, noise, batch, epochs
    )
    for name in small_problems.PROBLEMS
    if name not in (*PATTERNS, "addition")
    for noise in ((0.0, NOISE) if name == "digits" else (0.0,))
    for batch, epochs in EPOCHS_OF_BATCHES.items()
}
ON_PATTERNS: Problems = {
    Problem(name, batch): on_small(name, 0.0, batch, epochs)
    for name in PATTERNS
    for batch, epochs in EPOCHS_OF_PATTERNS.items()
}
ADDITION: Problems = {
    Problem("addition", "all"): on_small("addition", 0.0, "all", EPOCHS_OF_ADDITION)
}
MOVIELENS_10K, MOVIELENS_100K = (
    {
        Problem("movielens-100k", f"{base.batch_size:,}"): dataclasses.replace(
            base, learning_rate=peak
        )
    }
    for base, peak in ((short("10k", 40), 0.01), (short("100k", 40), 0.03))
)
OTHER_PEAKS: Problems = {
    Problem(problem.name, f"{problem.batch}, peak {peak:g}"): dataclasses.replace(
        base, learning_rate=peak
    )
    for problem, base in ON_SMALL.items()
    if problem.batch == "a tenth"
    for peak in (0.001, 0.01)
}
