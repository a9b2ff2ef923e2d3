"""One contract that every public optimizer and every link passes."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from tests.helpers import max_difference, pull

STEPS = 8
# eps_root, because the root of a second moment of 0 has no gradient.
adam = lambda: optax.adam(0.05, eps=1e-3, eps_root=1e-8)

# Matrices whose columns are the last axis, also of leaves with three.
last_axis = lambda params: jax.tree.map(
    lambda w: optax.contrib.MuonDimensionNumbers(tuple(range(w.ndim - 1)), -1), params
)
OPTIMIZERS = {
    "lawn": lambda: lo.lawn(adam(), 3),
    "lawn(reset)": lambda: lo.lawn(adam(), 3, reset_inner=True),
    "lawn(unprojected)": lambda: lo.lawn(adam(), 3, project=False),
    "lawn(median margin)": lambda: lo.lawn(adam(), lo.at_median_margin(threshold=0.5)),
    "lawn(hold)": lambda: lo.lawn(adam(), lo.hold_median_margin(threshold=0.5)),
    "lawn(flattening)": lambda: lo.lawn(adam(), lo.at_flattening(1.01, 1.0)),
    "lawn(rise)": lambda: lo.lawn(adam(), lo.at_gradient_rise(1.01, 1.0)),
    "lawn(norms_of)": lambda: lo.lawn(adam(), lo.at_step(5, norms_of=2)),
    "adam_lawn": lambda: lo.adam_lawn(0.05, lo.at_epoch(0.3, 10)),
    "lamb_lawn": lambda: lo.lamb_lawn(0.05, 3, target_scale=optax.linear_schedule(1.0, 0.5, 4)),
    "sgd_lawn": lambda: lo.sgd_lawn(optax.linear_schedule(0.1, 0.0, 10), 3),
    "lamb_plus": lambda: lo.lamb_plus(0.05),
    "hyperball": lambda: lo.hyperball(optax.scale_by_adam(eps=1e-3), 0.05),
    "adam_h": lambda: lo.adam_h(0.05, 0.05, eps=1e-3),
    "muon_h": lambda: lo.muon_h(0.05, 0.05, eps=1e-3, weight_dimension_numbers=last_axis),
    "project_to_tangent": lambda: optax.chain(lo.project_to_tangent(), optax.sgd(0.05)),
    "rescale_to_norms": lambda: optax.chain(optax.sgd(0.05), lo.rescale_to_norms()),
    "scale_by_capped_trust_ratio": lambda: optax.chain(
        lo.scale_by_capped_trust_ratio(), optax.scale(-0.05)
    ),
    "adamp": lambda: lo.baselines.adamp(0.05, eps=1e-3, axes=-1),
    "cpr": lambda: optax.chain(adam(), lo.baselines.cpr(3, update_rate=0.01)),
    "abel": lambda: optax.chain(optax.sgd(0.05), lo.baselines.abel(2, last_decay_step=5)),
}
PARAMS = {
    "a": (jnp.array([[1.0, -2.0], [3.0, 4.0]]), jnp.array([1.0, 2.0])),
    "none": None,
    "empty": {},
    "nothing": (),
    "no rows": jnp.zeros((0, 3)),
    "scalar": jnp.float32(0.5),
    "b": [jnp.linspace(-1.0, 1.0, 12).reshape(2, 3, 2)],
}
# What switches see of training, by the name of the argument.
EXTRA = {"margin": jnp.float32(1.0), "value": jnp.float32(0.5)}


def types(tree):
    """What a trace depends on: shapes, dtypes, and whether they are weak."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@pytest.fixture(params=OPTIMIZERS, scope="module")
def tx(request):
    return OPTIMIZERS[request.param]()


class Compiled:
    """A compiled step of an optimizer, which counts its traces."""

    def __init__(self, tx, **options):
        self.tx, self.traces = tx, 0
        self.step = jax.jit(self._step, **options)

    def _step(self, grads, state, params):
        self.traces += 1
        updates, state = self.tx.update(grads, state, params, **EXTRA)
        return optax.apply_updates(params, updates), state

    def run(self, params, steps=STEPS):
        """The parameters after each step, and the last state."""
        state, history = self.tx.init(params), []
        for t in range(steps):
            params, state = self.step(pull(t, params), state, params)
            history.append(params)
        return history, state


@pytest.fixture(scope="module")
def compiled(tx):
    return Compiled(tx)


@pytest.fixture(scope="module")
def trained(compiled):
    """What the others are compared with."""
    return compiled.run(PARAMS)


def test_every_public_optimizer_is_held_to_it():
    public = {**vars(lo), **vars(lo.baselines)}
    makers = {
        name
        for name, value in public.items()
        if inspect.isfunction(value)
        and inspect.signature(value).return_annotation is optax.GradientTransformationExtraArgs
    }
    assert {"lawn", "abel", "rescale_to_norms"} <= makers
    assert makers <= set(OPTIMIZERS)


def test_jit_equals_op_by_op(tx, trained):
    with jax.disable_jit():
        plain, _ = Compiled(tx).run(PARAMS)
    assert max_difference(trained[0], plain) < 1e-5


def test_one_trace_serves_all_steps(compiled, trained):
    assert compiled.traces == 1


def test_is_deterministic(compiled, trained):
    jax.tree.map(np.testing.assert_array_equal, compiled.run(PARAMS), trained)


def test_init_looks_at_no_value(tx):
    shapes = jax.eval_shape(tx.init, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, tx.init(PARAMS))


def test_state_and_updates_keep_their_types_weak_ones_included(tx):
    state = jax.eval_shape(tx.init, PARAMS)
    updates, after = jax.eval_shape(lambda s: tx.update(PARAMS, s, PARAMS, **EXTRA), state)
    assert types(after) == types(state)
    assert types(updates) == types(jax.eval_shape(lambda: PARAMS))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, updates)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "name", ["lawn(rise)", "adam_lawn", "lamb_lawn", "sgd_lawn", "hyperball", "adam_h", "muon_h"]
)
def test_types_are_stable_under_explicit_sharding(name, dtype, x64):
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        place = lambda w, spec: jax.device_put(w, jax.sharding.NamedSharding(mesh, spec))
        params = {
            "kernel": place(jnp.ones((4, 2), dtype), jax.sharding.PartitionSpec("x", "y")),
            "bias": place(jnp.ones(4, dtype), jax.sharding.PartitionSpec("x")),
        }
        tx = OPTIMIZERS[name]()
        kinds = lambda tree: jax.tree.map(jax.typeof, tree)
        state = jax.jit(tx.init)(params)
        step = jax.jit(tx.update)
        updates, after = step(params, state, params)
        assert kinds(after) == kinds(state)
        assert kinds(updates) == kinds(params)
        step(params, after, params)
        assert step._cache_size() == 1


def test_runs_in_a_scan(tx, trained):
    def body(carry, t):
        params, state = carry
        updates, state = tx.update(pull(t, params), state, params, **EXTRA)
        return (optax.apply_updates(params, updates), state), None

    (scanned, _), _ = jax.jit(lambda c: jax.lax.scan(body, c, jnp.arange(float(STEPS))))(
        (PARAMS, tx.init(PARAMS))
    )
    assert max_difference(scanned, trained[0][-1]) < 1e-5


def test_donated_buffers_are_reused(tx, trained):
    params, state = jax.tree.map(jnp.copy, PARAMS), tx.init(PARAMS)
    given = [leaf for leaf in jax.tree.leaves((params, state)) if leaf.size]
    donating = Compiled(tx, donate_argnums=(1, 2))
    for t in range(STEPS):
        params, state = donating.step(pull(t, params), state, params)
    assert all(leaf.is_deleted() for leaf in given)
    assert max_difference(params, trained[0][-1]) < 1e-5


def test_half_precision_keeps_its_dtypes_and_stays_finite(tx):
    halves = (jnp.bfloat16, jnp.float16)
    params = [jax.tree.map(lambda w, d=dtype: w.astype(d), PARAMS) for dtype in halves]
    history, state = Compiled(tx).run(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(history[-1], params)
    chex.assert_tree_all_finite(history[-1])
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


@pytest.mark.parametrize("of_weights", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("of_gradients", [jnp.float32, jnp.bfloat16])
def test_weights_keep_their_dtype_whatever_that_of_the_gradients(tx, of_weights, of_gradients):
    params = jax.tree.map(lambda w: w.astype(of_weights), PARAMS)
    grads = jax.tree.map(lambda w: w.astype(of_gradients), PARAMS)

    def step(grads, params):
        updates, _ = tx.update(grads, tx.init(params), params, **EXTRA)
        return updates, optax.apply_updates(params, updates)

    updates, after = jax.eval_shape(step, grads, params)
    assert types(after) == types(jax.eval_shape(lambda: params))
    if of_weights == of_gradients:
        assert types(updates) == types(after)


def test_unknown_extra_arguments_change_nothing(tx):
    state = tx.init(PARAMS)
    plain = tx.update(PARAMS, state, PARAMS, **EXTRA)
    extra = tx.update(PARAMS, state, PARAMS, **EXTRA, nonsense="x")
    jax.tree.map(np.testing.assert_array_equal, plain, extra)


def test_weights_and_gradients_may_be_numpy_arrays(tx):
    arrays = jax.tree.map(np.asarray, PARAMS)
    state = tx.init(PARAMS)
    ours = tx.update(arrays, tx.init(arrays), arrays, **EXTRA)
    theirs = tx.update(PARAMS, state, PARAMS, **EXTRA)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_vmaps_over_seeds(tx, compiled):
    scales = (1.0, 2.0, -1.0)
    stacked = jax.tree.map(lambda w: jnp.stack([scale * w for scale in scales]), PARAMS)

    def run(params):
        def body(carry, t):
            params, state = carry
            updates, state = tx.update(pull(t, params), state, params, **EXTRA)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), jnp.arange(6.0))[0][0]

    together = jax.jit(jax.vmap(run))(stacked)
    for i, scale in enumerate(scales):
        alone, _ = compiled.run(jax.tree.map(lambda w, s=scale: s * w, PARAMS), steps=6)
        lane = jax.tree.map(lambda w, i=i: w[i], together)
        assert max_difference(lane, alone[-1]) < 1e-4


@pytest.mark.slow
def test_gradients_through_training_are_finite(tx):
    # Through the free phase, the switch, and leaves at zero; with respect to the first weights and
    # to a factor on the gradients.
    start = {"kernel": PARAMS["b"][0], "bias": PARAMS["a"][1], "zeros": jnp.zeros((2, 2))}

    def loss(params, factor):
        def body(carry, t):
            params, state = carry
            grads = jax.tree.map(lambda g: factor * g, pull(t, params))
            updates, state = tx.update(grads, state, params, **EXTRA)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (params, tx.init(params)), jnp.arange(5.0))
        return sum(jnp.sum(w**2) for w in jax.tree.leaves(params))

    of_weights, of_factor = jax.jit(jax.grad(loss, argnums=(0, 1)))(start, 1.0)
    chex.assert_tree_all_finite((of_weights, of_factor))
    assert of_factor != 0


def test_a_zero_gradient_moves_no_weight_but_by_its_target_scale(tx, request):
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    scaled = request.node.callspec.params["tx"] == "lamb_lawn"  # its norms follow a schedule
    state = tx.init(PARAMS)
    for _ in range(4):
        updates, state = tx.update(zeros, state, PARAMS, **EXTRA)
    chex.assert_tree_all_finite((updates, state))
    assert scaled or max_difference(updates, zeros) < 1e-5
