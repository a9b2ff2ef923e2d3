"""Makes the first page of RESULTS.md: what was found, each with its spread and its table."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.paper import catalog, searches
from benchmarks.paper.comparisons import CROSSING, FLATTENED
from benchmarks.paper.studies import FREE, REPORTING_SEEDS, Study
from benchmarks.report import (
    held_norms,
    problem_tables,
    search_tables,
)
from benchmarks.report.problem_runs import OnProblems
from benchmarks.report.study_tables import PAPERS_FIVE, Found, measure
from benchmarks.tools.records import RECORDS
from examples.results import tables
from examples.results.records import Record
from examples.training.traits import OptimizerName

LENGTHS = RECORDS / "2026-11-26-quickstart" / "search" / "lengths.csv"


class Finding(NamedTuple):
    """Says what was found.

    Attributes:
      what: in words.
      figure: with its spread.
      beside: what it is compared with, with its spread.
      n: how many runs, or windows of time, are behind the figure.
      section: the heading of RESULTS.md that has the table.
    """

    what: str
    figure: str
    beside: str
    n: str
    section: str


def table(entries: Sequence[Finding]) -> str:
    """Return a row per finding."""
    rows = [
        (f.what, f.figure, f.beside, f.n, f"[{f.section}](#{_anchor(f.section)})") for f in entries
    ]
    return tables.markdown(("what", "measured", "beside", "n", "where"), rows)


def of_studies(found: Found) -> Iterator[Finding]:
    """Yield where the scores of studies end: Adam-LAWN beside Adam, each as it was tuned."""
    sections = {
        "MovieLens-100k, 100 epochs": catalog.MOVIELENS_100K,
        "MovieLens-100k, 40 epochs on a finer grid": catalog.MOVIELENS_100K_FINER,
        "CIFAR-10, small: what a CPU can do": catalog.CIFAR10_SMALL,
    }
    for section, group in sections.items():
        for study in group:
            yield from _of_study(study, section, found)


def _of_study(study: Study, section: str, found: Found) -> Iterator[Finding]:
    adam = [_ended(study, "adam", name, found) for name in study.decays_of("adam")]
    beside = "; ".join(filter(None, adam))
    base, score = study.base, {"hr_at_10": "HR@10"}.get(study.example.score, study.example.score)
    for chosen_from in (FREE, study.switch):
        measured = measure(study, "adam_lawn", found).get(chosen_from)
        if measured and beside:
            figure = tables.mean_and_error(_percent(study, measured.curves), digits=2)
            what = (
                f"{score} in percent, {base.dataset}, batch size {base.batch_size:,}, {base.epochs}"
                f" epochs: Adam-LAWN, {'tuned over ' if chosen_from == FREE else ''}{chosen_from}"
            )
            yield Finding(what, figure, beside, str(len(measured.runs)), section)


def _ended(study: Study, optimizer: OptimizerName, chosen_from: str, found: Found) -> str:
    measured = measure(study, optimizer, found).get(chosen_from)
    if measured is None:
        return ""
    ended = tables.mean_and_error(_percent(study, measured.curves), digits=2)
    return f"{PAPERS_FIVE[optimizer]}, {chosen_from}: {ended}"


def _percent(study: Study, curves: dict[str, np.ndarray]) -> np.ndarray:
    return 100 * curves[study.example.score][:, -1]


def of_first_run(found: Sequence[Record]) -> Iterator[Finding]:
    """Yield what the quickstart shows after its longest runs."""
    longest = max(record["config"]["epochs"] for record in found)
    runs = tables.group(
        [record for record in found if record["config"]["epochs"] == longest],
        lambda record: record["config"]["method"],
    )
    ended = {
        method: tables.mean_and_error(100 * tables.final(of_method, "hr_at_10"), digits=1)
        for method, of_method in runs.items()
    }
    *others, lawn = ended
    tuned_at = found[0]["config"]["grid"]["epochs"]
    yield Finding(
        f"HR@10 in percent, the quickstart's identifiers, tuned at {tuned_at} epochs and run for"
        f" {longest}: {lawn}",
        ended[lawn],
        "; ".join(f"{method}: {ended[method]}" for method in others),
        str(len(runs[lawn])),
        "The first run: identifiers of Python's standard library",
    )


def tuned_anew(epochs: int = 60) -> str:
    """Say what AdamW and Adam-LAWN reach if settings are chosen at the length that is reported."""
    with LENGTHS.open(encoding="utf-8", newline="") as file:
        runs = [run for run in csv.DictReader(file) if run["epochs"] == str(epochs)]
    columns = ("role", "method", "peak", "decay", "free_epochs")
    by_setting = tables.group(runs, lambda run: tuple(run[name] for name in columns))

    def mean(run_key: tuple[str, ...], name: str) -> float:
        return float(np.mean([float(run[name]) for run in by_setting[run_key]]))

    def ended(method: str) -> str:
        tried = [run_key for run_key in by_setting if run_key[:2] == ("tune", method)]
        chosen = max(
            tried,
            key=lambda k: (mean(k, "validation_hr_at_10"), mean(k, "validation_ndcg_at_10")),
        )
        reported = by_setting["report", *chosen[1:]]
        percent = 100 * np.array([run["hr_at_10"] for run in reported], float)
        of = f"of {len(tried)} settings, {len(percent)} seeds"
        return f"{method} {tables.mean_and_error(percent)} ({of})"

    return (
        f"Chosen at {epochs} epochs, on another split of the data: {ended('AdamW')},"
        f" {ended('Adam-LAWN')}."
    )


def of_switches(found: OnProblems, checked: OnProblems) -> Iterator[Finding]:
    """Yield what the automatic switch gains over Adam, beside the best free phase.

    Args:
      found: the problems on which its constants were chosen.
      checked: the same at other learning rates.
    """
    for where, on in (("problems", found), ("at other learning rates", checked)):
        if on:
            gains = problem_tables.mean_gains(on)
            shown = {what: _mean_of(list(of.values())) for what, of in gains.items()}
            others = {n: gain for n, gain in shown.items() if n != "flattening"}
            yield Finding(
                f"gain over Adam, percentage points, mean (least to most) of {len(on)} {where}:"
                " at_flattening",
                shown["flattening"],
                "; ".join(f"{problem_tables.FUNCTIONS.get(n, n)}: {x}" for n, x in others.items()),
                str(len(REPORTING_SEEDS)),
                "Automatic switches",
            )


def of_projections(found: OnProblems) -> Iterator[Finding]:
    """Yield what becomes of the scores without the projections."""
    if found:
        yield Finding(
            f"Adam-LAWN without projections, percentage points beside it with them, mean (least to"
            f" most) of {len(found)} problems",
            _mean_of(list(problem_tables.differences(found).values())),
            "",
            str(len(REPORTING_SEEDS)),
            "Without the projections",
        )


def _mean_of(gains: Sequence[float]) -> str:
    return f"{np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})"


def of_held_norms(runs: held_norms.Runs) -> Iterator[Finding]:
    """Yield what early norms are worth, whenever they are held, beside late ones and none."""
    if not runs:
        return
    percent = lambda norms: tables.mean_and_error(held_norms.percents(runs[norms]), digits=2)
    early, late, last = float(CROSSING), float(FLATTENED), max(held_norms.plane_epochs(runs))
    yield Finding(
        f"HR@10 in percent, movielens-100k, peak 0.01: the norms of epoch {early:g}, held from"
        f" epoch {last:g} on",
        percent(held_norms.Norms(early, last)),
        f"held from epoch {early:g} on: {percent(held_norms.Norms(early, early))}; those of epoch"
        f" {late:g}: {percent(held_norms.Norms(late, late))}; never held, Adam:"
        f" {percent(held_norms.NEVER)}; automatic: {percent(held_norms.AUTOMATIC)}",
        str(len(runs[held_norms.NEVER])),
        "Which norms to hold, and from when on",
    )


def of_searches(tunings: Mapping[str, search_tables.Tunings]) -> Iterator[Finding]:
    """Yield what a tuning with all trials comes to, LAWN's beside that of weight decay."""
    for search in searches.AS_HARD:
        if search.name in tunings:
            first, *others = (ended := search_tables.ends(tunings[search.name]))
            count = len(tunings[search.name].part.searches)
            for space in others:
                yield Finding(
                    f"{ended[space].what}, {search.what}: {space}, {search.trials} trials",
                    ended[space].score,
                    f"{first}: {ended[first].score}; {space} ends ahead in {ended[space].ahead}",
                    f"{count} search{'es' if count > 1 else ''}",
                    "Tuned as hard",
                )


def _anchor(heading: str) -> str:
    """Return the anchor that a Markdown heading gets."""
    kept = "".join(x for x in heading.lower() if x.isalnum() or x in " -_")
    return kept.replace(" ", "-")
