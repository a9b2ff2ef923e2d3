"""The one command for a device: what it starts, what it survives, what it leaves on disk."""

import time

import jax
import pytest

from benchmarks import device
from examples.results import records


@pytest.fixture(autouse=True)
def cache():
    """JAX's cache of compilations as it was."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def items(monkeypatch):
    """Replaces the measurements; returns what was run."""
    ran = []

    def replace(*made):
        monkeypatch.setattr(device, "MEASUREMENTS", made)

    def item(name, seconds=1.0, does=lambda paths: None, **about):
        run = lambda what, paths: (ran.append(name), does(paths))
        return device.Measurement(name, seconds, None, run, **about)

    return ran, replace, item


def outcomes(folder):
    return {e["item"]: e["outcome"] for e in records.read_records(folder / "device.jsonl")}


def test_what_fits_is_started_and_what_fails_is_told(items, tmp_path, capsys):
    ran, replace, item = items

    def fail(paths):
        raise MemoryError("no room")

    replace(
        item("first"),
        item("too long", 1_000.0),
        item("fails", does=fail),
        item("too long, but kept when cut", 1_000.0, can_be_cut=True),
        item("last"),
    )
    device.main(device.DeviceConfig(minutes=2, folder=tmp_path))
    assert ran == ["first", "fails", "too long, but kept when cut", "last"]
    found = outcomes(tmp_path)
    assert found["too long"].startswith("left out: 1,000 s do not fit in 1")
    assert found["fails"] == "failed after 0 s: no room"
    assert "MemoryError" in (tmp_path / "fails.error.txt").read_text()
    assert {found["first"], found["last"]} == {"done in 0 s"}
    assert "| too long " in capsys.readouterr().out


def test_it_ends_in_time(items, tmp_path):
    _, replace, item = items
    replace(item("sleeps", 1.0, lambda paths: time.sleep(60)), item("after", 5.0))
    begun = time.monotonic()
    device.main(device.DeviceConfig(minutes=1.2 / 60, folder=tmp_path))
    assert time.monotonic() - begun < 10
    found = outcomes(tmp_path)
    assert found["sleeps"].startswith("cut short after")
    assert found["after"].startswith("left out")


def test_it_resumes_and_measures_some_alone(items, tmp_path):
    ran, replace, item = items
    replace(item("first"), item("second"))
    device.main(device.DeviceConfig(folder=tmp_path, only=("first",)))
    device.main(device.DeviceConfig(folder=tmp_path, resume=True))
    assert ran == ["first", "second"]
    with pytest.raises(ValueError, match="only='third' must be one of first, second"):
        device.DeviceConfig(only=("third",))


def test_the_list_measures_nothing(tmp_path, capsys):
    device.main(device.DeviceConfig(folder=tmp_path / "none", show=True))
    assert "| optimizer-step-block " in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_cifar10_is_read_as_it_is_published(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lacks data_batch_\*.bin or test_batch.bin"):
        device.read_cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    red = [3] + [255] * 1024 + [0] * 2048
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        (folder / f"{name}.bin").write_bytes(bytes(red))
    split = device.read_cifar10(tmp_path)
    assert split.train.pixels.shape == (2, 32, 32, 3)
    assert split.train.labels.tolist() == [3, 3]
    assert (split.held_out.pixels == [255, 0, 0]).all()


def measured(folder, only=()):
    config = device.DeviceConfig(minutes=10, folder=folder, scale="tiny", only=only)
    device.main(config)
    found = outcomes(folder)
    assert all(outcome.startswith("done in") for outcome in found.values()), found
    return found


@pytest.mark.slow
def test_items_of_each_kind_leave_their_records(tmp_path):
    measured(tmp_path, ("optimizer-step-ncf", "movielens-1m-1m-untuned"))
    assert {r["optimizer"] for r in records.read_records(tmp_path / "overhead.jsonl")} == {
        "adam",
        "adam_lawn",
    }
    runs = records.read_records(tmp_path / "movielens-1m-1m-untuned.jsonl")
    assert [(r["config"]["optimizer"], r["seed"]) for r in runs] == [
        (optimizer, seed) for optimizer in device.BOTH for seed in range(3)
    ]


@pytest.mark.slow
def test_every_item_runs_on_made_up_data(tmp_path):
    begun = time.monotonic()
    assert measured(tmp_path).keys() == {m.name for m in device.MEASUREMENTS}
    assert time.monotonic() - begun < 300
