"""`lawn` against Algorithm 1 in NumPy, and each sentence of its meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from tests import reference
from tests.conftest import CONSTRAINED
from tests.helpers import constant_direction, max_difference, norm, train

STEPS, SWITCH, RATE = 100, 20, 0.03
AXES = {"dense": 0, "conv": (0, 1, 2), "embedding": 1, "bias": None, "scale": None}
REFERENCE_AXES = {"dense": (0,), "conv": (0, 1, 2), "embedding": (1,)}


def falling(step):
    return RATE / (1 + 0.01 * step)


OPTIMIZERS = {
    "adam_lawn": (
        lambda **kw: lo.adam_lawn(falling, SWITCH, **kw),
        lambda: reference.Adam(falling),
    ),
    "lamb_lawn": (
        lambda **kw: lo.lamb_lawn(falling, SWITCH, **kw),
        lambda: reference.Lamb(falling),
    ),
    "sgd_lawn": (lambda **kw: lo.sgd_lawn(falling, SWITCH, **kw), lambda: reference.Sgd(falling)),
    "nesterov": (
        lambda **kw: lo.sgd_lawn(falling, SWITCH, nesterov=True, **kw),
        lambda: reference.Sgd(falling, nesterov=True),
    ),
    "lawn(adam)": (
        lambda **kw: lo.lawn(optax.adam(falling), SWITCH, **kw),
        lambda: reference.Adam(falling, eps=1e-8),
    ),
}
VARIANTS = {
    "default": ({}, {}),
    "axes": ({"axes": AXES}, {"axes": REFERENCE_AXES}),
    "mask": (
        {"mask": {n: n in ("dense", "bias") for n in AXES}},
        {"constrained": {"dense", "bias"}},
    ),
    "scaled": ({"target_scale": 0.5}, {"target_scale": 0.5}),
    "scheduled": (
        {"target_scale": lambda k: 1 / (1 + 0.1 * k)},
        {"target_scale": lambda k: 1 / (1 + 0.1 * k)},
    ),
    "reset": ({"reset_inner": True}, {"reset": True}),
    "not projected": ({"project": False}, {"project": False}),
}


def assert_follows(tx, rule, weights, gradient, dtype, tolerance, **reference_options):
    params = {name: jnp.asarray(w, dtype) for name, w in weights.items()}
    history, _ = train(tx, params, gradient, STEPS)
    expected = reference.train(
        weights, gradient, rule, steps=STEPS, switch=SWITCH, **reference_options
    )
    for step, (ours, theirs) in enumerate(zip(history, expected, strict=True)):
        for name in weights:
            error = norm(np.asarray(ours[name]) - theirs[name]) / norm(theirs[name])
            assert error < tolerance, (name, step, error)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_follows_algorithm_1_in_double_precision(name, variant, weights, gradient, x64):
    make, rule = OPTIMIZERS[name]
    ours, theirs = VARIANTS[variant]
    assert_follows(make(**ours), rule(), weights, gradient, jnp.float64, 1e-12, **theirs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_follows_algorithm_1_in_single_precision(name, weights, gradient):
    make, rule = OPTIMIZERS[name]
    assert_follows(make(), rule(), weights, gradient, jnp.float32, 1e-5)


@pytest.mark.parametrize("switch", [0, 1, 7])
def test_update_n_is_the_first_constrained_one(switch, weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    tx = lo.adam_lawn(0.1, switch)
    history, state = train(tx, params, gradient, 12)
    held = ([params, *history])[switch]
    for name in CONSTRAINED:
        for step, after in enumerate(history):
            moved = abs(norm(after[name]) / norm(held[name]) - 1)
            assert moved < 3e-6 if step >= switch else moved > 1e-4 or step == switch - 1
        np.testing.assert_allclose(state.norms[name], norm(held[name]), rtol=1e-6)
    assert state.steps == 12
    assert state.constrained_steps == 12 - switch


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "inner",
    [optax.adam(0.1), optax.sgd(0.1, 0.9), optax.adamw(0.1, weight_decay=0.1), optax.lion(0.1)],
)
def test_free_updates_are_the_inner_optimizers_own(inner, jit, weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    ours, state = train(lo.lawn(inner, 10), params, gradient, 10, jit=jit)
    theirs, inner_state = train(inner, params, gradient, 10, jit=jit)
    if jit:  # XLA may fuse the selects differently
        assert max_difference(ours, theirs) < 1e-5
    else:
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(state.inner), jax.tree.leaves(inner_state), strict=True):
            np.testing.assert_array_equal(a, b)


def test_free_updates_keep_negative_zeros_and_pass_infinite_weights():
    params = {"w": jnp.array([[1.0, jnp.inf]])}
    tx = lo.lawn(constant_direction({"w": jnp.array([[-0.0, 1.0]])}), 5)
    update, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(update["w"], [[-0.0, 1.0]])
    assert jnp.signbit(update["w"])[0, 0]


def test_free_leaves_are_the_inner_optimizers_own_after_the_switch_too(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    fixed = lambda t, _: gradient(t, params)  # so that constrained leaves do not act on free ones
    ours, _ = train(lo.lawn(optax.adam(0.1), 0), params, fixed, 10, jit=False)
    theirs, _ = train(optax.adam(0.1), params, fixed, 10, jit=False)
    for name in ("bias", "scale"):
        np.testing.assert_array_equal(ours[-1][name], theirs[-1][name])


def test_once_constrained_always_constrained():
    only_at_3 = lo.Switch(lambda: (), lambda count, state, extra: (count == 3, state))
    params = {"w": jnp.ones((2, 2))}
    _, state = train(lo.lawn(optax.sgd(0.1), only_at_3), params, lambda t, p: p, 6)
    assert state.constrained_steps == 3


def test_both_projections_are_made(weights):
    # The gradient that reaches the inner optimizer, and its answer, are both tangent.
    seen = {}

    def spy(g, state, params=None):
        seen.update(g)
        return jax.tree.map(lambda x: x + 1.0, g), state

    w = {"w": jnp.float32(weights["dense"])}
    tx = lo.lawn(optax.GradientTransformation(lambda p: optax.EmptyState(), spy), 0)
    update, _ = tx.update({"w": w["w"] + 2.0}, tx.init(w), w)
    assert abs(np.vdot(w["w"], seen["w"])) < 1e-5
    after = w["w"] + update["w"]
    direction = after - w["w"] * jnp.vdot(w["w"], after) / jnp.vdot(w["w"], w["w"])
    expected = lo.project_to_tangent().update({"w": seen["w"] + 1.0}, optax.EmptyState(), w)[0]["w"]
    cosine = jnp.vdot(direction, expected) / jnp.linalg.norm(direction) / jnp.linalg.norm(expected)
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)


def test_weight_decay_acts_on_free_leaves_only(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    fixed = lambda t, _: gradient(t, params)
    decayed, _ = train(lo.lawn(optax.adamw(0.01, weight_decay=0.5), 0), params, fixed, 5)
    plain, _ = train(lo.lawn(optax.adamw(0.01, weight_decay=0.0), 0), params, fixed, 5)
    for name in CONSTRAINED:
        np.testing.assert_allclose(decayed[-1][name], plain[-1][name], atol=1e-6)
    for name in ("bias", "scale"):
        assert np.max(np.abs(decayed[-1][name] - plain[-1][name])) > 1e-3


def test_moments_carry_over_unless_reset(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    for reset, expected in ((False, 10), (True, 5)):
        tx = lo.adam_lawn(0.01, 5, reset_inner=reset)
        _, state = train(tx, params, gradient, 10)
        assert optax.tree.get(state, "ScaleByAdamState").count == expected


def test_reset_keeps_the_place_of_schedules(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    injected = optax.inject_hyperparams(optax.adam)(falling)
    tx = lo.lawn(injected, 5, reset_inner=True)
    _, state = train(tx, params, gradient, 10)
    np.testing.assert_allclose(state.inner.hyperparams["learning_rate"], falling(9), rtol=1e-6)
    assert optax.tree.get(state, "ScaleByAdamState").count == 5


def test_target_scale_attenuates_the_logits(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    history, state = train(lo.adam_lawn(0.01, 3, target_scale=0.2), params, gradient, 6)
    for name in CONSTRAINED:
        np.testing.assert_allclose(norm(history[-1][name]), 0.2 * norm(history[2][name]), rtol=3e-6)
        np.testing.assert_allclose(state.norms[name], norm(history[2][name]), rtol=1e-6)


def test_zero_leaves_and_slices_stay_free(gradient):
    params = {"zero": jnp.zeros((3, 2)), "slice": jnp.array([[0.0, 1.0], [0.0, 2.0]])}
    grads = jax.tree.map(jnp.ones_like, params)
    tx = lo.lawn(optax.sgd(0.1), 0, axes=0)
    history, _ = train(tx, params, lambda t, p: grads, 4)
    np.testing.assert_allclose(history[-1]["zero"], -0.4, rtol=1e-6)
    np.testing.assert_allclose(history[-1]["slice"][:, 0], -0.4, rtol=1e-6)
    np.testing.assert_allclose(norm(history[-1]["slice"][:, 1]), 5**0.5, rtol=3e-6)


def test_a_weight_at_zero_finds_back_to_its_sphere():
    tx = lo.lawn(optax.sgd(1.0), 0)
    params = {"w": jnp.array([[3.0, 4.0]])}
    _, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    update, _ = tx.update({"w": jnp.array([[0.0, -1.0]])}, state, {"w": jnp.zeros((1, 2))})
    np.testing.assert_allclose(update["w"], [[0.0, 5.0]])


@pytest.mark.parametrize("size", [0.5, 3.0, 1e3, 1e6])
@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (64, 32)])
def test_norms_hold_where_the_step_is_nearly_parallel_to_the_weight(shape, size, angle):
    w, other = jax.random.normal(jax.random.key(3), (2, *shape))
    tx = lo.lawn(constant_direction(size * (w + angle * other)), 0)
    update, _ = jax.jit(tx.update)(w, tx.init(w), w)
    np.testing.assert_allclose(norm(w + update), norm(w), rtol=1e-5)


def test_a_drifted_norm_corrects_itself(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    tx = lo.adam_lawn(0.01, 0)
    history, state = train(tx, params, gradient, 3)
    drifted = jax.tree.map(lambda w: 1.01 * w, history[-1])
    update, _ = tx.update(jax.tree.map(jnp.float32, gradient(3, drifted)), state, drifted)
    for name in CONSTRAINED:
        np.testing.assert_allclose(
            norm(drifted[name] + update[name]), norm(params[name]), rtol=3e-6
        )


def test_inner_may_be_any_direction(weights, gradient):
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.contrib.muon(0.02))
    params = jax.tree.map(jnp.float32, weights)
    history, _ = train(lo.lawn(inner, 2), params, gradient, 6)
    for name in CONSTRAINED:
        np.testing.assert_allclose(norm(history[-1][name]), norm(history[1][name]), rtol=3e-6)


def test_extra_arguments_reach_the_inner_optimizer(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    inner = optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=1))
    train(lo.lawn(inner, 2), params, gradient, 4, value=jnp.float32(1.0))


@pytest.mark.parametrize("inner", [None, "adam", optax.adam, optax.MultiSteps(optax.adam(0.1), 2)])
def test_refuses_what_is_no_optimizer(inner):
    with pytest.raises(TypeError, match=r"inner=.* must be an optax.GradientTransformation"):
        lo.lawn(inner, 5)


@pytest.mark.parametrize(
    "scale", [0.0, -1.0, float("nan"), float("inf"), None, "a", jnp.float32(-1)]
)
def test_refuses_a_target_scale_that_is_no_size(scale):
    with pytest.raises(ValueError, match=r"target_scale=.* must be positive and finite"):
        lo.adam_lawn(0.1, 5, target_scale=scale)


def test_refuses_an_update_without_params(weights):
    params = jax.tree.map(jnp.float32, weights)
    tx = lo.adam_lawn(0.1, 0)
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"params=None: lawn needs the current parameters"):
        tx.update(params, state)


def test_a_state_of_another_optimizer_or_switch_is_named():
    w = jnp.ones((2, 3))
    with pytest.raises(
        ValueError, match=r"the state of lawn's inner is .*TraceState.* needs .*Adam"
    ):
        lo.adam_lawn(0.1, 0).update(w, lo.sgd_lawn(0.1, 0).init(w), w)
    tx = lo.adam_lawn(0.1, lo.at_median_margin())
    with pytest.raises(ValueError, match=r"the state of lawn's switch is .* needs .*MedianMargin"):
        tx.update(w, lo.adam_lawn(0.1, 0).init(w), w, margin=jnp.float32(1))


def test_an_inner_update_of_another_shape_is_refused():
    params = {"w": jnp.ones((2, 3))}
    tx = lo.lawn(constant_direction({"w": jnp.ones((1, 3))}), 0)
    with pytest.raises(ValueError, match=r"'w' has shape \(2, 3\) and its update \(1, 3\)"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("name", ["project", "keep_length", "reset_inner"])
@pytest.mark.parametrize("value", ["no", None, 1])
def test_a_flag_is_true_or_false(name, value):
    with pytest.raises(TypeError, match=rf"{name}={value!r} must be True or False"):
        lo.lawn(optax.adam(0.1), 0, **{name: value})


def test_only_a_projected_step_keeps_its_length():
    with pytest.raises(ValueError, match="keep_length=True with project=False"):
        lo.lawn(optax.adam(0.1), 0, project=False, keep_length=True)


def test_two_parameters_of_one_path_are_named():
    w = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="two parameters have the path 'a/b'"):
        lo.adam_lawn(0.1, 0).init({"a/b": w, "a": {"b": w}})
