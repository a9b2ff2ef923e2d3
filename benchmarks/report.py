"""Writes measured tables and pictures where people read them, from the records alone.

    python -m benchmarks.report

A record is one JSON line in benchmarks/records/<date>-<what>/; a section of a document stands
between `<!-- name -->` and `<!-- /name -->`. The newest folder of a name counts.
"""

import contextlib
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tyro

from benchmarks import costs, studies
from examples import ncf, quickstart, records, tables
from examples.options import OptimizerName

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "records"
NOT_YET_RUN = "not yet run"

NAMES: dict[OptimizerName, str] = {
    "sgd": "SGD",
    "adam": "Adam",
    "adam_lawn": "Adam-LAWN",
    "lamb": "LAMB",
    "lamb_lawn": "LAMB-LAWN",
}
# The paper's own figures, test HR@10 with standard error. They stand in their own column only.
TABLE_9: dict[str, dict[OptimizerName, str]] = {
    "movielens-100k-1k": {
        "sgd": "66.33 (0.24)",
        "adam": "66.01 (0.25)",
        "adam_lawn": "66.81 (0.17)",
        "lamb": "65.45 (0.25)",
        "lamb_lawn": "66.56 (0.22)",
    },
    "movielens-100k-10k": {
        "sgd": "65.58 (0.17)",
        "adam": "66.03 (0.15)",
        "adam_lawn": "66.91 (0.15)",
        "lamb": "65.34 (0.16)",
        "lamb_lawn": "66.54 (0.20)",
    },
    "movielens-100k-100k": {
        "sgd": "Fail",
        "adam": "63.20 (0.24)",
        "adam_lawn": "66.24 (0.16)",
        "lamb": "64.23 (0.16)",
        "lamb_lawn": "66.52 (0.25)",
    },
    "movielens-100k-400k": {
        "sgd": "Fail",
        "adam": "63.98 (0.25)",
        "adam_lawn": "66.14 (0.22)",
        "lamb": "62.57 (0.17)",
        "lamb_lawn": "66.14 (0.23)",
    },
}
COLUMNS = (
    "optimizer",
    "chosen from",
    "last epoch",
    "best epoch",
    "n",
    "setting chosen",
    "the paper's, Table 9",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Brings every generated section and picture up to date."""

    check: bool = False
    """Change nothing; fail if a section is not what its records say."""


def main(config: Config) -> None:
    """Writes, or checks, the sections."""
    digits, movielens = newest("quickstart"), newest("movielens-100k")
    readme, results = ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md"
    refresh(readme, "quickstart", quickstart.table(digits), check=config.check)
    refresh(results, "movielens-100k", hit_ratios(movielens), check=config.check)
    for document, name, body in costs.sections(RECORDS, results):
        refresh(document, name, body, check=config.check)
    if not config.check:
        # Not checked, for the last digit may be another on another machine.
        refresh(readme, "describe", printed(readme.read_text(encoding="utf-8")))
        quickstart.draw(ROOT / "docs" / "quickstart.png", digits)


def refresh(document: Path, name: str, body: str, *, check: bool = False) -> None:
    """Writes a section, or fails if it is not up to date."""
    text = document.read_text(encoding="utf-8")
    updated = fill(text, name, body)
    if check and updated != text:
        raise SystemExit(f"{document} differs from its records: run python -m benchmarks.report")
    if updated != text:
        document.write_text(updated, encoding="utf-8")


def printed(readme: str) -> str:
    """What the first block of code prints."""
    code = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)[0]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    return f"```\n{out.getvalue().rstrip()}\n```"


def hit_ratios(found: Sequence[records.Record]) -> str:
    """A table for each batch size, with what was tried, and how to run what was not."""
    runs, parts = studies.index(found), []
    for name, paper in TABLE_9.items():
        study = studies.STUDIES[name]
        rows = [row for optimizer in NAMES for row in compare(study, optimizer, runs, paper)]
        parts += [f"### Batch size {study.base.batch_size:,}", tables.markdown(COLUMNS, rows)]
        parts += [_grid(study)]
        if any(NOT_YET_RUN in row for row in rows):
            command = f"python -m benchmarks.sweep --study {name} --data-dir DIR"
            parts += [f"What is not yet run: `{command}`, then `python -m benchmarks.report`."]
    return "\n\n".join(parts)


def compare(
    study: studies.Study,
    optimizer: OptimizerName,
    found: Mapping[str, records.Record],
    paper: Mapping[OptimizerName, str],
) -> list[tuple[str, ...]]:
    """One for each set that the optimizer chose from; the paper's figure in the first."""
    rows: list[tuple[str, ...]] = []
    for name, tried in studies.grids(study, optimizer).items():
        cells = _measured(studies.choose(tried, found), found)
        figure = "" if rows else paper[optimizer]
        rows.append((NAMES[optimizer], f"{name}, {len(tried)} settings", *cells, figure))
    return rows


def _measured(
    chosen: ncf.Config | None, found: Mapping[str, records.Record]
) -> tuple[str, str, str, str]:
    """Last epoch, best epoch, n and the setting."""
    missing = NOT_YET_RUN, NOT_YET_RUN, "", ""
    if chosen is None:
        return missing
    seeds = [dataclasses.replace(chosen, first_seed=seed) for seed in studies.REPORTING_SEEDS]
    runs = [found.get(studies.identity(run.config())) for run in seeds]
    if None in runs:
        return missing
    curves = 100 * np.array([run["curve"]["hr_at_10"] for run in runs if run])
    last, best = (tables.mean_and_error(x, digits=2) for x in (curves[:, -1], curves.max(axis=1)))
    knob = f"decay {chosen.weight_decay:g}"
    if chosen.free_epochs != "auto":
        knob = f"{chosen.free_epochs:g} free epochs"
    return last, best, str(len(curves)), f"peak {chosen.learning_rate:g}, {knob}"


def _grid(study: studies.Study) -> str:
    """What was tried, in words."""
    listed = lambda values: "{" + ", ".join(f"{x:g}" for x in values) + "}"
    rates = ", ".join(f"{NAMES[o]} {listed(study.learning_rates[o])}" for o in NAMES)
    return (
        f"{study.base.epochs} epochs, {study.base.warmup_epochs:g} of warm-up. Peak learning rates:"
        f" {rates}; times weight decay, the paper's {listed(studies.PAPER_DECAYS)} or the wide set"
        f" {listed(studies.WIDE_DECAYS)}, or free epochs {listed(study.free_epochs)}."
    )


def newest(name: str) -> list[records.Record]:
    """The records of the newest folder called `<date>-<name>`."""
    folders = sorted(RECORDS.glob(f"????-??-??-{name}"))
    if not folders:
        raise FileNotFoundError(f"no folder <date>-{name} in {RECORDS}: make its records first.")
    files = sorted(folders[-1].glob("*.jsonl"))
    return [record for file in files for record in records.read_records(file)]


def fill(text: str, name: str, body: str) -> str:
    """`text` with `body` between the markers of `name`."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, flags=re.DOTALL):
        raise ValueError(f"no section <!-- {name} --> ... <!-- /{name} --> to fill.")
    return re.sub(pattern, lambda m: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.report"))
