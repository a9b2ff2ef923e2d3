"""Shows what automatic switches do, beside free phases of several lengths."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.paper.problems import Problem, Problems
from benchmarks.paper.switching import CHECKING, COMPARED, FREE_SHARES, SWITCHING, variants
from benchmarks.report import problem_tables
from benchmarks.report.missing import Missing
from benchmarks.report.problem_tables import SCORES, OnProblem, OnProblems
from benchmarks.report.provenance import provenance
from examples.results import tables
from examples.results.records import Record
from examples.training.switching import SWITCHES

ADAM, BEST = "Adam", "best free phase"
FUNCTIONS: Mapping[str, str] = {name: switch.make.__name__ for name, switch in SWITCHES.items()}


def load(comparisons: Mapping[str, Problems] = SWITCHING) -> OnProblems:
    """Return the runs by the problem."""
    return problem_tables.load(comparisons, variants)


def scores(on: OnProblem) -> dict[str, np.ndarray]:
    """Return `(seeds,)` percent by what was done; the best free phase is that on test data."""
    best = max((on.percent(share) for share in FREE_SHARES), key=np.mean)
    return {ADAM: on.percent(1), BEST: best, **{name: on.percent(name) for name in COMPARED}}


def table(found: OnProblems) -> str:
    """Return a row per problem, and the mean gain."""
    if not found:
        return ""
    rows = []
    for problem, on in found.items():
        shown = (tables.mean_and_error(x, digits=1) for x in scores(on).values())
        rows.append((*problem, *shown, _constrained(on.runs["flattening"])))
    gains = {what: np.mean(list(x.values())) for what, x in mean_gains(found).items()}
    summary = ("mean gain", "", "", *(f"{gain:+.1f}" for gain in gains.values()), "")
    columns = ("problem", "batch", ADAM, BEST, *(FUNCTIONS[name] for name in COMPARED))
    figures = tables.markdown((*columns, "constrained from epoch"), [*rows, summary])
    every = [run for on in found.values() for name in COMPARED for run in on.runs[name]]
    text = (
        f"{SCORES}. Best free phase: of"
        f" {', '.join(f'{100 * share:g}' for share in FREE_SHARES)}% of the epochs, the one that is"
        " best on the test data, which flatters it. Constrained from: the epoch from which on"
        " `at_flattening` holds norms, perhaps those of an earlier one, of each seed; - where it"
        f" never does. {provenance(every)}."
    )
    return f"{figures}\n\n{text}"


def mean_gains(found: OnProblems) -> dict[str, dict[Problem, float]]:
    """Return the mean gain over Adam on each problem, by what was done."""
    gains: dict[str, dict[Problem, float]] = {}
    for problem, on in found.items():
        adam, *_ = (by_name := scores(on)).values()
        for what, x in by_name.items():
            if what != ADAM:
                gains.setdefault(what, {})[problem] = float(np.mean(x - adam))
    return gains


def missing(found: OnProblems, checked: OnProblems) -> list[Missing]:
    """Return what was not run, of the problems on which constants were chosen and of the others."""
    return [
        *problem_tables.missing("automatic switches", SWITCHING, found),
        *problem_tables.missing("automatic switches at other rates", CHECKING, checked),
    ]


def _constrained(runs: Sequence[Record]) -> str:
    """Say from which epoch on each seed is constrained."""
    epochs = (run["switched_at_epoch"] for run in runs)
    return ", ".join("-" if epoch is None else f"{epoch:.3g}" for epoch in epochs)
