"""Baselines: the property that each is known for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lawn_optax.baselines import abel, bounded_weight_norm
from tests.conftest import CONSTRAINED
from tests.helpers import max_difference, norm

AXES = {"dense": 0, "conv": (0, 1, 2), "embedding": 1, "bias": None, "scale": None}


@pytest.mark.parametrize("axes", [None, AXES])
def test_bounded_weights_keep_their_norms(axes, weights):
    params = jax.tree.map(jnp.float32, weights)
    init, apply = bounded_weight_norm(axes=axes)
    norms = init(params)
    assert max_difference(apply(params, norms), params) < 1e-6
    moved = jax.tree.map(lambda w: 3 * w + 1, params)
    bounded = apply(moved, norms)
    for name in CONSTRAINED:
        over = (axes or {}).get(name)
        np.testing.assert_allclose(norm(bounded[name], over), norm(params[name], over), rtol=3e-6)
    for name in ("bias", "scale"):
        np.testing.assert_array_equal(bounded[name], moved[name])


def test_its_gradient_is_tangent_and_shrinks_with_the_free_norm():
    init, apply = bounded_weight_norm()
    v = {"w": jnp.array([[3.0, 4.0]])}
    norms = init(v)
    loss = lambda v: jnp.sum(apply(v, norms)["w"] * jnp.array([[1.0, -2.0]]))
    gradient = jax.grad(loss)(v)["w"]
    assert abs(np.vdot(gradient, v["w"])) < 1e-5
    half = jax.grad(loss)({"w": 2 * v["w"]})["w"]
    np.testing.assert_allclose(half, gradient / 2, rtol=1e-5)


def test_zero_weights_stay_themselves():
    init, apply = bounded_weight_norm()
    v = {"w": jnp.zeros((2, 2))}
    assert jnp.all(apply({"w": jnp.ones((2, 2))}, init(v))["w"] == 1)


def abel_factors(tx, norms):
    """What `abel` multiplies updates by while a scalar weight runs through `norms`."""
    state = tx.init(jnp.float32(0))
    factors = []
    for w in norms:
        update, state = jax.jit(tx.update)(jnp.float32(1), state, jnp.float32(w))
        factors.append(float(update))
    return factors


def test_abel_decays_at_every_second_turn():
    norms = [9, 7, 5, 6, 8, 7, 5, 6, 7, 6]
    factors = abel_factors(abel(1, decay_factor=0.5), norms)
    # Turns at 6 (bounce), 7 (decay), 6 (bounce), 6 (decay).
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25])


def test_abel_without_a_bounce_decays_once_at_the_end():
    factors = abel_factors(abel(1, decay_factor=0.5, last_decay_step=4), range(1, 7))
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 0.5, 0.5])


def test_abel_measures_once_an_epoch():
    zigzag = [5, 9, 4, 9, 3, 9, 4, 9, 3, 9]
    np.testing.assert_allclose(
        abel_factors(abel(2, decay_factor=0.5), zigzag)[::2], [1, 1, 1, 1, 0.5]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_epoch": 0}, r"steps_per_epoch=0 must be at least 1"),
        ({"steps_per_epoch": 1, "decay_factor": 1.5}, r"decay_factor=1.5 must be between 0 and 1"),
        ({"steps_per_epoch": 1, "last_decay_step": -1}, r"last_decay_step=-1 must be at least 0"),
    ],
)
def test_abel_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        abel(**options)
