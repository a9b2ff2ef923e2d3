"""Shows the score to expect from tuning over a given number of settings.

A tuning is simulated many times over: one of the searches, its settings in a random order, and the
held-out users drawn anew with replacement, the same for every optimizer. The setting with the best
score on validation items so far is taken, and its score on the test items counts, which no choice
has seen.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from benchmarks.paper import studies
from benchmarks.paper.catalog import SEARCHES
from benchmarks.paper.studies import Search
from benchmarks.report import search_slices, study_tables
from benchmarks.report.missing import Missing
from benchmarks.report.study_tables import Found
from benchmarks.tools.records import read_bits, records_of
from examples.results import tables
from examples.results.plots import LOOK, STYLES
from examples.results.records import Record

REPLICATES = 2000
BAND = (10, 90)  # Percentiles of what is simulated.
NEAR = 1.0  # Points below the best setting.


class Hits(NamedTuple):
    """Holds which held-out items are among the first ten: `(searches, trials, users)` bools."""

    validation: np.ndarray
    test: np.ndarray


class Simulated(NamedTuple):
    """Holds what simulated tunings of one space come to.

    Attributes:
      best: `(replicates, trials)`; the test score in percent of the setting chosen so far.
      near: `(replicates,)`; the share of settings within a point of the best of any space.
    """

    best: np.ndarray
    near: np.ndarray


def load() -> Found:
    """Return the runs by what they are of."""
    return studies.index(records_of("searches"))


def done(search: Search, found: Found) -> list[int]:
    """Return which of the searches were run to their end."""
    lacks = lambda i: any(
        studies.identity(run.config()) not in found
        for space in search.spaces
        for run in search.settings(space, i)
    )
    return [i for i in range(search.searches) if not lacks(i)]


def simulate(hits: Mapping[str, Hits], seed: int = 0) -> dict[str, Simulated]:
    """Simulate tunings of every space.

    Args:
      hits: by space, of as many searches, trials and users.
      seed: of the orders and the users.
    """
    rng = np.random.default_rng(seed)
    searches, trials, users = next(iter(hits.values())).test.shape
    best = {space: np.empty((REPLICATES, trials)) for space in hits}
    near = {space: np.empty(REPLICATES) for space in hits}
    for replicate in range(REPLICATES):
        search = rng.integers(searches)
        drawn = rng.multinomial(users, np.full(users, 1 / users)) * 100 / users
        test = {space: of_space.test[search] @ drawn for space, of_space in hits.items()}
        highest = max(scores.max() for scores in test.values())
        for space, of_space in hits.items():
            order = rng.permutation(trials)
            validation = (of_space.validation[search] @ drawn)[order]
            so_far = np.maximum.accumulate(validation)
            # The first trial that has the best score so far.
            chosen = np.maximum.accumulate(
                np.where(validation > np.append(-1, so_far[:-1]), np.arange(trials), 0)
            )
            best[space][replicate] = test[space][order][chosen]
            near[space][replicate] = np.mean(test[space] >= highest - NEAR)
    return {space: Simulated(best[space], near[space]) for space in hits}


def sections(found: Found) -> dict[str, str]:
    """Return the tables by search, "" where none was run to its end."""
    return {name: page(search, found) for name, search in SEARCHES.items()}


def page(search: Search, found: Found) -> str:
    """Return the picture of a search, what it shows, and its figures."""
    runs = _runs(search, found)
    if not runs:
        return ""
    simulated = simulate(_hits(search, found))
    budgets = [2**i for i in range(int(np.log2(search.trials)) + 1)]
    first, *_ = simulated
    rows = []
    for space, of_space in simulated.items():
        cells = [_range(of_space.best[:, budget - 1]) for budget in budgets]
        ahead = np.mean(of_space.best[:, -1] > simulated[first].best[:, -1])
        beside = "" if space == first else f"{100 * ahead:.0f}%"
        rows.append((space, *cells, beside, _range(100 * of_space.near, digits=0)))
    columns = (
        "tuned",
        *(f"{budget} trials" if budget > 1 else "1 trial" for budget in budgets),
        f"ahead of {first}",
        "settings near the best, %",
    )
    base, spaces = search.base, "; ".join(map(_space, search.spaces.items()))
    text = (
        f"HR@10 in percent on test items, {base.dataset}, batch size {base.batch_size:,},"
        f" {base.epochs} epochs, of the setting that is best on validation items: median of"
        f" simulated tunings, with the range of the middle {BAND[1] - BAND[0]}%."
        f" {len(done(search, found))} searches of {search.trials} settings each. {spaces}."
        f" Ahead: the share of tunings with all trials that end above {first}'s. Near the best:"
        f" within {NEAR:g} point on the test items. {study_tables.provenance(runs)}."
    )
    slices = (
        f"![HR@10 by what is tuned](../docs/{search.name}-slices.png)\n\nEvery setting of all"
        " searches, after the last epoch on the test items, by each of its hyperparameters; the"
        " line joins the best of each eighth of a range."
    )
    return (
        f"![HR@10 by the number of trials](../docs/{search.name}.png)\n\n{text}\n\n"
        f"{tables.markdown(columns, rows)}\n\n{slices}"
    )


def missing(found: Found) -> list[Missing]:
    """Return what was not run."""
    return [
        Missing(
            f"tuned as hard, batch size {search.base.batch_size:,}:"
            f" {search.searches - len(done(search, found))} searches",
            "",
            f"python -m benchmarks.paper.sweep --study {name} --data-dir DIR",
        )
        for name, search in SEARCHES.items()
        if len(done(search, found)) < search.searches
    ]


def draw(folder: Path, found: Found) -> None:
    """Draw the score of the chosen setting against the number of trials, and by what is tuned."""
    for name, search in SEARCHES.items():
        if not done(search, found):
            continue
        with mpl.rc_context(LOOK):
            figure = Figure(figsize=(4.6, 3.2), layout="constrained")
            axes = figure.subplots()
            simulated = simulate(_hits(search, found))
            for (color, style), (space, of_space) in zip(STYLES, simulated.items(), strict=False):
                x = np.arange(1, search.trials + 1)
                low, high = np.percentile(of_space.best, BAND, axis=0)
                axes.plot(x, np.median(of_space.best, axis=0), style, color=color, label=space)
                axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.set(xlabel="settings tried", ylabel="HR@10 on test items (%)")
            axes.legend(frameon=False, loc="lower right")
            figure.savefig(folder / f"{name}.png", dpi=160)
        by_space = search_slices.slices(search, found)
        search_slices.draw_slices(folder / f"{name}-slices.png", by_space, "HR@10")


def _runs(search: Search, found: Found) -> list[Record]:
    """Return the runs of the searches that were run to their end."""
    return [
        found[studies.identity(run.config())]
        for i in done(search, found)
        for space in search.spaces
        for run in search.settings(space, i)
    ]


def _hits(search: Search, found: Found) -> dict[str, Hits]:
    """Return what the trials of each space get right."""
    hits = {}
    for space in search.spaces:
        runs = [
            [found[studies.identity(run.config())] for run in search.settings(space, i)]
            for i in done(search, found)
        ]
        hits[space] = Hits(
            *(np.array([[read_bits(run[name]) for run in of_search] for of_search in runs])
              for name in ("validation_hits", "hits"))
        )  # fmt: skip
    return hits


def _range(values: np.ndarray, digits: int = 1) -> str:
    """Write the median, with the range of the band."""
    low, middle, high = np.percentile(values, (BAND[0], 50, BAND[1]))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _space(item: tuple[str, tuple]) -> str:
    """Say what is drawn from where."""
    space, (_, ranges) = item
    drawn = ", ".join(
        f"{name.replace('_', ' ')} {low:g} to {high:g}" for name, (low, high) in ranges.items()
    )
    return f"{space}: {drawn}"
