"""Writes measured tables and pictures where people read them, from the records alone.

    python -m benchmarks.report

A record is one JSON line in benchmarks/records/<date>-<what>/; a section of a document stands
between `<!-- name -->` and `<!-- /name -->`. The newest folder of a name counts. What has records
and no section in any document is shown at the end of RESULTS.md.
"""

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.report import (
    attenuation_figure,
    bounce_tables,
    cost_tables,
    eps_table,
    figures,
    first_run,
    held_norms,
    imagenet_table,
    problem_tables,
    rival_tables,
    search_tables,
    study_tables,
    transfer_tables,
    trial_figure,
)
from benchmarks.report.part import Part, table_of_findings, table_of_missing
from examples.results import tables
from examples.training import command

# In the order of their findings, and of what was not run.
PARTS: tuple[Callable[[], Part], ...] = (
    study_tables.part,
    imagenet_table.part,
    first_run.part,
    problem_tables.part,
    trial_figure.part,
    held_norms.part,
    search_tables.part,
    eps_table.part,
    rival_tables.part,
    transfer_tables.part,
    bounce_tables.part,
    cost_tables.part,
    attenuation_figure.part,
    figures.part,
)
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = tuple(ROOT / "benchmarks" / name for name in ("RESULTS.md", "SPEED.md", "NOT_RUN.md"))
FURTHER = "further"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Brings every generated section and picture up to date."""

    check: bool = False
    """Change nothing; fail if a section is not what its records say."""


def main(config: ReportConfig) -> None:
    """Write, or check, the sections."""
    parts = [part() for part in PARTS]
    for part in parts:
        for name, body in part.of_readme.items():
            refresh(README, name, body, check=config.check)
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES}
    for page, bodies in placed(sections(parts, pages), pages).items():
        for name, body in bodies.items():
            refresh(page, name, body, check=config.check)
    if not config.check:
        # Not checked, because the last digit may be another on another machine.
        refresh(README, "describe", printed(README.read_text(encoding="utf-8")))
        for part in parts:
            part.draw(DOCS)


def sections(parts: Sequence[Part], pages: Mapping[Path, str]) -> dict[str, str]:
    """Return what each section of the pages says, "" where it has no records."""
    found = [finding for part in parts for finding in part.findings]
    unrun = [entry for part in parts for entry in part.missing]
    of_parts = {name: body for part in parts for name, body in part.sections.items()}
    return of_parts | {
        "findings": table_of_findings(found, pages),
        "missing": table_of_missing(unrun),
    }


def placed(bodies: Mapping[str, str], pages: Mapping[Path, str]) -> dict[Path, dict[str, str]]:
    """Return bodies by the page and the section that takes them.

    Raises:
      ValueError: if a section has lost its records.
    """
    page_of = {
        name: page for page, text in pages.items() for name in bodies if f"<!-- {name} -->" in text
    }
    for name in page_of:
        if not bodies[name]:
            raise ValueError(f"no records for <!-- {name} -->: restore them, or cut the section.")
    others = [f"## {name}\n\n{b}" for name, b in bodies.items() if b and name not in page_of]
    of_pages = tables.group(page_of, page_of.__getitem__)
    filled = {page: {name: bodies[name] for name in names} for page, names in of_pages.items()}
    first = next(iter(pages))
    return filled | {first: filled.get(first, {}) | {FURTHER: "\n\n".join(others)}}


def refresh(document: Path, name: str, body: str, *, check: bool = False) -> None:
    """Write a section, or fail if it is not up to date."""
    text = document.read_text(encoding="utf-8")
    updated = fill(text, name, body)
    if check and updated != text:
        raise SystemExit(
            f"error: <!-- {name} --> of {document} differs from its records: run python -m"
            " benchmarks.report"
        )
    if updated != text:
        document.write_text(updated, encoding="utf-8")


def printed(readme: str) -> str:
    """Return what the first block of code prints."""
    code = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)[0]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    return f"```\n{out.getvalue().rstrip()}\n```"


def fill(text: str, name: str, body: str) -> str:
    """Return `text` with `body` between the markers of `name`."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, flags=re.DOTALL):
        raise ValueError(f"no section <!-- {name} --> ... <!-- /{name} --> to fill.")
    return re.sub(pattern, lambda m: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    command.run(main, command.parser(ReportConfig, "benchmarks.report", __doc__))
