"""The optimizer step: the trees are those of the published models, and a measurement runs."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from benchmarks.measure import optimizer_step
from benchmarks.tools import optimizers, torch_peers, trees


@pytest.mark.parametrize(
    ("tree", "leaves", "parameters"),
    [
        ("ncf", 8, 9746 * 128 + 257 * 128 + 129 * 64 + 65),
        ("vgg19", 66, 20_040_522),
        ("resnet50", 161, 25_557_032),  # as published for torchvision's
        ("block", 1, 8 * 4096 * 4096),
    ],
)
def test_trees_have_the_published_sizes(tree, leaves, parameters):
    shapes = trees.TREES[tree]()
    assert len(shapes) == leaves
    assert sum(map(math.prod, shapes.values())) == parameters


def test_overhead_prints_and_records(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(trees.TREES, "ncf", lambda: {"kernel": (50, 20), "bias": (20,)})
    out = tmp_path / "records" / "overhead.jsonl"
    optimizer_step.main(
        optimizer_step.OptimizerStepConfig(
            trees=("ncf",),
            optimizers=("adam_lawn", "adam, reparametrized"),
            windows=2,
            steps=2,
            torch=False,
            out=out,
        )
    )
    printed = capsys.readouterr().out
    assert "| adam_lawn " in printed
    assert "| adam, reparametrized " in printed
    adam, lawn, reparametrized = map(json.loads, out.read_text().splitlines())
    assert (adam["optimizer"], lawn["optimizer"]) == ("adam", "adam_lawn")
    assert adam["time"] == 1
    assert lawn["bytes"] > reparametrized["bytes"] > adam["bytes"] > adam["floor"]
    assert lawn["reductions"] > 0 == adam["reductions"]
    assert lawn["versions"]["jax"]
    assert "cores" in lawn["device"]
    assert lawn["command_buffers"]
    assert "of copy bandwidth" not in printed
    moved = lawn["floor"] * lawn["parameters"] / (lawn["ms"] / 1e3)
    on_gpu = lawn | {"backend": "gpu", "copy_bytes_per_s": 2 * moved}
    assert optimizer_step.share_of_copy(on_gpu) == 0.5
    assert "of copy bandwidth" in optimizer_step.table([adam, on_gpu])


def test_every_optimizer_steps_and_has_its_floor():
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    for name, case in optimizers.OPTIMIZERS.items():
        init, step = case.make()
        state = jax.eval_shape(init, params)
        after = jax.eval_shape(step, params, state, params)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
            lambda x: (x.shape, x.dtype), (params, state)
        ), name
        # Matrix products decide of Muon; of the others, the first moves from (w, g, m, v).
        assert (case.floor is None) == ("muon" in name), name
    floors = {n: case.floor for n, case in optimizers.OPTIMIZERS.items()}
    assert (floors["sgd"], floors["adam"], floors["lamb"], floors["adam_lawn"]) == (20, 28, 40, 48)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trees": ("oak",)}, r"trees holds 'oak': choose from block, ncf"),
        ({"optimizers": ("adam", "eve")}, r"optimizers holds 'eve': choose from adam, adam_lawn"),
        ({"windows": 0}, r"windows=0 must be at least 1"),
    ],
)
def test_overhead_says_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        optimizer_step.OptimizerStepConfig(torch=False, **wrong)


def test_overhead_does_without_pytorch(monkeypatch):
    monkeypatch.setattr(torch_peers, "installed", lambda: False)
    with pytest.raises(ValueError, match="pip install torch"):
        optimizer_step.OptimizerStepConfig(torch=True)
