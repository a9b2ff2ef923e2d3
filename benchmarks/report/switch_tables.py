"""Shows what automatic switches do, beside free phases of several lengths."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper import studies
from benchmarks.paper.problems import Problem
from benchmarks.paper.switching import COMPARED, COMPARISONS, FREE_SHARES, SWITCHING
from benchmarks.report.missing import Missing
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.records import Record
from examples.training.switching import SWITCHES

ADAM, BEST = "Adam", "best free phase"
FUNCTIONS: Mapping[str, str] = {name: switch.make.__name__ for name, switch in SWITCHES.items()}


class OnProblem(NamedTuple):
    """Holds the runs on one problem, one per seed.

    Attributes:
      score: what is reported of them.
      free: by the share of the epochs that is free, 1 for Adam.
      automatic: by the switch.
    """

    score: str
    free: Mapping[float, Sequence[Record]]
    automatic: Mapping[str, Sequence[Record]]

    def scores(self) -> dict[str, np.ndarray]:
        """Return `(seeds,)` percent by what was done; the best free phase is that on test data."""
        percent = lambda runs: 100 * tables.final(runs, self.score)
        free = {share: percent(runs) for share, runs in self.free.items()}
        best = max((x for share, x in free.items() if share < 1), key=np.mean)
        automatic = {name: percent(runs) for name, runs in self.automatic.items()}
        return {ADAM: free[1], BEST: best, **automatic}


Switched = Mapping[Problem, OnProblem]


def load() -> Switched:
    """Return the runs by the problem; a problem of which some are missing is left out."""
    found = studies.index([run for name in SWITCHING for run in records_of(name)])
    by_problem = {
        problem: _of(COMPARISONS[name].example.score, base, found)
        for name, problems in SWITCHING.items()
        for problem, base in problems.items()
    }
    return {problem: runs for problem, runs in by_problem.items() if runs is not None}


def _of(score: str, base: Any, found: Mapping[str, Record]) -> OnProblem | None:
    """Return the runs on a problem, None where one is missing."""

    def runs(free: float | str) -> list[Record]:
        wanted = studies.reported(dataclasses.replace(base, free_epochs=free))
        return [found[studies.identity(run.config())] for run in wanted]

    try:
        return OnProblem(
            score,
            {share: runs(share * base.epochs) for share in (1, *FREE_SHARES)},
            {name: runs(name) for name in COMPARED},
        )
    except KeyError:
        return None


def table(found: Switched) -> str:
    """Return a row per problem, and the mean gain."""
    if not found:
        return ""
    rows = []
    for problem, runs in found.items():
        scores = runs.scores()
        shown = (tables.mean_and_error(x, digits=1) for x in scores.values())
        rows.append((*problem, *shown, _constrained(runs.automatic["flattening"])))
    gains = {what: np.mean(list(x.values())) for what, x in mean_gains(found).items()}
    summary = ("mean gain", "", "", *(f"{gain:+.1f}" for gain in gains.values()), "")
    columns = ("problem", "batch", ADAM, BEST, *(FUNCTIONS[name] for name in COMPARED))
    figures = tables.markdown((*columns, "constrained from epoch"), [*rows, summary])
    every = [run for on in found.values() for runs in on.automatic.values() for run in runs]
    text = (
        "Accuracy, or HR@10 of movielens-100k, in percent on test data after the last epoch: mean ±"
        f" standard error of {len(studies.REPORTING_SEEDS)} seeds. Best free phase: of"
        f" {', '.join(f'{100 * share:g}' for share in FREE_SHARES)}% of the epochs, the one that is"
        " best on the test data, which flatters it. Constrained from: where `at_flattening` holds"
        f" the norms, of each seed; - where it does not. {provenance(every)}."
    )
    return f"{figures}\n\n{text}"


def mean_gains(found: Switched) -> dict[str, dict[Problem, float]]:
    """Return the mean gain over Adam on each problem, by what was done."""
    gains: dict[str, dict[Problem, float]] = {}
    for problem, runs in found.items():
        adam, *_ = (scores := runs.scores()).values()
        for what, x in scores.items():
            if what != ADAM:
                gains.setdefault(what, {})[problem] = float(np.mean(x - adam))
    return gains


def missing(found: Switched) -> list[Missing]:
    """Return what was not run."""
    return [
        Missing(
            f"automatic switches: {', '.join(problem.name for problem in lacking)}",
            "",
            f"python -m benchmarks.paper.sweep --study {name}",
        )
        for name, problems in SWITCHING.items()
        if (lacking := [problem for problem in problems if problem not in found])
    ]


def _constrained(runs: Sequence[Record]) -> str:
    """Say from which epoch on each seed is constrained."""
    epochs = (run["switched_at_epoch"] for run in runs)
    return ", ".join("-" if epoch is None else f"{epoch:.3g}" for epoch in epochs)
