"""Sections of RESULTS.md: what the records of sweeps say, beside the paper's figures.

A table has a row for each set of settings that an optimizer chose from. Where none of a table's
rows was run, the table is one line, with the command that fills it.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.paper import studies
from benchmarks.paper.catalog import STUDIES
from benchmarks.paper.studies import AnyConfig, Study
from benchmarks.tools.folders import NOT_YET_RUN
from examples.results import records, tables
from examples.training.options import WITH_DECAY, OptimizerName

NAMES: dict[OptimizerName, str] = {
    "sgd": "SGD",
    "adam": "Adam",
    "adam_lawn": "Adam-LAWN",
    "lamb": "LAMB",
    "lamb_lawn": "LAMB-LAWN",
}

Found = Mapping[str, records.Record]  # By `studies.identity`.


class Row(NamedTuple):
    """What is measured, and what the paper reports of it."""

    name: str
    study: str
    optimizer: OptimizerName
    paper: str


class Table(NamedTuple):
    """The rows of one batch size."""

    title: str
    rows: list[Row]


class Column(NamedTuple):
    """What is shown of a run.

    Attributes:
      title: its head.
      curve: name of what is recorded of every epoch.
      of: what is taken of `(seeds, epochs)`: `(seeds,)`.
      digits: after the point.
    """

    title: str
    curve: str
    of: Callable[[np.ndarray], np.ndarray]
    digits: int


class Section(NamedTuple):
    """Tables of one kind, and which of the paper's they stand beside; "" for none."""

    source: str
    columns: Sequence[Column]
    tables: list[Table]


class Measured(NamedTuple):
    """What an optimizer chose from a set, and how it did.

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
    """`(seeds, epochs)` -> `(seeds,)`, after the last epoch."""
    return curve[:, -1]


def last_percent(curve: np.ndarray) -> np.ndarray:
    """The same of a share, in percent."""
    return 100 * curve[:, -1]


def best_percent(curve: np.ndarray) -> np.ndarray:
    """`(seeds, epochs)` -> `(seeds,)`, at each seed's best epoch, in percent."""
    return 100 * curve.max(axis=1)


def measure(study: Study, optimizer: OptimizerName, found: Found) -> dict[str, Measured]:
    """By the name of the set chosen from; a set of which runs are missing is left out."""
    measured = {}
    for name, settings in study.grids(optimizer).items():
        chosen = study.choose(settings, found)
        if chosen is None:
            continue
        wanted = [studies.identity(run.config()) for run in study.reported(chosen)]
        runs = [found[run] for run in wanted if run in found]
        if len(runs) == len(wanted):
            tried = found[studies.identity(study.tried(chosen).config())]
            curves = {
                curve: np.array([run["curve"][curve] for run in runs], float)
                for curve in study.example.curves
            }
            score = tried["final"][study.example.score]
            measured[name] = Measured(chosen, score, runs, curves)
    return measured


def render(section: Section, found: Found) -> str:
    """The tables of which anything was run, then a line for each of the others."""
    parts, unrun = [], []
    shown = [column.title for column in section.columns]
    heads = ("optimizer", "chosen from", *shown, "n", "setting chosen", "in its tuning run")
    if section.source:
        heads = (*heads, f"the paper's, {section.source}")
    for table in section.tables:
        rows = [line for row in table.rows for line in lines(section, row, found)]
        if all(NOT_YET_RUN in line for line in rows):
            unrun.append(table)
            continue
        parts += [f"### {table.title}"]
        parts += [tables.markdown(heads, [row[: len(heads)] for row in rows])]
        parts += [_tried(table)]
        if any(NOT_YET_RUN in line for line in rows):
            parts += [f"What is {NOT_YET_RUN}: `{_command(table)}`"]
    if unrun:
        columns = ("", *(row.name for row in unrun[0].rows), "what fills it")
        cells = [(t.title, *(r.paper for r in t.rows), f"`{_command(t)}`") for t in unrun]
        beside = f", with the figures of the paper's {section.source}" if section.source else ""
        parts += [f"Not yet run{beside}:"]
        parts += [tables.markdown(columns, cells)]
    runs = runs_of(section, found)
    if runs:
        parts += [f"{provenance(runs)}."]
    return "\n\n".join(parts)


def lines(section: Section, row: Row, found: Found) -> list[tuple[str, ...]]:
    """One for each set that was chosen from, the paper's figure in the first; one for none."""
    study = STUDIES[row.study]
    measured = measure(study, row.optimizer, found)
    unrun = (*[NOT_YET_RUN] * len(section.columns), "", "", "")
    if not measured:
        return [(row.name, "", *unrun, row.paper)]
    cells: list[tuple[str, ...]] = []
    for name, settings in study.grids(row.optimizer).items():
        results = unrun
        if name in measured:
            chosen, tuning, runs, curves = measured[name]
            shown = [
                tables.mean_and_error(column.of(curves[column.curve]), digits=column.digits)
                for column in section.columns
            ]
            setting = _setting(chosen, settings)
            results = (*shown, str(len(runs)), setting, f"{100 * tuning:.2f}")
        figure = "" if cells else row.paper
        cells.append((row.name, f"{name}, {len(settings)} settings", *results, figure))
    return cells


def runs_of(section: Section, found: Found) -> list[records.Record]:
    """The records behind its cells: of all settings that were tried, and of those chosen."""
    runs: dict[str, records.Record] = {}
    for row in (row for table in section.tables for row in table.rows):
        study = STUDIES[row.study]
        for setting in itertools.chain(*study.to_try(row.optimizer)):
            tried = studies.identity(study.tried(setting).config())
            runs |= {tried: found[tried]} if tried in found else {}
        for measured in measure(study, row.optimizer, found).values():
            runs |= {studies.identity(run["config"]): run for run in measured.runs}
    return list(runs.values())


def provenance(runs: Sequence[records.Record]) -> str:
    """How many runs, with which seeds, on what and from which commits."""
    every = lambda values: ", ".join(sorted(set(values)))
    tuning = sum(run["seed"] == studies.TUNING_SEED for run in runs)
    what = f"{len(runs)} runs"
    if tuning:
        what = f"{tuning} runs of one seed to tune, {len(runs) - tuning} of others to report"
    devices = every(run["device"] for run in runs)
    commits = every(run["versions"]["commit"] or "unknown" for run in runs)
    return f"{what}, on {devices}, at commit {commits}"


def _setting(chosen: AnyConfig, settings: Sequence[AnyConfig]) -> str:
    """Its hyperparameters, and whether more of one might have been better still."""
    hyperparameters = {"learning_rate": "peak {:g}"}
    if chosen.optimizer in WITH_DECAY:
        hyperparameters["weight_decay"] = "decay {:g}"
    elif chosen.free_epochs != "auto":
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
    """The settings of its studies, in words."""
    listed = lambda values: "{" + ", ".join(f"{x:g}" for x in values) + "}"
    said = []
    for study in map(STUDIES.__getitem__, dict.fromkeys(row.study for row in table.rows)):
        by_rates: dict[tuple[float, ...], list[str]] = {}
        for optimizer, rates in study.learning_rates.items():
            by_rates.setdefault(tuple(rates), []).append(NAMES[optimizer])
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
            f" weight decay, {decays}, or free epochs {listed(study.free_epochs)}; the automatic"
            f" switch has none of these.{tuned}"
        )
    return "\n\n".join(dict.fromkeys(said))


def _command(table: Table) -> str:
    names = " ".join(dict.fromkeys(row.study for row in table.rows))
    return f"python -m benchmarks.paper.sweep --study {names} --data-dir DIR"
