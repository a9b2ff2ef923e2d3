"""Writes measured tables and pictures where people read them, from the records alone.

    python -m benchmarks.report

A record is one JSON line in benchmarks/records/<date>-<what>/; a section of a document stands
between `<!-- name -->` and `<!-- /name -->`. The newest folder of a name counts.
"""

import dataclasses
import re
from pathlib import Path

import tyro

from examples import quickstart, records

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "records"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Brings every generated section and picture up to date."""

    check: bool = False
    """Change nothing; fail if a section is not what its records say."""


def main(config: Config) -> None:
    """Writes, or checks, the sections."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    found = newest("quickstart")
    updated = fill(text, "quickstart", quickstart.table(found))
    if config.check:
        if updated != text:
            raise SystemExit(f"{readme} differs from its records: run python -m benchmarks.report")
        return
    readme.write_text(updated, encoding="utf-8")
    quickstart.draw(ROOT / "docs" / "quickstart.png", found)


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
    main(tyro.cli(Config))
