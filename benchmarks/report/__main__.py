"""Writes measured tables and pictures where people read them, from the records alone.

    python -m benchmarks.report

A record is one JSON line in benchmarks/records/<date>-<what>/; a section of a document stands
between `<!-- name -->` and `<!-- /name -->`. The newest folder of a name counts. What has records
and no section of its own in RESULTS.md is shown in its section `further`.
"""

import contextlib
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.paper import attenuation, studies, variants
from benchmarks.paper.catalog import STUDIES
from benchmarks.report import (
    bounce_tables,
    cost_tables,
    eps_table,
    figures,
    findings,
    goals,
    held_norms,
    missing,
    problem_runs,
    problem_tables,
    rival_tables,
    search_tables,
    study_tables,
    transfer_tables,
)
from benchmarks.tools.records import RECORDS, records_of
from examples import quickstart
from examples.results.records import Record
from examples.training import command

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FURTHER = "further"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Brings every generated section and picture up to date."""

    check: bool = False
    """Change nothing; fail if a section is not what its records say."""


def main(config: ReportConfig) -> None:
    """Write, or check, the sections."""
    readme, results = ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md"
    first_run = newest("quickstart")
    longest = quickstart.longest(first_run)
    of_readme = f"{quickstart.score_table(longest)}\n\n{quickstart.spread(longest)}"
    refresh(readme, "quickstart", of_readme, check=config.check)
    refresh(readme, "tuned-anew", findings.tuned_anew(), check=config.check)
    refresh(readme, "costs", cost_tables.beside_adam(cost_tables.load()), check=config.check)
    bodies = sections(first_run, draw=not config.check)
    for name, body in placed(bodies, results.read_text(encoding="utf-8")).items():
        refresh(results, name, body, check=config.check)
    if not config.check:
        # Not checked, because the last digit may be another on another machine.
        refresh(readme, "describe", printed(readme.read_text(encoding="utf-8")))
        quickstart.draw(DOCS / "quickstart.png", first_run)


def sections(first_run: Sequence[Record], *, draw: bool) -> dict[str, str]:
    """Return what each section of RESULTS.md says, "" where it has no records; draw if asked."""
    datasets = {study.base.dataset for study in STUDIES.values()}
    found = studies.index([record for name in datasets for record in records_of(name)])
    costs, photographs = cost_tables.load(), records_of("imagenet")
    parted = attenuation.of_defaults(records_of("attenuation"))
    searched = search_tables.load()
    tunings = search_tables.simulate_all(searched)
    switches = problem_runs.load(variants.SWITCHING, variants.by_switch)
    checked = problem_runs.load(variants.CHECKING, variants.by_switch)
    projections = problem_runs.load(variants.PROJECTING, variants.by_projection)
    held, flattened = held_norms.load(), held_norms.load_rescue()
    held_later = problem_runs.load(variants.HOLDING, variants.by_start)
    transfers, bouncing = transfer_tables.load(), bounce_tables.load()
    tables = study_tables.SECTIONS
    pages = {
        "findings": findings.table(
            [
                *findings.of_studies(found),
                *findings.of_first_run(first_run),
                *findings.of_switches(switches, checked),
                *findings.of_projections(projections),
                *findings.of_held_norms(held),
                *findings.of_searches(tunings),
            ]
        ),
        "missing": missing.table(
            [
                *(entry for s in tables.values() for entry in study_tables.missing(s, found)),
                *study_tables.imagenet_missing(photographs),
                *problem_tables.missing("automatic switches", variants.SWITCHING, switches),
                *problem_tables.missing(
                    "automatic switches at other rates", variants.CHECKING, checked
                ),
                *problem_tables.missing("projections", variants.PROJECTING, projections),
                *held_norms.missing(held, flattened),
                *problem_tables.missing("norms held later", variants.HOLDING, held_later),
                *search_tables.missing(searched),
                *eps_table.missing(searched),
                *rival_tables.missing(searched),
                *transfer_tables.missing(transfers),
                *bounce_tables.missing(bouncing),
                *goals.missing(costs),
            ]
        ),
        "quickstart": quickstart.table(first_run),
        "imagenet": study_tables.imagenet(photographs),
        "figure-1": figures.caption_branches("../docs/attenuation.png", parted),
        "held-norms": held_norms.plane("../docs/held-norms.png", held),
        "held-later": problem_tables.held_later(held_later),
        "switches": problem_tables.switches(switches),
        "switches-peaks": problem_tables.switches(checked),
        "projections": problem_tables.projections(projections),
        "rescue": held_norms.rescue(flattened, held),
        **search_tables.sections(tunings),
        "adamw-eps": eps_table.text(searched),
        **rival_tables.sections(searched),
        **transfer_tables.sections(transfers),
        **bounce_tables.sections(bouncing),
    }
    if draw:
        figures.draw_branches(DOCS / "attenuation.png", parted)
        held_norms.draw(DOCS / "held-norms.png", held)
        search_tables.draw(DOCS, tunings, searched)
        rival_tables.draw(DOCS, searched)
        transfer_tables.draw(DOCS, transfers)
        bounce_tables.draw(DOCS, bouncing)
    pages |= {name: study_tables.render(section, found) for name, section in tables.items()}
    return pages | cost_tables.sections(costs) | pictures(found, draw=draw)


def pictures(found: study_tables.Found, *, draw: bool) -> dict[str, str]:
    """Return the captions of Figures 2 and 4; draw them if asked."""
    bodies = {}
    for of_paper in figures.OF_PAPER:
        panels = of_paper.panels
        by_batch, by_free = figures.by_batch(panels, found), figures.by_free(panels, found)
        batches, free = (f"{of_paper.prefix}{x}.png" for x in ("batch-size", "free-epochs"))
        if draw:
            ylabel = figures.score(panels)
            figures.draw_lines(DOCS / batches, by_batch, "batch size", ylabel)
            figures.draw_lines(DOCS / free, by_free, "free epochs", ylabel)
        bodies[of_paper.by_batch] = figures.caption_batch_sizes(
            f"../docs/{batches}", panels, by_batch, found
        )
        bodies[of_paper.by_free] = figures.caption_free_epochs(
            f"../docs/{free}", panels, by_free, found
        )
    return bodies


def placed(bodies: Mapping[str, str], document: str) -> dict[str, str]:
    """Return bodies by the section of a document that takes them.

    Raises:
      ValueError: if a section has lost its records.
    """
    has = lambda name: f"<!-- {name} -->" in document
    for name, body in bodies.items():
        if has(name) and not body:
            raise ValueError(f"no records for <!-- {name} -->: restore them, or cut the section.")
    own = {name: body for name, body in bodies.items() if has(name)}
    others = [f"## {name}\n\n{b}" for name, b in bodies.items() if b and not has(name)]
    return own | {FURTHER: "\n\n".join(others)}


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


def newest(name: str) -> list[Record]:
    """Return the records of the newest folder called `<date>-<name>`."""
    found = records_of(name)
    if not found:
        raise FileNotFoundError(f"no folder <date>-{name} in {RECORDS}: make its records.")
    return found


def fill(text: str, name: str, body: str) -> str:
    """Return `text` with `body` between the markers of `name`."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, flags=re.DOTALL):
        raise ValueError(f"no section <!-- {name} --> ... <!-- /{name} --> to fill.")
    return re.sub(pattern, lambda m: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    command.run(main, command.parser(ReportConfig, "benchmarks.report", __doc__))
