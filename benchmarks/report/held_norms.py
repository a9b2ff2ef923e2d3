"""Shows which norms to fix: those of which epoch, from which epoch on, and times which factor.

A section is there once all its runs are.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper import studies
from benchmarks.paper.comparisons import CROSSING, FLATTENED, HELD, HELD_NORMS
from benchmarks.report.part import Finding, Missing, Part, sweep_command
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.plots import picture
from examples.results.records import Record


class Norms(NamedTuple):
    """Says which norms are held.

    Attributes:
      taken: the epoch that they are of, or the name of the switch that takes them.
      held: from when on.
      factor: what they are multiplied by.
    """

    taken: float | str
    held: float | str
    factor: float = 1.0


Runs = Mapping[Norms, Sequence[Record]]

NEVER = Norms(float(HELD.epochs), float(HELD.epochs))
AUTOMATIC = Norms("flattening", "flattening")
FREE = "Adam-LAWN, never constrained"
SCALED = "its norms, scaled to a median margin of 2.5"


def part() -> Part:
    """Return the plane of norms and the rescue."""
    runs, flattened = load(), load_rescue()
    return Part(
        {
            "held-norms": plane("../docs/held-norms.png", runs),
            "rescue": rescue(flattened, runs),
        },
        list(findings(runs)),
        missing(runs, flattened),
        draw=lambda folder: draw(folder / "held-norms.png", runs),
    )


def load() -> Runs:
    """Return the runs, one per seed, by the norms that they hold; none where one is missing."""
    return tables.group(HELD_NORMS.among(_of("sweep")), _norms)


def load_rescue() -> list[Record]:
    """Return the runs that had flattened, in the order of their seeds; not of another epoch."""
    flattened = [run for run in _of("rescue") if run["config"]["epoch"] == FLATTENED]
    return sorted(flattened, key=lambda run: run["seed"])


def plane(link: str, runs: Runs) -> str:
    """Return the picture, what it shows, and its figures."""
    if not runs:
        return ""
    text = (
        f"HR@10 in percent after the last epoch of Adam-LAWN, {HELD.dataset}, batch size"
        f" {HELD.batch_size:,}, {HELD.epochs} epochs, peak {HELD.learning_rate:g}: mean and"
        f" standard error of {len(studies.REPORTING_SEEDS)} seeds. Left: the norms of one epoch,"
        " held from a later one on. Right: the norms of two epochs times a factor, held from there"
        f" on. {provenance([run for of in runs.values() for run in of])}."
    )
    epochs = plane_epochs(runs)
    cell = lambda norms: _percent(runs[norms]) if norms in runs else ""
    rows = [(f"{held:g}", *(cell(Norms(t, held)) for t in epochs)) for held in epochs]
    figures = tables.markdown(("held from epoch", *(f"norms of {t:g}" for t in epochs)), rows)
    beside = {
        "Adam, whose norms are free": NEVER,
        "the automatic switch": AUTOMATIC,
    }
    beside |= {f"those of epoch {n.taken:g}, times {n.factor:g}": n for n in _scaled(runs)}
    others = [(name, _percent(runs[n]), _margin(runs[n])) for name, n in beside.items()]
    return "\n\n".join(
        [
            f"![HR@10 by the norms that are held]({link})",
            *(text, figures, tables.markdown(("norms held", "HR@10", "median margin"), others)),
        ]
    )


def rescue(flattened: Sequence[Record], runs: Runs) -> str:
    """Return what each way from a run that has flattened comes to."""
    if not flattened or not runs:
        return ""
    ways = dict(tables.group(flattened, _way))
    fixed = {FREE: runs[NEVER], SCALED: ways.pop(SCALED)}
    fixed |= {
        f"its norms, times {n.factor:g}": runs[n] for n in _scaled(runs) if n.taken == FLATTENED
    }
    rows = _beside("Adam", ways) + _beside(FREE, fixed)
    columns = (f"from epoch {FLATTENED} on", "HR@10", "gain, by seed", "median margin", "n")
    return f"{tables.markdown(columns, rows)}\n\n{provenance(flattened)}."


def findings(runs: Runs) -> Iterator[Finding]:
    """Yield what early norms are worth, whenever they are held, beside late ones and none."""
    if not runs:
        return
    percent = lambda norms: _percent(runs[norms])
    early, late, last = float(CROSSING), float(FLATTENED), max(plane_epochs(runs))
    yield Finding(
        f"HR@10 in percent, movielens-100k, peak 0.01: the norms of epoch {early:g}, held from"
        f" epoch {last:g} on",
        percent(Norms(early, last)),
        f"held from epoch {early:g} on: {percent(Norms(early, early))}; those of epoch"
        f" {late:g}: {percent(Norms(late, late))}; never held, Adam:"
        f" {percent(NEVER)}; automatic: {percent(AUTOMATIC)}",
        str(len(runs[NEVER])),
        "Which norms to hold, and from when on",
    )


def missing(runs: Runs, flattened: Sequence[Record]) -> list[Missing]:
    """Return what was not run."""
    entries = []
    if not runs:
        command = sweep_command(HELD_NORMS.name)
        entries.append(Missing("which norms to hold, and from when on", "", command))
    if not flattened:
        command = "python -m benchmarks.paper.rescue --data-dir DIR"
        entries.append(Missing("what mends a run that has flattened", "", command))
    return entries


def draw(path: Path, runs: Runs) -> None:
    """Draw the plane as a heat map, and the score against the factor on the norms."""
    if not runs:
        return
    with picture(path, 8, 3.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
        _heat_map(figure, left, runs)
        _by_factor(right, runs)


def _heat_map(figure: Figure, axes: Axes, runs: Runs) -> None:
    """Colour each pair of epochs by its mean score, and write the score there."""
    epochs = plane_epochs(runs)
    score = lambda norms: percents(runs[norms]).mean() if norms in runs else np.nan
    scores = np.array([[score(Norms(taken, held)) for taken in epochs] for held in epochs])
    image = axes.pcolormesh(np.ma.masked_invalid(scores), cmap="cividis")
    middle = (np.nanmin(scores) + np.nanmax(scores)) / 2
    for row, column in np.argwhere(np.isfinite(scores)):
        shown = scores[row, column]
        look: Any = {"color": "white" if shown < middle else "black", "fontsize": 8}
        axes.text(column + 0.5, row + 0.5, f"{shown:.1f}", ha="center", va="center", **look)
    ticks, labels = np.arange(len(epochs)) + 0.5, [f"{epoch:g}" for epoch in epochs]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.set(xlabel="norms taken at epoch", ylabel="held from epoch")
    figure.colorbar(image, ax=axes, label="HR@10 (%)")


def _by_factor(axes: Axes, runs: Runs) -> None:
    """Draw a line for each epoch whose norms are multiplied."""
    for epoch, style in ((CROSSING, "o-"), (FLATTENED, "s--")):
        of_epoch = [norms for norms in _scaled(runs) if norms.taken == epoch]
        scores = np.array([percents(runs[norms]) for norms in of_epoch])
        error = tables.standard_error(scores.T)
        look: Any = {"fmt": style, "capsize": 2, "label": f"those of epoch {epoch}"}
        axes.errorbar([norms.factor for norms in of_epoch], scores.mean(axis=1), error, **look)
    for norms, label, style in ((AUTOMATIC, "automatic", "-."), (NEVER, "Adam", ":")):
        height = percents(runs[norms]).mean()
        axes.axhline(height, color="#888888", linestyle=style, label=label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axes.set(xlabel="factor on the norms", ylabel="HR@10 (%)")
    axes.legend(frameon=False)


def _of(benchmark: str) -> list[Record]:
    return [r for r in records_of(HELD_NORMS.name) if r["config"]["benchmark"] == benchmark]


def _norms(run: Record) -> Norms:
    """Return the norms that a run holds."""
    config = run["config"]
    held = config["free_epochs"]
    return Norms(config.get("norms_of", held), held, config.get("norms_scale", 1.0))


def plane_epochs(runs: Runs) -> list[float]:
    """Return the epochs of the plane."""
    return sorted({float(norms.taken) for norms in runs if norms not in (NEVER, AUTOMATIC)})


def _scaled(runs: Runs) -> list[Norms]:
    """Return the norms that have factors, those with the factor 1 among them, in order."""
    return sorted(n for n in runs if n.taken == n.held and n.taken in (CROSSING, FLATTENED))


def _way(run: Record) -> str:
    """Say how a run that had flattened went on."""
    if run["config"]["optimizer"] == "adam_lawn":
        return SCALED
    decay = run["config"]["weight_decay"]
    return f"Adam, weight decay {decay:g}" if decay else "Adam"


def _beside(base: str, ways: Mapping[str, Sequence[Record]]) -> list[tuple[str, ...]]:
    """Return a row for each way, with its gain over `base`, which is one of them."""
    gains = {way: percents(runs) - percents(ways[base]) for way, runs in ways.items()}
    by_seed = lambda way: "" if way == base else ", ".join(f"{gain:+.2f}" for gain in gains[way])
    return [
        (way, _percent(runs), by_seed(way), _margin(runs), str(len(runs)))
        for way, runs in ways.items()
    ]


def percents(runs: Sequence[Record]) -> np.ndarray:
    """Return `(seeds,)` percent."""
    return 100 * tables.final(runs, "hr_at_10")


def _percent(runs: Sequence[Record]) -> str:
    return tables.mean_and_error(percents(runs), digits=2)


def _margin(runs: Sequence[Record]) -> str:
    return tables.mean_and_error(tables.final(runs, "margin_p50"), digits=1)
