"""The tables of variants on problems, from made records."""

import pytest

from benchmarks.paper import studies, variants
from benchmarks.paper.variants import FREE_SHARES, HELD_SHARES, HOLDING, PROJECTING, SWITCHING
from benchmarks.report import problem_runs, problem_tables
from tests.benchmarks import made

PROBLEM, BASE = next(iter(SWITCHING["switches"].items()))
ALL = {
    variants.by_switch: SWITCHING,
    variants.by_projection: PROJECTING,
    variants.by_start: HOLDING,
}
SCORES = {
    variants.by_switch: {
        **{1: 0.5, **dict.fromkeys(FREE_SHARES, 0.4), 0.1: 0.7},
        **{"flattening": 0.65, "rise": 0.5, "hold": 0.45},
    },
    variants.by_projection: {"both": 0.7, "neither": 0.705},
    variants.by_start: dict(zip(HELD_SHARES, (0.7, 0.71, 0.6, 0.5), strict=True)),
}


@pytest.fixture
def load(monkeypatch):
    """Loads records of the first problem alone, as `sweep` would write them."""

    def load(of, lacking=0):
        switched = lambda variant: 2.0 if variant == "flattening" else None
        runs = [
            made.record(
                run,
                {"accuracy": SCORES[of][variant] + 0.01 * run.first_seed},
                switched_at_epoch=switched(variant),
            )
            for variant, setting in of(BASE).items()
            for run in studies.reported(setting)
        ]
        first, *_ = ALL[of]
        by_name = {first: runs[: len(runs) - lacking]}
        monkeypatch.setattr(problem_runs, "records_of", lambda name: by_name.get(name, []))
        return problem_runs.load(ALL[of], of)

    return load


def row(text, start):
    return next(line for line in text.splitlines() if line.startswith(f"| {start}"))


def test_a_switch_is_shown_beside_adam_and_the_best_free_phase(load):
    found = load(variants.by_switch)
    assert list(found) == [PROBLEM]
    gains = problem_tables.mean_gains(found)
    of_problem = {what: gain[PROBLEM] for what, gain in gains.items()}
    assert of_problem == pytest.approx(
        {"best free phase": 20, "flattening": 15, "rise": 0, "hold": -5}
    )
    text = problem_tables.switches(found)
    head = [cell.strip() for cell in text.splitlines()[0].split("|")]
    assert head[5:8] == ["at_flattening", "at_gradient_rise", "hold_median_margin"]
    for shown in ("51.0 ± 0.6", "+20.0 ± 0.0", "+15.0 ± 0.0", "-5.0 ± 0.0", "2, 2, 2"):
        assert shown in row(text, PROBLEM.name)
    assert "+20.0" in text


def test_the_difference_of_projections_is_taken_seed_by_seed(load):
    found = load(variants.by_projection)
    assert problem_tables.differences(found) == pytest.approx({PROBLEM: 0.5})
    text = problem_tables.projections(found)
    for shown in ("71.0 ± 0.6", "71.5 ± 0.6", "0.5 ± 0.0"):
        assert shown in row(text, PROBLEM.name)
    assert "+0.5" in text


def test_all_hold_the_norms_of_the_same_epoch():
    held = variants.by_start(BASE)
    assert {run.norms_of for run in held.values()} == {BASE.epochs / 10}
    assert [run.free_epochs / BASE.epochs for run in held.values()] == list(HELD_SHARES)


def test_a_row_shows_a_problem_and_the_last_one_the_means(load):
    text = problem_tables.held_later(load(variants.by_start))
    for shown in ("71.0 ± 0.6", "72.0 ± 0.6", "61.0 ± 0.6", "51.0 ± 0.6"):
        assert shown in row(text, PROBLEM.name)
    means = [cell.strip() for cell in row(text, "mean").split("|")[3:7]]
    assert means == ["71.0", "72.0", "61.0", "51.0"]


@pytest.mark.parametrize("of", ALL)
def test_a_problem_that_lacks_a_run_is_missing(load, of):
    found = load(of, lacking=1)
    assert found == {}
    entries = problem_tables.missing("variants", ALL[of], found)
    assert [entry.command.split()[-1] for entry in entries] == list(ALL[of])
    first, *_ = ALL[of].values()
    assert all(problem.name in entries[0].what for problem in first)


def test_without_runs_there_is_no_table():
    tables = (problem_tables.switches, problem_tables.projections, problem_tables.held_later)
    assert {table({}) for table in tables} == {""}
