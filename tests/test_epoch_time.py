"""The speed benchmark: a measurement runs, is recorded, and is said where it is missing."""

from toys import toy_interactions

from benchmarks import epoch_time
from examples import interactions, records


def test_it_prints_and_records(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(interactions, "load", lambda *args, **kwargs: toy_interactions())
    config = epoch_time.Config(
        batch_sizes=(50,), optimizers=("adam_lawn",), seeds=2, epochs=2, records=tmp_path
    )
    epoch_time.main(config)
    (record,) = records.read_records(tmp_path / "epoch-time.jsonl")
    assert "| adam_lawn | 2     |" in capsys.readouterr().out
    assert record["steps_per_epoch"] == 2
    assert record["parts_ms"].keys() == {"embedding", "mlp", "optimizer"}
    assert min(record["parts_ms"].values()) > 0
    assert record["first_epoch_s"] > max(record["epoch_s"]) > 0
    assert len(record["epoch_s"]) == len(record["epoch_cpu_s"]) == 2
    assert "not yet run" in epoch_time.section([record])
    on_gpu = record | {"config": record["config"] | {"dataset": "movielens-1m"}, "device": "GPU"}
    assert "not yet run" not in epoch_time.section([on_gpu])
