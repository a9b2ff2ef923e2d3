"""Weights that are not iterates, brought to norms or to a margin."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from lawn_optax import diagnostics
from tests.helpers import norm, train

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([1.0, 2.0])}
pull = lambda t, params: jax.tree.map(lambda w: jnp.sin(3 * w + t), params)


def test_an_average_of_iterates_is_brought_to_their_norms():
    history, state = train(lo.adam_lawn(0.3, 1), PARAMS, pull, 10)
    average = jax.tree.map(lambda *x: jnp.mean(jnp.stack(x), 0), *history[1:])
    held = state.norms["kernel"]
    assert norm(average["kernel"]) < 0.99 * held
    found = lo.scale_to_norms(average, diagnostics.captured_norms(state))
    np.testing.assert_allclose(norm(found["kernel"]), held, rtol=3e-6)
    np.testing.assert_array_equal(found["bias"], average["bias"])
    cosine = jnp.vdot(found["kernel"], average["kernel"]) / (held * norm(average["kernel"]))
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)


def test_before_the_switch_nothing_is_scaled():
    state = lo.adam_lawn(0.3, 5).init(PARAMS)
    found = lo.scale_to_norms(PARAMS, diagnostics.captured_norms(state))
    np.testing.assert_array_equal(found["kernel"], PARAMS["kernel"])


def test_a_norm_of_a_free_leaf_is_refused():
    with pytest.raises(ValueError, match=r"norms has one of 'bias', which is not constrained"):
        lo.scale_to_norms(PARAMS, {"bias": jnp.float32(1)})


def test_evaluated_weights_of_schedule_free_lie_inside_and_are_brought_out():
    inner = optax.contrib.schedule_free(optax.sgd(0.3), 0.3)
    history, state = train(lo.lawn(inner, 1), PARAMS, pull, 12)
    average = optax.contrib.schedule_free_eval_params(state.inner, history[-1])
    held = float(state.norms["kernel"])
    assert norm(history[-1]["kernel"]) == pytest.approx(held, rel=3e-6)
    assert abs(norm(average["kernel"]) / held - 1) > 1e-4
    found = lo.scale_to_norms(average, diagnostics.captured_norms(state))
    assert norm(found["kernel"]) == pytest.approx(held, rel=3e-6)


def margin(params):
    """A network of two layers, so that halved norms divide it by 4."""
    return jnp.sum((params["first"] @ params["second"]) ** 2) ** 0.5


LAYERS = {"first": 3 * jnp.eye(3), "second": jnp.array([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]])}


@pytest.mark.parametrize("threshold", [0.5, 2.5])
def test_the_margin_of_a_flattened_model_is_brought_to_the_threshold(threshold):
    found = jax.jit(lambda p: lo.scale_to_margin(p, margin, threshold))(LAYERS)
    np.testing.assert_allclose(margin(found), threshold, rtol=1e-4)
    factors = [norm(found[name]) / norm(LAYERS[name]) for name in LAYERS]
    np.testing.assert_allclose(factors[0], factors[1], rtol=1e-5)


def test_a_model_below_the_threshold_stays_as_it_is():
    found = lo.scale_to_margin(LAYERS, margin, 100.0)
    np.testing.assert_allclose(found["first"], LAYERS["first"], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold=0.0 must be positive"),
        ({"iterations": 0}, "iterations=0 must be at least 1"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        lo.scale_to_margin(LAYERS, margin, **options)


def test_norms_of_other_axes_are_refused():
    params = {"kernel": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match=r"'kernel' have shape \(3,\), and its spheres \(\): give"):
        lo.scale_to_norms(params, {"kernel": jnp.ones(3)})
    with pytest.raises(TypeError, match="norms is a tuple and must be a dict"):
        lo.scale_to_norms(params, (1.0,))


def test_a_margin_of_much_too_large_weights_is_reached():
    params = {"kernel": jnp.array([[1e4, 0.0]])}
    scaled = lo.scale_to_margin(params, lambda p: p["kernel"][0, 0])
    np.testing.assert_allclose(scaled["kernel"], [[2.5, 0.0]], rtol=1e-4)


def test_a_margin_that_the_norms_do_not_change_is_refused_and_left_alone_under_jit():
    params = {"kernel": jnp.array([[3.0, 4.0]])}
    margin = lambda p: 10 * p["kernel"][0, 0] / jnp.linalg.norm(p["kernel"])
    with pytest.raises(ValueError, match=r"above threshold=2.5 even at 1e-06 of the norms"):
        lo.scale_to_margin(params, margin)
    scaled = jax.jit(lambda p: lo.scale_to_margin(p, margin))(params)
    np.testing.assert_array_equal(scaled["kernel"], params["kernel"])


def test_what_does_not_return_one_margin_is_refused():
    params = {"kernel": jnp.ones((1, 2))}
    with pytest.raises(ValueError, match=r"median_margin\(params\) has shape \(2,\)"):
        lo.scale_to_margin(params, lambda p: p["kernel"][0])
    with pytest.raises(TypeError, match=r"median_margin=3.0 must be a function"):
        lo.scale_to_margin(params, 3.0)
