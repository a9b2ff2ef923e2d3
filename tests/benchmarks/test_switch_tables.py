"""The table of switches, from made records."""

import dataclasses

import pytest

from benchmarks.paper import studies
from benchmarks.paper.switching import CHECKING, FREE_SHARES, SWITCHING
from benchmarks.report import problem_tables, switch_tables

PROBLEM, BASE = next(iter(SWITCHING["switches"].items()))
SCORES = {1: 0.5, **dict.fromkeys(FREE_SHARES, 0.4), 0.1: 0.7}
AUTOMATIC = {"flattening": 0.65, "rise": 0.5, "hold": 0.45}


@pytest.fixture
def runs(monkeypatch):
    """Records of one problem, as `sweep` would write them."""
    free = {share * BASE.epochs: score for share, score in SCORES.items()}
    made = [
        {
            "config": {"benchmark": "sweep", **run.config()},
            "seed": run.first_seed,
            "final": {"accuracy": score + 0.01 * run.first_seed},
            "switched_at_epoch": 2.0 if switch == "flattening" else None,
            "versions": {"commit": "abc"},
            "device": "cpu",
        }
        for switch, score in {**free, **AUTOMATIC}.items()
        for run in studies.reported(dataclasses.replace(BASE, free_epochs=switch))
    ]
    of = {"switches": made}
    monkeypatch.setattr(problem_tables, "records_of", lambda name: of.get(name, []))
    return made


def test_a_problem_is_shown_beside_adam_and_the_best_free_phase(runs):
    found = switch_tables.load()
    assert list(found) == [PROBLEM]
    gains = switch_tables.mean_gains(found)
    of_problem = {what: gain[PROBLEM] for what, gain in gains.items()}
    assert of_problem == pytest.approx(
        {"best free phase": 20, "flattening": 15, "rise": 0, "hold": -5}
    )
    text = switch_tables.table(found)
    head = [cell.strip() for cell in text.splitlines()[0].split("|")]
    assert head[5:8] == ["at_flattening", "at_gradient_rise", "hold_median_margin"]
    row = next(line for line in text.splitlines() if line.startswith(f"| {PROBLEM.name}"))
    for shown in ("51.0 ± 0.6", "71.0 ± 0.6", "66.0 ± 0.6", "2, 2, 2"):
        assert shown in row
    assert "+20.0" in text


def test_a_problem_that_lacks_a_run_is_missing(runs):
    runs.pop()
    assert switch_tables.load() == {}
    entries = switch_tables.missing({}, {})
    assert [entry.command.split()[-1] for entry in entries] == [*SWITCHING, *CHECKING]
    assert all(problem.name in entries[0].what for problem in SWITCHING["switches"])
    assert switch_tables.table({}) == ""
