"""Makes the tables of what studies measured, beside the paper's figures.

A table has a row for each set of settings that an optimizer chose from. What was not run is no row
here: `missing` lists it, with the command that runs it. HR@10 and accuracy are of the last epoch,
as the paper reports them, and of each seed's best epoch.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.paper import catalog, reported, studies
from benchmarks.paper.studies import FREE, AnyConfig, Study
from benchmarks.report.part import Finding, Missing, Part, sweep_command
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import records_of
from examples.results import records, tables
from examples.training.traits import WITH_DECAY, OptimizerName

PAPERS_FIVE: dict[OptimizerName, str] = {
    "sgd": "SGD",
    "adam": "Adam",
    "adam_lawn": "Adam-LAWN",
    "lamb": "LAMB",
    "lamb_lawn": "LAMB-LAWN",
}

Found = Mapping[str, records.Record]  # By `studies.identity`.


class Row(NamedTuple):
    """Says what is measured, and what the paper reports of it."""

    name: str
    study: Study
    optimizer: OptimizerName
    paper: str


class Table(NamedTuple):
    """Holds the rows of one batch size."""

    title: str
    rows: list[Row]


class Column(NamedTuple):
    """Says what is shown of a run.

    Attributes:
      title: its head.
      curve: name of what is recorded of every epoch.
      of: takes `(seeds,)` of `(seeds, epochs)`.
      digits: after the point.
    """

    title: str
    curve: str
    of: Callable[[np.ndarray], np.ndarray]
    digits: int


class Section(NamedTuple):
    """Holds tables of one kind, and which of the paper's they stand beside; "" for none."""

    source: str
    columns: Sequence[Column]
    tables: list[Table]


class Measured(NamedTuple):
    """Says what an optimizer chose from a set, and how it did.

    Attributes:
      chosen: the setting.
      tuning: the score that it was chosen by.
      runs: of the seeds that are reported.
      curves: `(seeds, epochs)` by name.
    """

    chosen: AnyConfig
    tuning: float
    runs: list[records.Record]
    curves: dict[str, np.ndarray]


def last(curve: np.ndarray) -> np.ndarray:
    """Take the last epoch: `(seeds, epochs)` -> `(seeds,)`."""
    return curve[:, -1]


def last_percent(curve: np.ndarray) -> np.ndarray:
    """Take the last epoch of a share, in percent."""
    return 100 * curve[:, -1]


def best_percent(curve: np.ndarray) -> np.ndarray:
    """Take each seed's best epoch of a share, in percent."""
    return 100 * curve.max(axis=1)


HIT_RATIO = (
    Column("last epoch", "hr_at_10", last_percent, 2),
    Column("best epoch", "hr_at_10", best_percent, 2),
)
ACCURACY = (
    Column("last epoch", "accuracy", last_percent, 2),
    Column("best epoch", "accuracy", best_percent, 2),
)
CALIBRATION = (
    Column("ECE", "ece", last, 3),
    Column("NLL", "nll", last, 3),
    Column("median margin", "held_out_margin_p50", last, 2),
    Column("training images in the flat zone, %", "flat_share", last_percent, 1),
)


def _title(study: Study) -> str:
    base = study.base
    return f"{base.dataset}, batch size {base.batch_size:,}, {base.epochs} epochs"


def _rows(study: Study, optimizers: Sequence[OptimizerName]) -> list[Row]:
    return [Row(PAPERS_FIVE[o], study, o, study.paper.get(o, "")) for o in optimizers]


def _five(source: str, columns: Sequence[Column], group: Sequence[Study]) -> Section:
    """Return the paper's five optimizers in each of some studies."""
    made = [Table(_title(study), _rows(study, [*PAPERS_FIVE])) for study in group]
    return Section(source, columns, made)


def _instead(columns: Sequence[Column], group: Sequence[catalog.Alternatives]) -> Section:
    """Return the paper's Table 2."""
    made = []
    for smoothed, decayed, bounded in group:
        rows = [
            Row("Adam, label smoothing 0.05", smoothed, "adam", smoothed.paper["adam"]),
            Row("Adam, weight decay", decayed, "adam", decayed.paper["adam"]),
            Row("Adam, bounded weight norm", bounded, "adam", bounded.paper["adam"]),
            Row("Adam-LAWN", decayed, "adam_lawn", decayed.paper["adam_lawn"]),
        ]
        made.append(Table(_title(decayed), rows))
    return Section("Table 2", columns, made)


def _focal(columns: Sequence[Column], group: Sequence[Study]) -> Section:
    """Return the paper's Table 5."""
    made = [
        Table(f"{_title(study)}, gamma {study.base.gamma:g}", _rows(study, [*study.paper]))
        for study in group
    ]
    return Section("Table 5", columns, made)


def _calibration(group: Sequence[Study]) -> Section:
    """Return the paper's Table 6, at the batch size that its text is about most."""
    made = []
    for study in group:
        figures = reported.TABLE_6[study.base.dataset]
        rows = [Row(PAPERS_FIVE[o], study, o, figure) for o, figure in figures.items()]
        made.append(Table(_title(study), rows))
    return Section("Table 6", CALIBRATION, made)


SECTIONS = {
    "movielens-100k": _five("Table 9", HIT_RATIO, catalog.MOVIELENS_100K),
    "movielens-100k-40": _five("Table 9", HIT_RATIO, catalog.MOVIELENS_100K_FINER),
    "movielens-100k-full": _five("Table 9", HIT_RATIO, catalog.MOVIELENS_100K_FULL),
    "movielens-1m": _five("Table 10", HIT_RATIO, catalog.MOVIELENS_1M),
    "movielens-1m-short": _five("Table 10", HIT_RATIO, catalog.MOVIELENS_1M_SHORT),
    "pinterest-20": _five("Table 11", HIT_RATIO, catalog.PINTEREST),
    "instead-of-decay": _instead(HIT_RATIO, catalog.INSTEAD_OF_DECAY),
    "focal": _focal(HIT_RATIO, catalog.FOCAL),
    "cifar10-small": _five("", (*ACCURACY, *CALIBRATION), catalog.CIFAR10_SMALL),
    "cifar10": _five("Table 7", ACCURACY, catalog.CIFAR10),
    "cifar100": _five("Table 7", ACCURACY, catalog.CIFAR100),
    "calibration": _calibration((catalog.CIFAR10[1], catalog.CIFAR100[1])),
    "cifar-instead-of-decay": _instead(ACCURACY, catalog.INSTEAD_OF_DECAY_IMAGES),
    "cifar-focal": _focal(ACCURACY, catalog.FOCAL_IMAGES),
}


def part() -> Part:
    """Return the tables of all studies."""
    found = load()
    return Part(
        {name: render(section, found) for name, section in SECTIONS.items()},
        list(findings(found)),
        [entry for section in SECTIONS.values() for entry in missing(section, found)],
    )


@functools.cache
def load() -> Found:
    """Return the runs of all studies by what they are of."""
    datasets = dict.fromkeys(study.base.dataset for study in catalog.STUDIES.values())
    return studies.index([record for name in datasets for record in records_of(name)])


def measure(study: Study, optimizer: OptimizerName, found: Found) -> dict[str, Measured]:
    """Return what was measured, by the name of the set chosen from; missing runs leave it out."""
    measured = {}
    for name, settings in study.grids(optimizer).items():
        chosen = study.choose(settings, found)
        if chosen is None:
            continue
        wanted = [studies.identity(run.config()) for run in studies.reported(chosen)]
        runs = [found[run] for run in wanted if run in found]
        if len(runs) == len(wanted):
            tried = found[studies.identity(study.tried(chosen).config())]
            curves = {
                curve: np.array([run["curve"][curve] for run in runs], float)
                for curve in study.example.curves
                if all(curve in run["curve"] for run in runs)
            }
            score = tried["final"][study.example.score]
            measured[name] = Measured(chosen, score, runs, curves)
    return measured


def render(section: Section, found: Found) -> str:
    """Return the tables of which anything was run, "" if nothing was."""
    shown = [column.title for column in section.columns]
    heads = ("optimizer", "chosen from", *shown, "n", "setting chosen", "in its tuning run")
    if section.source:
        heads = (*heads, f"the paper's, {section.source}")
    parts = []
    for table in section.tables:
        rows = [line for row in table.rows for line in lines(section, row, found)]
        if rows:
            parts += [f"### {table.title}"]
            parts += [tables.markdown(heads, [row[: len(heads)] for row in rows])]
            parts += [_tried(table)]
    if parts:
        parts += [f"{provenance(runs_of(section, found))}."]
    return "\n\n".join(parts)


def lines(section: Section, row: Row, found: Found) -> list[tuple[str, ...]]:
    """Return a line for each set that was chosen from, the paper's figure in the first."""
    cells: list[tuple[str, ...]] = []
    grids = row.study.grids(row.optimizer)
    for name, (chosen, tuning, runs, curves) in measure(row.study, row.optimizer, found).items():
        shown = [
            tables.mean_and_error(column.of(curves[column.curve]), digits=column.digits)
            for column in section.columns
        ]
        setting = _setting(chosen, grids[name])
        results = (*shown, str(len(runs)), setting, f"{100 * tuning:.2f}")
        figure = "" if cells else row.paper
        cells.append((row.name, f"{name}, {len(grids[name])} settings", *results, figure))
    return cells


def missing(section: Section, found: Found) -> list[Missing]:
    """Return what of a section was not run, an entry per table."""
    entries = []
    for table in section.tables:
        unrun = [row for row in table.rows if _lacks(row, found)]
        if unrun:
            command = sweep_command(*dict.fromkeys(row.study.name for row in unrun))
            if len(unrun) < len(table.rows):
                command += f" --optimizers {' '.join(dict.fromkeys(r.optimizer for r in unrun))}"
            figures = ", ".join(f"{row.name} {row.paper}" for row in unrun if row.paper)
            beside = f"{section.source}: {figures}" if figures else ""
            what = table.title
            if len(unrun) < len(table.rows):
                what += f": settings of {', '.join(row.name for row in unrun)}"
            entries.append(Missing(what, beside, command))
    return entries


def runs_of(section: Section, found: Found) -> list[records.Record]:
    """Return the records behind its cells: of all settings tried, and of those chosen."""
    runs: dict[str, records.Record] = {}
    for row in (row for table in section.tables for row in table.rows):
        for setting in itertools.chain(*row.study.to_try(row.optimizer)):
            tried = studies.identity(row.study.tried(setting).config())
            runs |= {tried: found[tried]} if tried in found else {}
        for measured in measure(row.study, row.optimizer, found).values():
            runs |= {studies.identity(run["config"]): run for run in measured.runs}
    return list(runs.values())


def findings(found: Found) -> Iterator[Finding]:
    """Yield where scores end: Adam-LAWN beside Adam, each as it was tuned."""
    groups = {
        "MovieLens-100k, 40 to 100 epochs": catalog.MOVIELENS_100K,
        "MovieLens-100k, 40 epochs on a finer grid": catalog.MOVIELENS_100K_FINER,
        "CIFAR-10, small: what a CPU can do": catalog.CIFAR10_SMALL,
    }
    for section, group in groups.items():
        for study in group:
            yield from _findings(study, section, found)


def _findings(study: Study, section: str, found: Found) -> Iterator[Finding]:
    adam = [_ended(study, "adam", name, found) for name in study.decays_of("adam")]
    beside = "; ".join(filter(None, adam))
    base, score = study.base, {"hr_at_10": "HR@10"}.get(study.example.score, study.example.score)
    for chosen_from in (FREE, study.switch):
        measured = measure(study, "adam_lawn", found).get(chosen_from)
        if measured and beside:
            figure = tables.mean_and_error(
                last_percent(measured.curves[study.example.score]), digits=2
            )
            what = (
                f"{score} in percent, {base.dataset}, batch size {base.batch_size:,}, {base.epochs}"
                f" epochs: Adam-LAWN, {'tuned over ' if chosen_from == FREE else ''}{chosen_from}"
            )
            yield Finding(what, figure, beside, str(len(measured.runs)), section)


def _ended(study: Study, optimizer: OptimizerName, chosen_from: str, found: Found) -> str:
    measured = measure(study, optimizer, found).get(chosen_from)
    if measured is None:
        return ""
    ended = tables.mean_and_error(last_percent(measured.curves[study.example.score]), digits=2)
    return f"{PAPERS_FIVE[optimizer]}, {chosen_from}: {ended}"


def _lacks(row: Row, found: Found) -> bool:
    """Tell whether any set that a row chooses from was not run."""
    return measure(row.study, row.optimizer, found).keys() < row.study.grids(row.optimizer).keys()


def _setting(chosen: AnyConfig, settings: Sequence[AnyConfig]) -> str:
    """Say its hyperparameters, and whether more of one might have been better still."""
    hyperparameters = {"learning_rate": "peak {:g}"}
    if chosen.optimizer in WITH_DECAY:
        hyperparameters["weight_decay"] = "decay {:g}"
    elif not isinstance(chosen.free_epochs, str):
        hyperparameters["free_epochs"] = "{:g} free epochs"
    words = []
    for field, words_of in hyperparameters.items():
        value, values = getattr(chosen, field), [getattr(run, field) for run in settings]
        words.append(words_of.format(value))
        if len(set(values)) > 1 and value == max(values):
            words[-1] += " (highest tried)"
        if len(set(values)) > 1 and value == min(values) > 0:
            words[-1] += " (lowest tried)"
    return ", ".join(words)


def _tried(table: Table) -> str:
    """Say the settings of its studies in words."""
    listed = lambda values: "{" + ", ".join(f"{x:g}" for x in values) + "}"
    said = []
    for study in {row.study.name: row.study for row in table.rows}.values():
        by_rates: dict[tuple[float, ...], list[str]] = {}
        for optimizer, rates in study.learning_rates.items():
            by_rates.setdefault(tuple(rates), []).append(PAPERS_FIVE[optimizer])
        peaks = "; ".join(f"{' and '.join(n)} {listed(rates)}" for rates, n in by_rates.items())
        sets = lambda of: " or ".join(f"{name} {listed(values)}" for name, values in of.items())
        decays = sets(study.decays)
        if study.sgd_decays:
            decays += f" (SGD: {sets(study.sgd_decays)})"
        tuned = ""
        if study.tuning:
            changes = [f"{x:,} {name.replace('_', ' ')}" for name, x in study.tuning.items()]
            tuned = (
                f" Tuned with {' and '.join(changes)}; warm-up and free phase are then the same"
                " share."
            )
        said.append(
            f"{study.base.warmup_epochs:g} epochs of warm-up. Peak learning rates: {peaks}; times"
            f" weight decay, {decays}, or free epochs {listed(study.free_epochs)};"
            f" {study.switch} has none of these.{tuned}"
        )
    return "\n\n".join(dict.fromkeys(said))
