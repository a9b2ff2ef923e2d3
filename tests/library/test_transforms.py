"""The links of a chain, and the wrapper written out with them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from tests import reference
from tests.conftest import CONSTRAINED
from tests.helpers import max_difference, norm, train

AXES = {"dense": 0, "conv": (0, 1, 2), "embedding": 1, "bias": None, "scale": None}
OPTIONS = {
    "default": {},
    "axes": {"axes": AXES},
    "mask": {
        "mask": {"dense": True, "conv": False, "embedding": True, "bias": True, "scale": False}
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("inner", [optax.adam(0.03), optax.sgd(0.03, 0.9), optax.lion(0.01)])
def test_a_chain_of_the_links_equals_the_wrapper(inner, options, weights, gradient, x64):
    chain = optax.chain(
        lo.project_to_tangent(**options),
        inner,
        lo.project_to_tangent(**options),
        lo.rescale_to_norms(**options),
    )
    params = jax.tree.map(jnp.float64, weights)
    links, _ = train(chain, params, gradient, 30)
    wrapped, _ = train(lo.lawn(inner, 0, **options), params, gradient, 30)
    assert max_difference(links, wrapped) < 1e-12


def test_projection_is_orthogonal_on_constrained_leaves_only(weights):
    grads = jax.tree.map(lambda w: jnp.float32(w) + 1, weights)
    params = jax.tree.map(jnp.float32, weights)
    tx = lo.project_to_tangent()
    projected, _ = tx.update(grads, tx.init(params), params)
    for name in weights:
        if name in CONSTRAINED:
            cosine = np.vdot(params[name], projected[name]) / norm(params[name]) / norm(grads[name])
            assert abs(cosine) < 1e-6
        else:
            np.testing.assert_array_equal(projected[name], grads[name])


@pytest.mark.parametrize("mask", [{"dense": True, "conv": False, "embedding": False}])
def test_a_link_may_stand_in_a_wrapper_inside_lawn(mask, weights, gradient):
    params = {name: jnp.float32(weights[name]) for name in mask}
    grads = lambda t, p: {name: gradient(t, p)[name] for name in p}
    inner = optax.masked(optax.chain(lo.project_to_tangent(), optax.scale(3.0)), mask)
    tx = lo.lawn(optax.chain(inner, optax.sgd(0.1)), 2)
    history, _ = train(tx, params, grads, 5)
    for name in mask:
        np.testing.assert_allclose(norm(history[-1][name]), norm(history[1][name]), rtol=3e-6)


def test_links_keep_dtypes():
    params = {"w": jnp.ones((3, 2), jnp.bfloat16)}
    for tx in (lo.project_to_tangent(), lo.rescale_to_norms(), lo.scale_by_capped_trust_ratio()):
        updates, _ = tx.update(params, tx.init(params), params)
        assert updates["w"].dtype == jnp.bfloat16


def test_rescale_captures_at_its_first_update(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    tx = optax.chain(optax.sgd(0.1), lo.rescale_to_norms())
    assert all(jnp.all(c == 0) for c in jax.tree.leaves(tx.init(params)[1].norms))
    history, state = train(tx, params, gradient, 5)
    for name in CONSTRAINED:
        np.testing.assert_allclose(state[1].norms[name], norm(params[name]), rtol=1e-6)
        np.testing.assert_allclose(norm(history[-1][name]), norm(params[name]), rtol=3e-6)


def test_rescale_without_projection_is_a_plain_normalisation(weights, gradient):
    w, g = jnp.float32(weights["dense"]), jnp.ones((6, 4))
    tx = lo.rescale_to_norms()
    update, _ = tx.update(g, tx.init(w), w)
    np.testing.assert_allclose(w + update, norm(w) * (w + g) / norm(w + g), rtol=1e-5, atol=1e-6)


def test_rescale_follows_a_schedule():
    w = jnp.array([[3.0, 4.0]])
    tx = lo.rescale_to_norms(target_scale=lambda k: 1.0 / (1 + k))
    history, _ = train(tx, w, lambda t, p: jnp.ones_like(p), 3)
    np.testing.assert_allclose([norm(w) for w in history], [5, 5 / 2, 5 / 3], rtol=1e-6)


@pytest.mark.parametrize("cap", [1.0, 10.0, jnp.inf])
def test_capped_lamb_follows_the_reference(cap, weights, gradient, x64):
    tx = lo.lamb_plus(0.02, max_ratio=cap)
    history, _ = train(tx, jax.tree.map(jnp.float64, weights), gradient, 50)
    rule = reference.Lamb(0.02, max_ratio=cap)
    expected = reference.train(weights, gradient, rule, steps=50, switch=50)
    assert max_difference(history, expected) < 1e-12


def test_uncapped_trust_ratio_is_optax_own(weights, gradient):
    params = jax.tree.map(jnp.float32, weights)
    grads = jax.tree.map(jnp.float32, gradient(0, params))
    ours = lo.scale_by_capped_trust_ratio(jnp.inf).update(grads, optax.EmptyState(), params)[0]
    theirs = optax.scale_by_trust_ratio().update(grads, optax.EmptyState(), params)[0]
    assert max_difference(ours, theirs) < 1e-5


@pytest.mark.parametrize(("w", "u"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_trust_ratio_of_zeros_is_one(w, u):
    w, u = jnp.full((2, 2), w), jnp.full((2, 2), u)
    scaled, _ = lo.scale_by_capped_trust_ratio(jnp.inf).update(u, optax.EmptyState(), w)
    np.testing.assert_array_equal(scaled, u)


@pytest.mark.parametrize("cap", [0.0, -1.0, float("nan")])
def test_refuses_a_cap_that_is_not_positive(cap):
    with pytest.raises(ValueError, match=r"max_ratio=.* must be positive"):
        lo.scale_by_capped_trust_ratio(cap)


def test_the_trust_ratio_looks_at_its_mask_without_axes():
    with pytest.raises(ValueError, match="mask has no entry for parameter 'w'"):
        lo.scale_by_capped_trust_ratio(mask={"other": True}).init({"w": jnp.ones((2, 2))})


def test_a_mask_leaves_integers_out_of_lamb():
    params = {"w": jnp.ones((2, 2)), "ids": jnp.arange(6).reshape(3, 2)}
    tx = lo.lamb_lawn(0.1, 0, mask={"w": True, "ids": False})
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(norm(params["w"] + updates["w"]), 2, rtol=1e-6)


def test_the_ratio_of_lamb_plus_is_that_of_the_whole_leaf_on_every_device():
    w, g = jax.random.normal(jax.random.key(0), (2, 4, 3))
    whole, _ = (tx := lo.lamb_plus(0.1, max_ratio=10.0)).update(g, tx.init(w), w)
    split = lo.lamb_plus(0.1, max_ratio=10.0, axis_name="model")
    part = lambda w, g: split.update(g, split.init(w), w)[0]
    parts = jax.vmap(part, axis_name="model")(w.reshape(2, 2, 3), g.reshape(2, 2, 3))
    np.testing.assert_allclose(parts.reshape(4, 3), whole, rtol=1e-5)


LINKS = {
    "project_to_tangent": lo.project_to_tangent(),
    "rescale_to_norms": lo.rescale_to_norms(),
    "scale_by_capped_trust_ratio": lo.scale_by_capped_trust_ratio(),
    "hyperball": lo.hyperball(optax.scale_by_adam(), 0.1),
}


@pytest.mark.parametrize("name", LINKS)
def test_refuses_an_update_without_params(name, weights):
    params = jax.tree.map(jnp.float32, weights)
    state = LINKS[name].init(params)
    with pytest.raises(ValueError, match=f"params=None: {name} needs the current parameters"):
        LINKS[name].update(params, state)
