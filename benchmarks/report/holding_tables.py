"""Shows what the norms of one early epoch are worth by the moment from which on they are held."""

import numpy as np

from benchmarks.paper.holding import HELD_SHARES, HOLDING, NORMS_SHARE, variants
from benchmarks.report import problem_tables
from benchmarks.report.missing import Missing
from benchmarks.report.problem_tables import SCORES, OnProblems
from benchmarks.report.provenance import provenance
from examples.results import tables


def load() -> OnProblems:
    """Return the runs by the problem."""
    return problem_tables.load(HOLDING, variants)


def table(found: OnProblems) -> str:
    """Return a row per problem, and the means."""
    if not found:
        return ""
    scores = {problem: [on.percent(s) for s in HELD_SHARES] for problem, on in found.items()}
    rows = [
        (*problem, *(tables.mean_and_error(x, digits=1) for x in of_problem))
        for problem, of_problem in scores.items()
    ]
    means = np.mean(list(scores.values()), axis=(0, 2))
    columns = ("problem", "batch", *(f"held from {100 * s:g}%" for s in HELD_SHARES))
    figures = tables.markdown(columns, [*rows, ("mean", "", *(f"{mean:.1f}" for mean in means))])
    every = [run for on in found.values() for run in on.every_run()]
    text = (
        f"{SCORES}. The norms are those after {100 * NORMS_SHARE:g}% of the epochs."
        f" {provenance(every)}."
    )
    return f"{figures}\n\n{text}"


def missing(found: OnProblems) -> list[Missing]:
    """Return what was not run."""
    return problem_tables.missing("norms held later", HOLDING, found)
