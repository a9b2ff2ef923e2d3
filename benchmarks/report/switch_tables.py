"""Shows what automatic switches do on small problems, beside free phases of several lengths."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.paper import studies
from benchmarks.paper.comparisons import FREE_SHARES, ON_SMALL, SWITCHES, SWITCHING
from benchmarks.report import study_tables
from benchmarks.report.missing import Missing
from benchmarks.tools.records import records_of
from examples import small
from examples.results import tables
from examples.results.records import Record

ADAM, BEST = "Adam", "best free phase"
FUNCTIONS = {
    "flattening": "at_flattening",
    "rise": "at_gradient_rise",
    "hold": "hold_median_margin",
}
COMMAND = f"python -m benchmarks.paper.sweep --study {SWITCHING.name} --chunk 18"

Problem = tuple[str, float, str]


class OnProblem(NamedTuple):
    """Holds the runs on one problem, one per seed.

    Attributes:
      free: by the share of the epochs that is free, 1 for Adam.
      automatic: by the switch.
    """

    free: Mapping[float, Sequence[Record]]
    automatic: Mapping[str, Sequence[Record]]

    def accuracies(self) -> dict[str, np.ndarray]:
        """Return `(seeds,)` percent by what was done; the best free phase is that on test data."""
        free = {share: _percent(runs) for share, runs in self.free.items()}
        best = max((x for share, x in free.items() if share < 1), key=np.mean)
        automatic = {name: _percent(runs) for name, runs in self.automatic.items()}
        return {ADAM: free[1], BEST: best, **automatic}


Switched = Mapping[Problem, OnProblem]


def load() -> Switched:
    """Return the runs by the problem; a problem of which some are missing is left out."""
    found = studies.index(records_of(SWITCHING.name))
    by_problem = {problem: _of(base, found) for problem, base in ON_SMALL.items()}
    return {problem: runs for problem, runs in by_problem.items() if runs is not None}


def _of(base: small.Config, found: Mapping[str, Record]) -> OnProblem | None:
    """Return the runs on a problem, None where one is missing."""
    of_free = lambda free: [
        found.get(studies.identity(run.config()))
        for run in studies.reported(_with_switch(base, free))
    ]
    free = {share: of_free(share * base.epochs) for share in (1, *FREE_SHARES)}
    automatic = {name: of_free(name) for name in SWITCHES}
    if any(run is None for runs in (*free.values(), *automatic.values()) for run in runs):
        return None
    return OnProblem(free, automatic)  # type: ignore[arg-type]


def _with_switch(base: small.Config, free: float | str) -> small.Config:
    return dataclasses.replace(base, free_epochs=free)  # type: ignore[arg-type]


def table(found: Switched) -> str:
    """Return a row per problem, and the mean gain."""
    if not found:
        return ""
    rows = []
    for (name, noise, batch), runs in found.items():
        accuracies = runs.accuracies()
        shown = (tables.mean_and_error(x, digits=1) for x in accuracies.values())
        what = f"{name}, {100 * noise:.0f}% wrong labels" if noise else name
        rows.append((what, batch, *shown, _constrained(runs.automatic["flattening"])))
    gains = {what: np.mean(list(x.values())) for what, x in mean_gains(found).items()}
    summary = ("mean gain", "", "", *(f"{gain:+.1f}" for gain in gains.values()), "")
    columns = ("problem", "batch", ADAM, BEST, *(FUNCTIONS[name] for name in SWITCHES))
    figures = tables.markdown((*columns, "constrained from epoch"), [*rows, summary])
    every = [run for on in found.values() for runs in on.automatic.values() for run in runs]
    text = (
        "Accuracy in percent on test data after the last epoch: mean ± standard error of"
        f" {len(studies.REPORTING_SEEDS)} seeds. Best free phase: of"
        f" {', '.join(f'{100 * share:g}' for share in FREE_SHARES)}% of the epochs, the one that is"
        " best on the test data, which flatters it. Constrained from: where `at_flattening` holds"
        f" the norms, of each seed; - where it does not. {study_tables.provenance(every)}."
    )
    return f"{figures}\n\n{text}"


def mean_gains(found: Switched) -> dict[str, dict[Problem, float]]:
    """Return the mean gain over Adam on each problem, by what was done."""
    gains: dict[str, dict[Problem, float]] = {}
    for problem, runs in found.items():
        adam, *_ = (accuracies := runs.accuracies()).values()
        for what, x in accuracies.items():
            if what != ADAM:
                gains.setdefault(what, {})[problem] = float(np.mean(x - adam))
    return gains


def missing(found: Switched) -> list[Missing]:
    """Return what was not run."""
    count = len(ON_SMALL) - len(found)
    return [Missing(f"automatic switches on {count} small problems", "", COMMAND)] if count else []


def _percent(runs: Sequence[Record]) -> np.ndarray:
    return 100 * tables.final(runs, "accuracy")


def _constrained(runs: Sequence[Record]) -> str:
    """Say from which epoch on each seed is constrained."""
    epochs = (run["switched_at_epoch"] for run in runs)
    return ", ".join("-" if epoch is None else f"{epoch:.3g}" for epoch in epochs)
