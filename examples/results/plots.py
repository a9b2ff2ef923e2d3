"""Pictures of training: the loss, the median margin and the norms of the layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from examples.results.records import Record

Runs = Mapping[str, Sequence[Record]]

# Okabe and Ito's colours, told apart by colour-blind readers; line styles tell them apart in grey.
STYLES = (("#000000", "-"), ("#D55E00", "--"), ("#0072B2", "-"), ("#009E73", "-."))

LOOK = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1,
    "lines.markersize": 4,
}


def draw(path: Path, rows: Mapping[str, Runs], panels: Mapping[str, str]) -> None:
    """Draw the means over the runs, a row of panels each, a dot where LAWN's switch falls.

    Args:
      path: the picture to write; its ending says the format.
      rows: by what the row is called, then by method, at most four: the records of its runs.
      panels: by what a curve is called in a record: its title.
    """
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(2.4 * len(panels), 2.5 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True)
        for (title, runs), row in zip(rows.items(), grid, strict=True):
            for axes, (name, label) in zip(row, panels.items(), strict=True):
                _panel(axes, name, runs)
                axes.set_title(label)
            row[0].set_ylabel(title, fontsize=10)
        for axes in grid[-1]:
            axes.set(xlabel="epoch", xlim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = grid[0, 0].get_legend_handles_labels()
        title = "mean over the seeds; a dot marks the switch"
        place = {"loc": "outside lower center", "ncols": len(labels), "frameon": False}
        figure.legend(handles, labels, title=title, **place)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)


def _panel(axes: Axes, name: str, runs: Runs) -> None:
    """One line a method, a dot where it switches."""
    for (color, style), (method, records) in zip(STYLES, runs.items(), strict=False):
        y = np.mean(np.array([r["curve"][name] for r in records], float), axis=0)
        x = np.arange(1, len(y) + 1)
        axes.plot(x, y, style, color=color, label=method)
        switch = _switch(records)
        if switch is not None:
            # From the switch on a norm stays; anything else is between two epochs.
            height = y[-1] if name.startswith("norm/") else np.interp(switch, x, y)
            axes.plot(switch, height, "o", color=color)


def _switch(records: Sequence[Record]) -> float | None:
    """When the runs were constrained, on average: in epochs, None where some never were."""
    constrained = [r["final"].get("constrained_epochs", 0) for r in records]
    epochs = len(records[0]["curve"]["train_loss"])
    return epochs - float(np.mean(constrained)) if min(constrained) > 0 else None
