"""The speed benchmark: a measurement runs, is recorded, and is said where it is missing."""

import pytest

from benchmarks.measure import epoch
from benchmarks.report import goals
from examples.results import records
from examples.tasks import recommendation
from tests.examples.toys import toy_interactions


@pytest.mark.slow
def test_it_prints_and_records(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recommendation, "load", lambda *args, **kwargs: toy_interactions())
    config = epoch.EpochConfig(
        batch_sizes=(50,), optimizers=("adam_lawn",), seeds=2, epochs=2, records=tmp_path
    )
    epoch.main(config)
    (record,) = records.read_records(tmp_path / "epoch-time.jsonl")
    assert "| adam_lawn | 2     |" in capsys.readouterr().out
    assert record["steps_per_epoch"] == 2
    assert record["parts_ms"].keys() == {"embedding", "mlp", "optimizer"}
    assert min(record["parts_ms"].values()) > 0
    assert record["first_epoch_s"] > max(record["epoch_s"]) > 0
    assert len(record["epoch_s"]) == len(record["epoch_cpu_s"]) == 2


def test_a_goal_is_reached_by_runs_of_all_its_batch_sizes():
    def run(batch_size, seeds):
        of = {"dataset": "movielens-1m", "optimizer": "adam", "batch_size": batch_size}
        return {
            "benchmark": "epoch-time",
            "backend": "gpu",
            "config": {**of, "seeds": seeds},
            "device": "NVIDIA H200",
            "first_epoch_s": 10.4,
            "epoch_s": [0.2, 0.1, 0.1],
        }

    one, table_10 = {10_000: 300}, goals.EPOCHS_OF_TABLE_10
    assert epoch.minutes_of(one, [run(10_000, 1)]) * 60 == pytest.approx(10.4 + 299 * 0.1)
    all_sizes = [run(size, 3) for size in table_10]
    assert epoch.minutes_of(table_10, all_sizes[:-1]) is None
    assert epoch.minutes_of(table_10, all_sizes) * 60 == pytest.approx(4 * 10.3 + 160)
    found = [*all_sizes[:-1], run(10_000, 1)]
    assert "adam 0.67" in goals.table(found)
    assert [goal.what for goal in goals.missing(found) if "Table 10" in goal.what]
    assert "adam" not in goals.table([run(10_000, 1) | {"device": "2 cores"}])
