"""Benchmarks: the trees are those of the published models, and a measurement runs."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from benchmarks.measure import forms, optimizer_step
from benchmarks.report import __main__ as report
from benchmarks.report import imagenet
from benchmarks.tools import optimizers, torch_peers, trees
from examples.tasks.images import recipes


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
        optimizer_step.Config(
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
        optimizer_step.Config(torch=False, **wrong)


def test_overhead_does_without_pytorch(monkeypatch):
    monkeypatch.setattr(torch_peers, "installed", lambda: False)
    with pytest.raises(ValueError, match="pip install torch"):
        optimizer_step.Config(torch=True)


def test_the_readme_shows_what_the_records_say():
    report.main(report.Config(check=True))


def test_the_table_of_imagenet_takes_a_setting_as_it_is_and_no_other():
    config = {"dataset": "imagenet2012", "train_images": None, "model": "resnet50", "width": 1.0}
    config |= recipes.options(recipes.RECIPES["adam-lawn-256"])
    versions = {"commit": "abc"}

    def run(seed, accuracy, **changes):
        final = {"accuracy": accuracy, "ece": 0.05}
        shared = {"seed": seed, "final": final, "versions": versions, "device": "gpu"}
        return {"config": config | changes, **shared}

    others = [run(2, 0.1, train_images=512), run(3, 0.1, batch_size=512), run(4, 0.1, width=0.5)]
    text = imagenet.section([run(0, 0.75), run(1, 0.77, accumulate=4), *others])
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("| ")}
    assert "| 76.00 ± 1.00 | 0.050 ± 0.000 | 2 | 76.18 (0.03) " in lines["adam-lawn-256"]
    assert "--first-seed 2 " in lines["adam-lawn-256"]
    assert "| not yet run " in lines["adam-lawn-16k"]
    assert "--first-seed 0 " in lines["adam-lawn-16k"]


def test_a_section_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"no section <!-- table -->"):
        report.fill("text", "table", "body")


def test_the_forms_of_a_step_are_compared(tmp_path, capsys):
    out = tmp_path / "forms.jsonl"
    forms.main(forms.Config(width=64, windows=2, steps=2, out=out))
    assert "| two sweeps, plain sums " in capsys.readouterr().out
    found = {record["form"]: record for record in map(json.loads, out.read_text().splitlines())}
    assert found.keys() == {"adam", *forms.FORMS}
    for name in forms.FORMS:
        assert found[name]["error"] < 3e-6
    assert found["three sweeps, plain sums"]["parallel"] < 3e-6
