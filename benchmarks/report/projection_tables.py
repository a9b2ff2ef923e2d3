"""Shows Adam-LAWN with its two projections onto the tangent space, and with neither."""

import numpy as np

from benchmarks.paper.problems import Problem
from benchmarks.paper.projections import FREE_SHARE, PROJECTING, variants
from benchmarks.report import problem_tables
from benchmarks.report.missing import Missing
from benchmarks.report.problem_tables import SCORES, OnProblems
from benchmarks.report.provenance import provenance
from examples.results import tables


def load() -> OnProblems:
    """Return the runs by the problem."""
    return problem_tables.load(PROJECTING, variants)


def table(found: OnProblems) -> str:
    """Return a row per problem, and the mean difference."""
    if not found:
        return ""
    rows = []
    for problem, runs in found.items():
        both, neither = runs.percent("both"), runs.percent("neither")
        shown = (tables.mean_and_error(x, digits=1) for x in (both, neither, neither - both))
        rows.append((*problem, *shown))
    mean = f"{np.mean(list(differences(found).values())):+.1f}"
    columns = ("problem", "batch", "both projections", "neither", "difference")
    figures = tables.markdown(columns, [*rows, ("mean", "", "", "", mean)])
    every = [run for on in found.values() for run in on.every_run()]
    text = (
        f"{SCORES}, and that of the differences seed by seed. The norms are fixed after"
        f" {100 * FREE_SHARE:g}% of the epochs. {provenance(every)}."
    )
    return f"{figures}\n\n{text}"


def differences(found: OnProblems) -> dict[Problem, float]:
    """Return how much higher neither ends than both, by the problem."""
    difference = lambda on: float(np.mean(on.percent("neither") - on.percent("both")))
    return {problem: difference(on) for problem, on in found.items()}


def missing(found: OnProblems) -> list[Missing]:
    """Return what was not run."""
    return problem_tables.missing("projections", PROJECTING, found)
