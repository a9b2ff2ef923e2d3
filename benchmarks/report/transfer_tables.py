"""Shows how the best learning rate of a language model moves with its width and with the batch.

Between the rates that were tried, the best is the lowest point of the parabola in the logarithm of
the rate through the best of them and its two neighbours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.paper import studies
from benchmarks.paper.comparisons import TRANSFERS
from benchmarks.paper.studies import Comparison
from benchmarks.report.part import Missing, Part, sweep_command
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import records_of
from examples import lm
from examples.results import tables
from examples.results.plots import STYLES, labelled, legend_below, picture
from examples.results.records import Record

LOSS, LABEL = "bits_per_byte", "bits per byte"
NAMES = {"adamw": "AdamW", "adam_lawn": "Adam-LAWN", "adam_h": "AdamH", "muon_h": "MuonH"}


class Tuned(NamedTuple):
    """Holds what each learning rate comes to at one width and batch size.

    Attributes:
      rates: `(rates,)`, rising.
      losses: `(rates, seeds)` after the last epoch, NaN where it is not finite.
    """

    rates: np.ndarray
    losses: np.ndarray

    def means(self) -> np.ndarray:
        """Return `(rates,)`, infinite where a seed has no finite loss."""
        means = self.losses.mean(axis=1)
        return np.where(np.isfinite(means), means, np.inf)

    def best(self) -> float:
        """Return the best rate; the best that was tried, where that is the first or the last."""
        means, x = self.means(), np.log(self.rates)
        i = int(np.argmin(means))
        around = slice(max(i - 1, 0), i + 2)
        if len(x[around]) < 3 or not np.isfinite(means[around]).all():
            return float(self.rates[i])
        curvature, slope, _ = np.polyfit(x[around] - x[i], means[around], 2)
        return float(np.exp(x[i] - slope / (2 * curvature)))

    def loss_at(self, rate: float) -> float:
        """Return the mean loss at a rate, linear in its logarithm between those that were tried."""
        return float(np.interp(np.log(rate), np.log(self.rates), self.means()))


Transfer = Mapping[str, Mapping[int, Mapping[int, Tuned]]]  # By optimizer, batch size and width.


def part() -> Part:
    """Return the pictures and tables of all these comparisons."""
    loaded = load()
    return Part(sections(loaded), missing=missing(loaded), draw=lambda folder: draw(folder, loaded))


def load() -> dict[str, tuple[Transfer, list[Record]]]:
    """Return what was found and its runs, by the comparison; nothing where a run is missing."""
    by_name = {c.name: c.among(records_of(c.name)) for c in TRANSFERS}
    return {name: (parted(runs), runs) for name, runs in by_name.items() if runs}


def parted(runs: Sequence[Record]) -> Transfer:
    """Return the runs by optimizer, batch size and width."""
    of = lambda name: lambda run: run["config"][name]
    return {
        optimizer: {
            batch: {
                width: _tuned(at_width)
                for width, at_width in tables.group(at_batch, of("width")).items()
            }
            for batch, at_batch in tables.group(of_optimizer, of("batch_size")).items()
        }
        for optimizer, of_optimizer in tables.group(runs, of("optimizer")).items()
    }


def _tuned(runs: Sequence[Record]) -> Tuned:
    by_rate = sorted(tables.group(runs, lambda run: run["config"]["learning_rate"]).items())
    losses = [[run["final"][LOSS] for run in at_rate] for _, at_rate in by_rate]
    return Tuned(np.array([rate for rate, _ in by_rate]), np.array(losses, float))


def sections(loaded: Mapping[str, tuple[Transfer, list[Record]]]) -> dict[str, str]:
    """Return the picture and the table by comparison, "" where a run is missing."""
    return {
        comparison.name: page(comparison, *loaded[comparison.name])
        if comparison.name in loaded
        else ""
        for comparison in TRANSFERS
    }


def page(comparison: Comparison, found: Transfer, runs: Sequence[Record]) -> str:
    """Return the picture of a comparison, what it shows, and its figures."""
    widths, base = widths_of(comparison), as_lm(comparison.base)
    narrow, wide = widths[0], widths[-1]
    rows = []
    for optimizer, by_batch in found.items():
        for batch, tuned in sorted(by_batch.items()):
            best = {width: tuned[width].best() for width in widths}
            lowest = tuned[wide].loss_at(best[wide])
            rows.append(
                (
                    *(NAMES[optimizer], f"{batch}"),
                    *(_rate(tuned[width], best[width]) for width in widths),
                    f"{best[wide] / best[narrow]:.2g}",
                    f"{tuned[wide].means().min():.3f}",
                    f"{tuned[wide].loss_at(best[narrow]) - lowest:+.3f}",
                )
            )
    columns = (
        *("optimizer", "batch size"),
        *(f"best at width {width}" for width in widths),
        f"{wide} to {narrow}",
        f"{LABEL} at {wide}",
        f"more with the rate of {narrow}",
    )
    text = (
        f"The best peak learning rate of a language model, {base.epochs} epochs of"
        f" {base.epoch_tokens:,} tokens, {base.depth} blocks: lowest point of"
        " the parabola through the best of the rates that were tried and its two neighbours; a"
        " star marks one at the edge of what was tried. Then the widest model's best rate to the"
        f" narrowest's, its {LABEL} on held-out text, mean of {len(comparison.seeds)} seeds, and"
        " how much more it has with the rate that is best for the narrowest."
        f" {provenance(runs)}."
    )
    picture = f"![{LABEL} by the learning rate](../docs/{comparison.name}.png)"
    return "\n\n".join([picture, text, tables.markdown(columns, rows)])


def missing(loaded: Mapping[str, tuple[Transfer, list[Record]]]) -> list[Missing]:
    """Return what was not run."""
    return [
        Missing(
            "how the best learning rate of a language model moves with its width, up to"
            f" {widths_of(c)[-1]}",
            "",
            sweep_command(c.name, data_dir=False),
        )
        for c in TRANSFERS
        if c.name not in loaded
    ]


def draw(folder: Path, loaded: Mapping[str, tuple[Transfer, list[Record]]]) -> None:
    """Draw the loss against the rate: a row of panels per batch size, a panel per optimizer."""
    for name, (found, _) in loaded.items():
        batches = sorted({batch for by_batch in found.values() for batch in by_batch})
        size = 2.2 * len(found), 2.2 * len(batches)
        with picture(folder / f"{name}.png", *size) as figure:
            grid = figure.subplots(len(batches), len(found), squeeze=False, sharey=True)
            for row, batch in zip(grid, batches, strict=True):
                for axes, (optimizer, by_batch) in zip(row, found.items(), strict=True):
                    for (color, style), (width, tuned) in zip(
                        STYLES, sorted(by_batch[batch].items()), strict=False
                    ):
                        look = {"color": color, "marker": ".", "label": f"width {width}"}
                        axes.plot(tuned.rates, tuned.losses.mean(axis=1), style, **look)
                        axes.axvline(tuned.best(), color=color, linestyle=":", linewidth=0.7)
                    axes.set(title=NAMES[optimizer], xscale="log")
                row[0].set_ylabel(f"batch size {batch}\n{LABEL}")
            for axes in grid[-1]:
                axes.set_xlabel("peak learning rate")
            legend_below(figure, labelled(grid[0, 0]), 4)


def widths_of(comparison: Comparison) -> list[int]:
    """Return the widths that are compared, rising."""
    return sorted({as_lm(run).width for run in comparison.runs()})


def as_lm(run: studies.AnyConfig) -> lm.Config:
    """Return a run of the language model as one."""
    assert isinstance(run, lm.Config)
    return run


def _rate(tuned: Tuned, best: float) -> str:
    """Write a rate, with a star where a better one may lie beyond what was tried."""
    star = "*" if best in (tuned.rates[0], tuned.rates[-1]) else ""
    return f"{best:.2g}{star}"
