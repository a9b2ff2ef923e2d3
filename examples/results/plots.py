"""Pictures of training: the loss, the median margin and the norms of the layers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from examples.results import norms
from examples.results.records import Record

Runs = Mapping[str, Sequence[Record]]

# Okabe and Ito's colours, told apart by colour-blind readers; line styles tell them apart in grey.
STYLES = (
    *(("#000000", "-"), ("#D55E00", "--"), ("#0072B2", "-"), ("#009E73", "-.")),
    *(("#CC79A7", "--"), ("#56B4E9", "-"), ("#E69F00", "-.")),
)


def styles(count: int) -> list[tuple[str, str]]:
    """Return a colour and a line style for each of some lines, no pair of them twice."""
    n = len(STYLES)
    return [(STYLES[i % n][0], STYLES[(i + i // n) % n][1]) for i in range(count)]


LOOK = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1,
    "lines.markersize": 4,
}


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of so many inches in the look of all pictures, then write it."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)


def legend_below(figure: Figure, lines: Mapping[str, Any], columns: int, title: str = "") -> None:
    """Put a legend below, in at most so many columns and no wider than the figure.

    Args:
      figure: where to.
      lines: what is drawn, by what it is called.
      columns: at most.
      title: of the legend.
    """
    widest = 0.6 + 0.075 * max(map(len, lines))  # In inches, handle included.
    fitting = max(1, min(columns, int(figure.get_figwidth() / widest)))
    place: Any = {"loc": "outside lower center", "ncols": fitting, "frameon": False}
    figure.legend(lines.values(), lines.keys(), title=title or None, **place)


def labelled(axes: Axes) -> dict[str, Any]:
    """Return what is drawn by what it is called."""
    handles, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def draw(path: Path, rows: Mapping[str, Runs], panels: Mapping[str, str]) -> None:
    """Draw the means over the runs, a row of panels each, a dot where LAWN's switch falls.

    A ring marks the earlier epoch whose norms are held, a triangle each bounce of the norm of all
    layers together.

    Args:
      path: the picture to write; its ending says the format.
      rows: by what the row is called, then by method, at most seven: the records of its runs.
      panels: by what a curve is called in a record: its title.
    """
    with picture(path, 2.4 * len(panels), 2.5 * len(rows)) as figure:
        grid = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True)
        for (title, runs), row in zip(rows.items(), grid, strict=True):
            for axes, (name, label) in zip(row, panels.items(), strict=True):
                _panel(axes, name, runs)
                axes.set_title(label)
            row[0].set_ylabel(title, fontsize=10)
        for axes in grid[-1]:
            axes.set(xlabel="epoch", xlim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        title = "mean over the seeds; a dot marks the switch"
        if any(name.startswith(norms.LAYER) for name in panels):
            title += ", a ring the norm it goes back to"
        if norms.TOTAL in panels:
            title += ", a triangle a bounce"
        legend_below(figure, labelled(grid[0, 0]), 4, title)


def draw_layers(path: Path, runs: Runs) -> None:
    """Draw the layers with the largest norms, a column per method: their shares and their course.

    Above is the share of the squared norm of all layers, of each and of the ten together; below the
    norm itself relative to that of the first epoch, with a triangle at each bounce. They are
    Figures S2 a and b of `How to decay your learning rate <https://arxiv.org/abs/2103.12682>`_,
    which has the initial norm in place of the first epoch's.

    Args:
      path: the picture to write; its ending says the format.
      runs: by method, at most seven: the records of its runs, with norms of some common layer.
    """
    by_method = {method: norms.mean(records) for method, records in runs.items()}
    together = norms.mean([record for records in runs.values() for record in records])
    # Ranked over all methods, so that a layer has one colour.
    at_most = {name: np.max([of[name] for of in by_method.values()], axis=0) for name in together}
    names = norms.largest(at_most)
    colors = dict(
        zip(names, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(names))), strict=True)
    )
    with picture(path, 3.6 * max(len(runs), 2), 6) as figure:
        grid = figure.subplots(2, len(runs), squeeze=False, sharex=True, sharey="row")
        for (above, below), (method, layers) in zip(grid.T, by_method.items(), strict=True):
            x = np.arange(1, len(norms.total(layers)) + 1)
            shares = norms.shares(layers, names)
            for name, color in colors.items():
                above.plot(x, shares[name], color=color, label=name)
                _course(below, x, layers[name] / layers[name][0], color=color)
            above.plot(x, sum(shares.values()), color="#D55E00", label=f"these {len(names)}")
            above.set(title=method, ylim=(0, 1))
            below.set(xlabel="epoch", xlim=(0, None))
            below.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        grid[1, 0].set_yscale("log", base=2)
        grid[1, 0].yaxis.set_major_formatter("{x:g}")
        grid[0, 0].set_ylabel("share of the squared norm")
        grid[1, 0].set_ylabel("norm, first epoch = 1")
        title = "mean over the seeds; a triangle marks a bounce"
        legend_below(figure, labelled(grid[0, 0]), max(len(runs), 2), title)


def _panel(axes: Axes, name: str, runs: Runs) -> None:
    """Draw a line per method, a dot where it switches, a ring where it had the norm it goes to."""
    for (color, style), (method, records) in zip(STYLES, runs.items(), strict=False):
        y = np.mean(np.array([r["curve"][name] for r in records], float), axis=0)
        x = np.arange(1, len(y) + 1)
        if name == norms.TOTAL:
            _course(axes, x, y, style, color=color, label=method)
        else:
            axes.plot(x, y, style, color=color, label=method)
        switch = _switch(records)
        if switch is not None:
            # From the switch on a norm stays; anything else is between two epochs.
            is_norm = name.startswith(norms.LAYER)
            axes.plot(switch, y[-1] if is_norm else np.interp(switch, x, y), "o", color=color)
            held = is_norm and np.ptp(y[-2:]) <= norms.ROUNDING * y[-1]
            marked = norms.last_at(y[: int(switch)], y[-1]) if held else None
            if marked is not None and marked < switch - 0.5:
                axes.plot(marked, y[-1], "o", color=color, markerfacecolor="none")


def _course(axes: Axes, x: np.ndarray, norm: np.ndarray, style: str = "-", **look: Any) -> None:
    """Draw a norm, and a triangle at each bounce."""
    axes.plot(x, norm, style, marker="^", markevery=norms.bounces(norm), **look)


def _switch(records: Sequence[Record]) -> float | None:
    """Return the mean epoch at which runs were constrained, None where some never were."""
    constrained = [r["final"].get("constrained_epochs", 0) for r in records]
    epochs = len(records[0]["curve"]["train_loss"])
    return epochs - float(np.mean(constrained)) if min(constrained) > 0 else None
