"""Each preset is what it says: its parts, its defaults, its one property."""

import inspect
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from tests import reference
from tests.conftest import CONSTRAINED
from tests.helpers import max_difference, train

AXES = {"dense": 0, "conv": (0, 1, 2), "embedding": 1, "bias": None, "scale": None}


def test_defaults_are_the_papers():
    for preset in (lo.adam_lawn, lo.lamb_lawn, lo.lamb_plus):
        default = {n: p.default for n, p in inspect.signature(preset).parameters.items()}
        assert (default["b1"], default["b2"], default["eps"]) == (0.9, 0.999, 1e-6)
    assert inspect.signature(lo.sgd_lawn).parameters["momentum"].default == 0.9


def test_adam_lawn_without_a_switch_constrains_by_itself_and_asks_for_the_loss():
    params, gradient = {"kernel": jnp.eye(3)}, {"kernel": jnp.ones((3, 3))}
    ends = []
    for tx in (lo.adam_lawn(0.1), lo.adam_lawn(0.1, lo.at_flattening())):
        w, state = params, tx.init(params)
        for step in range(60):
            updates, state = tx.update(gradient, state, w, value=0.9**step)
            w = optax.apply_updates(w, updates)
        ends.append((w, state))
    chex.assert_trees_all_equal(*ends)
    assert lo.diagnostics.is_constrained(ends[0][1])
    with pytest.raises(ValueError, match="value=None: at_flattening needs the minibatch's loss"):
        tx.update(gradient, state, w)


@pytest.mark.parametrize("axes", [None, AXES])
def test_a_lamb_lawn_step_moves_by_its_learning_rate(axes, weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    history, _ = train(lo.lamb_lawn(0.05, 3, axes=axes), params, gradient, 12)
    for before, after in itertools.pairwise(history[2:]):
        update = jax.tree.map(jnp.subtract, after, before)
        angles = lo.diagnostics.angular_step(before, update, axes=axes)
        for name in CONSTRAINED:
            np.testing.assert_allclose(jnp.tan(angles[name]), 0.05, rtol=1e-4)


def test_lamb_lawn_is_lamb_until_the_switch(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    ours, _ = train(lo.lamb_lawn(0.05, 10), params, gradient, 10)
    theirs, _ = train(optax.lamb(0.05, eps=1e-6), params, gradient, 10)
    assert max_difference(ours, theirs) < 1e-5


def test_lamb_lawn_leaves_zero_slices_to_lamb(gradient, x64):
    weights = {"dense": np.array([[0.0, 1.0], [0.0, 2.0], [0.0, -1.0]])}
    pull = lambda t, p: {"dense": np.asarray(p["dense"]) - [[1.0, 2.0]] * 3}
    tx = lo.lamb_lawn(0.05, 0, axes=0)
    history, _ = train(tx, jax.tree.map(jnp.float64, weights), pull, 10)
    expected = reference.train(
        weights, pull, reference.Lamb(0.05), steps=10, switch=0, axes={"dense": (0,)}
    )
    assert max_difference(history, expected) < 1e-12


def test_lamb_plus_without_a_cap_is_lamb(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    ours, _ = train(lo.lamb_plus(0.05, weight_decay=0.1, max_ratio=jnp.inf), params, gradient, 10)
    theirs, _ = train(optax.lamb(0.05, eps=1e-6, weight_decay=0.1), params, gradient, 10)
    assert max_difference(ours, theirs) < 1e-5
