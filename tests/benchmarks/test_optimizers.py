"""What LAWN is measured against computes what it should: else its cost says nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.tools import optimizers, torch_peers
from tests import reference
from tests.helpers import norm, train


def test_lawn_without_care_is_algorithm_1(weights, gradient):
    tx = optimizers.straightforward_lawn(optax.adam(0.05, eps=1e-6), switch=3)
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
    init, step = optimizers.reparametrized(optax.sgd(lr))
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


def adamp(w, gradients, lr, eps=1e-6, b1=0.9, b2=0.999, delta=0.1):
    """AdamP in NumPy, of one leaf, from the paper's Algorithm 2."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        cosine = abs(np.vdot(w, g)) / (np.linalg.norm(w) * np.linalg.norm(g))
        if w.ndim >= 2 and cosine < delta / np.sqrt(w.size):
            p = p - np.vdot(w, p) / np.vdot(w, w) * w
        w = w - lr * p
    return w


class NumPyTensor(np.ndarray):
    """A NumPy array with the methods of PyTorch's tensors that AdamP's step calls."""

    def add_(self, other, alpha=1):
        self += alpha * other
        return self

    def sub_(self, other, alpha=1):
        return self.add_(other, alpha=-alpha)

    def mul_(self, other):
        self *= other
        return self

    def addcmul_(self, a, b, value):
        self += value * a * b
        return self

    def sqrt(self):
        return np.sqrt(self)

    def abs(self):
        return np.abs(self)

    def norm(self):
        return np.linalg.norm(self)

    def numel(self):
        return self.size

    @property
    def device(self):
        return None


class NumPyTorch:
    """What of PyTorch's functions AdamP's step calls."""

    float64 = np.float64
    zeros_like = staticmethod(np.zeros_like)

    @staticmethod
    def zeros(shape, dtype, device):
        return np.zeros(shape, dtype).view(NumPyTensor)


@pytest.fixture(params=["numpy", "torch"])
def tensors(request, monkeypatch):
    """Makes tensors: PyTorch's where it is installed, and in any case NumPy's in their place."""
    if request.param == "torch" and torch_peers.installed():
        torch = pytest.importorskip("torch")
        return lambda x: torch.tensor(np.array(x), dtype=torch.float64)
    monkeypatch.setattr(torch_peers, "_torch", lambda: NumPyTorch)
    return lambda x: np.array(x).view(NumPyTensor)


def test_adamp_loses_its_radial_part_where_weights_seem_scale_invariant(tensors):
    rng, lr = np.random.default_rng(0), 0.1
    start, along = rng.normal(size=(2, 6, 4))
    tangent = along - np.vdot(start, along) / np.vdot(start, start) * start  # cos(w, g) = 0
    for gradient, projects in ((start + along, False), (tangent, True)):
        ours, bias = tensors(start), tensors(start[0])
        step = torch_peers.adamp([ours, bias], [tensors(gradient), tensors(gradient[0])], lr=lr)
        step()
        after_one = np.asarray(ours).copy()
        assert (abs(np.vdot(start, after_one - start)) < 1e-9) == projects
        step()
        step()
        for reached, w, g in ((ours, start, gradient), (bias, start[0], gradient[0])):
            np.testing.assert_allclose(np.asarray(reached), adamp(w, 3 * [g], lr), rtol=1e-6)
