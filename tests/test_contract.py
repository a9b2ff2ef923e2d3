"""One contract that every public optimizer and every link passes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import max_difference, train

import lawn_optax as lo

OPTIMIZERS = {
    "lawn": lambda: lo.lawn(optax.adam(0.05, eps=1e-3), 3),
    "lawn(reset)": lambda: lo.lawn(optax.adam(0.05, eps=1e-3), 3, reset_inner=True),
    "lawn(auto)": lambda: lo.lawn(optax.adam(0.05, eps=1e-3), lo.at_median_margin(threshold=0.5)),
    "adam_lawn": lambda: lo.adam_lawn(0.05, lo.at_epoch(0.3, 10)),
    "lamb_lawn": lambda: lo.lamb_lawn(0.05, 3),
    "sgd_lawn": lambda: lo.sgd_lawn(0.05, 3),
    "lamb_plus": lambda: lo.lamb_plus(0.05),
    "hyperball": lambda: lo.hyperball(optax.scale_by_adam(eps=1e-3), 0.05),
    "project_to_tangent": lambda: optax.chain(lo.project_to_tangent(), optax.sgd(0.05)),
    "rescale_to_norms": lambda: optax.chain(optax.sgd(0.05), lo.rescale_to_norms()),
    "scale_by_capped_trust_ratio": lambda: optax.chain(
        lo.scale_by_capped_trust_ratio(), optax.scale(-0.05)
    ),
}
PARAMS = {
    "a": (jnp.array([[1.0, -2.0], [3.0, 4.0]]), jnp.array([1.0, 2.0])),
    "none": None,
    "empty": {},
    "b": [jnp.full((2, 3, 2), 0.5, jnp.float32)],
}
MARGIN = jnp.float32(1.0)


def pull(t, params):
    return jax.tree.map(lambda w: w - 1.7 + 0.1 * t, params)


@pytest.fixture(params=OPTIMIZERS)
def tx(request):
    return OPTIMIZERS[request.param]()


def test_jit_equals_op_by_op(tx):
    compiled, _ = train(tx, PARAMS, pull, 8, margin=MARGIN)
    plain, _ = train(tx, PARAMS, pull, 8, jit=False, margin=MARGIN)
    assert max_difference(compiled, plain) < 1e-5


def test_init_looks_at_no_value(tx):
    shapes = jax.eval_shape(tx.init, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, tx.init(PARAMS))


def test_state_keeps_its_structure_shapes_and_dtypes(tx):
    _, state = train(tx, PARAMS, pull, 5, margin=MARGIN)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(PARAMS))


def test_one_trace_serves_all_steps(tx):
    traces = []

    @jax.jit
    def step(grads, state, params):
        traces.append(None)
        updates, state = tx.update(grads, state, params, margin=MARGIN)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for t in range(100):
        params, state = step(pull(t, params), state, params)
    assert len(traces) == 1


def test_runs_in_a_scan(tx):
    def body(carry, t):
        params, state = carry
        updates, state = tx.update(pull(t, params), state, params, margin=MARGIN)
        return (optax.apply_updates(params, updates), state), None

    (scanned, _), _ = jax.jit(lambda c: jax.lax.scan(body, c, jnp.arange(8.0)))(
        (PARAMS, tx.init(PARAMS))
    )
    looped, _ = train(tx, PARAMS, pull, 8, margin=MARGIN)
    assert max_difference(scanned, looped[-1]) < 1e-5


def test_donated_buffers_are_reused(tx):
    step = jax.jit(
        lambda g, s, p: (lambda u, s: (optax.apply_updates(p, u), s))(
            *tx.update(g, s, p, margin=MARGIN)
        ),
        donate_argnums=(1, 2),
    )
    params = jax.tree.map(jnp.copy, PARAMS)
    state = jax.tree.map(jnp.copy, tx.init(PARAMS))
    given = jax.tree.leaves(params)
    for t in range(5):
        params, state = step(pull(t, params), state, params)
    assert all(leaf.is_deleted() for leaf in given)
    expected, _ = train(tx, PARAMS, pull, 5, margin=MARGIN)
    assert max_difference(params, expected[-1]) < 1e-5


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_its_dtype_and_stays_finite(tx, dtype):
    params = jax.tree.map(lambda w: w.astype(dtype), PARAMS)
    history, state = train(tx, params, pull, 8, margin=MARGIN)
    chex.assert_trees_all_equal_shapes_and_dtypes(history[-1], params)
    chex.assert_tree_all_finite(history[-1])
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


def test_updates_have_the_dtype_of_the_gradients(tx):
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), PARAMS)
    updates, _ = tx.update(params, tx.init(params), params, margin=MARGIN)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


def test_unknown_extra_arguments_are_ignored(tx):
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, margin=MARGIN, value=1.0, nonsense="x")


def test_is_deterministic(tx):
    for a, b in zip(
        *(jax.tree.leaves(train(tx, PARAMS, pull, 5, margin=MARGIN)) for _ in range(2)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_vmaps_over_seeds(tx):
    stacked = jax.tree.map(lambda w: jnp.stack([w, 2 * w, -w]), PARAMS)

    def run(params):
        state = tx.init(params)
        for t in range(6):
            updates, state = tx.update(pull(t, params), state, params, margin=MARGIN)
            params = optax.apply_updates(params, updates)
        return params

    together = jax.jit(jax.vmap(run))(stacked)
    for i, scale in enumerate((1.0, 2.0, -1.0)):
        alone = jax.jit(run)(jax.tree.map(lambda w, s=scale: s * w, PARAMS))
        lane = jax.tree.map(lambda w, i=i: w[i], together)
        assert max_difference(lane, alone) < 1e-4


def test_gradients_through_the_update_are_finite(tx):
    def loss(params):
        state = tx.init(params)
        for t in range(5):
            updates, state = tx.update(pull(t, params), state, params, margin=MARGIN)
            params = optax.apply_updates(params, updates)
        return sum(jnp.sum(w**2) for w in jax.tree.leaves(params))

    chex.assert_tree_all_finite(jax.jit(jax.grad(loss))(PARAMS))


def test_a_zero_gradient_is_harmless(tx):
    zeros = lambda t, params: jax.tree.map(jnp.zeros_like, params)
    history, _ = train(tx, PARAMS, zeros, 6, margin=MARGIN)
    assert max_difference(history[-1], PARAMS) < 1e-5
