"""The sweep: as much for each side, resumed where it stopped, chosen and reported from records."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks.paper import comparisons, reported, studies, sweep, variants
from benchmarks.paper.catalog import STUDIES
from benchmarks.paper.spaces import Range
from benchmarks.paper.sweep import EXPERIMENTS
from benchmarks.report import study_tables
from benchmarks.report.part import Missing
from benchmarks.report.provenance import provenance
from benchmarks.tools.records import RECORDS, read_bits
from examples import cifar, lm, ncf, training
from examples.results import records, tables
from examples.tasks import recommendation
from tests.examples.toys import toy_interactions

NAME = "movielens-100k-10k"
OPTIMIZERS = ("adam", "adam_lawn")
PEAKS = Range(1e-3, 1e-1)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A study that takes a second: two epochs of few users and items, four settings a side."""
    base = ncf.Config(
        dataset="movielens-100k", batch_size=50, epochs=2, warmup_epochs=0.5, tower=(8, 4)
    )
    study = studies.Study(
        name=NAME,
        base=base,
        learning_rates=dict.fromkeys(OPTIMIZERS, (1e-3, 1e-2)),
        free_epochs=(0.5, 1.0),
        decays={"the paper's decays": (0.0,), "the wide set": (0.0, 1.0)},
        tuning={"epochs": 1},
    )
    monkeypatch.setitem(EXPERIMENTS, NAME, study)
    monkeypatch.setattr(recommendation, "load", lambda *args, **kwargs: toy_interactions())
    return sweep.SweepConfig(
        study=(NAME,), storage=tmp_path / "runs" / "journal", records=tmp_path / "records"
    )


def runs_of(config, file):
    """All that was run, in order."""
    path = config.records / file
    return [studies.identity(r["config"]) for r in records.read_records(path)]


@pytest.mark.slow
def test_every_setting_once_and_the_chosen_with_other_seeds(config):
    sweep.main(config)
    study = EXPERIMENTS[NAME]
    wanted = [
        studies.identity(study.tried(setting).config())
        for optimizer in OPTIMIZERS
        for settings in study.to_try(optimizer)
        for setting in settings
    ]
    assert sorted(runs_of(config, "tuning.jsonl")) == sorted(wanted)
    reported = runs_of(config, "reported.jsonl")
    assert len(set(reported)) == len(reported)
    seeds = {json.loads(run)["first_seed"] for run in reported}
    assert seeds == set(studies.REPORTING_SEEDS)
    tuned = sweep.read(config.records / "tuning.jsonl")
    hyperparameters = ("optimizer", "learning_rate", "weight_decay", "free_epochs")
    chosen = {
        tuple(json.loads(studies.identity(c.config())).get(k) for k in hyperparameters)
        for optimizer in OPTIMIZERS
        for settings in study.grids(optimizer).values()
        if (c := study.choose(settings, tuned))
    }
    assert {tuple(json.loads(run).get(k) for k in hyperparameters) for run in reported} == chosen
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
    with pytest.raises(sweep.CutShortError, match="adam"):
        sweep.main(config)
    assert len(runs_of(config, "tuning.jsonl")) == 2
    sweep.main(config)
    tuned = runs_of(config, "tuning.jsonl")
    assert len(tuned) == len(set(tuned)) == 4
    assert calls.count(calls[2]) == 2, "what was cut short is run again"


@pytest.mark.slow
def test_a_grid_that_grows_keeps_what_was_run(config, monkeypatch):
    config = dataclasses.replace(config, optimizers=("adam_lawn",))
    sweep.main(config)
    first = runs_of(config, "tuning.jsonl")
    study = dataclasses.replace(EXPERIMENTS[NAME], free_epochs=(0.5, 1.0, 2.0))
    monkeypatch.setitem(EXPERIMENTS, NAME, study)
    sweep.main(config)
    tuned = runs_of(config, "tuning.jsonl")
    assert tuned[:6] == first
    assert len(set(tuned)) == len(tuned) == 8


@pytest.mark.parametrize("file", ["tuning.jsonl", "reported.jsonl"])
def test_a_storage_without_its_records_is_named(config, file):
    config = dataclasses.replace(config, optimizers=("adam_lawn",))
    sweep.main(config)
    (config.records / file).unlink()
    with pytest.raises(ValueError, match=rf"{file} lacks runs that .*journal has"):
        sweep.main(config)


def test_other_data_are_refused(config, monkeypatch):
    config = dataclasses.replace(config, optimizers=("adam_lawn",))
    sweep.main(config)
    data = toy_interactions()
    other = dataclasses.replace(data, candidates=data.candidates[::-1].copy())
    monkeypatch.setattr(recommendation, "load", lambda *args, **kwargs: other)
    with pytest.raises(
        ValueError, match=r"data_dir='None' has data with checksum [0-9a-f]{8}, but"
    ):
        sweep.main(config)


def test_a_tie_is_not_won_by_what_was_not_finite():
    study = EXPERIMENTS["cifar10-small"]
    settings = study.grids("adam")["the wide set"][:2]
    finals = [{"accuracy": 0.5, "nll": None}, {"accuracy": 0.5, "nll": 1.0}]
    found = {
        studies.identity(study.tried(setting).config()): {"final": final}
        for setting, final in zip(settings, finals, strict=True)
    }
    assert study.choose(settings, found) == settings[1]


@pytest.fixture
def toys(config):
    """Options of an epoch and a half of few users and items."""
    return dataclasses.replace(EXPERIMENTS[NAME].base, optimizer="adam_lawn", learning_rate=0.01)


def test_a_comparison_reports_every_setting_with_every_seed(config, toys, monkeypatch):
    taken = [dataclasses.replace(toys, free_epochs=1.0, norms_of=t) for t in (0.5, 1.0)]
    scaled = [dataclasses.replace(toys, free_epochs=1.0, norms_scale=x) for x in (0.5, 1.0)]
    narrow = [dataclasses.replace(toys, free_epochs=1.0, norms_of=1.0, tower=(4, 2))]
    groups = {"taken": taken, "scaled": scaled, "narrow": narrow}
    monkeypatch.setitem(
        EXPERIMENTS, "toys", studies.Comparison(name="toys", base=toys, groups=groups, norms=True)
    )
    config = dataclasses.replace(config, study=("toys",))
    sweep.main(config)
    found = sweep.read(config.records / "reported.jsonl")
    assert len(found) == 5 * len(studies.REPORTING_SEEDS)
    of = lambda setting: [
        found[studies.identity(run.config())]["curve"]["train_loss"]
        for run in studies.reported(setting)
    ]
    assert of(taken[1]) == of(scaled[1]), "the norms of the switch, times 1"
    assert of(taken[0]) != of(taken[1])
    assert of(narrow[0]) != of(taken[1])
    assert of(scaled[0]) != of(scaled[1])
    for setting in scaled:
        curve = found[studies.identity(studies.reported(setting)[0].config())]["curve"]
        free, held = curve["norm/layers/0/kernel"]
        assert held == pytest.approx(setting.norms_scale * free, rel=1e-5)


@pytest.mark.parametrize("name", comparisons.COMPARISONS | variants.COMPARISONS)
def test_settings_of_a_group_have_their_task_in_common(name):
    of_optimizer = {"learning_rate": 1.0, "weight_decay": 0.0, "free_epochs": 0.0}
    of_optimizer |= {"norms_of": None, "norms_scale": None, "project": True}
    settings = []
    for group in EXPERIMENTS[name].groups.values():
        assert len({dataclasses.replace(setting, **of_optimizer) for setting in group}) == 1
        settings += [studies.identity(setting.config()) for setting in group]
    assert len(set(settings)) == len(settings) > 3


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("switches", [6, 1, 1, 1]), ("projections", [1, 1]), ("held-later", [4])],
)
def test_variants_that_differ_in_what_is_traced_are_one_program(name, sizes):
    for group in EXPERIMENTS[name].groups.values():
        programs = tables.group(group, studies.program).values()
        assert [len(alike) for alike in programs] == sizes


def test_a_search_draws_settings_and_keeps_what_each_user_scores(config, toys, monkeypatch):
    validated = dataclasses.replace(toys, validate=True)
    spaces = {
        "rise": (dataclasses.replace(validated, free_epochs="rise"), {"learning_rate": PEAKS}),
        "free": (validated, {"learning_rate": PEAKS, "free_epochs": Range(0.1, 1.9)}),
    }
    search = studies.Search(name="toys", base=validated, spaces=spaces, trials=4, searches=2)
    monkeypatch.setitem(EXPERIMENTS, "toys", search)
    data = toy_interactions()
    data = dataclasses.replace(data, validation=data.candidates[:, ::-1].copy())
    monkeypatch.setattr(recommendation, "load", lambda *args, **kwargs: data)
    config = dataclasses.replace(config, study=("toys",), chunk=4)
    sweep.main(config)
    found = sweep.read(config.records / "searched.jsonl")
    assert len(found) == 2 * 2 * 4
    for run in found.values():
        for prefix in ("", "validation_"):
            hits = read_bits(run[f"{prefix}hits"])
            assert hits.shape == (5,)
            assert hits.mean() == pytest.approx(run["final"][f"{prefix}hr_at_10"])


def test_a_search_whose_windows_lengthen_is_scored_by_the_long_ones(tmp_path):
    text = tmp_path / "text"
    text.write_text("All happy families are alike. " * 100)
    run = lm.Config(
        **{"data_dir": text, "held_out_share": 0.35, "optimizer": "adam", "epochs": 2},
        **{"objective": "masked", "length": 16, "long_length": 32, "epoch_tokens": 64},
        **{"batch_size": 4, "warmup_epochs": 0, "width": 8, "depth": 1, "heads": 2},
    )
    search = studies.Search(name="toys", base=run, spaces={"Adam": (run, {})}, trials=1)
    sweep.train(search.example.load(run), search, "", [run], tmp_path / "searched.jsonl", text)
    (record,) = records.read_records(tmp_path / "searched.jsonl")
    # Of what is held out there are 32 windows of 32 tokens, one in each piece.
    assert np.mean(record["pieces"]) == pytest.approx(record["final"]["bits_per_byte"], rel=1e-5)


def test_records_from_before_there_were_objectives_are_found():
    adam, lawn, _ = records.read_records(RECORDS / "2026-11-27-lm" / "lm.jsonl")
    for record, options in ((adam, {"optimizer": "adam"}), (lawn, {"free_epochs": "rise"})):
        wanted = studies.identity(lm.Config(**options).config())
        assert studies.identity(record["config"]) == wanted


def test_drawn_settings_fill_the_ranges_and_are_the_same_each_time():
    search = EXPERIMENTS["as-hard-10k"]
    for space, (_, ranges) in search.spaces.items():
        first, again, other = (search.settings(space, i) for i in (0, 0, 1))
        assert first == again
        assert not set(first) & set(other)
        for name, (low, high) in ranges.items():
            drawn = np.log([getattr(setting, name) / low for setting in first])
            share = drawn / np.log(high / low)
            # One in each sixteenth, which random points would hardly do.
            assert sorted((share * search.trials).astype(int)) == list(range(search.trials))


def test_unknown_studies_and_optimizers_are_refused():
    with pytest.raises(ValueError, match="study='oak' must be one of movielens-100k-1k"):
        sweep.SweepConfig(study=("oak",))
    with pytest.raises(
        ValueError, match="optimizers holds 'sgd': movielens-1m-1m-focal-2 has adam,"
    ):
        sweep.SweepConfig(study=("movielens-1m-1m-focal-2",), optimizers=("sgd",))


@pytest.mark.parametrize("name", STUDIES)
def test_both_sides_have_the_same_budget(name):
    study = STUDIES[name]
    sizes = {max(map(len, study.grids(o).values())) for o in study.learning_rates}
    assert len(sizes) == 1
    for optimizer, rates in study.learning_rates.items():
        assert study.learning_rates[optimizer.removesuffix("_lawn")] == rates
    narrow, wide = study.decays.values()
    assert set(narrow) < set(wide)
    assert all(0.0 in values for values in (study.sgd_decays or {}).values())
    assert studies.TUNING_SEED not in studies.REPORTING_SEEDS


@pytest.mark.slow
def test_chunks_on_an_accelerator_give_the_same_records_as_one_by_one(config, monkeypatch):
    config = dataclasses.replace(config, optimizers=("adam_lawn",))
    sweep.main(dataclasses.replace(config, chunk=1))
    # Four settings and two in chunks of three, of which one was done before.
    chunked = dataclasses.replace(config, chunk=3, records=config.records.parent / "chunked")
    chunked.records.mkdir()
    first, *_ = (config.records / "tuning.jsonl").read_text().splitlines(keepends=True)
    (chunked.records / "tuning.jsonl").write_text(first)
    # Where it is not a CPU, runs are vmapped.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    sweep.main(chunked)
    for file in ("tuning.jsonl", "reported.jsonl"):
        expected, found = (sweep.read(c.records / file) for c in (config, chunked))
        assert expected.keys() == found.keys()
        assert len(runs_of(chunked, file)) == len(found)
        for run, record in found.items():
            for name, values in expected[run]["curve"].items():
                np.testing.assert_allclose(record["curve"][name], values, rtol=1e-4, err_msg=name)
    together = [r["config"]["side_by_side"] for r in found.values()]
    assert together == [3] * 6, "the reported seeds of a setting are one chunk"


def found_in(config):
    files = sorted(config.records.glob("*.jsonl"))
    return studies.index([record for file in files for record in records.read_records(file)])


def test_the_report_says_what_was_run_and_what_was_not(config):
    sweep.main(dataclasses.replace(config, optimizers=("adam_lawn",)))
    found = found_in(config)
    hit_ratio = study_tables.Section("Table 9", study_tables.HIT_RATIO, [])
    row = study_tables.Row("Adam-LAWN", EXPERIMENTS[NAME], "adam_lawn", "66.91 (0.15)")
    fixed, automatic = study_tables.lines(hit_ratio, row, found)
    name, tried, last, best, n, setting, tuning, figure = fixed
    assert (name, tried, n, figure) == ("Adam-LAWN", "free epochs, 4 settings", "3", row.paper)
    assert setting.startswith("peak 0.0")
    assert setting.count("free epochs") == 1
    of_tuning = [
        100 * r["final"]["hr_at_10"]
        for r in found.values()
        if r["seed"] > 3 and r["config"]["free_epochs"] != studies.AUTOMATIC
    ]
    assert tuning == f"{max(of_tuning):.2f}"
    assert automatic[:2] == ("Adam-LAWN", "at_flattening, 2 settings")
    assert automatic[5].startswith("peak 0.0")
    assert "," not in automatic[5]
    of_fixed = [
        r
        for r in found.values()
        if r["seed"] < 3 and r["config"]["free_epochs"] != studies.AUTOMATIC
    ]
    final = 100 * np.array([r["final"]["hr_at_10"] for r in of_fixed])
    assert last.startswith(f"{final.mean():.2f} ± ")
    assert float(best.split()[0]) >= float(last.split()[0])
    row = study_tables.Row("Adam", EXPERIMENTS[NAME], "adam", "66.03 (0.15)")
    assert study_tables.lines(hit_ratio, row, found) == []
    names = [NAME, "movielens-100k-1k"]
    rows = [[study_tables.Row("Adam-LAWN", EXPERIMENTS[name], "adam_lawn", "1")] for name in names]
    both = [study_tables.Table(name, row) for name, row in zip(names, rows, strict=True)]
    section = hit_ratio._replace(tables=both)
    text = study_tables.render(section, found)
    assert f"### {NAME}\n" in text
    assert "### movielens-100k-1k" not in text
    assert "Tuned with 1 epochs; warm-up and free phase are then the same share." in text
    (unrun,) = study_tables.missing(section, found)
    assert unrun == Missing(
        "movielens-100k-1k",
        "Table 9: Adam-LAWN 1",
        "python -m benchmarks.paper.sweep --study movielens-100k-1k --data-dir DIR",
    )
    part = study_tables.Table("part", [*rows[0], row])
    (unrun,) = study_tables.missing(hit_ratio._replace(tables=[part]), found)
    assert unrun.what == "part: settings of Adam"
    assert unrun.command.endswith(f"--study {NAME} --data-dir DIR --optimizers adam")
    assert text.endswith(
        "6 runs of one seed to tune, 6 of others to report, on cpu, at commit"
        f" {provenance(list(found.values())).split()[-1]}."
    )


def test_fewer_epochs_to_tune_cut_warm_up_and_free_phase_alike():
    study = EXPERIMENTS["cifar10-small"]
    settings = study.grids("adam_lawn")[studies.FREE]
    for setting in settings:
        run = study.tried(setting)
        assert run.epochs < setting.epochs
        for name in ("warmup_epochs", "free_epochs"):
            share = getattr(run, name) / run.epochs
            assert share == pytest.approx(getattr(setting, name) / setting.epochs)
    (adam, *_) = study.grids("adam")["the wide set"]
    assert study.tried(adam).free_epochs == studies.AUTOMATIC


@pytest.mark.slow
def test_images_are_tuned_on_training_images_that_are_held_out(tmp_path, monkeypatch):
    base = cifar.Config(
        dataset="generated",
        train_images=100,
        batch_size=50,
        model="vgg5",
        width=1 / 16,
        dtype="float32",
        epochs=2,
        warmup_epochs=0.0,
    )
    study = studies.Study(
        name=NAME,
        base=base,
        learning_rates={"adam_lawn": (1e-3,)},
        free_epochs=(1.0,),
        decays={},
        tuning={"epochs": 1, "validation_images": 60},
    )
    monkeypatch.setitem(EXPERIMENTS, "cifar10-small", study)
    config = sweep.SweepConfig(
        study=("cifar10-small",), storage=tmp_path / "journal", records=tmp_path / "records"
    )
    sweep.main(config)
    tuned, automatic = records.read_records(config.records / "tuning.jsonl")
    assert automatic["config"]["free_epochs"] == "flattening"
    reported = records.read_records(config.records / "reported.jsonl")
    assert (tuned["config"]["epochs"], tuned["config"]["validation_images"]) == (1, 60)
    for record in reported:
        assert (record["config"]["epochs"], record["config"]["validation_images"]) == (2, 0)
        assert record["curve"].keys() == set(study.example.curves)
    row = study_tables.Row("Adam-LAWN", EXPERIMENTS["cifar10-small"], "adam_lawn", "")
    section = study_tables.Section(
        "Table 7", (*study_tables.ACCURACY, *study_tables.CALIBRATION), []
    )
    (_, _, last, *_), _ = study_tables.lines(section, row, found_in(config))
    accuracy = 100 * np.mean([record["final"]["accuracy"] for record in reported[:3]])
    assert last.startswith(f"{accuracy:.2f} ± ")


def test_the_paper_has_a_figure_for_every_row_that_stands_beside_one():
    for name, section in study_tables.SECTIONS.items():
        rows = [row for table in section.tables for row in table.rows]
        assert all(STUDIES[row.study.name] == row.study for row in rows)
        assert all(bool(row.paper) == (name != "cifar10-small") for row in rows), name
    assert reported.TABLE_10["movielens-1m-1m"]["adam_lawn"] == "70.66 (0.22)"
