"""When to constrain: each rule, the guard of the automatic one, and each mistake."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo


def first_constrained(switch, margins=None, steps=1000):
    """The first step at which a switch says yes, or None."""
    margins = jnp.zeros(steps) if margins is None else jnp.asarray(margins, jnp.float32)

    def body(state, step):
        constrain, state = switch.update(step, state, {"margin": margins[step]})
        return state, constrain

    _, says = jax.lax.scan(body, switch.init(), jnp.arange(len(margins)))
    return int(jnp.argmax(says)) if jnp.any(says) else None


@pytest.mark.parametrize("n", [0, 1, 17, np.int64(17), jnp.int32(17)])
def test_at_step(n):
    assert first_constrained(lo.at_step(n)) == n


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "step"),
    [(0, 50, 0), (0.1, 50, 5), (0.16, 5005, 801), (2, 50, 100), (1.5, 3, 4), (0.1, 1, 0)],
)
def test_at_epoch(epochs, steps_per_epoch, step):
    assert first_constrained(lo.at_epoch(epochs, steps_per_epoch)) == step
    traced = jax.jit(lambda e: lo.at_epoch(e, steps_per_epoch).update(jnp.int32(step), (), {})[0])
    assert traced(jnp.float32(epochs))


def test_a_grid_of_free_phases_is_one_vmapped_run():
    params = {"w": jnp.eye(3)}

    def run(n):
        tx = lo.adam_lawn(0.1, n)
        state = tx.init(params)

        def body(carry, _):
            w, state = carry
            updates, state = tx.update(jax.tree.map(lambda x: x - 2, w), state, w)
            return (optax.apply_updates(w, updates), state), None

        (w, state), _ = jax.lax.scan(body, (params, state), length=10)
        return state.constrained_steps, jnp.linalg.norm(w["w"]), state.norms["w"]

    constrained, norms, captured = jax.jit(jax.vmap(run))(jnp.array([0, 3, 7, 100]))
    np.testing.assert_array_equal(constrained, [10, 7, 3, 0])
    np.testing.assert_allclose(norms[:3], captured[:3], rtol=3e-6)
    assert captured[3] == 0


def rises_for_good(spurious_steps, plateau, crossing):
    """A median margin that overshoots, falls to 2.0, and crosses 2.5 at `crossing` for good."""
    return np.interp(
        np.arange(4 * crossing),
        [0, spurious_steps, 2 * spurious_steps, plateau, crossing, 4 * crossing],
        [0.0, 2.7, 2.0, 2.0, 2.5, 4.5],
    )


@pytest.mark.parametrize("stretch", [1, 5, 20])
def test_the_first_spurious_crossing_is_ignored_at_every_time_scale(stretch):
    # MovieLens-100k at batch 10k, 50 steps an epoch: 2.7 within the first epoch, then 2.0, then
    # 2.5 for good at epoch 4.5.
    crossing = 225 * stretch
    margins = rises_for_good(30 * stretch, 120 * stretch, crossing)
    assert np.argmax(margins >= 2.5) < 30 * stretch
    step = first_constrained(lo.at_median_margin(), margins)
    assert crossing <= step < 1.45 * crossing


def test_a_steady_rise_is_answered_promptly():
    margins = np.linspace(0, 5, 400)  # crosses at step 200
    assert 200 <= first_constrained(lo.at_median_margin(), margins) < 270


def test_large_margins_from_the_start_are_answered_at_once():
    assert first_constrained(lo.at_median_margin(), np.full(50, 10.0)) < 5


def test_margins_that_stay_low_never_switch():
    assert first_constrained(lo.at_median_margin(), np.full(5000, 2.4)) is None


def test_min_steps_holds_the_switch_back():
    assert first_constrained(lo.at_median_margin(min_steps=30), np.full(50, 10.0)) == 30


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_margins_that_are_not_finite_are_left_out(bad):
    margins = np.linspace(0, 5, 400)
    clean = first_constrained(lo.at_median_margin(), margins)
    spoilt = margins.copy()
    spoilt[5:100:7] = bad
    assert abs(first_constrained(lo.at_median_margin(), spoilt) - clean) < 10


def test_margins_of_examples_count_by_their_median():
    switch = lo.at_median_margin(decay=0.0)
    margins = jnp.array([[-100.0, 3.0], [3.0, 4.0]], jnp.bfloat16)
    constrain, state = switch.update(jnp.int32(0), switch.init(), {"margin": margins})
    assert constrain
    assert state.average == 3


def test_it_latches():
    tx = lo.adam_lawn(0.1, lo.at_median_margin(decay=0.0))
    w = jnp.ones((2, 2))
    state = tx.init(w)
    for margin in (0.0, 9.0, -9.0, -9.0):
        _, state = tx.update(w, state, w, margin=margin)
    assert (state.steps, state.constrained_steps) == (4, 3)


def test_a_switch_of_ones_own():
    when_loss_is_low = lo.Switch(
        lambda: (), lambda count, state, extra: (extra["value"] < 0.1, state)
    )
    tx = lo.lawn(optax.sgd(0.1), when_loss_is_low)
    w = jnp.ones((2, 2))
    state = tx.init(w)
    for value in (1.0, 0.05, 1.0):
        _, state = tx.update(w, state, w, value=jnp.float32(value))
    assert state.constrained_steps == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: lo.at_step(-1), ValueError, r"n=-1 must be at least 0"),
        (lambda: lo.at_step(1.5), TypeError, r"n=1.5 must be an integer, .* at_epoch"),
        (lambda: lo.at_step(True), TypeError, r"n=True must be an integer"),
        (lambda: lo.at_step(None), TypeError, r"n=None must be an integer"),
        (lambda: lo.at_step(jnp.float32(2)), TypeError, r"n=Array\(2.*must be an integer"),
        (lambda: lo.at_step(jnp.arange(3)), ValueError, r"n has shape \(3,\).*jax.vmap"),
        (
            lambda: jax.eval_shape(lo.at_step, jnp.arange(3)),
            ValueError,
            r"n has shape \(3,\).*jax.vmap",
        ),
        (
            lambda: jax.eval_shape(lo.at_step, jnp.float32(2)),
            TypeError,
            r"n has dtype float32: cast it to int32",
        ),
        (lambda: lo.at_epoch(-0.5, 10), ValueError, r"epochs=-0.5 must be finite and at least 0"),
        (lambda: lo.at_epoch(float("nan"), 10), ValueError, r"epochs=nan must be finite"),
        (lambda: lo.at_epoch(float("inf"), 10), ValueError, r"epochs=inf must be finite"),
        (lambda: lo.at_epoch("5", 10), TypeError, r"epochs='5' must be a number"),
        (lambda: lo.at_epoch(1, 0), ValueError, r"steps_per_epoch=0 must be at least 1"),
        (lambda: lo.at_epoch(1, 2.5), TypeError, r"steps_per_epoch=2.5 must be an integer\.$"),
        (lambda: lo.at_median_margin(float("nan")), ValueError, r"threshold=nan must be finite"),
        (lambda: lo.at_median_margin(float("inf")), ValueError, r"threshold=inf must be finite"),
        (lambda: lo.at_median_margin(decay=1.0), ValueError, r"decay=1.0 must be .* below 1"),
        (lambda: lo.at_median_margin(min_steps=-1), ValueError, r"min_steps=-1 must be at least 0"),
        (
            lambda: lo.at_median_margin(min_steps=0.5),
            TypeError,
            r"min_steps=0.5 must be an integer",
        ),
        (lambda: lo.lawn(optax.sgd(0.1), None), TypeError, r"switch=None must be a number of free"),
        (lambda: lo.lawn(optax.sgd(0.1), 2.5), TypeError, r"switch=2.5 must be a number of free"),
        (lambda: lo.lawn(optax.sgd(0.1), "auto"), TypeError, r"switch='auto' must be a number"),
        (lambda: lo.lawn(optax.sgd(0.1), -3), ValueError, r"switch=-3 must be at least 0"),
        (lambda: lo.lawn(optax.sgd(0.1), lo.at_step), TypeError, r"switch=<function at_step"),
    ],
)
def test_a_mistake_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_step_beyond_the_counter_is_never():
    assert first_constrained(lo.at_step(10**12)) is None
    assert first_constrained(lo.at_epoch(1e9, 1000)) is None


def test_a_missing_margin_is_named():
    tx = lo.adam_lawn(0.1, lo.at_median_margin())
    w = jnp.ones((2, 2))
    with pytest.raises(ValueError, match=r"margin=None: at_median_margin needs .*margin=logit_mar"):
        tx.update(w, tx.init(w), w)
