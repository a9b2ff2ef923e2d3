"""Shows Adam-LAWN with its two projections onto the tangent space, and with neither."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper import studies
from benchmarks.paper.problems import Problem
from benchmarks.paper.projections import COMPARISONS, FREE_SHARE, PROJECTING, projected_and_not
from benchmarks.report.missing import Missing
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.records import Record


class OnProblem(NamedTuple):
    """Holds the runs on one problem, one per seed.

    Attributes:
      score: what is reported of them.
      both: those with both projections.
      neither: those with neither, of the same seeds.
    """

    score: str
    both: Sequence[Record]
    neither: Sequence[Record]

    def percent(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `(seeds,)` scores of both and of neither."""
        both, neither = (100 * tables.final(runs, self.score) for runs in self[1:])
        return both, neither


Projected = Mapping[Problem, OnProblem]


def load() -> Projected:
    """Return the runs by the problem; a problem of which some are missing is left out."""
    found = studies.index([run for name in PROJECTING for run in records_of(name)])
    by_problem = {
        problem: _of(COMPARISONS[name].example.score, base, found)
        for name, problems in PROJECTING.items()
        for problem, base in problems.items()
    }
    return {problem: runs for problem, runs in by_problem.items() if runs is not None}


def _of(score: str, base: Any, found: Mapping[str, Record]) -> OnProblem | None:
    """Return the runs on a problem, None where one is missing."""
    both, neither = (
        [found.get(studies.identity(run.config())) for run in studies.reported(setting)]
        for (setting,) in projected_and_not(base)
    )
    complete = None not in both + neither
    return OnProblem(score, both, neither) if complete else None  # type: ignore[arg-type]


def table(found: Projected) -> str:
    """Return a row per problem, and the mean difference."""
    if not found:
        return ""
    rows = []
    for problem, runs in found.items():
        both, neither = runs.percent()
        shown = (tables.mean_and_error(x, digits=1) for x in (both, neither, neither - both))
        rows.append((*problem, *shown))
    mean = f"{np.mean(list(differences(found).values())):+.1f}"
    columns = ("problem", "batch", "both projections", "neither", "difference")
    figures = tables.markdown(columns, [*rows, ("mean", "", "", "", mean)])
    every = [run for on in found.values() for run in (*on.both, *on.neither)]
    text = (
        "Accuracy, or HR@10 of movielens-100k, in percent on test data after the last epoch: mean ±"
        f" standard error of {len(studies.REPORTING_SEEDS)} seeds, and that of the differences seed"
        f" by seed. The norms are fixed after {100 * FREE_SHARE:g}% of the epochs."
        f" {provenance(every)}."
    )
    return f"{figures}\n\n{text}"


def differences(found: Projected) -> dict[Problem, float]:
    """Return how much higher neither ends than both, by the problem."""
    by_problem = {problem: runs.percent() for problem, runs in found.items()}
    return {problem: float(np.mean(n - b)) for problem, (b, n) in by_problem.items()}


def missing(found: Projected) -> list[Missing]:
    """Return what was not run."""
    return [
        Missing(
            f"projections: {', '.join(problem.name for problem in lacking)}",
            "",
            f"python -m benchmarks.paper.sweep --study {name}",
        )
        for name, problems in PROJECTING.items()
        if (lacking := [problem for problem in problems if problem not in found])
    ]
