"""Draws what the default switch gains over Adam on problems that an outsider chose, from records.

They are of a program of its own, which stands beside them: a line per problem. The switch has one
more condition since, and was run again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.report.part import Finding, Part
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.plots import STYLES, labelled, legend_below, picture
from examples.results.records import Record

SECTION = "A trial from outside"
TRIED, NOW = "at_flattening, when it was tried", "at_flattening, as it is now"


def part() -> Part:
    """Return the picture and what it shows."""
    found = sorted(records_of("outside-trial"), key=_gain)
    again = records_of("outside-trial-again")
    return Part(
        {"outside-trial": page("../docs/outside-trial.png", found, again)},
        findings=findings(found),
        draw=lambda folder: draw(folder / "outside-trial.png", found, again),
    )


def page(link: str, found: Sequence[Record], again: Sequence[Record]) -> str:
    """Return the picture, its caption and a table, "" without records."""
    if not found:
        return ""
    text = (
        "What `adam_lawn` with its default switch gains over `adam` after the last update, in"
        " percentage points of test accuracy (balanced for rare classes, R² for regressions): mean"
        " of three to five seeds, each with its own data, and two standard errors of the paired"
        " differences. Both have the learning rate that is best for Adam, of two or three. Best"
        " free phase: of those in the table, on test data. In brackets, what Adam ends at."
        f" {len(found)} problems."
    )
    return f"![gain over Adam by problem]({link})\n\n{text}\n\n{table(found, again)}"


def table(found: Sequence[Record], again: Sequence[Record]) -> str:
    """Return how the switch stands to free phases that are as long on every problem."""
    switches = {TRIED: found, NOW: again}
    rows = [(name, *_shown([run["diff"] for run in runs])) for name, runs in switches.items()]
    for share in sorted({share for run in found for share in run["free"]}, key=float):
        pairs = [run["free"][share] for run in found if share in run["free"]]
        rows.append((f"{100 * float(share):g}% of the updates free", *_shown(pairs)))
    columns = (
        "gain over Adam",
        "mean",
        "median",
        "lowest tenth below",
        "least",
        "most",
        "above",
        "below",
    )
    note = "Above, below: on how many problems, by more than two standard errors."
    return f"{tables.markdown(columns, rows)}\n\n{note}"


def _shown(pairs: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """Return what gains and their standard errors come to; an error of 0 is none."""
    gains, errors = np.array(pairs).T
    figures = (gains.mean(), *np.percentile(gains, (50, 10)), gains.min(), gains.max())
    counts = (np.sum(gains > 2 * errors), np.sum(gains < -2 * errors))
    return (*(f"{x:+.1f}" for x in figures), *map(str, counts))


def findings(found: Sequence[Record]) -> list[Finding]:
    """Return what the default switch gains on the median problem."""
    if not found:
        return []
    gains = np.array([_gain(run) for run in found])
    best = np.array([_best(run) for run in found])
    shown = lambda x: f"{np.median(x):+.1f} ({x.min():+.1f} to {x.max():+.1f})"
    return [
        Finding(
            f"gain over Adam, percentage points, median (least to most) of {len(found)} problems"
            f" that an outsider chose: {TRIED}",
            shown(gains),
            f"best free phase: {shown(best)}",
            "3 to 5",
            SECTION,
        )
    ]


def draw(path: Path, found: Sequence[Record], again: Sequence[Record]) -> None:
    """Draw a row per problem, sorted by the gain when it was tried."""
    if not found:
        return
    rows, now = np.arange(len(found)), {run["name"]: run["diff"] for run in again}
    tried, (gains, errors) = map(_gain, found), np.array([now[run["name"]] for run in found]).T
    with picture(path, 6.5, 1 + 0.17 * len(found)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color="0.7", zorder=0)
        best = [_best(run) for run in found]
        axes.plot(best, rows, "o", color=STYLES[1][0], fillstyle="none", label="best free phase")
        axes.plot([*tried], rows, "|", color="black", markersize=9, label=TRIED)
        axes.errorbar(gains, rows, xerr=2 * errors, fmt="o", color="black", label=NOW)
        axes.set_yticks(
            rows, [f"{run['name'].replace('_', ' ')} ({run['adam']:.1f})" for run in found]
        )
        axes.set_xscale("symlog", linthresh=2)
        ticks = (-5, -2, -1, 0, 1, 2, 5, 10, 20, 50)
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
        axes.set(xlabel="gain over Adam, percentage points", ylim=(-1, len(found)))
        legend_below(figure, labelled(axes), 1)


def _gain(run: Record) -> float:
    return run["diff"][0]


def _best(run: Record) -> float:
    return max(gain for gain, _ in run["free"].values())
