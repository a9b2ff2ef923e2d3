"""Invariants on random trees, dtypes, masks, axes and inner optimizers."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from lawn_optax._geometry import project
from lawn_optax._kernels import upcast
from lawn_optax._selection import Selection
from tests.helpers import norm

# The same examples every time, as many as the profile says.
settings = hypothesis.settings(deadline=None, derandomize=True)

INNER = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, 0.9, nesterov=True),
    "adam": lambda: optax.adam(0.1, eps=1e-6),  # 1e-8 is 0 in float16
    "adamw": lambda: optax.adamw(0.1, eps=1e-6, weight_decay=0.3),
    "lion": lambda: optax.lion(0.1),
    "lamb": lambda: optax.lamb(0.1),
    "sign": lambda: optax.chain(optax.scale_by_sign(), optax.scale(-3.0)),
    "huge": lambda: optax.sgd(1e4, 0.9),
}
# A few, so that their programs are compiled once.
SHAPES = [(1,), (5,), (1, 1), (1, 4), (4, 3), (2, 1, 3), (3, 3, 2, 4)]
TOLERANCE = {"float32": 3e-6, "bfloat16": 1e-2, "float16": 2e-3, "complex64": 3e-6}


def tangent(spheres, w, d):
    """The part of `d` in the tangent space at `w`."""
    d = jax.tree.map(upcast, d)
    return spheres.move(project, w, d, *spheres.inner_products((w, w), (w, d)))


def normal(seed, like, scale=1.0):
    """Of the shape and dtype of `like`, drawn by NumPy, so that nothing is compiled for it."""
    drawn = scale * np.random.default_rng(seed).normal(size=like.shape)
    return jnp.asarray(drawn.astype(like.dtype))


@st.composite
def leaves(draw):
    """A shape, the axes of its norms, and a dtype."""
    shape = draw(st.sampled_from(SHAPES))
    chosen = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    axes = draw(
        st.sampled_from([None, tuple(sorted(chosen)), tuple(a - len(shape) for a in chosen)])
    )
    return shape, axes, draw(st.sampled_from(sorted(TOLERANCE)))


@st.composite
def problems(draw):
    """Parameters, their mask and axes."""
    drawn = draw(st.lists(leaves(), min_size=1, max_size=3))
    mask = draw(st.lists(st.booleans(), min_size=len(drawn), max_size=len(drawn)))
    mask[0] = True
    seed = draw(st.integers(0, 2**31 - 1))
    params, axes = {}, {}
    for i, (shape, over, dtype) in enumerate(drawn):
        scale = 10.0 ** draw(st.integers(-2, 2))
        params[f"leaf{i}"] = normal((seed, i), jax.ShapeDtypeStruct(shape, dtype), scale)
        axes[f"leaf{i}"] = over
    return params, {f"leaf{i}": m for i, m in enumerate(mask)}, axes


@settings
@hypothesis.given(
    *(problems(), st.sampled_from(sorted(INNER)), st.integers(0, 2), st.booleans()),
    st.integers(0, 9),
)
def test_every_constrained_step_ends_on_the_captured_norms(problem, inner, switch, project, seed):
    params, mask, axes = problem
    tx = lo.lawn(INNER[inner](), switch, mask=mask, axes=axes, project=project)
    state = tx.init(params)
    for t in range(4):
        grads = jax.tree.map(lambda w, t=t: normal((seed, t), w), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        if t < switch:
            continue
        for name, w in params.items():
            if mask[name]:
                tolerance = TOLERANCE[str(w.dtype)]
                captured = np.asarray(state.norms[name], np.float64)
                np.testing.assert_allclose(norm(w, axes[name]), captured, rtol=tolerance)


@settings
@hypothesis.given(problems(), st.integers(0, 9))
def test_directions_are_tangent(problem, seed):
    params, mask, axes = problem
    spheres = Selection(mask, axes).spheres(params)
    drawn = jax.tree.map(lambda w: normal(seed, w), params)
    tangents = tangent(spheres, params, drawn)
    (radial,) = spheres.inner_products((params, tangents))
    w_norms, d_norms = spheres.norms(params), spheres.norms(drawn)
    for name in spheres:
        size = w_norms[name] * d_norms[name]
        np.testing.assert_allclose(radial[name] / jnp.where(size > 0, size, 1), 0, atol=1e-6)


@settings
@hypothesis.given(problems())
def test_the_table_shows_what_is_held(problem):
    params, mask, axes = problem
    tx = lo.lawn(optax.sgd(0.1), 0, mask=mask, axes=axes)
    _, state = tx.update(params, tx.init(params), params)
    for row in lo.describe(params, state, mask=mask, axes=axes):
        assert row.constrained == mask[row.path]
        if row.constrained:
            np.testing.assert_allclose(row.captured, row.norm, rtol=1e-6)


def matrix_factorization(params):
    """A loss with a saddle, whose layers scale against each other."""
    target = jnp.outer(jnp.arange(1.0, 5.0), jnp.array([1.0, -1.0, 0.5]))
    return jnp.mean((jnp.tanh(params["left"]) @ params["right"] + params["bias"] - target) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_flow_keeps_the_norms_and_lowers_the_loss(seed, x64):
    # Appendix D: along dw/dt = -g_p the norms are constant (10) and the loss falls at the rate
    # sum (1 - cos^2) ||g||^2 (9). Fourth-order Runge-Kutta, so that the flow is what is tested.
    keys = jax.random.split(jax.random.key(seed), 2)
    params = {
        "left": jax.random.normal(keys[0], (4, 2)),
        "right": jax.random.normal(keys[1], (2, 3)),
        "bias": jnp.zeros(3),
    }
    spheres = Selection().spheres(params)
    velocity = lambda w: jax.tree.map(
        jnp.negative, tangent(spheres, w, jax.grad(matrix_factorization)(w))
    )
    move = lambda w, v, h: jax.tree.map(lambda a, b: a + h * b, w, v)
    dt = 0.01

    @jax.jit
    def step(w):
        k1 = velocity(w)
        k2 = velocity(move(w, k1, dt / 2))
        k3 = velocity(move(w, k2, dt / 2))
        k4 = velocity(move(w, k3, dt))
        slope = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
        rate = -sum(jnp.vdot(k, k) for k in jax.tree.leaves(k1))
        return move(w, slope, dt), matrix_factorization(w), rate

    w, losses, rates = params, [], []
    for _ in range(500):
        w, loss, rate = step(w)
        losses.append(float(loss))
        rates.append(float(rate))
    assert np.all(np.diff(losses) < 0)
    np.testing.assert_allclose(np.gradient(losses, dt)[1:-1], rates[1:-1], rtol=1e-2)
    for name in ("left", "right"):
        np.testing.assert_allclose(norm(w[name]), norm(params[name]), rtol=1e-8)


def test_a_fixed_point_of_the_flow_is_a_kkt_point(x64):
    # Where g is parallel to w, nothing moves: the Lagrange multiplier is <w, g> / (2 ||w||^2).
    w = {"w": jnp.array([[3.0, 4.0]])}
    tx = lo.sgd_lawn(0.1, 0)
    updates, _ = tx.update(jax.tree.map(lambda x: -2 * x, w), tx.init(w), w)
    chex.assert_trees_all_close(updates, jax.tree.map(jnp.zeros_like, w), atol=1e-15)
