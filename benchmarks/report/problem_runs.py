"""Finds the runs of variants of Adam-LAWN, by the problem."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper import studies
from benchmarks.paper.problems import Problem, Problems
from benchmarks.paper.studies import EXAMPLES
from benchmarks.paper.variants import Variants
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.records import Record


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


def all_runs(found: OnProblems) -> list[Record]:
    """Return the runs of all variants on all problems."""
    return [run for on in found.values() for of_variant in on.runs.values() for run in of_variant]
