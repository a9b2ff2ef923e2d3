"""Baselines: the property that each is known for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
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


def test_bounded_weights_refuse_norms_of_other_parameters():
    init, apply = bounded_weight_norm()
    norms = init({"kernel": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match="'kernel', which is not constrained"):
        apply({"other": jnp.ones((2, 3))}, norms)


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
    state, step = tx.init(jnp.float32(0)), jax.jit(tx.update)
    factors = []
    for w in norms:
        update, state = step(jnp.float32(1), state, jnp.float32(w))
        factors.append(float(update))
    return factors


def test_abel_decays_at_every_second_turn():
    norms = [9, 7, 5, 6, 8, 7, 5, 6, 7, 6]
    factors = abel_factors(abel(1, decay_factor=0.5), norms)
    # Turns at 6 (bounce), 7 (decay), 6 (bounce), 6 (decay).
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25])


def test_abel_takes_updates_that_are_plain_numbers():
    update, _ = abel(1).update(1.0, abel(1).init(2.0), 2.0)
    assert update == 1


def test_abel_without_a_bounce_decays_once_at_the_end():
    factors = abel_factors(abel(1, decay_factor=0.5, last_decay_step=4), range(1, 7))
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 0.5, 0.5])


def test_abel_measures_once_an_epoch():
    zigzag = [5, 9, 4, 9, 3, 9, 4, 9, 3, 9]
    np.testing.assert_allclose(
        abel_factors(abel(2, decay_factor=0.5), zigzag)[::2], [1, 1, 1, 1, 0.5]
    )


def by_hand(norms, steps_per_epoch, average_epochs, factor):
    """The paper's Algorithm 1 in float64, on averages of the squared norms at epochs' begins."""
    measured = np.square(np.float64(norms))[::steps_per_epoch]
    factors, averages, rate, reached = [], [], 1.0, False
    for epoch in range(len(measured)):
        if (epoch + 1) % average_epochs == 0:
            averages.append(np.mean(measured[epoch + 1 - average_epochs : epoch + 1]))
            if len(averages) > 2 and np.prod(np.diff(averages[-3:])) < 0:
                rate, reached = (factor * rate, False) if reached else (rate, True)
        factors += [rate] * steps_per_epoch
    return factors


@pytest.mark.parametrize("average_epochs", [1, 2, 5])
def test_abel_compares_averages_over_epochs(average_epochs):
    rng = np.random.default_rng(0)
    norms = 5 + 2 * np.cos(np.arange(180) / 12) + rng.normal(scale=0.2, size=180)
    factors = abel_factors(abel(3, decay_factor=0.5, average_epochs=average_epochs), norms)
    np.testing.assert_allclose(factors, by_hand(norms, 3, average_epochs, 0.5), rtol=1e-6)
    # The cosine turns at 2, 3 and 4 times pi; without averages the noise does.
    assert (factors[-1] < 0.1) == (average_epochs == 1)
    assert factors[-1] < 1


def test_abel_sees_norms_of_bfloat16_weights_that_its_sum_could_not_hold():
    tx = abel(1, decay_factor=0.5)
    params = jnp.ones(1000, jnp.bfloat16)
    state, factors = tx.init(params), []
    for more in (0, 3, 6, 3, 0, 3):  # Elements of 1 that are 2: squares of 1000 to 1018.
        w = params.at[:more].set(2)
        update, state = tx.update(jnp.ones_like(w), state, w)
        factors.append(float(update[0]))
    assert factors == [1, 1, 1, 1, 1, 0.5]


def test_within_lawn_rounding_is_no_bounce_and_a_free_leaf_decides():
    tx = lo.lawn(optax.chain(optax.sgd(0.1), abel(1, decay_factor=0.5)), 0)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.float32(rng.normal(size=shape))
    params = {"kernel": draw(30, 40), "bias": jnp.ones(40)}
    state = tx.init(params)

    @jax.jit
    def step(params, state, gradient, bias):
        params = params | {"bias": bias}
        grads = {"kernel": gradient, "bias": jnp.zeros(40)}
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, state.inner[-1].factor

    def run(biases):
        nonlocal params, state
        for b in biases:
            bias = jnp.full(40, b, jnp.float32)
            params, state, factor = step(params, state, draw(30, 40), bias)
        return float(factor)

    assert run([1] * 60) == 1
    assert run([0.8, 0.6, 0.9, 1.2]) == 1
    assert run([1.1]) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_epoch": 0}, r"steps_per_epoch=0 must be at least 1"),
        ({"steps_per_epoch": 1, "decay_factor": 1.5}, r"decay_factor=1.5 must be between 0 and 1"),
        ({"steps_per_epoch": 1, "last_decay_step": -1}, r"last_decay_step=-1 must be at least 0"),
        ({"steps_per_epoch": 1, "average_epochs": 0}, r"average_epochs=0 must be at least 1"),
    ],
)
def test_abel_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        abel(**options)
