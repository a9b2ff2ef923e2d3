"""What a training step costs, measured on models too small to matter."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks.measure import training_step
from benchmarks.tools import trees


class Small(nnx.Module):
    """A convolution with batch statistics, so that a step has more than parameters to carry."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.mean(nnx.relu(self.norm(self.conv(x))), axis=(1, 2)))


@pytest.mark.parametrize(
    "workload",
    [
        training_step.recommender(users=30, items=20, tower=(8, 4)),
        training_step.classifier(lambda _, rngs: Small(rngs), shape=(8, 8, 3), classes=5),
    ],
    ids=["recommender", "classifier"],
)
def test_a_training_step_prints_and_records(workload, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(training_step.WORKLOADS, "ncf", workload)
    out = tmp_path / "records" / "training_step.jsonl"
    training_step.main(
        training_step.TrainingStepConfig(
            workloads=("ncf",),
            batches=(6,),
            optimizers=("adam_lawn",),
            windows=2,
            steps=2,
            out=out,
        )
    )
    assert "| adam_lawn " in capsys.readouterr().out
    plain, adam, lawn = map(json.loads, out.read_text().splitlines())
    assert [r["optimizer"] for r in (plain, adam, lawn)] == ["plain sgd", "adam", "adam_lawn"]
    assert (plain["share"], adam["time"]) == (0, 1)
    assert lawn["share"] < 1
    assert lawn["batch_size"] == 6


def test_a_training_step_refuses_unknown_names():
    with pytest.raises(ValueError, match=r"workloads holds 'oak': choose from ncf"):
        training_step.TrainingStepConfig(workloads=("oak",))


@pytest.mark.parametrize("name", sorted(training_step.WORKLOADS))
def test_the_trees_are_those_of_the_models(name):
    model = nnx.eval_shape(lambda: training_step.WORKLOADS[name].model(nnx.Rngs(0)))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sorted(x.shape for x in leaves) == sorted(trees.TREES[name]().values())
