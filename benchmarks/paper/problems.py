"""Lists the problems on which variants of LAWN are compared, at one learning rate each."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

from benchmarks.paper.catalog import short
from benchmarks.paper.studies import AnyConfig
from examples import small
from examples.tasks import small as small_problems

Batch = Literal["a tenth", "all"]  # Of the training examples.
EPOCHS: Mapping[Batch, int] = {"a tenth": 60, "all": 150}
EPOCHS_OF_ADDITION: Mapping[Batch, int] = {"a tenth": 200, "all": 600}
EPOCHS_OF_PATTERNS: Mapping[Batch, int] = {"a tenth": 200, "all": 1000}
NOISE = 0.2  # The share of wrong labels.


class Problem(NamedTuple):
    """Names a problem and the size of its batches."""

    name: str
    batch: str


Problems = Mapping[Problem, AnyConfig]  # Adam-LAWN on each.


def on_small(
    name: small_problems.SmallName, epochs: Mapping[Batch, int] = EPOCHS, noise: float = 0.0
) -> Problems:
    """Return Adam-LAWN on a small problem, with small batches and with all examples in one."""
    train = small_problems.PROBLEMS[name].train
    shown = f"{name}, {100 * noise:.0f}% wrong labels" if noise else name
    return {
        Problem(shown, batch): small.Config(
            dataset=name,
            noise=noise,
            batch_size=train if batch == "all" else train // 10,
            epochs=epochs[batch],
            warmup_epochs=epochs[batch] / 20,
            learning_rate=0.01 if batch == "all" else 0.003,
        )
        for batch in epochs
    }


# What the constants of `at_flattening` were chosen on.
ON_SMALL: Problems = {
    **on_small("digits"),
    **on_small("digits", noise=NOISE),
    **on_small("breast-cancer"),
    **on_small("wine"),
    **on_small("made"),
    **on_small("parity"),
    **on_small("lines"),
    **on_small("mnist1d"),
}
# A network learns the easy part at once, and needs larger norms for the rest.
ON_PATTERNS: Problems = {
    **on_small("spirals", EPOCHS_OF_PATTERNS),
    **on_small("checkerboard", EPOCHS_OF_PATTERNS),
    **on_small("rings", EPOCHS_OF_PATTERNS),
}
# What was run for the first time when the rule was as it is.
UNSEEN: Problems = {
    **on_small("breast-cancer", noise=NOISE),
    **on_small("wine", noise=NOISE),
    **on_small("made", noise=NOISE),
    **on_small("friedman"),
    **on_small("friedman", noise=NOISE),
    **on_small("teacher"),
    **on_small("teacher", noise=NOISE),
    **on_small("moons", EPOCHS_OF_PATTERNS),
    **on_small("addition", EPOCHS_OF_ADDITION),
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
