"""The table of norms that are held later, from made records."""

import pytest

from benchmarks.paper import studies
from benchmarks.paper.holding import HOLDING, variants
from benchmarks.report import holding_tables, problem_tables

PROBLEM, BASE = next(iter(HOLDING["held-later"].items()))
SCORES = dict(zip(variants(BASE), (0.7, 0.71, 0.6, 0.5), strict=True))


@pytest.fixture
def runs(monkeypatch):
    """Records of one problem, as `sweep` would write them."""
    made = [
        {
            "config": {"benchmark": "sweep", **run.config()},
            "seed": run.first_seed,
            "final": {"accuracy": SCORES[share] + 0.01 * run.first_seed},
            "versions": {"commit": "abc"},
            "device": "cpu",
        }
        for share, setting in variants(BASE).items()
        for run in studies.reported(setting)
    ]
    monkeypatch.setattr(problem_tables, "records_of", lambda name: made)
    return made


def test_all_hold_the_norms_of_the_same_epoch():
    assert {run.norms_of for run in variants(BASE).values()} == {BASE.epochs / 10}
    assert [run.free_epochs / BASE.epochs for run in variants(BASE).values()] == list(SCORES)


def test_a_row_shows_a_problem_and_the_last_one_the_means(runs):
    rows = holding_tables.table(holding_tables.load()).splitlines()
    row = next(line for line in rows if line.startswith(f"| {PROBLEM.name}"))
    for shown in ("71.0 ± 0.6", "72.0 ± 0.6", "61.0 ± 0.6", "51.0 ± 0.6"):
        assert shown in row
    means = next(line for line in rows if line.startswith("| mean"))
    assert [cell.strip() for cell in means.split("|")[3:7]] == ["71.0", "72.0", "61.0", "51.0"]


def test_a_problem_that_lacks_a_run_is_missing(runs):
    runs.pop()
    assert holding_tables.load() == {}
    assert [entry.command.split()[-1] for entry in holding_tables.missing({})] == list(HOLDING)
    assert holding_tables.table({}) == ""
