"""`hold_median_margin`: the norms are steered so that the median margin stays at the threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from tests.helpers import norm

W = jnp.array([[0.6, 0.8]])


def run(switch, steps, margin=lambda t, w: jnp.linalg.norm(w) ** 3, decay=0.0):
    """SGD that makes free weights longer, and a margin that grows as of three layers."""
    tx = lo.lawn(optax.chain(optax.add_decayed_weights(decay), optax.sgd(1.0)), switch)

    def body(carry, t):
        w, state = carry
        x = margin(t, w)
        updates, state = tx.update(-0.01 * w, state, w, margin=x)
        return (optax.apply_updates(w, updates), state), (x, jnp.linalg.norm(w), state)

    (_, state), (margins, norms, states) = jax.jit(
        lambda: jax.lax.scan(body, (W, tx.init(W)), jnp.arange(steps))
    )()
    return np.asarray(margins), np.asarray(norms), states, state


def test_the_margin_is_held():
    margins, _, _, state = run(lo.hold_median_margin(2.5), 3000)
    assert margins.max() < 1.4 * 2.5  # where free steps lengthen the weights by 1% each
    np.testing.assert_allclose(margins[-500:], 2.5, rtol=0.01)
    assert 0 < int(state.constrained_steps) < 3000


@pytest.mark.parametrize("jump", [0.3, 4.0])
def test_a_margin_that_changes_by_itself_is_answered_by_the_norms(jump):
    changes = lambda t, w: jnp.where(t > 1500, jump, 1.0) * jnp.linalg.norm(w) ** 3
    margins, norms, _, _ = run(lo.hold_median_margin(2.5), 4000, changes)
    np.testing.assert_allclose(margins[-500:], 2.5, rtol=0.02)
    np.testing.assert_allclose(norms[-1] / norms[1500], jump ** (-1 / 3), rtol=0.02)


def test_below_the_threshold_training_is_free():
    low = lambda t, w: jnp.float32(2.4)
    _, norms, _, state = run(lo.hold_median_margin(2.5), 200, low)
    assert int(state.constrained_steps) == 0
    np.testing.assert_allclose(norms[-1], 1.01**199, rtol=1e-4)


def test_the_state_has_the_norms_that_the_weights_have():
    tx = lo.sgd_lawn(-0.01, lo.hold_median_margin(2.5, rate=0.05), momentum=None)
    w, state = W, tx.init(W)
    for _ in range(300):
        updates, state = tx.update(w, state, w, margin=jnp.linalg.norm(w))
        w = optax.apply_updates(w, updates)
        if state.constrained_steps:
            np.testing.assert_allclose(norm(w), state.norms[""], rtol=3e-6)
    assert float(jnp.abs(jnp.linalg.norm(w) - 2.5)) < 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_margins_that_are_not_finite_are_left_out(bad):
    spoilt = lambda t, w: jnp.where(t % 7 == 3, bad, jnp.linalg.norm(w) ** 3)
    _, norms, _, _ = run(lo.hold_median_margin(2.5), 3000, spoilt)
    np.testing.assert_allclose(norms[-1], 2.5 ** (1 / 3), rtol=0.01)


def test_examples_count_by_their_median():
    switch = lo.hold_median_margin(2.5, decay=0.0)
    margins = jnp.array([[-100.0, 3.0], [3.0, 4.0]], jnp.bfloat16)
    constrain, state = switch.update(jnp.int32(0), switch.init(), {"margin": margins})
    assert constrain
    assert state.average == 3


def test_the_factor_is_bounded():
    switch = lo.hold_median_margin(2.5, decay=0.0, rate=0.1)
    for margin, factor in [(1e6, np.exp(-0.1)), (2.5, 1.0), (-1e6, np.exp(0.1))]:
        state = switch.init()._replace(reached=jnp.array(True))
        _, state = switch.update(jnp.int32(0), state, {"margin": jnp.float32(margin)})
        np.testing.assert_allclose(switch.factor(state), factor, rtol=1e-6)


@pytest.mark.parametrize("least", [0.5, 0.9])
def test_norms_are_not_shrunk_below_a_share_where_margins_do_not_depend_on_them(least):
    high = lambda t, w: jnp.float32(50.0)
    _, norms, states, state = run(lo.hold_median_margin(least_scale=least), 600, high)
    first = int(np.argmax(np.asarray(states.constrained_steps) > 0))
    np.testing.assert_allclose(norms[-1] / norms[first + 1], least, rtol=1e-4)
    np.testing.assert_allclose(state.switch.scale, least, rtol=1e-4)
    # And they come back as soon as the margin falls.
    falls = lambda t, w: jnp.where(t < 600, 50.0, 1.0)
    _, norms, _, _ = run(lo.hold_median_margin(least_scale=least), 1000, falls)
    assert norms[-1] > 1.5 * norms[600]


@pytest.mark.parametrize(("margin", "scale"), [(0.0, 10.0), (50.0, 1e-6)])
def test_norms_stay_within_bounds_where_margins_do_not_depend_on_them(margin, scale):
    course = lambda t, w: jnp.where(t < 60, 50.0, margin)
    _, norms, _, state = run(lo.hold_median_margin(least_scale=0.0), 5000, course)
    assert np.isfinite(norms).all()
    np.testing.assert_allclose(state.switch.scale, scale, rtol=1e-5)


def test_an_example_whose_margin_is_not_finite_is_left_out():
    switch, state = lo.hold_median_margin(), lo.hold_median_margin().init()
    margins = jnp.array(5 * [9.0] + [jnp.nan, jnp.inf])
    for step in range(40):
        constrain, state = switch.update(jnp.int32(step), state, {"margin": margins})
    assert constrain
    before = state.scale
    for step in range(100):  # Nothing is known of these, so norms stay as they are.
        _, state = switch.update(jnp.int32(step), state, {"margin": jnp.nan})
    assert state.scale == before
    assert state.factor == 1


def test_no_margin_at_all_is_refused():
    tx = lo.adam_lawn(0.1, lo.at_median_margin())
    with pytest.raises(ValueError, match=r"margin has shape \(0,\): at_median_margin needs one"):
        tx.update(W, tx.init(W), W, margin=jnp.zeros(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold=0.0 must be positive and finite"),
        ({"threshold": float("nan")}, "threshold=nan must be positive and finite"),
        ({"decay": 1.0}, "decay=1.0 must be at least 0 and below 1"),
        ({"rate": 0.0}, "rate=0.0 must be between 0 and 1"),
        ({"rate": 1.0}, "rate=1.0 must be between 0 and 1"),
        ({"least_scale": -0.1}, "least_scale=-0.1 must lie between 0 and 1"),
        ({"least_scale": 1.1}, "least_scale=1.1 must lie between 0 and 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lo.hold_median_margin(**options)


def test_a_missing_margin_is_named():
    tx = lo.adam_lawn(0.1, lo.hold_median_margin(2.5))
    with pytest.raises(ValueError, match=r"margin=None: hold_median_margin needs"):
        tx.update(W, tx.init(W), W)
