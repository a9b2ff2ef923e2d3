"""Draws the paper's Figure 1 from records, with its caption and a table of where it ends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.paper import attenuation
from benchmarks.report.part import Part
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.plots import STYLES, legend_below, picture
from examples.results.records import Record


def part() -> Part:
    """Return the picture and its table."""
    runs = attenuation.of_defaults(records_of("attenuation"))
    return Part(
        {"figure-1": page("../docs/attenuation.png", runs)},
        draw=lambda folder: draw(folder / "attenuation.png", runs),
    )


def draw(path: Path, runs: Sequence[Record]) -> None:
    """Draw HR@10 and the median margin over the epochs, a column per peak."""
    if not runs:
        return
    rate_of = lambda run: run["config"]["learning_rate"]
    by_rate = tables.group(sorted(runs, key=rate_of), rate_of)
    names = {"hr_at_10": "HR@10 (%)", "margin_p50": "median training margin"}
    with picture(path, max(3.6 * len(by_rate), 5), 5) as figure:
        grid = figure.subplots(2, len(by_rate), squeeze=False, sharex=True, sharey="row")
        legend: dict[str, Any] = {}
        for column, (rate, found) in zip(grid.T, by_rate.items(), strict=True):
            for axes, name in zip(column, names, strict=True):
                legend |= _branches(axes, name, found)
            column[0].set_title(f"peak learning rate {rate:g}")
            column[-1].set_xlabel("epoch")
        for axes, label in zip(grid[:, 0], names.values(), strict=True):
            axes.set_ylabel(label)
        legend_below(figure, legend, len(legend))


def page(link: str, runs: Sequence[Record]) -> str:
    """Return the picture, what it shows, and a table of where it ends, "" without runs."""
    if not runs:
        return ""
    config, seeds = runs[0]["config"], sorted({run["seed"] for run in runs})
    text = (
        f"HR@10 and the median margin of Adam without weight decay, {config['dataset']}, batch size"
        f" {config['batch_size']:,}, {config['epochs']} epochs, which parts after epoch"
        f" {config['onset']} (dotted): mean and standard error of seeds"
        f" {', '.join(map(str, seeds))}. Margins are of the logits that the loss sees."
        f" {provenance(runs)}."
    )
    return f"![HR@10 and median margin over the epochs]({link})\n\n{text}\n\n{table(runs)}"


def table(runs: Sequence[Record]) -> str:
    """Return what each way from the onset on comes to."""
    columns = (
        *("peak", "from the onset on", "HR@10 at the onset", "last epoch", "to Adam, by seed"),
        *("best epoch since", "median margin, last epoch", "n"),
    )
    rows = []
    key = lambda run: (run["config"]["learning_rate"], run["config"]["branch"])
    groups = tables.group(sorted(runs, key=lambda run: run["seed"]), key)
    for (rate, branch), found in sorted(groups.items(), key=lambda x: x[0][0]):
        onset = found[0]["config"]["onset"]
        percent = 100 * np.array([run["curve"]["hr_at_10"] for run in found])
        ends = percent[:, onset - 1], percent[:, -1], percent[:, onset:].max(axis=1)
        at_onset, last, best = (tables.mean_and_error(values, digits=2) for values in ends)
        gains = percent[:, -1] - 100 * tables.final(groups[rate, "Adam"], "hr_at_10")
        by_seed = "" if branch == "Adam" else ", ".join(f"{gain:+.2f}" for gain in gains)
        margin = tables.mean_and_error(tables.final(found, "margin_p50"), digits=2)
        cells = (at_onset, last, by_seed, best, margin, str(len(found)))
        rows.append((f"{rate:g}", branch, *cells))
    return tables.markdown(columns, rows)


def _branches(axes: Axes, name: str, runs: Sequence[Record]) -> dict[str, Any]:
    """Draw a line and a band for each branch; return the lines."""
    scale = 100 if name == "hr_at_10" else 1
    found = tables.group(runs, lambda run: run["config"]["branch"])
    lines = {}
    for (color, style), branch in zip(STYLES, attenuation.BRANCHES, strict=False):
        values = scale * np.array([run["curve"][name] for run in found[branch]])
        mean, error = values.mean(axis=0), tables.standard_error(values)
        x = np.arange(1, len(mean) + 1)
        (lines[branch],) = axes.plot(x, mean, style, color=color)
        axes.fill_between(x, mean - error, mean + error, color=color, alpha=0.15, linewidth=0)
    axes.axvline(runs[0]["config"]["onset"], color="#888888", linestyle=":")
    if name == "hr_at_10":
        axes.set_ylim(50, None)
    return lines
