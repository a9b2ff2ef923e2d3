"""Compares automatic switches with free phases of several lengths, at one learning rate each.

`at_flattening` was found on mnist1d, parity, digits with wrong labels and lines of code; its two
ratios are those of `at_gradient_rise`, chosen on recommenders and digits. The others had no say.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.paper.catalog import short
from benchmarks.paper.studies import AnyConfig, Comparison
from examples import small
from examples.tasks import small as small_problems
from examples.training.options import SwitchName

EPOCHS_OF_BATCHES = {"a tenth": 60, "all": 150}  # Of a tenth of the examples, or all of them.
NOISE = 0.2
SWITCHES: tuple[SwitchName, ...] = ("flattening", "rise", "hold")
FREE_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)


class Problem(NamedTuple):
    """Names a problem and the size of its batches."""

    name: str
    batch: str


def by_switch(base: AnyConfig) -> list[list[AnyConfig]]:
    """Return Adam-LAWN never constrained, after some free phases, and by each automatic switch."""
    lengths = [share * base.epochs for share in (1, *FREE_SHARES)]
    with_switch: Callable[[Any], Any] = lambda free: dataclasses.replace(base, free_epochs=free)
    return [list(map(with_switch, lengths)), *([with_switch(name)] for name in SWITCHES)]


def on_small(name: small_problems.SmallName, noise: float, batch: str) -> small.Config:
    """Return Adam-LAWN on a small problem."""
    train, epochs = small_problems.PROBLEMS[name].train, EPOCHS_OF_BATCHES[batch]
    return small.Config(
        dataset=name,
        noise=noise,
        batch_size=train if batch == "all" else train // 10,
        epochs=epochs,
        warmup_epochs=epochs / 20,
        learning_rate=0.01 if batch == "all" else 0.003,
    )


ON_SMALL: Mapping[Problem, AnyConfig] = {
    Problem(f"{name}, {100 * noise:.0f}% wrong labels" if noise else name, batch): on_small(
        name, noise, batch
    )
    for name in small_problems.PROBLEMS
    for noise in ((0.0, NOISE) if name == "digits" else (0.0,))
    for batch in EPOCHS_OF_BATCHES
}
ON_MOVIELENS: Mapping[Problem, AnyConfig] = {
    Problem("movielens-100k", "100,000"): dataclasses.replace(short("100k", 40), learning_rate=0.03)
}
SWITCHING = {"switches": ON_SMALL, "switches-100k": ON_MOVIELENS}  # By comparison.


def switching(name: str) -> Comparison:
    """Return a comparison of switches on problems of one example."""
    problems = SWITCHING[name]
    groups = {
        f"{problem.name}, batch of {problem.batch}, {i}": group
        for problem, base in problems.items()
        for i, group in enumerate(by_switch(base))
    }
    return Comparison(name=name, base=next(iter(problems.values())), groups=groups)


COMPARISONS = {name: switching(name) for name in SWITCHING}
