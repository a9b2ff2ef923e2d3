"""Shows the score to expect from tuning over a given number of settings.

A tuning is simulated many times over: one of the searches, its settings in a random order, and what
is held out, users or pieces of a text, drawn anew with replacement, the same for every optimizer.
The setting with the best score on validation data so far is taken, and its score on test data
counts, which no choice has seen.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import FormatStrFormatter
from scipy import stats

from benchmarks.paper import studies
from benchmarks.paper.searches import AS_HARD, AS_HARD_SMALL, SEARCHES
from benchmarks.paper.studies import Search
from benchmarks.report import search_slices
from benchmarks.report.part import Finding, Missing, Part, sweep_command
from benchmarks.report.provenance import origin
from benchmarks.report.study_tables import Found
from benchmarks.tools.records import records_of
from examples.results import tables
from examples.results.plots import labelled, legend_below, picture, styles
from examples.results.records import Record

REPLICATES = 2000
BAND = (10, 90)  # Percentiles of what is simulated.
BANDS = 4  # More of them would hide the lines; the table has them all.
IN_ONE_TABLE = [search.name for search in AS_HARD_SMALL]
SOME_BUDGETS = (1, 4, 16)  # Of the trials that a row shows there.


def part() -> Part:
    """Return the tables of the searches that tune optimizers alike."""
    found = load()
    tunings = simulate_all(found)
    return Part(
        sections(tunings),
        list(findings(tunings)),
        missing(found),
        draw=lambda folder: draw(folder, tunings, found),
    )


class Scores(NamedTuple):
    """Holds what each held-out example scores: `(searches, trials, examples)`, more is better.

    Of as many validation as test examples, the two of one place belong to the same user or text.
    """

    validation: np.ndarray
    test: np.ndarray


class Simulated(NamedTuple):
    """Holds what simulated tunings of one space come to.

    Attributes:
      best: `(replicates, trials)`; the mean test score of the setting chosen so far.
      near: `(replicates,)`; the share of settings near the best of any space.
    """

    best: np.ndarray
    near: np.ndarray


class End(NamedTuple):
    """Says what a tuning with all trials comes to.

    Attributes:
      what: the score in words.
      score: how much, with its range.
      ahead: how often it ends above the first space's.
    """

    what: str
    score: str
    ahead: str


@functools.cache
def load() -> Found:
    """Return the runs of all searches by what they are of."""
    return studies.index(records_of("searches"))


class Done(NamedTuple):
    """Says what of a search was run to its end.

    Attributes:
      search: with the spaces that have all of the searches below.
      searches: which ones, those that most spaces have; none where most have none.
      lacking: how many searches a space lacks, by space, where it lacks any.
    """

    search: Search
    searches: tuple[int, ...]
    lacking: Mapping[str, int]


def done(search: Search, found: Found) -> Done:
    """Return what was run to its end: a space that is new hides nothing of the others."""
    has_run = lambda run: studies.identity(run.config()) in found
    of_space = {
        space: tuple(
            i for i in range(search.searches) if all(map(has_run, search.settings(space, i)))
        )
        for space in search.spaces
    }
    ((searches, _),) = collections.Counter(of_space.values()).most_common(1)
    spaces = {name: x for name, x in search.spaces.items() if {*of_space[name]} >= {*searches}}
    lacking = {name: search.searches - len(ended) for name, ended in of_space.items()}
    return Done(
        dataclasses.replace(search, spaces=spaces),
        searches,
        {name: count for name, count in lacking.items() if count},
    )


def simulate(scores: Mapping[str, Scores], near: float, seed: int = 0) -> dict[str, Simulated]:
    """Simulate tunings of every space.

    Args:
      scores: by space, of as many searches, trials and examples.
      near: how far below the best test score a setting still counts as near it.
      seed: of the orders and of what is drawn.
    """
    rng = np.random.default_rng(seed)
    some = next(iter(scores.values()))
    (searches, trials, n), of_validation = some.test.shape, some.validation.shape[-1]
    best = {space: np.empty((REPLICATES, trials)) for space in scores}
    share = {space: np.empty(REPLICATES) for space in scores}
    for replicate in range(REPLICATES):
        search = rng.integers(searches)
        weights = _drawn(rng, n)
        # The validation and the test score of one user are drawn together.
        beside = weights if of_validation == n else _drawn(rng, of_validation)
        test = {space: of_space.test[search] @ weights for space, of_space in scores.items()}
        highest = max(of_space.max() for of_space in test.values())
        for space, of_space in scores.items():
            order = rng.permutation(trials)
            validation = (of_space.validation[search] @ beside)[order]
            so_far = np.maximum.accumulate(validation)
            # The first trial that has the best score so far.
            better = validation > np.append(-np.inf, so_far[:-1])
            chosen = np.maximum.accumulate(np.where(better, np.arange(trials), 0))
            best[space][replicate] = test[space][order][chosen]
            share[space][replicate] = np.mean(test[space] >= highest - near)
    return {space: Simulated(best[space], share[space]) for space in scores}


def _drawn(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return the weights of `n` examples that are drawn anew with replacement."""
    return rng.multinomial(n, np.full(n, 1 / n)) / n


def ranks(simulated: Mapping[str, Simulated]) -> np.ndarray:
    """Return the rank of each space after all trials, `(spaces, replicates)`; equals share one."""
    ends = np.stack([of_space.best[:, -1] for of_space in simulated.values()])
    return stats.rankdata(-ends, axis=0)


class Tunings(NamedTuple):
    """Holds the simulated tunings of a search.

    Attributes:
      part: what of the search was run to its end.
      runs: by space, those of each of the searches.
      simulated: by space.
    """

    part: Done
    runs: Mapping[str, list[list[Record]]]
    simulated: Mapping[str, Simulated]


def simulate_all(found: Found) -> dict[str, Tunings]:
    """Return the tunings by the name of the search, of those that were run to their end."""
    parts = {name: done(search, found) for name, search in SEARCHES.items()}
    tunings = {}
    for name, part in parts.items():
        if part.searches:
            runs, detail = runs_of(part, found), _detail(part.search)
            tunings[name] = Tunings(part, runs, simulate(_scores(runs, detail), detail.near))
    return tunings


def sections(tunings: Mapping[str, Tunings]) -> dict[str, str]:
    """Return the tables by search, "" where none was run to its end."""
    own = {
        name: page(tunings[name]) if name in tunings else ""
        for name in SEARCHES
        if name not in IN_ONE_TABLE
    }
    return own | {"as-hard-small": summary([tunings[x] for x in IN_ONE_TABLE if x in tunings])}


def summary(several: Sequence[Tunings]) -> str:
    """Return one table of several searches of the same spaces."""
    if not several:
        return ""
    rows = [
        (tunings.part.search.what, *row)
        for tunings in several
        for row in _rows(tunings, SOME_BUDGETS)
    ]
    columns = ("problem", *_columns(several[0], SOME_BUDGETS))
    text = _provenance(several)
    return f"{tables.markdown(columns, rows)}\n\n{text}"


def page(tunings: Tunings) -> str:
    """Return the pictures of a search, what they show, and its figures."""
    search, detail = tunings.part.search, _detail(tunings.part.search)
    budgets = [2**i for i in range(int(np.log2(search.trials)) + 1)]
    rows = []
    for space, *row in _rows(tunings, budgets):
        _, ranges = search.spaces[space]
        drawn = ", ".join(f"{name.replace('_', ' ')} {of}" for name, of in ranges.items())
        rows.append((space, *row, drawn))
    columns = (*_columns(tunings, budgets), "drawn from")
    text = f"{detail.what}, {search.what}. {_provenance([tunings])}"
    pictures = (
        f"![{detail.what} by the number of trials](../docs/{search.name}.png)",
        f"![{detail.what} by what is tuned](../docs/{search.name}-slices.png)",
    )
    return "\n\n".join([text, tables.markdown(columns, rows), *pictures])


def _rows(tunings: Tunings, budgets: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Yield what is tuned, what that comes to, its rank, and how it stands to the first."""
    detail, simulated = _detail(tunings.part.search), tunings.simulated
    first, *_ = simulated
    for (space, of_space), rank in zip(simulated.items(), ranks(simulated), strict=True):
        shown = [_score(of_space, budget, detail) for budget in budgets]
        beside = "" if space == first else _ahead(of_space, simulated[first])
        near = _range(100 * of_space.near, digits=0)
        yield (space, *shown, _range(rank, digits=0), beside, near)


def _columns(tunings: Tunings, budgets: Sequence[int]) -> tuple[str, ...]:
    """Return the heads of `_rows`."""
    first, *_ = tunings.simulated
    trials = (f"{budget} trials" if budget > 1 else "1 trial" for budget in budgets)
    return ("tuned", *trials, "rank", f"ahead of {first}", "settings near the best, %")


def _provenance(several: Sequence[Tunings]) -> str:
    """Say how much was run, and where, of searches that are alike."""
    part, detail = several[0].part, _detail(several[0].part.search)
    counts = sorted({len(tunings.part.searches) for tunings in several})
    every = itertools.chain.from_iterable
    runs = [run for tunings in several for trials in tunings.runs.values() for run in every(trials)]
    return (
        f"Searches: {' or '.join(map(str, counts))}, of {part.search.trials} settings each. Near"
        f" the best: within {detail.near:g}. {len(runs)} runs, {origin(runs)}."
    )


def ends(tunings: Tunings) -> dict[str, End]:
    """Return what a tuning with all trials comes to, by space."""
    search, detail, simulated = tunings.part.search, _detail(tunings.part.search), tunings.simulated
    first = next(iter(simulated.values()))
    return {
        space: End(detail.what, _score(of, search.trials, detail), _ahead(of, first))
        for space, of in simulated.items()
    }


def findings(tunings: Mapping[str, Tunings]) -> Iterator[Finding]:
    """Yield what a tuning with all trials comes to, LAWN's beside that of weight decay."""
    for search in AS_HARD:
        if search.name in tunings:
            first, *others = (ended := ends(tunings[search.name]))
            count = len(tunings[search.name].part.searches)
            for space in others:
                yield Finding(
                    f"{ended[space].what}, {search.what}: {space}, {search.trials} trials",
                    ended[space].score,
                    f"{first}: {ended[first].score}; {space} ends ahead in {ended[space].ahead}",
                    f"{count} search{'es' if count > 1 else ''}",
                    "Tuned as hard",
                )


def missing(found: Found) -> list[Missing]:
    """Return what was not run."""
    entries = []
    for name, search in SEARCHES.items():
        lacking = done(search, found).lacking
        for count, spaces in tables.group(lacking, lacking.__getitem__).items():
            who = f"all {len(spaces)}" if len(spaces) == len(search.spaces) else ", ".join(spaces)
            lacks = f"{count} of {search.searches} searches missing"
            entries.append(
                Missing(
                    f"tuned alike, {search.what}: {who}, {lacks}",
                    "",
                    sweep_command(name),
                )
            )
    return entries


def draw(folder: Path, tunings: Mapping[str, Tunings], found: Found) -> None:
    """Draw the score of the chosen setting against the number of trials, and by what is tuned."""
    for name, (part, _, simulated) in tunings.items():
        if name in IN_ONE_TABLE:
            continue
        search, detail = part.search, _detail(part.search)
        with picture(folder / f"{name}.png", 4.8, 4) as figure:
            axes = figure.subplots()
            looks = zip(styles(len(simulated)), simulated.items(), strict=True)
            for (color, style), (space, of_space) in looks:
                x, best = np.arange(1, search.trials + 1), detail.sign * of_space.best
                low, high = np.percentile(best, BAND, axis=0)
                axes.plot(x, np.median(best, axis=0), style, color=color, label=space)
                if len(simulated) <= BANDS:
                    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.set(xlabel="settings tried", ylabel=f"{detail.what}, test data")
            legend_below(figure, labelled(axes), 3)
        by_space = search_slices.slices(search, found, test_score(search))
        search_slices.draw_slices(folder / f"{name}-slices.png", by_space, detail.what)


def runs_of(part: Done, found: Found) -> dict[str, list[list[Record]]]:
    """Return the runs of each space: those of each search that was run to its end."""
    trials = lambda space, i: [
        found[studies.identity(run.config())] for run in part.search.settings(space, i)
    ]
    return {space: [trials(space, i) for i in part.searches] for space in part.search.spaces}


def _scores(runs: Mapping[str, list[list[Record]]], detail: studies.Detail) -> dict[str, Scores]:
    """Return what the trials of each space score."""
    scores = {}
    for space, searches in runs.items():
        pairs = [[detail.read(run) for run in trials] for trials in searches]
        halves = ([[pair[half] for pair in trials] for trials in pairs] for half in (0, 1))
        scores[space] = Scores(*map(np.array, halves))
    return scores


def test_score(search: Search) -> Callable[[Record], float]:
    """Return what gives a run's score on test data, more of which is better; NaN if not finite."""
    detail = search.example.detail
    if detail:
        return lambda run: float(detail.read(run)[1].mean())
    return lambda run: float(np.array(run["final"][search.example.score], float))


def _detail(search: Search) -> studies.Detail:
    assert search.example.detail is not None
    return search.example.detail


def _score(of_space: Simulated, trials: int, detail: studies.Detail) -> str:
    return _range(detail.sign * of_space.best[:, trials - 1], _digits(detail))


def _ahead(of_space: Simulated, other: Simulated) -> str:
    """Return in which share of simulated tunings one ends better than another; a tie is half."""
    one, another = of_space.best[:, -1], other.best[:, -1]
    return f"{100 * np.mean((one > another) + 0.5 * (one == another)):.0f}%"


def _digits(detail: studies.Detail) -> int:
    """Return how many digits after the point say a tenth of what hardly matters."""
    return 1 - int(np.floor(np.log10(detail.near)))


def _range(values: np.ndarray, digits: int = 1) -> str:
    """Write the median, with the range of the band."""
    low, middle, high = np.percentile(values, (BAND[0], 50, BAND[1]))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
