"""Every wrapper and framework that users put around or under an optimizer, across the switch.

What carries `works_with` is a row of docs/ecosystem.md; see `ecosystem_table`.
"""

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

import lawn_optax as lo
from lawn_optax import diagnostics
from tests.helpers import max_difference, norm, pull, stepper, train
from tests.library import ecosystem_table

works_with = pytest.mark.works_with
SWITCH, STEPS = 3, 8
PARAMS = {"kernel": jnp.array([[1.0, -2.0, 0.5], [3.0, 4.0, -1.0]]), "bias": jnp.array([1.0, 2.0])}


def assert_held(history, switch=SWITCH, rtol=3e-6):
    """The kernel's norm moves until the switch and is constant from it on."""
    norms = [norm(p["kernel"]) for p in history]
    np.testing.assert_allclose(norms[switch:], norms[switch - 1], rtol=rtol)
    assert abs(norms[switch - 1] / norms[0] - 1) > 1e-4


def rows(names, how):
    """A test for each of `names`, and a row of the table."""
    return [pytest.param(name, marks=works_with(name, how)) for name in names]


def groups(wrapper):
    labels = {"kernel": "lawn", "bias": "adam"}
    return lambda tx: wrapper({"lawn": tx, "adam": optax.adam(0.1)}, labels)


WRAPPERS = {
    "optax.chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "optax.named_chain": lambda tx: optax.named_chain(("clip", optax.clip(1.0)), ("lawn", tx)),
    "optax.apply_if_finite": lambda tx: optax.apply_if_finite(tx, 5),
    "optax.masked": lambda tx: optax.masked(tx, {"kernel": True, "bias": False}),
    "optax.partition": groups(optax.partition),
    "optax.multi_transform": groups(optax.multi_transform),
    "optax.conditionally_transform": lambda tx: optax.conditionally_transform(
        tx, lambda step: step >= 0
    ),
}


@pytest.mark.parametrize("wrapper", rows(WRAPPERS, "LAWN inside it"))
def test_inside_a_wrapper(wrapper):
    tx = WRAPPERS[wrapper](lo.adam_lawn(0.1, SWITCH))
    history, state = train(tx, PARAMS, pull, STEPS)
    assert_held(history)
    assert diagnostics.is_constrained(state)


INNER = {
    "optax.adamw": optax.adamw(0.1),
    "optax.lion": optax.lion(0.05),
    "optax.adafactor": optax.adafactor(0.1),
    "optax.lars": optax.lars(0.1),
    "optax.novograd": optax.novograd(0.1),
    "optax.rmsprop": optax.rmsprop(0.1),
    "optax.contrib.muon": optax.contrib.muon(0.05),
    "optax.contrib.adopt": optax.contrib.adopt(0.1),
    "optax.contrib.prodigy": optax.contrib.prodigy(1.0),
    "optax.contrib.sam": optax.contrib.sam(
        optax.sgd(0.1), optax.sgd(0.01), sync_period=2, opaque_mode=False
    ),
    "optax.clip_by_global_norm": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)),
    "optax.ema": optax.chain(optax.ema(0.9), optax.sgd(0.1)),
}


@pytest.mark.parametrize("inner", rows(INNER, "inside LAWN"))
def test_around_an_optimizer(inner):
    history, _ = train(lo.lawn(INNER[inner], SWITCH), PARAMS, pull, STEPS)
    norms = [norm(p["kernel"]) for p in history]
    np.testing.assert_allclose(norms[SWITCH:], norms[SWITCH - 1], rtol=3e-6)


@works_with("optax.lbfgs", "inside LAWN, its extra arguments passed on")
def test_around_lbfgs():
    loss = lambda p: sum(jnp.sum((w - 1.7) ** 2) for w in jax.tree.leaves(p))
    tx = lo.lawn(optax.lbfgs(0.1), lo.at_median_margin(decay=0.0))

    @jax.jit
    def step(params, state, margin):
        value, grads = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grads, "value_fn": loss}
        updates, state = tx.update(grads, state, params, margin=margin, **extra)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for t in range(STEPS):
        before = params
        params, state = step(params, state, 9.0 * (t >= SWITCH))
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


@works_with("optax.MultiSteps", "LAWN inside it; the switch counts emitted updates")
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
    update = jax.jit(lambda state, margin: tx.update(PARAMS, state, PARAMS, margin=margin)[1])
    state = tx.init(PARAMS)
    for t in range(12):
        state = update(state, jnp.float32(9.0 if t >= 7 else 0.0))
    assert state.inner_opt_state.switch.averaged == 3
    assert state.inner_opt_state.constrained_steps == 2


def test_apply_if_finite_leaves_everything_as_it_was():
    tx = optax.apply_if_finite(lo.adam_lawn(0.1, SWITCH), 5)
    history, state = train(tx, PARAMS, pull, STEPS)
    nan = jax.tree.map(lambda w: w * jnp.nan, PARAMS)
    updates, after = tx.update(nan, state, history[-1])
    assert max_difference(updates, jax.tree.map(jnp.zeros_like, PARAMS)) == 0
    assert max_difference(after.inner_state, state.inner_state) == 0


@works_with("optax.inject_hyperparams", "around adam_lawn and the like")
def test_injected_hyperparameters():
    make = optax.inject_hyperparams(lo.adam_lawn)
    tx = make(lambda t: 0.1 / (1 + t), SWITCH, target_scale=1.0)
    history, state = train(tx, PARAMS, pull, STEPS)
    assert_held(history)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.1 / STEPS, rtol=1e-6)
    assert state.hyperparams["switch"] == SWITCH
    expected, _ = train(lo.adam_lawn(lambda t: 0.1 / (1 + t), SWITCH), PARAMS, pull, STEPS)
    assert max_difference(history, expected) < 1e-5


@works_with(
    "optax.inject_hyperparams",
    "with bfloat16 parameters: pass hyperparam_dtype=jnp.float32, or b2 rounds to 1",
)
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


@works_with("jax.vmap", "ensembles, each with a switch of its own")
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


@works_with("flax.nnx.Optimizer", "under nnx.jit, extra arguments included")
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


@works_with("flax.training.TrainState", "Linen, as its tx")
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


@works_with("equinox", "parameters by eqx.filter; masks by path")
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


@works_with("orbax.checkpoint.StandardCheckpointer", "the state as it is")
@pytest.mark.parametrize("saved_at", [SWITCH - 1, SWITCH, SWITCH + 2])
def test_orbax_round_trip_before_at_and_after_the_switch(tmp_path, saved_at):
    tx = lo.adam_lawn(0.1, SWITCH)
    step = stepper(tx)
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


@works_with("orbax.checkpoint.CheckpointManager", "asynchronous saves, while training goes on")
def test_orbax_saves_while_training_goes_on(tmp_path):
    tx = lo.adam_lawn(0.1, SWITCH)
    step = stepper(tx)
    states = [(PARAMS, tx.init(PARAMS))]
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=True)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        for t in range(STEPS):
            params, state = states[-1]
            states.append(step(pull(t, params), state, params))
            if t % 2 == 0:
                manager.save(t, args=ocp.args.StandardSave(states[-1]))
        manager.wait_until_finished()
        blank = jax.eval_shape(lambda: states[0])
        for t in manager.all_steps():
            restored = manager.restore(t, args=ocp.args.StandardRestore(blank))
            jax.tree.map(np.testing.assert_array_equal, restored, states[t + 1])
        assert len(manager.all_steps()) == STEPS // 2
    assert_held([params for params, _ in states[1:]])


@works_with(
    "jax.export", "a train step, of the leaves of its trees: the state's types need not register"
)
def test_an_exported_train_step_trains_on():
    pytest.importorskip("flatbuffers")  # what jax.export serialises with
    tx = lo.adam_lawn(0.1, SWITCH)
    leaves, tree = jax.tree.flatten((PARAMS, tx.init(PARAMS)))

    @jax.jit
    def flat_step(t, *leaves):
        params, state = jax.tree.unflatten(tree, leaves)
        updates, state = tx.update(pull(t, params), state, params)
        return jax.tree.leaves((optax.apply_updates(params, updates), state))

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    exported = jax.export.export(flat_step)(jax.ShapeDtypeStruct((), jnp.float32), *shapes)
    restored = jax.export.deserialize(exported.serialize())
    history = []
    for t in range(STEPS):
        leaves = restored.call(jnp.float32(t), *leaves)
        history.append(jax.tree.unflatten(tree, leaves)[0])
    assert_held(history)
    plain, _ = train(tx, PARAMS, pull, STEPS)
    assert max_difference(history, plain) < 1e-5


def on_their_spheres(weights, state):
    """What a user does with weights that are no iterates, such as an average of some."""
    return lo.scale_to_norms(weights, diagnostics.captured_norms(state))


@works_with(
    "an average of the parameters",
    "its norms fall below those held; scale_to_norms puts it on the spheres",
)
def test_an_average_of_the_parameters_lies_inside_the_sphere_and_is_put_back():
    history, state = train(lo.adam_lawn(0.3, SWITCH), PARAMS, pull, STEPS)
    average = history[SWITCH]
    for params in history[SWITCH + 1 :]:
        average = optax.incremental_update(params, average, 0.3)
    c = state.norms["kernel"]
    assert norm(average["kernel"]) < 0.9999 * c
    back = on_their_spheres(average, state)
    np.testing.assert_allclose(norm(back["kernel"]), c, rtol=3e-6)
    np.testing.assert_array_equal(back["bias"], average["bias"])
    np.testing.assert_allclose(
        back["kernel"] / c, average["kernel"] / norm(average["kernel"]), rtol=1e-5
    )


@works_with(
    "optax.lookahead",
    "LAWN inside it: the fast weights are on their spheres but right after a sync; the slow weights"
    " are averages, see [choosing](choosing.md#which-weights-are-on-the-spheres)",
)
def test_lookahead():
    tx = optax.lookahead(lo.adam_lawn(0.3, SWITCH), sync_period=3, slow_step_size=0.5)
    step = stepper(tx)
    params = optax.LookaheadParams.init_synced(PARAMS)
    state, fast, slow = tx.init(params), [], []
    for t in range(12):
        params, state = step(pull(t, params.fast), state, params)
        fast.append(norm(params.fast["kernel"]))
        slow.append(norm(params.slow["kernel"]))
    c = diagnostics.captured_norms(state)["kernel"]
    np.testing.assert_allclose(c, fast[SWITCH - 1], rtol=1e-6)
    synced = np.arange(12) % 3 == 2
    after = np.arange(12) >= SWITCH
    np.testing.assert_allclose(np.array(fast)[after & ~synced], c, rtol=3e-6)
    # A sync lands between two points of the ball, and the next step is back on the sphere.
    assert np.all(np.array(fast)[after & synced] < 0.9999 * c)
    assert np.all(np.array(slow)[after] < (1 + 3e-6) * c)
    np.testing.assert_allclose(fast[-1], slow[-1], rtol=1e-6)
    back = on_their_spheres(params.slow, state)
    np.testing.assert_allclose(norm(back["kernel"]), c, rtol=3e-6)


@works_with(
    "optax.contrib.schedule_free",
    "inside LAWN: the weights trained are on their spheres; those for evaluation are averages, see"
    " [choosing](choosing.md#which-weights-are-on-the-spheres)",
)
def test_schedule_free():
    tx = lo.lawn(optax.contrib.schedule_free(optax.sgd(0.1), 0.1), SWITCH)
    history, state = train(tx, PARAMS, pull, STEPS)
    assert_held(history)
    x = optax.contrib.schedule_free_eval_params(state.inner, history[-1])
    back = on_their_spheres(x, state)
    np.testing.assert_allclose(norm(back["kernel"]), state.norms["kernel"], rtol=3e-6)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(
            "inside", marks=works_with("optax.contrib.reduce_on_plateau", "inside LAWN, in a chain")
        ),
        pytest.param(
            "after",
            marks=works_with(
                "optax.contrib.reduce_on_plateau",
                "not after LAWN: it cuts steps short of the sphere, inside which the weights stay",
            ),
        ),
    ],
)
def test_reduce_on_plateau(place):
    plateau = optax.contrib.reduce_on_plateau(0.5, patience=5)
    if place == "inside":
        tx = lo.lawn(optax.chain(optax.adam(0.3), plateau), SWITCH)
    else:
        tx = optax.chain(lo.adam_lawn(0.3, SWITCH), plateau)
    history, state = train(tx, PARAMS, pull, STEPS, value=jnp.float32(1.0))
    assert optax.tree.get(state, "scale") == 0.5
    if place == "inside":
        assert_held(history)
        return
    norms = np.array([norm(p["kernel"]) for p in history])
    c = norms[SWITCH - 1]
    np.testing.assert_allclose(norms[SWITCH:5], c, rtol=3e-6)  # as long as it changes nothing
    assert np.all(norms[5:] < (1 - 1e-5) * c)


@works_with("optax.flatten", "no: it makes one vector of all leaves, and LAWN warns of it")
def test_flatten_leaves_nothing_to_constrain():
    tx = optax.flatten(lo.adam_lawn(0.1, SWITCH))
    with pytest.warns(UserWarning, match=r"No leaf is constrained"):
        tx.init(PARAMS)


class Stack(nnx.Module):
    """Three layers, stacked along a first axis and run by `nnx.scan`."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap
        def make(rngs):
            return nnx.Linear(4, 4, rngs=rngs)

        self.layers = make(rngs)

    def __call__(self, x):
        forward = nnx.scan(
            lambda x, layer: jnp.tanh(layer(x)), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
        )
        return forward(x, self.layers)


@works_with(
    "flax.nnx.scan",
    'stacked layers: stacked="layers" gives each a norm of its own',
)
def test_layers_stacked_by_nnx_have_a_norm_each():
    model = Stack(nnx.Rngs(0))
    tx = lo.adam_lawn(0.1, SWITCH, stacked="layers")
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (8, 4))

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda m: jnp.mean((m(x) - 1) ** 2))(model))

    norms = []
    for _ in range(STEPS):
        step(model, optimizer)
        norms.append(norm(model.layers.kernel[...], (1, 2)))
    np.testing.assert_allclose(
        norms[SWITCH:], np.tile(norms[SWITCH - 1], (STEPS - SWITCH, 1)), 3e-6
    )
    assert np.all(np.abs(norms[SWITCH - 1] / norms[0] - 1) > 1e-4)
    assert list(diagnostics.captured_norms(optimizer.opt_state)) == ["layers/kernel"]


@works_with("Haiku", "its two-level dicts; masks by path match inside its names")
def test_dicts_of_haiku():
    params = {f"mlp/~/linear_{i}": {"w": PARAMS["kernel"], "b": PARAMS["bias"]} for i in range(2)}
    history, state = train(
        lo.sgd_lawn(0.1, SWITCH, mask=lo.only_paths("linear_0")), params, pull, STEPS
    )
    assert_held([{"kernel": p["mlp/~/linear_0"]["w"]} for p in history])
    assert list(state.norms) == ["mlp/~/linear_0/w"]


@works_with("jax.checkpoint", "a loss that is computed anew on the way back")
def test_a_checkpointed_loss():
    loss = lambda w: jnp.mean(jnp.tanh(jnp.tanh(PARAMS["kernel"] @ w) @ w.T) ** 2)
    params = {"kernel": jax.random.normal(jax.random.key(0), (3, 3))}

    def run(loss):
        gradient = jax.jit(jax.grad(lambda p: loss(p["kernel"])))
        return train(lo.adam_lawn(0.1, SWITCH), params, lambda t, p: gradient(p), STEPS)[0]

    history = run(jax.checkpoint(loss))
    assert_held(history)
    assert max_difference(history, run(loss)) < 1e-5


@works_with("jax.grad", "through the update, across the switch")
def test_the_gradient_of_training_is_that_of_finite_differences(x64):
    w = {"kernel": jnp.asarray(PARAMS["kernel"], jnp.float64)}

    def loss(rate):
        tx = lo.adam_lawn(rate, SWITCH)

        def body(carry, t):
            params, state = carry
            grads = jax.tree.map(lambda w: jnp.sin(w) + 0.1 * t, params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (w, tx.init(w)), jnp.arange(float(STEPS)))
        return jnp.sum(params["kernel"] ** 3)

    evaluate = jax.jit(jax.value_and_grad(loss))
    (above, _), (below, _) = evaluate(0.1 + 1e-6), evaluate(0.1 - 1e-6)
    np.testing.assert_allclose(evaluate(0.1)[1], (above - below) / 2e-6, rtol=1e-6)


@works_with("float64", "parameters; norms in float64")
def test_double_precision(x64):
    params = jax.tree.map(lambda w: w.astype(jnp.float64), PARAMS)
    history, state = train(lo.adam_lawn(0.1, SWITCH), params, pull, STEPS)
    assert_held(history, rtol=1e-13)
    assert state.norms["kernel"].dtype == jnp.float64


@works_with("complex64", "parameters; norms in float32")
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


def test_the_table_of_what_works_is_that_of_these_tests():
    assert {"optax.MultiSteps", "optax.flatten"} <= {what for what, *_ in ecosystem_table.rows()}
    assert ecosystem_table.DOCUMENT.read_text(encoding="utf-8") == ecosystem_table.document(), (
        "run python -m tests.library.ecosystem_table"
    )
