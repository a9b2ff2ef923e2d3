"""Item recommendation in RESULTS.md: what the records of sweeps say, beside the paper's figures.

A table has a row for each set of settings that an optimizer chose from. Where none of a table's
rows was run, the table is one line, with the command that fills it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import paper, studies
from examples import ncf, records, tables
from examples.options import OptimizerName

NOT_YET_RUN = "not yet run"
NAMES: dict[OptimizerName, str] = {
    "sgd": "SGD",
    "adam": "Adam",
    "adam_lawn": "Adam-LAWN",
    "lamb": "LAMB",
    "lamb_lawn": "LAMB-LAWN",
}
COLUMNS = ("optimizer", "chosen from", "last epoch", "best epoch", "n", "setting chosen")

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


class Section(NamedTuple):
    """Tables of one kind, and which of the paper's they stand beside."""

    source: str
    tables: list[Table]


class Measured(NamedTuple):
    """What an optimizer chose from a set, and how it did.

    Attributes:
      chosen: the setting.
      curves: `(seeds, epochs)`, HR@10 in percent.
    """

    chosen: ncf.Config
    curves: np.ndarray


def measure(study: studies.Study, optimizer: OptimizerName, found: Found) -> dict[str, Measured]:
    """By the name of the set chosen from; a set of which runs are missing is left out."""
    measured = {}
    for name, tried in study.grids(optimizer).items():
        chosen = studies.choose(tried, found)
        if chosen is None:
            continue
        runs = [found.get(studies.identity(r.config())) for r in studies.report_with(chosen)]
        curves = [run["curve"]["hr_at_10"] for run in runs if run]
        if len(curves) == len(runs):
            measured[name] = Measured(chosen, 100 * np.array(curves))
    return measured


def _batch(study: str) -> str:
    return f"Batch size {studies.STUDIES[study].base.batch_size:,}"


def _five(source: str, figures: paper.Figures, names: str) -> Section:
    """The paper's five optimizers at each of its batch sizes."""
    batches = []
    for size, column in figures.items():
        study = names.format(size)
        rows = [Row(NAMES[o], study, o, column[o]) for o in NAMES]
        batches.append(Table(f"{_batch(study)}, {studies.STUDIES[study].base.epochs} epochs", rows))
    return Section(source, batches)


def _instead_of_decay(size: str) -> Table:
    """Table 2 at one batch size."""
    study, column = f"movielens-1m-{size}", paper.TABLE_2[size]
    rows = [
        Row("Adam, label smoothing 0.05", f"{study}-smoothed", "adam", column["smoothed"]),
        Row("Adam, weight decay", study, "adam", paper.TABLE_10[size]["adam"]),
        Row("Adam, bounded weight norm", f"{study}-bounded", "adam", column["bounded"]),
        Row("Adam-LAWN", study, "adam_lawn", paper.TABLE_10[size]["adam_lawn"]),
    ]
    return Table(_batch(study), rows)


def _focal(name: str) -> Table:
    """Table 5 at one batch size and gamma."""
    study = f"movielens-1m-{name}"
    both: tuple[OptimizerName, ...] = ("adam", "adam_lawn")
    rows = [Row(NAMES[o], study, o, paper.TABLE_5[name][o]) for o in both]
    return Table(f"{_batch(study)}, gamma {studies.STUDIES[study].base.gamma:g}", rows)


SECTIONS = {
    "movielens-100k": _five("Table 9", paper.TABLE_9, "movielens-100k-{}"),
    "movielens-100k-full": _five("Table 9", paper.TABLE_9, "movielens-100k-{}-full"),
    "movielens-1m": _five("Table 10", paper.TABLE_10, "movielens-1m-{}"),
    "pinterest-20": _five("Table 11", paper.TABLE_11, "pinterest-20-{}"),
    "instead-of-decay": Section("Table 2", [_instead_of_decay(size) for size in paper.TABLE_2]),
    "focal": Section("Table 5", [_focal(name) for name in paper.TABLE_5]),
}
# The sections that compare batch sizes, by what a panel of a picture calls them.
BY_BATCH = {
    "MovieLens-100k": SECTIONS["movielens-100k"],
    "MovieLens-100k, the paper's epochs": SECTIONS["movielens-100k-full"],
    "MovieLens-1M": SECTIONS["movielens-1m"],
    "Pinterest": SECTIONS["pinterest-20"],
}


def render(section: Section, found: Found) -> str:
    """The tables of which anything was run, then a line for each of the others."""
    parts, unrun = [], []
    for table in section.tables:
        rows = [line for row in table.rows for line in lines(row, found)]
        if all(NOT_YET_RUN in line for line in rows):
            unrun.append(table)
            continue
        parts += [f"### {table.title}"]
        parts += [tables.markdown((*COLUMNS, f"the paper's, {section.source}"), rows)]
        parts += [_tried(table)]
        if any(NOT_YET_RUN in line for line in rows):
            parts += [f"What is {NOT_YET_RUN}: `{_command(table)}`"]
    if unrun:
        columns = ("", *(row.name for row in unrun[0].rows), "what fills it")
        cells = [(t.title, *(r.paper for r in t.rows), f"`{_command(t)}`") for t in unrun]
        parts += [f"Not yet run, with the figures of the paper's {section.source}:"]
        parts += [tables.markdown(columns, cells)]
    runs = runs_of(section, found)
    if runs:
        parts += [f"{provenance(runs)}."]
    return "\n\n".join(parts)


def lines(row: Row, found: Found) -> list[tuple[str, ...]]:
    """One for each set that was chosen from, the paper's figure in the first; one for none."""
    study = studies.STUDIES[row.study]
    measured = measure(study, row.optimizer, found)
    if not measured:
        return [(row.name, "", NOT_YET_RUN, NOT_YET_RUN, "", "", row.paper)]
    cells: list[tuple[str, ...]] = []
    for name, tried in study.grids(row.optimizer).items():
        figure = "" if cells else row.paper
        results = (NOT_YET_RUN, NOT_YET_RUN, "", "")
        if name in measured:
            chosen, curves = measured[name]
            ends = curves[:, -1], curves.max(axis=1)
            last, best = (tables.mean_and_error(x, digits=2) for x in ends)
            results = (last, best, str(len(curves)), _setting(chosen, tried))
        cells.append((row.name, f"{name}, {len(tried)} settings", *results, figure))
    return cells


def runs_of(section: Section, found: Found) -> list[records.Record]:
    """The records of its studies."""
    names = {row.study for table in section.tables for row in table.rows}
    wanted = {studies.shared(studies.STUDIES[name].base.config()) for name in names}
    return [record for record in found.values() if studies.shared(record["config"]) in wanted]


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


def _setting(chosen: ncf.Config, tried: Sequence[ncf.Config]) -> str:
    """Its knobs, and whether more of one might have been better still."""
    knob = "weight_decay" if chosen.free_epochs == "auto" else "free_epochs"
    words = []
    for field, words_of in (
        ("learning_rate", "peak {:g}"),
        (knob, "decay {:g}" if knob == "weight_decay" else "{:g} free epochs"),
    ):
        value, values = getattr(chosen, field), [getattr(run, field) for run in tried]
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
    for study in map(studies.STUDIES.__getitem__, dict.fromkeys(row.study for row in table.rows)):
        by_rates: dict[tuple[float, ...], list[str]] = {}
        for optimizer, rates in study.learning_rates.items():
            by_rates.setdefault(tuple(rates), []).append(NAMES[optimizer])
        peaks = "; ".join(f"{' and '.join(n)} {listed(rates)}" for rates, n in by_rates.items())
        decays = " or ".join(f"{name} {listed(values)}" for name, values in study.decays.items())
        said.append(
            f"{study.base.warmup_epochs:g} epochs of warm-up. Peak learning rates: {peaks}; times"
            f" weight decay, {decays}, or free epochs {listed(study.free_epochs)}."
        )
    return "\n\n".join(dict.fromkeys(said))


def _command(table: Table) -> str:
    names = " ".join(dict.fromkeys(row.study for row in table.rows))
    return f"python -m benchmarks.sweep --study {names} --data-dir DIR"
