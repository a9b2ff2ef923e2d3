"""Draws the paper's Figures 2 and 4 from records, with their captions.

A curve or a panel of which a run is missing is left out.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from benchmarks.paper import studies
from benchmarks.paper.catalog import WIDE
from benchmarks.paper.studies import FREE
from benchmarks.report import study_tables
from benchmarks.report.part import Part
from benchmarks.report.provenance import provenance
from benchmarks.report.study_tables import PAPERS_FIVE, SECTIONS, Found, Section, Table
from benchmarks.tools.records import NOT_YET_RUN
from examples.results import records, tables
from examples.results.plots import legend_below, picture
from examples.training.traits import OptimizerName

SCORES = {"hr_at_10": "HR@10", "accuracy": "Test accuracy"}
# Okabe and Ito's colours; markers tell the optimizers apart in grey.
MARKS: dict[OptimizerName, tuple[str, str]] = {
    "sgd": ("#000000", "x"),
    "adam": ("#D55E00", "s"),
    "adam_lawn": ("#0072B2", "o"),
    "lamb": ("#E69F00", "^"),
    "lamb_lawn": ("#009E73", "D"),
}
LAWN: tuple[OptimizerName, ...] = ("adam_lawn", "lamb_lawn")
SHOWN = 10  # Points of a score below the best of a panel: failures would flatten the rest.
CROPPED = f"Scores {SHOWN} points or more below the best of a panel are written at its lower edge."


class Pictures(NamedTuple):
    """Names the sections of one task in the paper's Figures 2 and 4.

    Attributes:
      by_batch: the section of RESULTS.md with the score against batch size.
      by_free: the same against free epochs.
      prefix: what the names of the files start with.
      panels: sections by what a panel is called.
    """

    by_batch: str
    by_free: str
    prefix: str
    panels: dict[str, Section]

    def files(self) -> tuple[str, str]:
        """Return the names of the two pictures."""
        return f"{self.prefix}batch-size.png", f"{self.prefix}free-epochs.png"


OF_PAPER = (
    Pictures(
        *("figure-2c", "figure-4b", ""),
        {
            "MovieLens-100k": SECTIONS["movielens-100k"],
            "MovieLens-100k, a finer grid": SECTIONS["movielens-100k-40"],
            "MovieLens-100k, the paper's epochs": SECTIONS["movielens-100k-full"],
            "MovieLens-1M": SECTIONS["movielens-1m"],
            "Pinterest": SECTIONS["pinterest-20"],
        },
    ),
    Pictures(
        *("figure-2ab", "figure-4a", "images-"),
        {
            "CIFAR-10, 2,500 images": SECTIONS["cifar10-small"],
            "CIFAR-10": SECTIONS["cifar10"],
            "CIFAR-100": SECTIONS["cifar100"],
        },
    ),
)


def part() -> Part:
    """Return the captions of all pictures."""
    found = study_tables.load()
    captions = [caption for of_paper in OF_PAPER for caption in captions_of(of_paper, found)]
    return Part(dict(captions), draw=lambda folder: draw(folder, found))


class Line(NamedTuple):
    """Holds one optimizer in one panel.

    Attributes:
      panel: the panel's title.
      optimizer: its name.
      label: its name in the legend.
      x: `(points,)`.
      y: `(points, seeds)`, the score in percent after the last epoch.
      hollow: whether to set it apart from another line of the same optimizer.
    """

    panel: str
    optimizer: OptimizerName
    label: str
    x: np.ndarray
    y: np.ndarray
    hollow: bool = False


def captions_of(of_paper: Pictures, found: Found) -> Iterator[tuple[str, str]]:
    """Yield the sections of one task, by marker."""
    panels, (batches, free) = of_paper.panels, of_paper.files()
    lines = by_batch(panels, found)
    yield of_paper.by_batch, caption_batch_sizes(f"../docs/{batches}", panels, lines, found)
    lines = by_free(panels, found)
    yield of_paper.by_free, caption_free_epochs(f"../docs/{free}", panels, lines, found)


def draw(folder: Path, found: Found) -> None:
    """Draw the pictures of all tasks."""
    for of_paper in OF_PAPER:
        panels, (batches, free) = of_paper.panels, of_paper.files()
        ylabel = score(panels)
        draw_lines(folder / batches, by_batch(panels, found), "batch size", ylabel)
        draw_lines(folder / free, by_free(panels, found), "free epochs", ylabel)


def by_batch(panels: Mapping[str, Section], found: Found) -> list[Line]:
    """Return Figure 2: what the paper's five optimizers reach at each batch size that was run."""
    lines = []
    for panel, section in _of_batch_sizes(panels).items():
        for optimizer, name in PAPERS_FIVE.items():
            points: dict[str, list[tuple[int, np.ndarray]]] = {}
            for study in map(_study, section.tables):
                measured = study_tables.measure(study, optimizer, found)
                for chosen_from, of_set in measured.items():
                    scores = study_tables.last_percent(of_set.curves[study.example.score])
                    point = study.base.batch_size, scores
                    points.setdefault(chosen_from, []).append(point)
            for chosen_from, line in points.items():
                x, y = map(np.array, zip(*line, strict=True))
                label = name if chosen_from == FREE else f"{name}, {chosen_from}"
                lines.append(Line(panel, optimizer, label, x, y, chosen_from not in (WIDE, FREE)))
    return lines


def by_free(panels: Mapping[str, Section], found: Found) -> list[Line]:
    """Return Figure 4: LAWN's tuning runs at the peak that it chose, one seed each."""
    lines = []
    for panel, section in panels.items():
        for table, optimizer in itertools.product(section.tables, LAWN):
            study = _study(table)
            settings = study.grids(optimizer)[FREE]
            chosen = study.choose(settings, found)
            if chosen is None:
                continue
            at_peak = [s for s in settings if s.learning_rate == chosen.learning_rate]
            runs = [study.tried(setting) for setting in at_peak]
            scores = [
                found[studies.identity(run.config())]["final"][study.example.score] for run in runs
            ]
            x, y = np.array([run.free_epochs for run in runs]), 100 * np.array(scores)[:, None]
            order, base = np.argsort(x), runs[0]
            panel_of = f"{panel}\nBatch size {base.batch_size:,}, {base.epochs} epochs"
            lines.append(Line(panel_of, optimizer, PAPERS_FIVE[optimizer], x[order], y[order]))
    return lines


def score(panels: Mapping[str, Section]) -> str:
    """Name what the studies of some panels are judged by."""
    (score,) = {_study(table).example.score for s in panels.values() for table in s.tables}
    return SCORES[score]


def draw_lines(path: Path, lines: Sequence[Line], xlabel: str, ylabel: str) -> None:
    """Draw scores over a logarithmic axis, a panel beside the other, bars where there are seeds.

    Args:
      path: the picture to write, if there is a line.
      lines: what to draw.
      xlabel: what `x` is.
      ylabel: what `y` is, in percent.
    """
    panels = list(dict.fromkeys(line.panel for line in lines))
    if not panels:
        return
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    with picture(path, max(3.2 * columns, 6), 3 * rows + 0.5) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        legend: dict[str, Any] = {}
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            within = [line for line in lines if line.panel == panel]
            ticks = np.unique(np.concatenate([line.x for line in within]))
            axes.set(title=panel, xlabel=xlabel, xscale="log")
            # Before plotting, which would warn of a panel with one point.
            axes.set_xlim(ticks[0] / 2, ticks[-1] * 2)
            axes.set_xticks(ticks, [f"{tick:,.6g}" for tick in ticks])
            axes.minorticks_off()
            for line in within:
                legend[line.label] = _plot(axes, line)
            _crop(axes, within)
        for axes in grid[:, 0]:
            axes.set_ylabel(f"{ylabel} (%)")
        legend_below(figure, legend, len(legend))


def caption_batch_sizes(
    link: str, panels: Mapping[str, Section], lines: Sequence[Line], found: Found
) -> str:
    """Return the picture, what it shows, and how much of it is there."""
    panels = _of_batch_sizes(panels)
    used = [_study(table) for section in panels.values() for table in section.tables]
    possible = sum(len(study.grids(o)) for study, o in itertools.product(used, PAPERS_FIVE))
    return _caption(
        f"![{score(panels)} against batch size]({link})",
        f"{score(panels)} after the last epoch, as in the tables: mean and standard error of"
        f" {len(studies.REPORTING_SEEDS)} seeds. {CROPPED}",
        sum(len(line.x) for line in lines),
        possible,
        [run for section in panels.values() for run in study_tables.runs_of(section, found)],
    )


def caption_free_epochs(
    link: str, panels: Mapping[str, Section], lines: Sequence[Line], found: Found
) -> str:
    """Return the picture, what it shows, and how much of it is there."""
    used = [_study(table) for section in panels.values() for table in section.tables]
    possible = len(LAWN) * sum(len(study.free_epochs) for study in used)
    runs = [
        found[studies.identity(study.tried(setting).config())]
        for study, optimizer in itertools.product(used, LAWN)
        for settings in [study.grids(optimizer)[FREE]]
        if study.choose(settings, found)
        for setting in settings
    ]
    return _caption(
        f"![{score(panels)} against free epochs]({link})",
        f"{score(panels)} after the last epoch of the runs that LAWN was tuned by, at the peak"
        " learning rate chosen: n = 1 at each point, so that a point or two up or down mean"
        " nothing. The chosen free phase is the highest point of a curve, not a measurement of it."
        f" {CROPPED}",
        sum(len(line.x) for line in lines),
        possible,
        runs,
    )


def _caption(
    picture: str, text: str, points: int, possible: int, runs: Sequence[records.Record]
) -> str:
    """Return the picture above the text, "" where it has no point."""
    if not points:
        return ""
    absent = possible - points
    count = f"{points} of {possible} points; the others are {NOT_YET_RUN}." if absent else ""
    return f"{picture}\n\n{text} {count} {provenance(runs)}."


def _of_batch_sizes(panels: Mapping[str, Section]) -> dict[str, Section]:
    """Return those with more than one batch size, which can be compared."""
    return {panel: section for panel, section in panels.items() if len(section.tables) > 1}


def _study(table: Table) -> studies.Study:
    return table.rows[0].study


def _plot(axes: Axes, line: Line) -> Any:
    """Draw one line with its bars."""
    color, marker = MARKS[line.optimizer]
    look: dict[str, Any] = {"color": color, "marker": marker, "capsize": 2}
    if line.hollow:
        look |= {"linestyle": "--", "markerfacecolor": "white"}
    error = tables.standard_error(line.y.T) if line.y.shape[1] > 1 else None
    # Side by side, so that bars at one place can be told apart.
    apart = 1.0 if error is None else 1.05 ** (list(MARKS).index(line.optimizer) - 2)
    return axes.errorbar(apart * line.x, line.y.mean(axis=1), error, **look)


def _crop(axes: Axes, lines: Sequence[Line]) -> None:
    """End a panel where scores are too low to compare; what lies below is written at its edge."""
    means = [(line, *point) for line in lines for point in zip(line.x, line.y.mean(1), strict=True)]
    best = max(y for _, _, y in means)
    floor = best - SHOWN
    low = [mean for mean in means if mean[2] < floor]
    if not low:
        return
    axes.set_ylim(floor, best + SHOWN / 8)
    for above, (line, x, y) in enumerate(sorted(low, key=lambda mean: mean[2])):
        color, _ = MARKS[line.optimizer]
        offset = (0, 4 + 9 * above)
        look: dict[str, Any] = {"ha": "center", "textcoords": "offset points", "color": color}
        axes.annotate(f"\N{DOWNWARDS ARROW} {y:.1f}", (x, floor), offset, **look)
