"""The report: documents that agree with their records, and what it says of what was not run."""

from pathlib import Path

import pytest

from benchmarks.report import __main__ as report
from benchmarks.report import first_run, imagenet_table, part
from benchmarks.tools.records import newest
from examples.tasks.images import recipes


def test_the_readme_shows_what_the_records_say():
    report.main(report.ReportConfig(check=True))


def test_settings_chosen_anew_are_those_that_the_readme_of_the_records_has():
    folder = newest("quickstart-lengths")
    rows = [
        line for line in (folder / "README.md").read_text().splitlines() if "| 60        |" in line
    ]
    told = {cells[1].strip(): cells[6].strip() for cells in (row.split("|") for row in rows)}
    text = first_run.tuned_anew(60)
    assert all(f"{method} {told[method]} (of 20" in text for method in ("AdamW", "Adam-LAWN"))


def test_the_table_of_imagenet_takes_a_setting_as_it_is_and_no_other():
    config = {"dataset": "imagenet2012", "train_images": None, "model": "resnet50", "width": 1.0}
    config |= recipes.RECIPES["adam-lawn-256"].options
    versions = {"commit": "abc"}

    def run(seed, accuracy, **changes):
        final = {"accuracy": accuracy, "ece": 0.05}
        shared = {"seed": seed, "final": final, "versions": versions, "device": "gpu"}
        return {"config": config | changes, **shared}

    others = [run(2, 0.1, train_images=512), run(3, 0.1, batch_size=512), run(4, 0.1, width=0.5)]
    runs = [run(0, 0.75), run(1, 0.77, accumulate=4), *others]
    text = imagenet_table.table(runs)
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("| ")}
    assert "| 76.00 ± 1.00 | 0.050 ± 0.000 | 2 | 76.18 (0.03) " in lines["adam-lawn-256"]
    assert len(lines) == 3  # of which two are the head
    unrun = {entry.what: entry for entry in imagenet_table.missing(runs)}
    assert "ImageNet, ResNet-50: adam-lawn-256" not in unrun
    assert "adam-lawn-16k --data-dir DIR" in unrun["ImageNet, ResNet-50: adam-lawn-16k"].command


def test_a_section_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"no section <!-- table -->"):
        report.fill("text", "table", "body")


def test_a_section_without_records_is_named_and_one_without_a_place_is_shown_at_the_end():
    first, second = Path("RESULTS.md"), Path("SPEED.md")
    pages = {
        first: "<!-- old -->\n<!-- /old -->\n<!-- further -->\n<!-- /further -->",
        second: "<!-- cost -->\n<!-- /cost -->",
    }
    shown = report.placed({"old": "a", "cost": "c", "new": "b", "none": ""}, pages)
    assert shown == {first: {"old": "a", "further": "## new\n\nb"}, second: {"cost": "c"}}
    with pytest.raises(ValueError, match="no records for <!-- old -->: restore them"):
        report.placed({"old": ""}, pages)


def test_a_finding_links_to_the_page_of_its_table():
    pages = {Path("RESULTS.md"): "# Own: 1\n", Path("SPEED.md"): "# S\n\n## What a step costs\n"}
    finding = lambda section: part.Finding("time", "1", "2", "3", section)
    table = part.table_of_findings([finding("What a step costs"), finding("Own: 1")], pages)
    assert "(SPEED.md#what-a-step-costs)" in table
    assert "(#own-1)" in table


def test_what_one_command_runs_is_one_row():
    entries = [part.Missing(what, "", "run it") for what in ("first", "second")]
    row = part.table_of_missing([*entries, part.Missing("third", "1", "another")]).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in row] == ["first; second", "third"]


def test_every_row_says_what_was_measured_and_every_command_is_one():
    *measured, closing = (page.read_text(encoding="utf-8") for page in report.PAGES)
    assert all("not yet run |" not in text for text in measured)
    rows = [line for line in closing.splitlines() if line.startswith("| ")][2:]
    assert rows
    assert all("`python -m " in row or "`JAX_PLATFORMS=cpu python -m " in row for row in rows)


def test_a_document_that_differs_from_its_records_fails_the_check(tmp_path):
    document = tmp_path / "RESULTS.md"
    document.write_text("<!-- table -->\nold\n<!-- /table -->\n")
    with pytest.raises(SystemExit, match=r"RESULTS.md differs from its records"):
        report.refresh(document, "table", "new", check=True)
    report.refresh(document, "table", "new")
    report.refresh(document, "table", "new", check=True)
    assert document.read_text() == "<!-- table -->\nnew\n<!-- /table -->\n"
