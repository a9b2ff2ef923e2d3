"""The table of projections, from made records."""

import pytest

from benchmarks.paper import studies
from benchmarks.paper.projections import PROJECTING, projected_and_not
from benchmarks.report import problem_tables, projection_tables

PROBLEM, BASE = next(iter(PROJECTING["projections"].items()))


@pytest.fixture
def runs(monkeypatch):
    """Records of one problem, as `sweep` would write them; neither ends half a point higher."""
    made = [
        {
            "config": {"benchmark": "sweep", **run.config()},
            "seed": run.first_seed,
            "final": {"accuracy": 0.7 + 0.01 * run.first_seed + 0.005 * (not run.project)},
            "versions": {"commit": "abc"},
            "device": "cpu",
        }
        for (setting,) in projected_and_not(BASE)
        for run in studies.reported(setting)
    ]
    of = {"projections": made}
    monkeypatch.setattr(problem_tables, "records_of", lambda name: of.get(name, []))
    return made


def test_the_difference_is_taken_seed_by_seed(runs):
    found = projection_tables.load()
    assert projection_tables.differences(found) == pytest.approx({PROBLEM: 0.5})
    text = projection_tables.table(found)
    row = next(line for line in text.splitlines() if line.startswith(f"| {PROBLEM.name}"))
    for shown in ("71.0 ± 0.6", "71.5 ± 0.6", "0.5 ± 0.0"):
        assert shown in row
    assert "+0.5" in text


def test_a_problem_that_lacks_a_run_is_missing(runs):
    runs.pop()
    assert projection_tables.load() == {}
    entries = projection_tables.missing({})
    assert [entry.command.split()[-1] for entry in entries] == list(PROJECTING)
    assert projection_tables.table({}) == ""
