"""Every wrapper and framework that users put around or under an optimizer, across the switch."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from helpers import max_difference, norm, train

import lawn_optax as lo
from lawn_optax import diagnostics

SWITCH, STEPS = 3, 8
PARAMS = {"kernel": jnp.array([[1.0, -2.0, 0.5], [3.0, 4.0, -1.0]]), "bias": jnp.array([1.0, 2.0])}


def pull(t, params):
    return jax.tree.map(lambda w: w - 1.7 + 0.1 * t, params)


def assert_held(history, switch=SWITCH, rtol=3e-6):
    """The kernel's norm moves until the switch and is constant from it on."""
    norms = [norm(p["kernel"]) for p in history]
    np.testing.assert_allclose(norms[switch:], norms[switch - 1], rtol=rtol)
    assert abs(norms[switch - 1] / norms[0] - 1) > 1e-4


WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 5),
    "masked": lambda tx: optax.masked(tx, {"kernel": True, "bias": False}),
    "partition": lambda tx: optax.partition(
        {"lawn": tx, "adam": optax.adam(0.1)}, {"kernel": "lawn", "bias": "adam"}
    ),
    "conditionally_transform": lambda tx: optax.transforms.conditionally_transform(
        tx, lambda step: step >= 0
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_inside_a_wrapper(wrapper):
    tx = WRAPPERS[wrapper](lo.adam_lawn(0.1, SWITCH))
    history, state = train(tx, PARAMS, pull, STEPS)
    assert_held(history)
    assert diagnostics.is_constrained(state)


INNER = {
    "adamw": optax.adamw(0.1),
    "lion": optax.lion(0.05),
    "adafactor": optax.adafactor(0.1),
    "lars": optax.lars(0.1),
    "novograd": optax.novograd(0.1),
    "rmsprop": optax.rmsprop(0.1),
    "muon": optax.contrib.muon(0.05),
    "adopt": optax.contrib.adopt(0.1),
    "prodigy": optax.contrib.prodigy(1.0),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01), sync_period=2, opaque_mode=False),
    "accumulated": optax.MultiSteps(optax.adam(0.3), 1).gradient_transformation(),
}


@pytest.mark.parametrize("inner", INNER)
def test_around_an_optimizer(inner):
    history, _ = train(lo.lawn(INNER[inner], SWITCH), PARAMS, pull, STEPS)
    norms = [norm(p["kernel"]) for p in history]
    np.testing.assert_allclose(norms[SWITCH:], norms[SWITCH - 1], rtol=3e-6)


def test_around_lbfgs():
    loss = lambda p: sum(jnp.sum((w - 1.7) ** 2) for w in jax.tree.leaves(p))
    tx = lo.lawn(optax.lbfgs(0.1), lo.at_median_margin(decay=0.0))
    params, state = PARAMS, tx.init(PARAMS)
    for t in range(STEPS):
        value, grads = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grads, "value_fn": loss}
        updates, state = tx.update(grads, state, params, margin=9.0 * (t >= SWITCH), **extra)
        before, params = params, optax.apply_updates(params, updates)
        moved = abs(norm(params["kernel"]) / norm(before["kernel"]) - 1)
        assert moved < 3e-6 if t >= SWITCH else moved > 0


def test_the_state_may_be_donated_from_the_start():
    tx = lo.adam_lawn(0.1, SWITCH)
    step = jax.jit(tx.update, donate_argnums=1)
    step(PARAMS, tx.init(PARAMS), PARAMS)


def test_a_frozen_leaf_may_have_no_gradient():
    tx = lo.lawn(optax.sgd(0.1), 0)
    grads = {"kernel": PARAMS["kernel"] + 1, "bias": None}
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert updates["bias"] is None
    np.testing.assert_allclose(
        norm(PARAMS["kernel"] + updates["kernel"]), norm(PARAMS["kernel"]), rtol=3e-6
    )


@pytest.mark.parametrize("mask", [None, {"kernel": True, "bias": False}])
def test_optax_maps_over_the_parameters_in_its_state(mask):
    tx = lo.adam_lawn(0.1, SWITCH, mask=mask)
    doubled = optax.tree.map_params(tx, lambda w: w + 1, tx.init(PARAMS))
    assert jnp.all(optax.tree.get(doubled, "mu")["kernel"] == 1)
    assert doubled.norms["kernel"] == 0


def test_a_state_that_is_not_its_own_is_named():
    tx = lo.adam_lawn(0.1, SWITCH)
    with pytest.raises(TypeError, match=r"state is a dict, and lawn needs its own LawnState: call"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS))
    other = {"kernel": PARAMS["kernel"], "more": PARAMS["kernel"]}
    with pytest.raises(ValueError, match=r"lawn needs norms of shapes .*'more'.* call init anew"):
        tx.update(other, tx.init(PARAMS), other)


def test_multi_steps_counts_emitted_updates_only():
    every = 4
    tx = optax.MultiSteps(lo.adam_lawn(0.1, SWITCH), every)
    grads = lambda t, params: pull(t // every, params)
    accumulated, state = train(tx, PARAMS, grads, STEPS * every)
    # The gradients of one accumulation differ as little as its weights: not at all.
    plain, expected = train(lo.adam_lawn(0.1, SWITCH), PARAMS, pull, STEPS)
    assert max_difference(accumulated[every - 1 :: every], plain) < 1e-5
    assert state.inner_opt_state.steps == STEPS
    assert state.inner_opt_state.constrained_steps == STEPS - SWITCH
    assert max_difference(state.inner_opt_state.norms, expected.norms) < 1e-5


def test_multi_steps_with_the_automatic_switch():
    tx = optax.MultiSteps(lo.adam_lawn(0.1, lo.at_median_margin(decay=0.0)), 4)
    state = tx.init(PARAMS)
    for t in range(12):
        margin = jnp.float32(9.0 if t >= 7 else 0.0)
        _, state = tx.update(PARAMS, state, PARAMS, margin=margin)
    assert state.inner_opt_state.switch.averaged == 3
    assert state.inner_opt_state.constrained_steps == 2


def test_apply_if_finite_leaves_everything_as_it_was():
    tx = optax.apply_if_finite(lo.adam_lawn(0.1, SWITCH), 5)
    history, state = train(tx, PARAMS, pull, STEPS)
    nan = jax.tree.map(lambda w: w * jnp.nan, PARAMS)
    updates, after = tx.update(nan, state, history[-1])
    assert max_difference(updates, jax.tree.map(jnp.zeros_like, PARAMS)) == 0
    assert max_difference(after.inner_state, state.inner_state) == 0


def test_injected_hyperparameters():
    make = optax.inject_hyperparams(lo.adam_lawn)
    tx = make(lambda t: 0.1 / (1 + t), SWITCH, target_scale=1.0)
    history, state = train(tx, PARAMS, pull, STEPS)
    assert_held(history)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.1 / STEPS, rtol=1e-6)
    assert state.hyperparams["switch"] == SWITCH
    expected, _ = train(lo.adam_lawn(lambda t: 0.1 / (1 + t), SWITCH), PARAMS, pull, STEPS)
    assert max_difference(history, expected) < 1e-5


def test_injected_hyperparameters_need_their_dtype_for_bfloat16():
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), PARAMS)
    make = lambda **kw: optax.inject_hyperparams(lo.adam_lawn, **kw)(0.1, SWITCH)
    assert make().init(params).hyperparams["b2"] == 1.0  # the trap
    tx = make(hyperparam_dtype=jnp.float32)
    assert tx.init(params).hyperparams["b2"] == jnp.float32(0.999)
    history, _ = train(tx, params, pull, STEPS)
    plain, _ = train(lo.adam_lawn(0.1, SWITCH), params, pull, STEPS)
    np.testing.assert_allclose(
        norm(history[-1]["kernel"]), norm(history[SWITCH - 1]["kernel"]), 0.01
    )
    assert max_difference(history[-1], plain[-1]) < 0.05


def test_vmap_over_seeds_with_switches_of_their_own():
    kernels = jax.random.normal(jax.random.key(0), (3, 4, 5))

    def run(kernel, n):
        tx = lo.adam_lawn(0.1, n)
        params = {"kernel": kernel}
        state, norms = tx.init(params), []
        for t in range(STEPS):
            updates, state = tx.update(pull(t, params), state, params)
            params = optax.apply_updates(params, updates)
            norms.append(jnp.linalg.norm(params["kernel"]))
        return jnp.stack(norms)

    norms = jax.jit(jax.vmap(run))(kernels, jnp.array([1, 3, 6]))
    for lane, n in zip(norms, (1, 3, 6), strict=True):
        np.testing.assert_allclose(lane[n:], lane[n - 1], rtol=3e-6)
        assert n == 1 or abs(lane[n - 1] / lane[n - 2] - 1) > 1e-5


class Net(nnx.Module):
    """Kernels, biases and a scale."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


MASKS = {
    "default": None,
    "callable": lambda params: jax.tree.map(lambda w: w.ndim == 2, params),
    "tree": {
        "hidden": {"kernel": True, "bias": False},
        "norm": False,
        "out": {"kernel": True, "bias": False},
    },
    "paths": lo.except_paths("norm"),
}


@pytest.mark.parametrize("mask", MASKS)
def test_nnx_optimizer(mask):
    model = Net(nnx.Rngs(0))
    tx = lo.adam_lawn(0.05, lo.at_median_margin(decay=0.0), mask=MASKS[mask])
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (16, 3))

    @nnx.jit
    def step(model, optimizer, margin):
        grads = nnx.grad(lambda m: jnp.mean((m(x) - 1) ** 2))(model)
        optimizer.update(model, grads, margin=margin)

    for t in range(STEPS):
        before = norm(model.hidden.kernel[...])
        step(model, optimizer, jnp.float32(9.0 if t >= SWITCH else 0.0))
        moved = abs(norm(model.hidden.kernel[...]) / before - 1)
        assert moved < 3e-6 if t >= SWITCH else moved > 1e-6
    assert diagnostics.is_constrained(optimizer.opt_state)
    table = lo.describe(nnx.state(model, nnx.Param), optimizer.opt_state, mask=MASKS[mask])
    rows = {row.path: row for row in table}
    assert rows["hidden/kernel"].constrained
    np.testing.assert_allclose(
        rows["hidden/kernel"].captured, norm(model.hidden.kernel[...]), rtol=3e-6
    )
    assert not rows["norm/scale"].constrained


def test_linen_train_state():
    net = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])
    x = jax.random.normal(jax.random.key(0), (16, 3))
    variables = net.init(jax.random.key(1), x)
    state = TrainState.create(
        apply_fn=net.apply, params=variables["params"], tx=lo.lamb_lawn(0.05, SWITCH)
    )

    @jax.jit
    def step(state):
        loss = lambda p: jnp.mean((state.apply_fn({"params": p}, x) - 1) ** 2)
        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    norms = []
    for _ in range(STEPS):
        state = step(state)
        norms.append(norm(state.params["layers_0"]["kernel"]))
    np.testing.assert_allclose(norms[SWITCH:], norms[SWITCH - 1], rtol=3e-6)


def test_equinox():
    net = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0))
    tx = lo.sgd_lawn(0.1, SWITCH, mask=lo.except_paths("layers/1"))
    state = tx.init(eqx.filter(net, eqx.is_inexact_array))
    x = jax.random.normal(jax.random.key(1), (16, 3))

    @eqx.filter_jit
    def step(net, state):
        grads = eqx.filter_grad(lambda net: jnp.mean((jax.vmap(net)(x) - 1) ** 2))(net)
        updates, state = tx.update(grads, state, eqx.filter(net, eqx.is_inexact_array))
        return eqx.apply_updates(net, updates), state

    first, second = [], []
    for _ in range(STEPS):
        net, state = step(net, state)
        first.append(norm(net.layers[0].weight))
        second.append(norm(net.layers[1].weight))
    np.testing.assert_allclose(first[SWITCH:], first[SWITCH - 1], rtol=3e-6)
    assert abs(second[-1] / second[SWITCH - 1] - 1) > 1e-5


@pytest.mark.parametrize("saved_at", [SWITCH - 1, SWITCH, SWITCH + 2])
def test_orbax_round_trip_before_at_and_after_the_switch(tmp_path, saved_at):
    tx = lo.adam_lawn(0.1, SWITCH)
    step = jax.jit(
        lambda g, s, p: (lambda u, s: (optax.apply_updates(p, u), s))(*tx.update(g, s, p))
    )
    history, state = train(tx, PARAMS, pull, saved_at)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", {"params": history[-1], "state": state})
        checkpointer.wait_until_finished()
        blank = jax.eval_shape(lambda: {"params": PARAMS, "state": tx.init(PARAMS)})
        restored = checkpointer.restore(tmp_path / "checkpoint", blank)
    params, state = restored["params"], restored["state"]
    for t in range(saved_at, STEPS):
        params, state = step(pull(t, params), state, params)
    uninterrupted, expected = train(tx, PARAMS, pull, STEPS)
    for a, b in zip(
        jax.tree.leaves((params, state)),
        jax.tree.leaves((uninterrupted[-1], expected)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_complex_leaves():
    w = jax.random.normal(jax.random.key(0), (4, 3), jnp.complex64)
    history, state = train(
        lo.adam_lawn(0.1, SWITCH), {"kernel": w}, lambda t, p: {"kernel": p["kernel"] - 1j}, STEPS
    )
    assert_held(history)
    assert state.norms["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("rate", [1e2, 1e6])
def test_norms_hold_at_absurd_learning_rates(rate):
    history, _ = train(lo.sgd_lawn(rate, 0), PARAMS, pull, STEPS)
    for params in history:
        np.testing.assert_allclose(norm(params["kernel"]), norm(PARAMS["kernel"]), rtol=3e-6)
