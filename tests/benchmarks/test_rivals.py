"""The search spaces of Nado et al.: what is drawn lies within, and so does what they found."""

import dataclasses

import numpy as np
import pytest

from benchmarks.paper import rivals, studies, sweep
from benchmarks.paper.spaces import DERIVED, Choice, Linear, Range
from examples.tasks.images.large_batch import RECIPES, UPDATES_PER_EPOCH


def holds(drawn, x):
    """Whether a number lies in what it is drawn from, but for what a scan may have rounded."""
    if isinstance(drawn, Choice):
        return drawn.values[0] <= x <= drawn.values[-1]
    return drawn.low * (1 - 1e-9) <= x <= drawn.high * (1 + 1e-9)


@pytest.mark.parametrize("name", rivals.SEARCHES)
def test_draws_lie_within_the_ranges_and_are_options(name):
    search = rivals.SEARCHES[name]
    for space, (_, ranges) in search.spaces.items():
        points = search.points(space, 0)
        for run, point in points.items():
            assert point.keys() == ranges.keys()
            for drawn, x in point.items():
                assert holds(ranges[drawn], x), drawn
                if drawn not in DERIVED:
                    assert getattr(run, drawn) == pytest.approx(x, rel=1e-6)
        for drawn, of in ranges.items():
            values = [point[drawn] for point in points.values()]
            if isinstance(of, Choice):
                assert set(values) <= set(of.values)
            else:  # Both halves, in the middle of the scale.
                middle = np.mean([v < of.at(0.5) for v in values])
                assert middle == pytest.approx(0.5, abs=0.1)


def test_what_is_derived_is_what_its_name_says():
    search = rivals.SEARCHES["nado-table-11"]
    for run, point in search.points("Nesterov", 0).items():
        assert 1 - run.momentum == pytest.approx(point["1 - momentum"])
        share = run.final_rate / run.learning_rate
        assert share == pytest.approx(point["final_rate / learning_rate"], rel=1e-6)
        assert 2392 <= run.static_options(UPDATES_PER_EPOCH).total_steps <= 2658
    bert = rivals.SEARCHES["nado-table-6"]
    for run, point in bert.points("Adam", 0).items():
        assert run.warmup_power == run.decay_power == point["power"]
        assert (1 - run.b1, 1 - run.b2) == pytest.approx((point["1 - b1"], point["1 - b2"]))


def test_a_linear_scale_and_a_logarithmic_one_by_hand():
    assert [Range(1e-4, 1.0).at(x) for x in (0, 0.5, 1)] == [1e-4, 1e-2, 1.0]
    assert [Linear(1.0, 5.0).at(x) for x in (0, 0.25, 1)] == [1.0, 2.0, 5.0]
    assert Linear(2392.0, 2658.0).at(0) == 2392, "rounding does not leave the range"
    assert [Choice((3.0, 5.0)).at(x) for x in (0, 0.49, 0.5, 0.99)] == [3.0, 3.0, 5.0, 5.0]


@pytest.mark.parametrize("table", ["table-21", "table-23"])
def test_configuration_a_lies_where_it_was_found(table):
    search = rivals.SEARCHES[f"nado-{table}"]
    setting, ranges = search.spaces["Nesterov"]
    for option, drawn in ranges.items():
        assert holds(drawn, RECIPES["nesterov-32k-a"].options[option]), option
    for option, value in RECIPES["nesterov-32k-a"].options.items():
        assert getattr(setting, option) == value


def test_what_later_tables_fix_lies_in_table_20():
    _, ranges = rivals.SEARCHES["nado-table-20"].spaces["Nesterov"]
    for option in ("warmup_epochs", "initial_rate", "learning_rate", "last_bn_scale"):
        assert holds(ranges[option], RECIPES["nesterov-32k-a"].options[option]), option


def test_the_best_of_table_8_lie_in_their_last_ranges():
    spaces = {**rivals.TABLE_8_INITIAL, **rivals.TABLE_8_FINAL}
    assert spaces.keys() == {name for name in RECIPES if name.endswith("-6000")}
    for name, ranges in spaces.items():
        for option, drawn in ranges.items():
            assert holds(drawn, RECIPES[name].options[option]), (name, option)


# Table 7: learning rate, b1, b2, weight decay and power; a last line has an exponent in doubt.
TABLE_7 = (
    (5.9415e-4, 0.934271, 0.989295, 0.31466, 1),
    (2.8464e-4, 0.963567, 0.952647, 0.31466, 1),
    (1.3653e-3, 0.952378, 0.86471, 0.19891, 2),
    (2.8464e-4, 0.952647, 0.963567, 0.19891, 2),
)


@pytest.mark.parametrize("point", TABLE_7)
def test_the_best_of_bert_lie_in_table_6(point):
    rate, b1, b2, decay, power = point
    found = {"learning_rate": rate, "1 - b1": 1 - b1, "1 - b2": 1 - b2, "weight_decay": decay}
    for name, x in {**found, "power": power}.items():
        assert holds(rivals.TABLE_6[name], x), name


def test_runs_of_one_program_differ_in_what_is_traced_alone():
    base = rivals.BERT
    tuned = dataclasses.replace(base, learning_rate=0.5, weight_decay=2.0, first_seed=7)
    assert studies.program(base) == studies.program(tuned)
    lawn = dataclasses.replace(base, optimizer="adam_lawn", adam_eps=1e-8)
    for change in ({"b1": 0.5}, {"norms_of": 0.0, "free_epochs": 1.0}, {"free_epochs": "hold"}):
        other = dataclasses.replace(lawn, **change)
        assert studies.program(lawn) != studies.program(other)


@pytest.mark.slow
def test_a_search_draws_what_is_compiled_and_what_the_network_is(tmp_path, monkeypatch):
    tiny = {
        **{"dataset": "generated", "train_images": 64, "image_size": 32, "width": 1 / 16},
        **{"model": "resnet18", "dtype": "float32", "batch_size": 32, "accumulate": 1},
        **{"epochs": 2, "warmup_epochs": 0.5, "decay_epochs": 2.0, "virtual_batch_size": 16},
    }
    _, ranges = rivals.SEARCHES["nado-table-21"].spaces["Nesterov"]
    base = dataclasses.replace(rivals.of_recipe(rivals.CONFIGURATION_A), **tiny)
    search = studies.Search(
        name="toys", base=base, spaces={"Nesterov": (base, ranges)}, trials=2, searches=1
    )
    monkeypatch.setitem(sweep.EXPERIMENTS, "toys", search)
    config = sweep.SweepConfig(
        study=("toys",), storage=tmp_path / "journal", records=tmp_path / "records"
    )
    sweep.main(config)
    found = sweep.read(config.records / "searched.jsonl")
    assert len(found) == 2
    for run in search.settings("Nesterov", 0):
        record = found[studies.identity(run.config())]
        assert record["config"]["last_bn_scale"] == run.last_bn_scale
        assert record["final"]["accuracy"] is not None
    first, second = found.values()
    assert first["final"]["train_loss"] != second["final"]["train_loss"]
