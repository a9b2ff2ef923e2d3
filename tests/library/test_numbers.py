"""Bad numbers: NaN and infinite gradients, zeros, overflow, huge rates, worn-out counters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from lawn_optax import diagnostics
from tests.helpers import norm, pull, stepper, train

SWITCH, STEPS = 3, 8
INT32_MAX = jnp.iinfo(jnp.int32).max
PARAMS = {
    "struck": jnp.array([[1.0, -2.0, 0.5], [3.0, 4.0, -1.0]]),
    "spared": jnp.array([[2.0, 1.0], [-1.0, 3.0]]),
    "bias": jnp.array([1.0, 2.0]),
}
OPTIMIZERS = {
    "adam_lawn": lambda rate, switch=SWITCH: lo.adam_lawn(rate, switch),
    "lamb_lawn": lambda rate, switch=SWITCH: lo.lamb_lawn(rate, switch),
    "sgd_lawn": lambda rate, switch=SWITCH: lo.sgd_lawn(rate, switch),
    "hyperball": lambda rate, switch=0: lo.hyperball(optax.scale_by_adam(eps=1e-6), rate),
}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.works_with(
    "optax.apply_if_finite",
    "a NaN or infinite gradient leaves weights, norms, switch and counters as they were",
)
@pytest.mark.parametrize("automatic", [False, True])
def test_apply_if_finite_skips_a_bad_gradient_and_no_more(automatic):
    # The automatic switch says yes at the same update as the fixed one.
    switch = lo.at_median_margin(decay=0.0) if automatic else SWITCH
    tx = optax.apply_if_finite(lo.adam_lawn(0.1, switch), 5)
    step = stepper(tx)

    def run(bad_step=None, bad=None):
        params, state = PARAMS, tx.init(PARAMS)
        for t in range(STEPS):
            margin = jnp.float32(9.0 if t >= SWITCH else 0.0)
            if t == bad_step:
                grads = {**pull(t, params), "struck": PARAMS["struck"].at[0, 1].set(bad)}
                after, held = step(grads, state, params, margin=jnp.float32(jnp.nan))
                assert_same(after, params)
                assert_same(held.inner_state, state.inner_state)
                assert held.total_notfinite == 1
                params, state = after, held
            params, state = step(pull(t, params), state, params, margin=margin)
        return params, state.inner_state

    params, state = run()
    assert state.constrained_steps == STEPS - SWITCH
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        for bad_step in (0, SWITCH, SWITCH + 2):  # while free, in place of the switch, after it
            assert_same(run(bad_step, bad), (params, state))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_a_guard_a_bad_gradient_shows_and_strikes_one_leaf_only(optimizer):
    tx = OPTIMIZERS[optimizer](0.1)
    step = stepper(tx)

    def run(bad_step=None, bad=0.0):
        params, state = PARAMS, tx.init(PARAMS)
        for t in range(STEPS):
            grads = pull(t, params)
            if t == bad_step:
                grads["struck"] = grads["struck"].at[0, 1].set(bad)
            params, state = step(grads, state, params)
        return params, state

    expected, expected_state = run()
    for bad in (jnp.nan, jnp.inf):
        for bad_step in (SWITCH - 1, SWITCH + 1):  # before and after the norms are captured
            params, state = run(bad_step, bad)
            assert jnp.any(jnp.isnan(params["struck"]))
            assert jnp.isnan(diagnostics.weight_norms(params)["struck"])
            assert not jnp.any(jnp.isnan(params["spared"]))
            assert_same(
                {name: params[name] for name in ("spared", "bias")},
                {name: expected[name] for name in ("spared", "bias")},
            )
            captured = diagnostics.captured_norms(state)
            assert captured["spared"] == diagnostics.captured_norms(expected_state)["spared"]
            assert captured.keys() == {"struck", "spared"}
            assert jnp.isnan(diagnostics.norm_drift(params, state)["struck"])
            if bad_step > SWITCH:  # what was captured is kept, so that a restart can use it
                assert captured["struck"] == diagnostics.captured_norms(expected_state)["struck"]


def test_a_step_too_large_to_measure_leaves_the_weights_on_their_sphere():
    tx = lo.sgd_lawn(1.0, 0, momentum=None)
    params, state = PARAMS, tx.init(PARAMS)
    for size in (1e18, 1e25, 1e30, 1.0):
        updates, state = tx.update(
            jax.tree.map(lambda w, s=size: s * jnp.sin(w), params), state, params
        )
        params = {**optax.apply_updates(params, updates), "bias": PARAMS["bias"]}
        for name in ("struck", "spared"):
            np.testing.assert_allclose(norm(params[name]), norm(PARAMS[name]), rtol=3e-6)
    assert state.steps == 4


@pytest.mark.parametrize("size", [1e-17, 1e-12, 1e12, 3e18, 4e18, 1.5e19])
def test_norms_whose_square_float32_holds_are_held(size):
    w = {"kernel": np.arange(1.0, 7.0).reshape(2, 3)}
    unit = w["kernel"] / np.linalg.norm(w["kernel"])
    params = {"kernel": jnp.float32(size * unit)}
    grads = {"kernel": jnp.float32(0.1 * size * np.sin(w["kernel"]))}
    tx = lo.sgd_lawn(1.0, 0, momentum=None)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    tangent = -0.1 * (np.sin(w["kernel"]) - np.vdot(np.sin(w["kernel"]), unit) * unit)
    expected = (unit + tangent) / np.linalg.norm(unit + tangent)
    after = np.float64(optax.apply_updates(params, updates)["kernel"]) / size
    np.testing.assert_allclose(after, expected, rtol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_zero_weights_train_freely_and_stay_finite(optimizer):
    params = {**PARAMS, "struck": jnp.zeros((2, 3))}
    history, state = train(OPTIMIZERS[optimizer](0.1), params, pull, STEPS)
    chex.assert_tree_all_finite((history, state))
    if optimizer == "hyperball":  # captured at the first update
        assert diagnostics.captured_norms(state)["struck"] == 0
    assert norm(history[-1]["struck"]) > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_set_to_zero_after_the_switch_find_back_to_their_sphere(optimizer):
    tx = OPTIMIZERS[optimizer](0.1, switch=0)
    params, state = PARAMS, tx.init(PARAMS)
    step = stepper(tx)
    params, state = step(pull(0, params), state, params)
    c = norm(params["struck"])
    params = {**params, "struck": jnp.zeros((2, 3))}
    params, state = step(jax.tree.map(jnp.zeros_like, params), state, params)
    chex.assert_tree_all_finite((params, state))
    for t in range(2):
        params, state = step(pull(t, params), state, params)
    np.testing.assert_allclose(norm(params["struck"]), c, rtol=3e-6)


@pytest.mark.parametrize("size", [1e-25, 1e-30, 1e25])
def test_a_norm_out_of_range_is_seen_and_harmless(size):
    # Its square is 0 or infinite in float32: no sphere can be told, and nothing becomes NaN.
    params = {**PARAMS, "struck": size * PARAMS["struck"]}
    history, state = train(lo.sgd_lawn(1e-3, 0), params, lambda t, p: pull(t, PARAMS), STEPS)
    chex.assert_tree_all_finite(history)
    assert state.norms["struck"] in (0, jnp.inf)
    np.testing.assert_allclose(norm(history[-1]["spared"]), norm(PARAMS["spared"]), rtol=3e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_norms_hold_at_learning_rates_up_to_a_million(optimizer):
    params = {"w": PARAMS["struck"], "half": PARAMS["struck"].astype(jnp.bfloat16)}
    rates = jnp.array([1.0, 1e2, 1e4, 1e6])

    @jax.jit
    @jax.vmap
    def run(rate):
        tx = OPTIMIZERS[optimizer](rate, switch=0)

        def body(carry, t):
            params, state = carry
            updates, state = tx.update(pull(t, params), state, params)
            params = optax.tree.cast_like(optax.apply_updates(params, updates), params)
            return (params, state), params

        return jax.lax.scan(body, (params, tx.init(params)), jnp.arange(float(STEPS)))[1]

    history = run(rates)
    for name, rtol in (("w", 3e-6), ("half", 1e-2)):
        np.testing.assert_allclose(norm(history[name], (-2, -1)), norm(params[name]), rtol=rtol)


@pytest.mark.works_with(
    "float16", "parameters and loss scaling, with apply_if_finite around LAWN for overflows"
)
def test_a_float16_loss_scale_that_overflows_is_lowered_until_training_begins():
    tx = optax.apply_if_finite(lo.adam_lawn(0.02, SWITCH), 100)
    params = jax.tree.map(lambda w: w.astype(jnp.float16), PARAMS)
    start, state, scale = params, tx.init(params), 2.0**24

    @jax.jit
    def step(params, state, scale):
        loss = lambda p: sum(jnp.sum((w - 1) ** 2) for w in jax.tree.leaves(p))
        scaled = jax.grad(lambda p: (scale * loss(p).astype(jnp.float32)).astype(jnp.float16))
        grads = jax.tree.map(lambda g: (g / scale).astype(jnp.float16), scaled(params))
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    overflowed, norms = 0, []
    while len(norms) < STEPS:
        params, state = step(params, state, jnp.float32(scale))
        if state.last_finite:
            norms.append(norm(params["struck"]))
            continue
        assert_same(params, start)  # the factor is too large at the start only
        overflowed, scale = overflowed + 1, scale / 2
    assert 3 < overflowed < 24
    assert state.inner_state.steps == STEPS
    assert abs(norms[SWITCH - 1] / norms[0] - 1) > 1e-3
    np.testing.assert_allclose(norms[SWITCH:], norms[SWITCH - 1], rtol=2e-3)


def test_the_switch_after_a_hundred_million_steps_is_exact():
    n = 100_000_000
    tx = lo.adam_lawn(optax.linear_schedule(0.1, 0.0, 2 * n), n)
    state = tx.init(PARAMS)._replace(steps=jnp.int32(n - 2))
    step = stepper(tx)
    params, constrained = PARAMS, []
    for t in range(4):
        params, state = step(pull(t, params), state, params)
        constrained.append(int(state.constrained_steps))
    assert constrained == [0, 0, 1, 2]
    assert state.steps == n + 2
    np.testing.assert_allclose(norm(params["struck"]), state.norms["struck"], rtol=3e-6)


def test_a_counter_at_its_end_stays_there_and_keeps_the_spheres():
    tx = lo.sgd_lawn(0.1, SWITCH)
    _, state = train(tx, PARAMS, pull, STEPS)
    worn = state._replace(steps=jnp.int32(INT32_MAX), constrained_steps=jnp.int32(INT32_MAX))
    updates, after = tx.update(PARAMS, worn, PARAMS)
    assert after.steps == after.constrained_steps == INT32_MAX
    assert_same(after.norms, state.norms)
    moved = optax.apply_updates(PARAMS, updates)
    np.testing.assert_allclose(norm(moved["struck"]), state.norms["struck"], rtol=3e-6)


def test_a_link_at_the_end_of_its_counter_does_not_capture_anew():
    tx = lo.rescale_to_norms()
    state = tx.init(PARAMS)._replace(steps=jnp.int32(INT32_MAX))
    _, after = tx.update(PARAMS, state, PARAMS)
    assert after.steps == INT32_MAX
    assert after.norms["struck"] == 0


@pytest.mark.parametrize("averaged", [100_000_000, INT32_MAX - 1, INT32_MAX])
def test_the_average_margin_survives_any_number_of_steps(averaged):
    switch = lo.at_median_margin()
    state = switch.init()._replace(averaged=jnp.int32(averaged), average=jnp.float32(1.0))
    for _ in range(3):
        constrain, state = switch.update(jnp.int32(0), state, {"margin": jnp.float32(1e3)})
        assert not constrain
    np.testing.assert_allclose(state.average, 1.0, rtol=1e-3)
