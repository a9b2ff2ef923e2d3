"""Draws what a search has found: the score by each hyperparameter, and how many settings reach it.

As Figures 6 to 12 of Nado et al. (2021) do for a grid of two hyperparameters, these do for settings
that are drawn. In the slices a dot is a setting; the line joins the best of each eighth of the
range, so what can be reached where this hyperparameter is given and all others are tuned.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, NullFormatter

from benchmarks.paper import studies
from benchmarks.paper.spaces import Choice, Linear, Range
from benchmarks.paper.studies import Search
from examples.results.plots import labelled, legend_below, picture, styles
from examples.results.records import Record

BUCKETS = 8


class Slice(NamedTuple):
    """Holds the scores of a space by one hyperparameter.

    Attributes:
      space: what was tuned.
      name: what is drawn, as the space has it.
      drawn: where from.
      x: `(settings,)`, what was drawn.
      y: `(settings,)`, the score after the last epoch, NaN where it is not finite.
    """

    space: str
    name: str
    drawn: Range | Choice
    x: np.ndarray
    y: np.ndarray


def slices(
    search: Search, found: Mapping[str, Record], score: Callable[[Record], float]
) -> dict[str, list[Slice]]:
    """Return the slices by space, of all settings of all searches that were run.

    Args:
      search: which one.
      found: records by `studies.identity`, as `studies.index` gives them.
      score: from a record to its score, more of which is better.
    """
    by_space = {}
    for space, (_, ranges) in search.spaces.items():
        runs = [
            (point, score(found[run]))
            for i in range(search.searches)
            for setting, point in search.points(space, i).items()
            if (run := studies.identity(setting.config())) in found
        ]
        y = np.array([final for _, final in runs], float)
        by_space[space] = [
            Slice(space, name, drawn, np.array([point[name] for point, _ in runs], float), y)
            for name, drawn in ranges.items()
        ]
    return by_space


def best_by_bucket(of: Slice) -> tuple[np.ndarray, np.ndarray]:
    """Return the best setting of each eighth of a range, or of each value: its x and y."""
    if isinstance(of.drawn, Choice):
        bucket = of.x
    else:
        edges = [of.drawn.at(i / BUCKETS) for i in range(1, BUCKETS)]
        bucket = np.searchsorted(edges, of.x, side="right")
    finite = np.isfinite(of.y)
    best = [
        max(np.flatnonzero(finite & (bucket == b)), key=lambda i: of.y[i])
        for b in np.unique(bucket[finite])
    ]
    return of.x[best], of.y[best]


def share_reaching(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return which share of settings `(n,)` is at each target `(m,)` or above; NaN is below all."""
    return np.mean(scores[:, None] >= targets, axis=0)


def draw_slices(path: Path, by_space: Mapping[str, Sequence[Slice]], label: str) -> None:
    """Draw a row of panels for each space, a panel for each of its hyperparameters.

    Args:
      path: the picture to write; its ending says the format.
      by_space: from `slices`; at least one setting of each space was run.
      label: what the score is called; losses are drawn turned round, and written as they are.
    """
    columns = max(map(len, by_space.values()))
    with picture(path, 2.2 * columns, 2.2 * len(by_space)) as figure:
        grid = figure.subplots(len(by_space), columns, squeeze=False, sharey=True)
        for (space, panels), row in zip(by_space.items(), grid, strict=True):
            for axes, of in zip(row, panels, strict=False):
                _panel(axes, of)
            for axes in row[len(panels) :]:
                axes.set_visible(False)
            row[0].set(title=space, ylabel=label)
            row[0].yaxis.set_major_formatter(lambda y, _: f"{abs(y):g}")


def draw_share_reaching(path: Path, by_space: Mapping[str, Sequence[Slice]], label: str) -> None:
    """Draw the share of settings that reach a score, a line for each space; see `draw_slices`."""
    scores = {space: panels[0].y for space, panels in by_space.items()}
    targets = np.unique(np.concatenate([y[np.isfinite(y)] for y in scores.values()]))
    with picture(path, 4.6, 3.6) as figure:
        axes = figure.subplots()
        for (color, style), (space, y) in zip(styles(len(scores)), scores.items(), strict=True):
            axes.step(targets, 100 * share_reaching(y, targets), style, color=color, label=space)
        axes.set(xlabel=f"target: {label}", ylabel="settings that reach it (%)", ylim=(0, None))
        axes.xaxis.set_major_formatter(lambda x, _: f"{abs(x):g}")
        legend_below(figure, labelled(axes), 2)


def _panel(axes: Axes, of: Slice) -> None:
    """Draw one slice."""
    axes.plot(of.x, of.y, ".", color="#999999", markersize=3)
    axes.plot(*best_by_bucket(of), "o-", color="#0072B2")
    if not isinstance(of.drawn, Linear) and of.x.min() > 0:
        axes.set_xscale("log")
        ends = of.x.min(), of.x.max()
        axes.set_xticks([ends[0], float(np.sqrt(ends[0] * ends[1])), ends[1]])
        axes.xaxis.set_major_formatter(FormatStrFormatter("%.2g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(of.name.replace("_", " "))
