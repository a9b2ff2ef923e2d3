"""One leaf: values worked out by hand, invariants, and edges by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import inner, norm

from lawn_optax._geometry import Sphere


def whole(w):
    return Sphere(tuple(range(jnp.ndim(w))))


W = jnp.array([[3.0, 4.0]])


def test_inner_product_by_hand():
    assert whole(W).inner(W, jnp.array([[1.0, -2.0]])) == -5


def test_norm_by_hand():
    assert whole(W).norm(W) == 5


def test_projection_by_hand():
    # <w, d> / <w, w> = 25 / 25, so the projection takes w itself away.
    np.testing.assert_allclose(
        whole(W).project(W, jnp.array([[7.0, 1.0]])), [[4.0, -3.0]], rtol=1e-6
    )


def test_rescale_by_hand():
    # w + r = (0, 4), of norm 4: rescaled to norm 5 it is (0, 5).
    update = whole(W).rescale(W, jnp.array([[-3.0, 0.0]]), jnp.float32(5))
    np.testing.assert_allclose(W + update, [[0.0, 5.0]], atol=1e-6)


def test_trust_ratio_by_hand():
    assert whole(W).trust_ratio(W, jnp.array([[0.0, 2.0]])) == 2.5


def test_resize_by_hand():
    np.testing.assert_allclose(whole(W).resize(W, jnp.float32(10)), [[6.0, 8.0]], rtol=1e-6)


def test_a_norm_for_each_slice():
    w = jnp.array([[3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(Sphere((0,)).norm(w), [5.0, 1.0])
    np.testing.assert_allclose(Sphere((1,)).norm(w), [10**0.5, 4.0], rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0,), (1, 2), (0, 2)])
def test_projection_is_tangent_and_idempotent(axes):
    w, d = jax.random.normal(jax.random.key(0), (2, 4, 5, 6))
    sphere = Sphere(axes)
    tangent = sphere.project(w, d)
    size = sphere.norm(w) * sphere.norm(d)
    np.testing.assert_allclose(sphere.inner(w, tangent) / size, 0, atol=1e-6)
    np.testing.assert_allclose(sphere.project(w, tangent), tangent, atol=1e-6)


def test_projection_leaves_tangent_vectors_alone():
    np.testing.assert_allclose(whole(W).project(W, jnp.array([[-4.0, 3.0]])), [[-4.0, 3.0]])


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
def test_rescale_reaches_the_norm(axes):
    w, r = jax.random.normal(jax.random.key(1), (2, 30, 40))
    sphere = Sphere(axes)
    c = 3 * sphere.norm(w)
    np.testing.assert_allclose(norm(w + sphere.rescale(w, r, c), axes), c, rtol=3e-6)


def test_not_held_passes_what_came():
    d = jnp.array([[7.0, -0.0]])
    np.testing.assert_array_equal(whole(W).project(W, d, False), d)
    update = whole(W).rescale(W, d, jnp.float32(5), False)
    np.testing.assert_array_equal(update, d)
    np.testing.assert_array_equal(jnp.signbit(update), jnp.signbit(d))


def test_zero_weights_project_nothing():
    d = jnp.array([[1.0, 2.0]])
    np.testing.assert_array_equal(whole(d).project(jnp.zeros((1, 2)), d), d)


def test_zero_slice_beside_a_nonzero_one():
    w, d = jnp.array([[0.0, 3.0], [0.0, 4.0]]), jnp.ones((2, 2))
    tangent = Sphere((0,)).project(w, d)
    np.testing.assert_array_equal(tangent[:, 0], [1.0, 1.0])
    assert abs(inner(w[:, 1], tangent[:, 1])) < 1e-6


def test_zero_sum_is_not_rescaled_to_nan():
    update = whole(W).rescale(W, -W, jnp.float32(5))
    np.testing.assert_array_equal(update, -W)


def test_scalar_leaf():
    w = jnp.float32(-2.0)
    assert whole(w).norm(w) == 2
    assert whole(w).project(w, jnp.float32(3.0)) == 0
    assert w + whole(w).rescale(w, jnp.float32(0.5), jnp.float32(2.0)) == -2


def test_empty_leaf():
    w = jnp.zeros((0, 3))
    assert whole(w).norm(w) == 0
    assert whole(w).project(w, w).shape == (0, 3)
    assert whole(w).rescale(w, w, jnp.float32(0)).shape == (0, 3)


def test_complex_leaf():
    w, d = jnp.array([3 + 4j, 0]), jnp.array([1j, 1 + 1j])
    sphere = Sphere((0,))
    assert sphere.norm(w).dtype == jnp.float32
    assert sphere.norm(w) == 5
    # Re conj(3 + 4i) i = 4.
    np.testing.assert_allclose(sphere.inner(w, d), 4)
    np.testing.assert_allclose(inner(w, sphere.project(w, d)), 0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_sums_in_float32(dtype):
    w = jnp.full((1000, 100), 3.0, dtype)  # its sum of squares, 9e5, is beyond float16
    assert whole(w).norm(w).dtype == jnp.float32
    np.testing.assert_allclose(whole(w).norm(w), 3 * 1e5**0.5, rtol=1e-6)


def test_double_precision_stays(x64):
    w = jnp.array([[3.0, 4.0]], jnp.float64)
    assert whole(w).norm(w).dtype == jnp.float64
    assert whole(w).zero_norm(w).dtype == jnp.float64


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
def test_zero_norm_has_the_shape_of_norm(axes):
    w = jnp.ones((2, 3), jnp.bfloat16)
    sphere = Sphere(axes)
    expected = jax.eval_shape(sphere.norm, w)
    assert sphere.zero_norm(w).shape == expected.shape
    assert sphere.zero_norm(w).dtype == expected.dtype


def test_large_sums_are_accurate():
    w = jax.random.normal(jax.random.key(2), (1 << 22,))
    np.testing.assert_allclose(whole(w).norm(w), norm(w), rtol=1e-6)


def test_a_step_too_large_to_measure_is_not_taken():
    np.testing.assert_array_equal(whole(W).rescale(W, 1e20 * W, jnp.float32(5)), 0 * W)
    assert jnp.all(jnp.isnan(whole(W).rescale(W, jnp.nan * W, jnp.float32(5))))


@pytest.mark.parametrize("method", ["project", "rescale", "norm"])
def test_gradients_through_zero_weights_are_finite(method):
    zeros, ones = jnp.zeros((2, 2)), jnp.ones((2, 2))
    sphere = Sphere((0,))
    outputs = {
        "project": lambda w: sphere.project(w, ones).sum(),
        "rescale": lambda w: sphere.rescale(w, zeros, jnp.ones(2)).sum(),
        "norm": lambda w: sphere.norm(w).sum(),
    }
    assert jnp.all(jnp.isfinite(jax.grad(outputs[method])(zeros)))
