"""One leaf: values worked out by hand, invariants, and edges by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lawn_optax import _spheres
from lawn_optax._geometry import Sphere
from tests.helpers import inner, norm


def whole(w):
    return Sphere(tuple(range(jnp.ndim(w))))


def project(sphere, w, d, held=True):
    return _spheres.project({"": sphere}, w, d, {"": held})


def rescale(sphere, w, r, c, held=True):
    return _spheres.rescale({"": sphere}, w, r, {"": c}, {"": held})


def retract(sphere, w, r, c, held=True):
    (ww,) = _spheres.inner_products({"": sphere}, (w, w))
    return _spheres.retract({"": sphere}, w, r, {"": c}, ww, {"": held})


def resize(sphere, u, c):
    return _spheres.resize({"": sphere}, u, {"": c}, {"": True})


W = jnp.array([[3.0, 4.0]])


def test_inner_product_by_hand():
    assert whole(W).inner(W, jnp.array([[1.0, -2.0]])) == -5


def test_norm_by_hand():
    assert whole(W).norm(W) == 5


def test_projection_by_hand():
    # <w, d> / <w, w> = 25 / 25, so the projection takes w itself away.
    np.testing.assert_allclose(
        project(whole(W), W, jnp.array([[7.0, 1.0]])), [[4.0, -3.0]], rtol=1e-6
    )


def test_rescale_by_hand():
    # w + r = (0, 4), of norm 4: rescaled to norm 5 it is (0, 5).
    update = rescale(whole(W), W, jnp.array([[-3.0, 0.0]]), jnp.float32(5))
    np.testing.assert_allclose(W + update, [[0.0, 5.0]], atol=1e-6)


def test_retraction_by_hand():
    # r = w + (-4, 3) has the tangent part (-4, 3); w + r_p = (-1, 7), of norm sqrt(50).
    update = retract(whole(W), W, jnp.array([[-1.0, 7.0]]), jnp.float32(5))
    np.testing.assert_allclose(W + update, jnp.array([[-1.0, 7.0]]) / 2**0.5, rtol=1e-6)


def test_trust_ratio_by_hand():
    assert whole(W).trust_ratio(jnp.float32(25), jnp.float32(4)) == 2.5


def test_resize_by_hand():
    np.testing.assert_allclose(resize(whole(W), W, jnp.float32(10)), [[6.0, 8.0]], rtol=1e-6)


def test_a_norm_for_each_slice():
    w = jnp.array([[3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(Sphere((0,)).norm(w), [5.0, 1.0])
    np.testing.assert_allclose(Sphere((1,)).norm(w), [10**0.5, 4.0], rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0,), (1, 2), (0, 2)])
def test_projection_is_tangent_and_idempotent(axes):
    w, d = jax.random.normal(jax.random.key(0), (2, 4, 5, 6))
    sphere = Sphere(axes)
    tangent = project(sphere, w, d)
    size = sphere.norm(w) * sphere.norm(d)
    np.testing.assert_allclose(sphere.inner(w, tangent) / size, 0, atol=1e-6)
    np.testing.assert_allclose(project(sphere, w, tangent), tangent, atol=1e-6)


def test_projection_leaves_tangent_vectors_alone():
    np.testing.assert_allclose(project(whole(W), W, jnp.array([[-4.0, 3.0]])), [[-4.0, 3.0]])


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
def test_rescale_reaches_the_norm(axes):
    w, r = jax.random.normal(jax.random.key(1), (2, 30, 40))
    sphere = Sphere(axes)
    c = 3 * sphere.norm(w)
    np.testing.assert_allclose(norm(w + rescale(sphere, w, r, c), axes), c, rtol=3e-6)


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e6])
def test_retraction_is_projection_then_rescale(axes, size):
    w, r = jax.random.normal(jax.random.key(1), (2, 30, 40))
    sphere = Sphere(axes)
    c, r = 3 * sphere.norm(w), size * r
    expected = rescale(sphere, w, project(sphere, w, r), c)
    np.testing.assert_allclose(retract(sphere, w, r, c), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norm(w + retract(sphere, w, r, c), axes), c, rtol=3e-6)


@pytest.mark.parametrize(("degrees", "length"), [(10, 4.0), (20, 100.0), (10, 100.0)])
def test_only_a_long_and_nearly_parallel_step_is_shortened(degrees, length):
    angle = np.radians(degrees)
    r = 5 * length * jnp.float32([[np.cos(angle), np.sin(angle)]])
    w = jnp.array([[5.0, 0.0]])
    reached = w + retract(whole(w), w, r, jnp.float32(5))
    there = np.arctan2(reached[0, 1], reached[0, 0])
    whole_step = np.arctan2(length * np.sin(angle), 1)
    if (degrees, length) == (10, 100.0):
        assert np.radians(30) < there < np.radians(60) < whole_step
    else:
        np.testing.assert_allclose(there, whole_step, rtol=1e-4)


def test_no_step_is_shortened_in_double_precision(x64):
    r = jnp.array([[5e5, 5e5 * np.sin(0.01)]])
    w = jnp.array([[5.0, 0.0]])
    reached = w + retract(whole(w), w, r, jnp.float64(5))
    expected = np.arctan2(1e5 * np.sin(0.01), 1)
    np.testing.assert_allclose(np.arctan2(reached[0, 1], reached[0, 0]), expected, rtol=1e-9)


def test_not_held_passes_what_came():
    d = jnp.array([[7.0, -0.0]])
    np.testing.assert_array_equal(project(whole(W), W, d, False), d)
    for step in (rescale, retract):
        update = step(whole(W), W, d, jnp.float32(5), False)
        np.testing.assert_array_equal(update, d)
        np.testing.assert_array_equal(jnp.signbit(update), jnp.signbit(d))


def test_zero_weights_project_nothing():
    d = jnp.array([[1.0, 2.0]])
    np.testing.assert_array_equal(project(whole(d), jnp.zeros((1, 2)), d), d)


def test_zero_slice_beside_a_nonzero_one():
    w, d = jnp.array([[0.0, 3.0], [0.0, 4.0]]), jnp.ones((2, 2))
    tangent = project(Sphere((0,)), w, d)
    np.testing.assert_array_equal(tangent[:, 0], [1.0, 1.0])
    assert abs(inner(w[:, 1], tangent[:, 1])) < 1e-6


def test_a_step_to_zero_is_not_taken():
    update = rescale(whole(W), W, -W, jnp.float32(5))
    np.testing.assert_array_equal(update, 0 * W)


def test_scalar_leaf():
    w = jnp.float32(-2.0)
    assert whole(w).norm(w) == 2
    assert project(whole(w), w, jnp.float32(3.0)) == 0
    assert w + rescale(whole(w), w, jnp.float32(0.5), jnp.float32(2.0)) == -2


def test_empty_leaf():
    w = jnp.zeros((0, 3))
    assert whole(w).norm(w) == 0
    assert project(whole(w), w, w).shape == (0, 3)
    assert rescale(whole(w), w, w, jnp.float32(0)).shape == (0, 3)


def test_complex_leaf():
    w, d = jnp.array([3 + 4j, 0]), jnp.array([1j, 1 + 1j])
    sphere = Sphere((0,))
    assert sphere.norm(w).dtype == jnp.float32
    assert sphere.norm(w) == 5
    # Re conj(3 + 4i) i = 4.
    np.testing.assert_allclose(sphere.inner(w, d), 4)
    np.testing.assert_allclose(inner(w, project(sphere, w, d)), 0, atol=1e-6)


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


@pytest.mark.parametrize("axes", [(0, 1), (1,)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_two_inner_products_are_the_same_as_one_sum(dtype, axes):
    w, d = jax.random.normal(jax.random.key(0), (2, 8, 32)).astype(dtype)
    w, d = (w + 1j * d, d - 1j * w) if dtype == jnp.complex64 else (w, d)
    sphere = Sphere(axes)
    two, one = (products((w, w), (w, d)) for products in (sphere.apart, sphere.as_one_sum))
    for expected, found in zip(two, one, strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_one_sum_mixes_neither_precisions_nor_what_overflows(x64):
    huge, fine = jnp.full((3,), 1e30, jnp.float32), jnp.full((3,), 1e-9, jnp.float64)
    squares = whole(huge).as_one_sum((huge, huge), (fine, fine))
    assert [x.dtype for x in squares] == [jnp.float32, jnp.float64]
    assert jnp.isinf(squares[0])
    np.testing.assert_allclose(squares[1], 3e-18, rtol=1e-12)


def test_large_sums_are_accurate():
    w = jax.random.normal(jax.random.key(2), (1 << 22,))
    np.testing.assert_allclose(whole(w).norm(w), norm(w), rtol=1e-6)


def test_a_step_too_large_to_measure_is_not_taken():
    for step in (rescale, retract):
        np.testing.assert_array_equal(step(whole(W), W, 1e20 * W, jnp.float32(5)), 0 * W)
        assert jnp.all(jnp.isnan(step(whole(W), W, jnp.nan * W, jnp.float32(5))))


@pytest.mark.parametrize("method", ["project", "rescale", "retract", "norm"])
def test_gradients_through_zero_weights_are_finite(method):
    zeros, ones = jnp.zeros((2, 2)), jnp.ones((2, 2))
    sphere = Sphere((0,))
    outputs = {
        "project": lambda w: project(sphere, w, ones).sum(),
        "rescale": lambda w: rescale(sphere, w, zeros, jnp.ones(2)).sum(),
        "retract": lambda w: retract(sphere, w, zeros, jnp.ones(2)).sum(),
        "norm": lambda w: sphere.norm(w).sum(),
    }
    assert jnp.all(jnp.isfinite(jax.grad(outputs[method])(zeros)))
