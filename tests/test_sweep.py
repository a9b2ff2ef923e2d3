"""The sweep: as much for each side, resumed where it stopped, chosen and reported from records."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import report, studies, sweep
from examples import interactions, ncf, records, training
from examples.interactions import Interactions

NAME = "movielens-100k-10k"
OPTIMIZERS = ("adam", "adam_lawn")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A study that takes a second: five users, twelve items, two epochs, four settings a side."""
    rng = np.random.default_rng(0)
    train = [(user, item) for user in range(5) for item in np.sort(rng.choice(12, 4, False))]
    candidates = rng.integers(0, 12, (5, 30))
    arrays = (np.array(table, np.int32) for table in (train, candidates))
    data = Interactions("toy", *arrays, num_items=12, num_interactions=25, removed_users=0)
    base = ncf.Config(
        dataset="movielens-100k", batch_size=50, epochs=2, warmup_epochs=0.5, tower=(8, 4), seeds=1
    )
    rates = dict.fromkeys(OPTIMIZERS, (1e-3, 1e-2))
    study = studies.Study(base=base, learning_rates=rates, free_epochs=(0.5, 1.0))
    monkeypatch.setitem(studies.STUDIES, NAME, study)
    monkeypatch.setattr(studies, "PAPER_DECAYS", (0.0,))
    monkeypatch.setattr(studies, "WIDE_DECAYS", (0.0, 1.0))
    monkeypatch.setattr(interactions, "load", lambda *args, **kwargs: data)
    return sweep.Config(
        study=NAME, storage=tmp_path / "runs" / "journal", records=tmp_path / "records"
    )


def runs_of(config, file):
    """All that was run, in order."""
    path = config.records / file
    return [studies.identity(r["config"]) for r in records.read_records(path)]


def test_every_setting_once_and_the_chosen_with_other_seeds(config):
    sweep.main(config)
    study = studies.STUDIES[NAME]
    wanted = [
        studies.identity(run.config())
        for optimizer in OPTIMIZERS
        for run in study.runs(
            optimizer, study.space(optimizer, studies.WIDE_DECAYS), studies.TUNING_SEED
        )
    ]
    assert sorted(runs_of(config, "tuning.jsonl")) == sorted(wanted)
    reported = runs_of(config, "reported.jsonl")
    assert len(set(reported)) == len(reported)
    seeds = {json.loads(run)["first_seed"] for run in reported}
    assert seeds == set(studies.REPORTING_SEEDS)
    tuned = sweep.read(config.records / "tuning.jsonl")
    chosen = {
        (c.optimizer, c.learning_rate, c.weight_decay, c.free_epochs)
        for optimizer in OPTIMIZERS
        for runs in studies.grids(study, optimizer).values()
        if (c := studies.choose(runs, tuned))
    }
    knobs = ("optimizer", "learning_rate", "weight_decay", "free_epochs")
    assert {tuple(json.loads(run)[k] for k in knobs) for run in reported} == chosen
    before = (runs_of(config, "tuning.jsonl"), reported)
    sweep.main(config)
    assert (runs_of(config, "tuning.jsonl"), runs_of(config, "reported.jsonl")) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_it_goes_on_after_an_interruption(config, monkeypatch, error):
    config = dataclasses.replace(config, optimizers=("adam",))
    calls, train = [], training.train

    def stops_at_the_third(*args, **kwargs):
        calls.append(kwargs["title"])
        if len(calls) == 3:
            raise error
        return train(*args, **kwargs)

    monkeypatch.setattr(training, "train", stops_at_the_third)
    with pytest.raises(sweep.StoppedError, match="adam"):
        sweep.main(config)
    assert len(runs_of(config, "tuning.jsonl")) == 2
    sweep.main(config)
    tuned = runs_of(config, "tuning.jsonl")
    assert len(tuned) == len(set(tuned)) == 4
    assert calls.count(calls[2]) == 2, "what was cut short is run again"


def test_a_grid_that_grows_keeps_what_was_run(config, monkeypatch):
    config = dataclasses.replace(config, optimizers=("adam_lawn",))
    sweep.main(config)
    first = runs_of(config, "tuning.jsonl")
    study = dataclasses.replace(studies.STUDIES[NAME], free_epochs=(0.5, 1.0, 2.0))
    monkeypatch.setitem(studies.STUDIES, NAME, study)
    sweep.main(config)
    tuned = runs_of(config, "tuning.jsonl")
    assert tuned[:4] == first
    assert len(set(tuned)) == len(tuned) == 6


def test_a_storage_without_its_records_is_named(config):
    config = dataclasses.replace(config, optimizers=("adam_lawn",))
    sweep.main(config)
    elsewhere = dataclasses.replace(config, records=config.records / "elsewhere")
    with pytest.raises(ValueError, match=r"tuning.jsonl lacks runs that .*journal has"):
        sweep.main(elsewhere)


def test_unknown_studies_are_refused():
    with pytest.raises(ValueError, match="study='oak' must be one of movielens-100k-1k"):
        sweep.Config(study="oak")


@pytest.mark.parametrize("name", studies.STUDIES)
def test_both_sides_have_the_same_budget(name):
    study = studies.STUDIES[name]
    # The widest set is the last.
    sizes = {len(list(studies.grids(study, o).values())[-1]) for o in study.learning_rates}
    assert len(sizes) == 1
    for base in ("adam", "lamb"):
        assert study.learning_rates[base] == study.learning_rates[f"{base}_lawn"]
    assert set(studies.PAPER_DECAYS) < set(studies.WIDE_DECAYS)
    assert studies.TUNING_SEED not in studies.REPORTING_SEEDS


def test_the_report_says_what_was_run_and_what_was_not(config):
    sweep.main(dataclasses.replace(config, optimizers=("adam_lawn",)))
    found = [r for p in sorted(config.records.glob("*.jsonl")) for r in records.read_records(p)]
    study = studies.STUDIES[NAME]
    measured = report.compare(study, "adam_lawn", studies.index(found), report.TABLE_9[NAME])
    ((name, tried, last, best, n, setting, paper),) = measured
    assert (name, tried, n, paper) == ("Adam-LAWN", "free epochs, 4 settings", "3", "66.91 (0.15)")
    assert setting.startswith("peak 0.0")
    final = 100 * np.array([r["final"]["hr_at_10"] for r in found if r["seed"] in (0, 1, 2)])
    assert last.startswith(f"{final.mean():.2f} ± ")
    assert float(best.split()[0]) >= float(last.split()[0])
    for row in report.compare(study, "adam", studies.index(found), report.TABLE_9[NAME]):
        assert row[2:6] == ("not yet run", "not yet run", "", "")


def test_a_document_that_differs_from_its_records_fails_the_check(tmp_path):
    document = tmp_path / "RESULTS.md"
    document.write_text("<!-- table -->\nold\n<!-- /table -->\n")
    with pytest.raises(SystemExit, match=r"RESULTS.md differs from its records"):
        report.refresh(document, "table", "new", check=True)
    report.refresh(document, "table", "new")
    report.refresh(document, "table", "new", check=True)
    assert document.read_text() == "<!-- table -->\nnew\n<!-- /table -->\n"
