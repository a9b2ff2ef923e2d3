"""Commands that are killed, stopped and spread over processes end where one left alone ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from examples.results import records
from tests.helpers import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 300  # Seconds for a process to get somewhere, on however busy a machine.
EPOCHS, SWITCH = 60, 30.5


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts `examples.ncf` on seven users, each with 20 of 140 items: four steps an epoch."""
    folder = tmp_path_factory.mktemp("data")
    ratings = [(u, 20 * u + k - 19, 5, k) for u in range(1, 8) for k in range(20)]
    text = "".join("\t".join(map(str, row)) + "\n" for row in ratings)
    (folder / "u.data").write_text(text)
    environment = os.environ | {
        "TFDS_DATA_DIR": str(folder / "cache"),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    del environment["XLA_FLAGS"]  # One device.
    command = (
        f"-m examples.ncf --dataset movielens-100k --data-dir {folder} --batch-size 200"
        f" --tower 16 8 --optimizer lamb_lawn --warmup-epochs 1 --seeds 2"
    )

    started = []

    def start(arguments, epochs=EPOCHS, switch=SWITCH):
        arguments = f"{command} --epochs {epochs} --free-epochs {switch} {arguments}"
        line = [sys.executable, *arguments.split()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(line, cwd=ROOT, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process, code=0):
    """Its output and its errors."""
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    return out, errors


def freeze(process, condition):
    """Stops the process at a moment when the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            process.send_signal(signal.SIGSTOP)
            if condition():
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    process.kill()
    pytest.fail(f"the moment never came: {process.communicate()}")


def newest(folder):
    """The epoch that the newest checkpoint has, 0 if there is none."""
    try:
        return int((folder / "newest").read_text())
    except FileNotFoundError:
        return 0


def saving(folder, since=0.0):
    """The epochs whose checkpoints were begun after a time and are not finished."""
    found = [path for path in folder.glob("*.tmp") if path.stem.isdecimal()]
    return {int(path.stem) for path in found if modified(path) > since}


def modified(path):
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def bits(folder):
    """All that the newest checkpoint has, but for the time it took."""
    place = folder / str(newest(folder))
    state = ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore(place / "state")
    progress = json.loads((place / "progress.json").read_text())["content"]
    leaves = {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        )
        for path, x in jax.tree.leaves_with_path(state)
    }
    return leaves, progress["curve"]


def assert_same_bits(one, other):
    (leaves, curve), (other_leaves, other_curve) = bits(one), bits(other)
    assert leaves.keys() == other_leaves.keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, other_leaves[name], err_msg=name)
    assert curve == other_curve
    assert len(curve["train_loss"]) == EPOCHS


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The checkpoints and records of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(f"--checkpoint-dir {folder} --out {folder}/runs.jsonl"))
    return folder


@pytest.mark.parametrize("kills", [3])
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(
    kills, start, undisturbed, tmp_path
):
    """The moments move on from the first epochs to the last; every other is amid a checkpoint."""
    rng, at = random.Random(kills), []
    command = f"--checkpoint-dir {tmp_path} --out {tmp_path}/runs.jsonl"
    for kill in range(kills):
        epoch = round((kill + rng.random()) * (EPOCHS - 6) / kills)
        if kill == kills // 2:
            epoch = int(SWITCH)
        begun, process = time.time(), start(command)
        if kill % 2:
            freeze(process, lambda epoch=epoch: newest(tmp_path) >= epoch)
            process.send_signal(signal.SIGCONT)
            time.sleep(rng.uniform(0, 0.03))
        else:
            amid = lambda epoch=epoch, begun=begun: max(saving(tmp_path, begun), default=0) > epoch
            freeze(process, amid)
        process.kill()
        finish(process, -signal.SIGKILL)
        at.append((newest(tmp_path), bool(saving(tmp_path, begun))))
    print("\n(newest checkpoint, whether the next was being written):", at)
    _, errors = finish(start(command))
    assert "torn" not in errors
    assert_same_bits(tmp_path, undisturbed)
    before, during, after = at[0], at[kills // 2], at[-1]
    assert before[0] < int(SWITCH) <= during[0] <= SWITCH + 2 < after[0]
    assert sum(unfinished for _, unfinished in at) >= kills // 2
    found, expected = (records.read_records(f / "runs.jsonl") for f in (tmp_path, undisturbed))
    assert [r["curve"] for r in found] == [r["curve"] for r in expected]


def test_sigterm_saves_and_ctrl_c_ends_without_a_traceback(start, tmp_path):
    command = f"--checkpoint-dir {tmp_path} --checkpoint-every 7"
    process = start(command, epochs=100_000)
    freeze(process, lambda: newest(tmp_path) >= 7)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    _, errors = finish(process)
    last = newest(tmp_path)
    assert f"Stopped after epoch {last} of 100000, which {tmp_path} keeps: the same" in errors
    assert "Traceback" not in errors
    process = start(command, epochs=100_000)
    freeze(process, lambda: newest(tmp_path) > last)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    _, errors = finish(process, 130)
    assert errors.endswith(f"the same command goes on from the last checkpoint in {tmp_path}.\n")
    assert "Traceback" not in errors


def test_two_processes_train_as_one_does(start, tmp_path):
    """Before the switch one of them gets SIGTERM, and both stop; given again, they go on."""
    shared = f"--checkpoint-dir {tmp_path} --out {tmp_path}/runs.jsonl --tensorboard {tmp_path}/tb"

    def start_both():
        cluster = f"--distributed --coordinator 127.0.0.1:{free_port()} --num-processes 2"
        return [start(f"{shared} {cluster} --process-id {i}", 12, 6.5) for i in (0, 1)]

    finish(start(f"--out {tmp_path}/alone.jsonl", 12, 6.5))
    first, second = start_both()
    freeze(first, lambda: newest(tmp_path) >= 2)
    second.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    (_, errors), _ = finish(first), finish(second)
    stopped = newest(tmp_path)
    assert f"Stopped after epoch {stopped} of 12" in errors
    first, second = start_both()
    (out, _), (silence, _) = finish(first), finish(second)
    assert "| HR@10" in out
    assert "HR@10" not in silence
    found, expected = (records.read_records(tmp_path / f"{n}.jsonl") for n in ("runs", "alone"))
    assert [r["seed"] for r in found] == [0, 1]
    assert found[0]["device"] == f"2 x {expected[0]['device']}"
    for record, other in zip(found, expected, strict=True):
        assert record["config"] == other["config"]
        assert record["curve"].keys() == other["curve"].keys()
        for name, values in other["curve"].items():
            np.testing.assert_allclose(record["curve"][name], values, rtol=1e-4, err_msg=name)
    assert len(list((tmp_path / "tb").glob("*/events.*"))) == 4, "two starts, two seeds"
    # One process, given the same, reads what two have saved and finds all done.
    out, _ = finish(start(shared, 12, 6.5))
    assert f"{tmp_path} had this run finished: nothing was trained." in out
    assert f"{tmp_path}/runs.jsonl has 2 of its records: they are not added." in out
    assert len(records.read_records(tmp_path / "runs.jsonl")) == 2
