"""Hoffer et al.'s bounded weight norm around the recommender."""

import jax
import numpy as np
from flax import nnx

from examples import training
from examples.tasks.recommendation import ranking
from examples.training.options import Options
from tests.examples.toys import toy_interactions

USERS, ITEMS = np.arange(5), np.arange(5)


def task(**changes):
    return ranking.make_task(toy_interactions(), 50, (8, 6, 4), None, **changes)


def test_a_bounded_model_begins_as_the_model_and_forgets_the_length_of_its_parameters():
    make = lambda **changes: nnx.jit(lambda: task(**changes).model(nnx.Rngs(0)))()
    logits_of = nnx.jit(lambda model: model(USERS, ITEMS))
    bounded = make(bounded_weight_norm=True)
    logits = logits_of(bounded)
    np.testing.assert_allclose(logits, logits_of(make()), rtol=1e-5)
    structure, params, rest = nnx.split(bounded, nnx.Param, ...)
    longer = jax.tree.map(lambda v: 3 * v if v.ndim > 1 else v, params)
    np.testing.assert_allclose(logits_of(nnx.merge(structure, longer, rest)), logits, rtol=1e-5)


def test_training_keeps_the_bounds_of_every_seed():
    options = Options(optimizer="adam", epochs=2, batch_size=50, seeds=2, learning_rate=0.1)
    bounded = task(bounded_weight_norm=True)
    start = training.init(
        bounded,
        options.static_options(bounded.steps_per_epoch),
        jax.tree.map(lambda x: np.full(2, x, np.float32), options.hyperparameters()),
        np.arange(2),
    )
    end = training.train(bounded, options).state
    assert jax.tree.leaves(start.rest)
    for before, after in zip(*map(jax.tree.leaves, (start.rest, end.rest)), strict=True):
        assert before.shape == (2,)
        np.testing.assert_array_equal(before, after)
    moved = [
        np.abs(a - b).max()
        for a, b in zip(*map(jax.tree.leaves, (start.params, end.params)), strict=True)
    ]
    assert min(moved) > 0
