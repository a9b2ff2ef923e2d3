"""The rescue: what goes on from where, the factor that is found, and that nothing is run twice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.paper import rescue, stages
from benchmarks.paper.comparisons import HELD
from examples import ncf
from examples.results import records
from examples.tasks.recommendation import ranking
from lawn_optax import diagnostics
from tests.examples.toys import toy_interactions

BASE = dataclasses.replace(HELD, batch_size=50, epochs=4, warmup_epochs=0.5)


@pytest.fixture(scope="module")
def task():
    return ranking.make_task(toy_interactions(), 50, (8, 6, 4), None)


def test_the_factor_makes_the_median_margin_what_it_is_to_be(task, monkeypatch):
    free = dataclasses.replace(BASE, free_epochs=4.0, norms_scale=1.0)
    trained = stages.begin(task, free, 4, "")
    margins = lambda params: jnp.concatenate(
        [
            task.loss(
                nnx.merge(structure, params, rest), jax.tree.map(lambda x, i=i: x[i], batches)
            )[1]
            for i in range(len(batches[0]))
        ]
    )
    structure, params, rest = nnx.split(task.model(nnx.Rngs(0)), nnx.Param, ...)
    params = jax.tree.map(lambda x: x[0], trained.state.params)
    batches = task.batches(jax.random.key(0))
    before = float(jnp.median(margins(params)))
    monkeypatch.setattr(rescue, "THRESHOLD", before / 2)
    factor = rescue.factor_to_margin(task, trained.state, seed=0)
    assert 0 < factor < 1
    kernels = diagnostics.weight_norms(params)
    scaled = jax.tree.map_with_path(
        lambda path, w: (
            factor * w if jax.tree_util.keystr(path, simple=True, separator="/") in kernels else w
        ),
        params,
    )
    np.testing.assert_allclose(jnp.median(margins(scaled)), before / 2, rtol=1e-3)


@pytest.mark.slow
def test_every_way_goes_on_from_adam_and_is_not_run_again(task, tmp_path, monkeypatch):
    monkeypatch.setattr(rescue, "HELD", BASE)
    monkeypatch.setattr(rescue, "DECAYS", (0.0, 3.0))
    monkeypatch.setattr(rescue, "THRESHOLD", 0.05)  # above 0.025, which the biases make alone
    monkeypatch.setattr(ncf, "load", lambda config: task)
    config = rescue.RescueConfig(epoch=2, seeds=1, records=tmp_path)
    rescue.main(config)
    found = records.read_records(tmp_path / rescue.FILE)
    losses = np.array([run["curve"]["train_loss"] for run in found])
    assert losses.shape == (3, BASE.epochs)
    np.testing.assert_allclose(losses[:, :2], losses[:1, :2].repeat(3, axis=0), rtol=1e-3)
    assert len(set(losses[:, 3])) == 3
    assert [run["config"]["norms_scale"] for run in found if "norms_scale" in run["config"]]
    monkeypatch.setattr(rescue, "experiment", None)
    rescue.main(config)
    assert records.read_records(tmp_path / rescue.FILE) == found
