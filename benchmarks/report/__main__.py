"""Writes measured tables and pictures where people read them, from the records alone.

    python -m benchmarks.report

A record is one JSON line in benchmarks/records/<date>-<what>/; a section of a document stands
between `<!-- name -->` and `<!-- /name -->`. The newest folder of a name counts.
"""

import contextlib
import dataclasses
import io
import re
from pathlib import Path

from benchmarks.measure import epoch
from benchmarks.paper import attenuation, studies
from benchmarks.paper.catalog import STUDIES
from benchmarks.report import cost_tables, figures, image_costs, imagenet, outline, sections
from benchmarks.tools import folders
from benchmarks.tools.folders import RECORDS
from examples import quickstart
from examples.results import records
from examples.training import command

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Brings every generated section and picture up to date."""

    check: bool = False
    """Change nothing; fail if a section is not what its records say."""


def main(config: Config) -> None:
    """Writes, or checks, the sections."""
    readme, results = ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md"
    first_run = newest("quickstart")
    refresh(readme, "quickstart", quickstart.table(first_run), check=config.check)
    for name, body in tuned(draw=not config.check).items():
        refresh(results, name, body, check=config.check)
    speed = image_costs.section(folders.records_of("image-speed"))
    refresh(results, "image-speed", speed, check=config.check)
    photographs = imagenet.section(folders.records_of("imagenet"))
    refresh(results, "imagenet", photographs, check=config.check)
    for document, name, body in cost_tables.sections(RECORDS, results):
        refresh(document, name, body, check=config.check)
    if not config.check:
        # Not checked, for the last digit may be another on another machine.
        refresh(readme, "describe", printed(readme.read_text(encoding="utf-8")))
        quickstart.draw(DOCS / "quickstart.png", first_run)


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


def tuned(*, draw: bool) -> dict[str, str]:
    """Sections by name: the tables, then the figures with their captions; draws these if asked."""
    datasets = {study.base.dataset for study in STUDIES.values()}
    found = studies.index([record for name in datasets for record in folders.records_of(name)])
    bodies = {name: sections.render(section, found) for name, section in outline.SECTIONS.items()}
    parted = attenuation.of_defaults(folders.records_of("attenuation"))
    bodies["figure-1"] = figures.caption_branches("../docs/attenuation.png", parted)
    bodies["epoch-time"] = epoch.section(folders.records_of("epoch-time"))
    if draw:
        figures.draw_branches(DOCS / "attenuation.png", parted)
    for comparison in outline.COMPARISONS:
        panels = comparison.panels
        by_batch, by_free = figures.by_batch(panels, found), figures.by_free(panels, found)
        batches, free = (f"{comparison.pictures}{x}.png" for x in ("batch-size", "free-epochs"))
        if draw:
            ylabel = figures.score(panels)
            figures.draw_lines(DOCS / batches, by_batch, "batch size", ylabel)
            figures.draw_lines(DOCS / free, by_free, "free epochs", ylabel)
        captions = (
            figures.caption_batch_sizes(f"../docs/{batches}", panels, by_batch, found),
            figures.caption_free_epochs(f"../docs/{free}", panels, by_free, found),
        )
        bodies |= dict(zip((comparison.by_batch, comparison.by_free), captions, strict=True))
    return bodies


def newest(name: str) -> list[records.Record]:
    """The records of the newest folder called `<date>-<name>`."""
    found = folders.records_of(name)
    if not found:
        raise FileNotFoundError(f"no folder <date>-{name} in {RECORDS}: make its records.")
    return found


def fill(text: str, name: str, body: str) -> str:
    """`text` with `body` between the markers of `name`."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, flags=re.DOTALL):
        raise ValueError(f"no section <!-- {name} --> ... <!-- /{name} --> to fill.")
    return re.sub(pattern, lambda m: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    command.run(main, command.parser(Config, "benchmarks.report", __doc__))
