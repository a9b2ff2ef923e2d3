"""Shows variants of Adam-LAWN on many problems: its switch, its projections, when norms are held.

A table has a row per problem, and a last one with the means.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.paper import studies, variants
from benchmarks.paper.problems import Problem, Problems
from benchmarks.paper.variants import (
    CHECKING,
    CONFIRMING,
    EARLY,
    FREE_SHARES,
    HELD_SHARES,
    HOLDING,
    OF_PATTERNS,
    PROJECTING,
    SWITCHING,
)
from benchmarks.report import problem_runs
from benchmarks.report.part import Finding, Missing, Part, sweep_command
from benchmarks.report.problem_runs import OnProblem, OnProblems, all_runs
from benchmarks.report.provenance import provenance
from examples.results import tables
from examples.results.records import Record
from examples.training.switching import SWITCHES

SEEDS = f"Mean ± standard error of {len(studies.REPORTING_SEEDS)} seeds"
ADAM, BEST = "Adam", "best free phase"
FUNCTIONS: Mapping[str, str] = {name: switch.make.__name__ for name, switch in SWITCHES.items()}


# By the section that shows them: comparisons of switches, and on what they are.
OF_SWITCHES: Mapping[str, tuple[Mapping[str, Problems], str]] = {
    "switches": (SWITCHING, "problems"),
    "switches-peaks": (CHECKING, "at other learning rates"),
    "switches-patterns": (OF_PATTERNS, "patterns"),
    "switches-unseen": (CONFIRMING, "others, which had no say in its rule"),
}


def part() -> Part:
    """Return the tables of all comparisons on problems."""
    switched = {
        section: problem_runs.load(comparisons, variants.by_switch)
        for section, (comparisons, _) in OF_SWITCHES.items()
    }
    projected = problem_runs.load(PROJECTING, variants.by_projection)
    held = problem_runs.load(HOLDING, variants.by_start)
    lacking = [
        entry
        for section, (comparisons, where) in OF_SWITCHES.items()
        for entry in missing(f"automatic switches, {where}", comparisons, switched[section])
    ]
    return Part(
        {
            **{section: switches(found) for section, found in switched.items()},
            "projections": projections(projected),
            "held-later": held_later(held),
        },
        [*findings_of_switches(switched), *findings_of_projections(projected)],
        [
            *lacking,
            *missing("projections", PROJECTING, projected),
            *missing("norms held later", HOLDING, held),
        ],
    )


def switches(found: OnProblems) -> str:
    """Return what automatic switches reach beside free phases of several lengths."""
    if not found:
        return ""
    rows = []
    for problem, on in found.items():
        adam, *others = scores(on).values()
        shown = (
            f"{(x - adam).mean():+.1f} ± {tables.standard_error(x - adam):.1f}" for x in others
        )
        constrained = _constrained(on.runs["flattening"])
        rows.append((*problem, tables.mean_and_error(adam), *shown, constrained))
    gains = {what: np.mean(list(x.values())) for what, x in mean_gains(found).items()}
    summary = ("mean", "", "", *(f"{gain:+.1f}" for gain in gains.values()), "")
    columns = ("problem", "batch", ADAM, BEST, *(FUNCTIONS[name] for name in variants.SWITCHES))
    figures = tables.markdown((*columns, "constrained from epoch"), [*rows, summary])
    every = [run for on in found.values() for name in variants.SWITCHES for run in on.runs[name]]
    text = (
        f"{_score(found)}: Adam's, and by how many percentage points the others end above it."
        f" {SEEDS}, of a difference seed by seed. Best free phase: of"
        f" {', '.join(f'{100 * share:g}' for share in FREE_SHARES)}% of the epochs, the one that is"
        " best on the test data, which flatters it. Constrained from: the epoch from which on"
        " `at_flattening` holds norms, perhaps those of an earlier one, of each seed; - where it"
        f" never does. {provenance(every)}."
    )
    return f"{figures}\n\n{text}"


def _score(found: OnProblems) -> str:
    """Name what is shown of problems."""
    recommends = any(problem.name.startswith("movielens") for problem in found)
    name = "Accuracy, or HR@10 of MovieLens" if recommends else "Accuracy"
    return f"{name}, in percent on test data after the last epoch"


def scores(on: OnProblem) -> dict[str, np.ndarray]:
    """Return `(seeds,)` percent by what was done; the best free phase is that on test data."""
    best = max((on.percent(share) for share in FREE_SHARES), key=np.mean)
    return {ADAM: on.percent(1), BEST: best, **{x: on.percent(x) for x in variants.SWITCHES}}


def mean_gains(found: OnProblems) -> dict[str, dict[Problem, float]]:
    """Return the mean gain over Adam on each problem, by what was done."""
    gains: dict[str, dict[Problem, float]] = {}
    for problem, on in found.items():
        adam, *_ = (by_name := scores(on)).values()
        for what, x in by_name.items():
            if what != ADAM:
                gains.setdefault(what, {})[problem] = float(np.mean(x - adam))
    return gains


def _constrained(runs: Sequence[Record]) -> str:
    """Say from which epoch on each seed is constrained."""
    epochs = (run["switched_at_epoch"] for run in runs)
    return ", ".join("-" if epoch is None else f"{epoch:.3g}" for epoch in epochs)


def findings_of_switches(switched: Mapping[str, OnProblems]) -> Iterator[Finding]:
    """Yield, by section, what the automatic switch gains over Adam, beside the best free phase."""
    for section, on in switched.items():
        if on:
            _, where = OF_SWITCHES[section]
            gains = mean_gains(on)
            shown = {what: _mean_of(list(of.values())) for what, of in gains.items()}
            others = {n: gain for n, gain in shown.items() if n != "flattening"}
            yield Finding(
                f"gain over Adam, percentage points, mean (least to most) of {len(on)} {where}:"
                " at_flattening",
                shown["flattening"],
                "; ".join(f"{FUNCTIONS.get(n, n)}: {x}" for n, x in others.items()),
                str(len(studies.REPORTING_SEEDS)),
                "Automatic switches",
            )


def projections(found: OnProblems) -> str:
    """Return Adam-LAWN with its two projections, and with neither."""
    if not found:
        return ""
    rows = []
    for problem, on in found.items():
        both, neither = on.percent("both"), on.percent("neither")
        rows.append((*problem, *map(tables.mean_and_error, (both, neither, neither - both))))
    mean = f"{np.mean(list(differences(found).values())):+.1f}"
    columns = ("problem", "batch", "both projections", "neither", "difference")
    figures = tables.markdown(columns, [*rows, ("mean", "", "", "", mean)])
    text = (
        f"{_score(found)}. {SEEDS}, of a difference seed by seed. The norms are fixed after"
        f" {100 * EARLY:g}% of the epochs. {provenance(all_runs(found))}."
    )
    return f"{figures}\n\n{text}"


def differences(found: OnProblems) -> dict[Problem, float]:
    """Return how much higher neither projection ends than both, by the problem."""
    difference = lambda on: float(np.mean(on.percent("neither") - on.percent("both")))
    return {problem: difference(on) for problem, on in found.items()}


def findings_of_projections(found: OnProblems) -> Iterator[Finding]:
    """Yield what becomes of the scores without the projections."""
    if found:
        yield Finding(
            f"Adam-LAWN without projections, percentage points beside it with them, mean (least to"
            f" most) of {len(found)} problems",
            _mean_of(list(differences(found).values())),
            "",
            str(len(studies.REPORTING_SEEDS)),
            "Without the projections",
        )


def _mean_of(gains: Sequence[float]) -> str:
    return f"{np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})"


def held_later(found: OnProblems) -> str:
    """Return what the norms of one early epoch are worth, by when they begin to be held."""
    if not found:
        return ""
    percent = {problem: [on.percent(s) for s in HELD_SHARES] for problem, on in found.items()}
    rows = [(*problem, *map(tables.mean_and_error, x)) for problem, x in percent.items()]
    means = np.mean(list(percent.values()), axis=(0, 2))
    columns = ("problem", "batch", *(f"held from {100 * s:g}%" for s in HELD_SHARES))
    figures = tables.markdown(columns, [*rows, ("mean", "", *(f"{mean:.1f}" for mean in means))])
    text = (
        f"{_score(found)}. {SEEDS}. The norms are those after {100 * EARLY:g}% of the epochs."
        f" {provenance(all_runs(found))}."
    )
    return f"{figures}\n\n{text}"


def missing(what: str, comparisons: Mapping[str, Problems], found: OnProblems) -> list[Missing]:
    """Return what was not run."""
    return [
        Missing(
            f"{what}: {', '.join(problem.name for problem in lacking)}",
            "",
            sweep_command(name, data_dir=False),
        )
        for name, problems in comparisons.items()
        if (lacking := [problem for problem in problems if problem not in found])
    ]
