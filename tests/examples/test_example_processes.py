"""How a run starts and stops: options of a cluster, SIGTERM, Ctrl-C, a finished run given again."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from flax import nnx

from examples import ncf, training
from examples.results import records
from examples.training import command, distributed
from examples.training.distributed import Cluster
from examples.training.optimizers import NOTHING_STACKED
from examples.training.options import Options

OPTIONS = Options(optimizer="adam", epochs=3, seeds=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Line:
    """The smallest task: two steps an epoch towards `y = 1`."""

    x: jax.Array
    score = "error"
    vmaps_runs = True
    layout = NOTHING_STACKED
    steps_per_epoch = 2

    def model(self, rngs):
        return nnx.Linear(3, 1, rngs=rngs)

    def batches(self, key):
        return self.x + jax.random.uniform(key)

    def loss(self, model, batch):
        y = model(batch)[:, 0]
        return (y - 1) ** 2, y

    def evaluate(self, model):
        return {"error": jnp.mean(self.loss(model, self.x[0])[0])}


@pytest.fixture(scope="module")
def task():
    return Line(jnp.arange(24.0).reshape(2, 4, 3))


def signal_in_epoch(monkeypatch, number, epoch):
    """Sends this process a signal in the middle of an epoch."""
    train_epoch, begun = training.train_epoch, []

    def sending(*args):
        begun.append(None)
        if len(begun) == epoch:
            os.kill(os.getpid(), number)
        return train_epoch(*args)

    monkeypatch.setattr(training.loop, "train_epoch", sending)


def test_a_ctrl_c_that_something_swallows_ends_the_run_all_the_same(task, tmp_path, monkeypatch):
    train_epoch, begun = training.train_epoch, []

    def swallowing(*args):
        begun.append(None)
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        return train_epoch(*args)

    monkeypatch.setattr(training.loop, "train_epoch", swallowing)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training.train(task, dataclasses.replace(OPTIONS, checkpoint_dir=tmp_path))
    assert len(begun) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_saves_the_epoch_and_the_same_command_goes_on(task, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    options = dataclasses.replace(OPTIONS, checkpoint_dir=tmp_path, checkpoint_every=100)
    with monkeypatch.context() as patch:
        signal_in_epoch(patch, signal.SIGTERM, 2)
        with pytest.raises(
            distributed.StoppedError, match=f"after epoch 2 of 3, which {tmp_path} k"
        ):
            training.train(task, options)
    assert signal.getsignal(signal.SIGTERM) == before
    resumed = training.train(task, options)
    assert resumed.resumed_from == 2
    for name, values in training.train(task, OPTIONS).curve.items():
        np.testing.assert_array_equal(resumed.curve[name], values)
    # In the last epoch there is nothing left to stop.
    with monkeypatch.context() as patch:
        signal_in_epoch(patch, signal.SIGTERM, 3)
        options = dataclasses.replace(options, checkpoint_dir=tmp_path / "other")
        assert training.train(task, options).resumed_from == 0


def test_a_stopped_command_says_how_to_go_on_and_is_no_failure(capsys):
    def main(config):
        raise distributed.StoppedError("Stopped after epoch 2.")

    command.run(main, lambda: OPTIONS)
    assert capsys.readouterr().err == "Stopped after epoch 2.\n"


@pytest.mark.parametrize("name", ["out", "checkpoint_dir", "tensorboard"])
def test_places_that_cannot_be_written_to_are_refused_before_any_work(tmp_path, name, capsys):
    (tmp_path / "file").touch()
    config = dataclasses.replace(OPTIONS, **{name: tmp_path / "file" / "runs"})
    with pytest.raises(SystemExit, match="2"):
        command.run(lambda config: pytest.fail("it began"), lambda: config)
    error = capsys.readouterr().err
    assert re.fullmatch(rf"error: {name}='.*runs' cannot be written .*give another.\n", error)


@pytest.mark.parametrize(
    ("folder", "says"),
    [(None, "nothing is kept without --checkpoint-dir"), ("runs", "from the last checkpoint in ")],
)
def test_ctrl_c_ends_with_a_line(folder, says, capsys, tmp_path):
    def main(config):
        raise KeyboardInterrupt

    config = dataclasses.replace(OPTIONS, checkpoint_dir=folder and tmp_path / folder)
    with pytest.raises(SystemExit, match="130"):
        command.run(main, lambda: config)
    line = capsys.readouterr().err.strip()
    assert line.startswith("Interrupted: ")
    assert says in line


def test_a_finished_run_given_again_adds_no_record(tmp_path, capsys):
    config = ncf.Config(
        dataset="movielens-100k",
        epochs=1,
        warmup_epochs=0,
        seeds=2,
        checkpoint_dir=tmp_path,
        out=tmp_path / "runs.jsonl",
    )
    names = ("hr_at_10", "ndcg_at_10", "train_loss")
    curve = {name: np.float32([[0.1], [np.nan]]) for name in names}
    result = training.Result({"w": jnp.zeros(2)}, curve, 1.0)
    ncf.report(config, result)
    assert len(records.read_records(config.out)) == 2
    capsys.readouterr()
    finished = result._replace(wall_s=2.0, resumed_from=1)
    ncf.report(config, finished)
    assert len(records.read_records(config.out)) == 2
    out = capsys.readouterr().out
    assert f"{tmp_path} had this run finished: nothing was trained." in out
    assert f"{config.out} has 2 of its records: they are not added." in out
    # One that was killed before it could write them all.
    lines = config.out.read_text().splitlines(keepends=True)
    config.out.write_text(lines[0])
    ncf.report(config, finished)
    assert [record["seed"] for record in records.read_records(config.out)] == [0, 1]
    # Trained again it is the same run, and with another curve another one.
    ncf.report(config, result)
    assert len(records.read_records(config.out)) == 2
    other = result._replace(curve={name: 2 * x for name, x in curve.items()})
    ncf.report(config, other)
    assert len(records.read_records(config.out)) == 3  # that of NaN is as it was


class TestCluster:
    """What a command line may say of the other processes."""

    def test_by_default_it_is_alone(self):
        distributed.join(Cluster())
        assert distributed.is_first()
        assert distributed.any_process(True)
        assert not distributed.any_process(False)
        assert distributed.of_first(3) == 3

    def test_the_command_line(self):
        command = "--dataset movielens-100k --distributed --coordinator 10.0.0.1:1234"
        config = tyro.cli(ncf.Config, args=f"{command} --num-processes 4 --process-id 3".split())
        assert config.cluster == Cluster(
            distributed=True, coordinator="10.0.0.1:1234", num_processes=4, process_id=3
        )
        assert not {"cluster", "mesh"} & config.config().keys()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"process_id": 1, "num_processes": 2}, r"'process_id': 1} without distributed"),
            ({"distributed": True, "process_id": 1}, r"num_processes=None and process_id=1: give"),
            (
                {"distributed": True, "process_id": 2, "num_processes": 2},
                r"process_id=2 must lie between 0 and num_processes=2 - 1",
            ),
        ],
    )
    def test_what_does_not_fit_is_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            Cluster(**options)

    def test_no_cluster_is_named_with_the_remedy(self, monkeypatch):
        monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
        code = "from examples.training.distributed import *; join(Cluster(distributed=True))"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "ValueError: distributed: coordinator_address should be defined." in done.stderr
        assert "give --coordinator HOST:PORT" in done.stderr
