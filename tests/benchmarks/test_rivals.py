"""What LAWN is measured against computes what it should: else its cost says nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.tools import rivals, torch_peers
from tests import reference
from tests.helpers import norm, train


def test_lawn_without_care_is_algorithm_1(weights, gradient):
    tx = rivals.straightforward_lawn(optax.adam(0.05, eps=1e-6), switch=3)
    params = jax.tree.map(jnp.float32, weights)
    history, _ = train(tx, params, gradient, steps=8)
    expected = reference.train(weights, gradient, reference.Adam(0.05), steps=8, switch=3)
    for ours, theirs in zip(history, expected, strict=True):
        for name in weights:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, atol=2e-5)


def test_the_reparametrized_form_is_algorithm_1_at_a_rate_that_falls_with_v(weights, gradient):
    """Gradient descent on `v` turns `w = c v / ||v||` by `lr c^2 / ||v||^2`, and `||v||` grows."""
    lr, only = 0.1, "dense"
    params = {only: jnp.float32(weights[only])}
    of_one = lambda t, params: {only: gradient(t, {**weights, **params})[only]}
    init, step = rivals.reparametrized(optax.sgd(lr))
    state, step, rates = init(params), jax.jit(step), []
    c, history = norm(params[only]), []
    for t in range(8):
        rates.append(lr * (c / norm(state.v[only])) ** 2)
        params, state = step(jax.tree.map(jnp.float32, of_one(t, params)), state, params)
        history.append(params)
    assert rates[-1] < 0.9 * rates[0]
    rule = reference.Sgd(lambda t: rates[t], momentum=0.0)
    expected = reference.train({only: weights[only]}, of_one, rule, steps=8, switch=0)
    for ours, theirs in zip(history, expected, strict=True):
        np.testing.assert_allclose(ours[only], theirs[only], rtol=2e-4, atol=2e-5)


@pytest.mark.skipif(not torch_peers.installed(), reason="needs PyTorch")
def test_adamp_is_adam_that_loses_its_radial_part_where_weights_seem_scale_invariant():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(6, 4, generator=generator, dtype=torch.float64)
    w, along, lr = draw(), draw(), 0.1
    tangent = along - (w * along).sum() / (w * w).sum() * w  # cos(w, g) = 0

    for g, projects in ((w + along, False), (tangent, True)):
        ours, theirs = w.clone(), w.clone()
        step = torch_peers.adamp([ours], [g], lr=lr)
        theirs.grad = g
        adam = torch.optim.Adam([theirs], lr=lr, eps=1e-6)
        step()
        adam.step()
        direction = theirs - w
        if projects:
            direction = direction - (w * direction).sum() / (w * w).sum() * w
            assert abs(float((w * (ours - w)).sum())) < 1e-12
        torch.testing.assert_close(ours - w, direction, rtol=1e-6, atol=1e-9)
