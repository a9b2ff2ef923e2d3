"""Which norms to hold, as RESULTS shows it: from made runs whose scores are known."""

import numpy as np
import pytest

from benchmarks.paper import studies
from benchmarks.paper.comparisons import CROSSING, FLATTENED, HELD_NORMS
from benchmarks.report import held_norms
from benchmarks.report.held_norms import NEVER, Norms

SCORE = 0.5


def record(config, score):
    final = {"hr_at_10": score, "margin_p50": 3.0}
    versions = {"commit": "abc"}
    return {"config": config, "seed": config["first_seed"], "final": final, "device": "cpu",
            "versions": versions}  # fmt: skip


@pytest.fixture
def made():
    """A run of every setting and seed; the best is the first place of the plane."""
    settings = [setting for group in HELD_NORMS.groups.values() for setting in group]
    best = HELD_NORMS.groups["plane"][0]
    runs = [
        record(
            {"benchmark": "sweep", **run.config()},
            SCORE + 0.01 * run.first_seed + 0.1 * (setting == best),
        )
        for setting in settings
        for run in studies.reported(setting)
    ]
    of_rescue = {"benchmark": "rescue", "epoch": FLATTENED, "weight_decay": 0.0}
    ways = ({"optimizer": "adamw"}, {"optimizer": "adamw", "weight_decay": 3.0},
            {"optimizer": "adam_lawn"})  # fmt: skip
    runs += [
        record(of_rescue | way | {"first_seed": seed}, SCORE + 0.02 * i)
        for i, way in enumerate(ways)
        for seed in studies.REPORTING_SEEDS
    ]
    return runs


def load(monkeypatch, runs):
    monkeypatch.setattr(held_norms, "records_of", lambda name: runs)
    return held_norms.load(), held_norms.load_rescue()


def test_a_rescue_from_another_epoch_is_not_taken_for_one(made, monkeypatch):
    later = [
        run | {"config": run["config"] | {"epoch": FLATTENED + 1}}
        for run in made
        if run["config"]["benchmark"] == "rescue"
    ]
    assert load(monkeypatch, [*made, *later]) == load(monkeypatch, made)


def test_every_run_is_where_its_norms_are(made, monkeypatch, tmp_path):
    runs, flattened = load(monkeypatch, made)
    assert {len(of) for of in runs.values()} == {len(studies.REPORTING_SEEDS)}
    plane = HELD_NORMS.groups["plane"]
    assert Norms(plane[0].norms_of, plane[0].free_epochs) in runs
    assert {norms.taken for norms in held_norms._scaled(runs)} == {CROSSING, FLATTENED}
    page = held_norms.plane("plane.png", runs)
    best = f"{100 * (SCORE + 0.1 + 0.01):.2f} ± {100 * 0.01 / np.sqrt(3):.2f}"
    assert best in page
    assert page.count(best) == 1
    rescue = held_norms.rescue(flattened, runs)
    assert (
        "Adam, weight decay 3                        | 52.00 ± 0.00 | +2.00, +2.00, +2.00" in rescue
    )
    assert "its norms, times 0.4" in rescue
    assert held_norms.missing(runs, flattened) == []
    held_norms.draw(tmp_path / "plane.png", runs)
    assert (tmp_path / "plane.png").stat().st_size > 10_000


def test_nothing_is_shown_where_a_seed_is_missing(made, monkeypatch, tmp_path):
    made = [run for run in made if run["config"]["benchmark"] == "sweep"][1:]
    runs, flattened = load(monkeypatch, made)
    assert not runs
    assert not flattened
    assert held_norms.plane("plane.png", runs) == held_norms.rescue(flattened, runs) == ""
    commands = [entry.command for entry in held_norms.missing(runs, flattened)]
    assert commands == [
        "python -m benchmarks.paper.sweep --study held-norms --data-dir DIR",
        "python -m benchmarks.paper.rescue --data-dir DIR",
    ]
    held_norms.draw(tmp_path / "plane.png", runs)
    assert not (tmp_path / "plane.png").exists()


def test_adam_is_what_never_holds_its_norms(made, monkeypatch):
    runs, _ = load(monkeypatch, made)
    assert NEVER in runs
    assert NEVER not in held_norms._scaled(runs)
    assert len(held_norms.plane_epochs(runs)) == 5
