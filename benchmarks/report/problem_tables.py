"""Finds the runs of variants of LAWN on problems, and says what their tables have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper import studies
from benchmarks.paper.problems import Problem, Problems
from benchmarks.paper.studies import EXAMPLES, AnyConfig
from benchmarks.report.missing import Missing
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.records import Record

SCORES = (
    "Accuracy, or HR@10 of movielens-100k, in percent on test data after the last epoch: mean ±"
    f" standard error of {len(studies.REPORTING_SEEDS)} seeds"
)
Variants = Callable[[AnyConfig], Mapping[Any, AnyConfig]]


class OnProblem(NamedTuple):
    """Holds the runs on one problem.

    Attributes:
      score: what is reported of them.
      runs: by variant, one per seed.
    """

    score: str
    runs: Mapping[Any, Sequence[Record]]

    def percent(self, variant: Any) -> np.ndarray:
        """Return `(seeds,)` scores of a variant."""
        return 100 * tables.final(self.runs[variant], self.score)

    def every_run(self) -> list[Record]:
        """Return the runs of all variants."""
        return [run for of_variant in self.runs.values() for run in of_variant]


OnProblems = Mapping[Problem, OnProblem]


def load(comparisons: Mapping[str, Problems], variants: Variants) -> OnProblems:
    """Return the runs by the problem; a problem of which some are missing is left out."""
    found = studies.index([run for name in comparisons for run in records_of(name)])
    loaded = {}
    bases = [item for problems in comparisons.values() for item in problems.items()]
    for problem, base in bases:
        wanted = {
            variant: [studies.identity(run.config()) for run in studies.reported(setting)]
            for variant, setting in variants(base).items()
        }
        if all(run in found for of_variant in wanted.values() for run in of_variant):
            runs = {variant: [found[run] for run in of] for variant, of in wanted.items()}
            loaded[problem] = OnProblem(EXAMPLES[type(base)].score, runs)
    return loaded


def missing(what: str, comparisons: Mapping[str, Problems], found: OnProblems) -> list[Missing]:
    """Return what was not run."""
    return [
        Missing(
            f"{what}: {', '.join(problem.name for problem in lacking)}",
            "",
            f"python -m benchmarks.paper.sweep --study {name}",
        )
        for name, problems in comparisons.items()
        if (lacking := [problem for problem in problems if problem not in found])
    ]
