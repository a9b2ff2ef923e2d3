"""Moves on one sphere: values worked out by hand, invariants, and edges by name."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lawn_optax import _geometry, _kernels
from lawn_optax._spheres import Sphere, Spheres
from tests.helpers import inner, norm


def one(*axes):
    """The sphere of a tree that is a single leaf, over these axes."""
    return Spheres({"": Sphere(axes)})


def whole(w):
    return one(*range(jnp.ndim(w)))


def product(spheres, x, y):
    return spheres.inner_products((x, y))[0][""]


def norm_of(spheres, w):
    return spheres.norms(w)[""]


def move(spheres, rule, w, r, *products, held=True):
    return spheres.move(rule, w, r, *({"": x} for x in products), where={"": held})


def project(spheres, w, d, held=True):
    products = product(spheres, w, w), product(spheres, w, d)
    return move(spheres, _geometry.project, w, d, *products, held=held)


def rescale(spheres, w, r, c, held=True):
    products = product(spheres, w, w), product(spheres, w + r, w + r)
    return move(spheres, _geometry.rescale, w, r, c, *products, held=held)


def retract(spheres, w, r, c, held=True, rule=_geometry.retract):
    products = product(spheres, w, w), product(spheres, w, r), product(spheres, r, r)
    return move(spheres, rule, w, r, c, *products, held=held)


def turn(spheres, w, r, c, held=True):
    return retract(spheres, w, r, c, held, rule=_geometry.turn)


def relative(spheres, w, r, c, share=0.5):
    return retract(spheres, w, r, c, rule=functools.partial(_geometry.relative, share))


def resize(spheres, u, c):
    return move(spheres, _geometry.resize, u, u, c, product(spheres, u, u))


W = jnp.array([[3.0, 4.0]])


def test_inner_product_by_hand():
    assert product(whole(W), W, jnp.array([[1.0, -2.0]])) == -5


def test_norm_by_hand():
    assert norm_of(whole(W), W) == 5


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


def test_capped_trust_ratio_by_hand():
    ratio = lambda cap: _geometry.capped_trust_ratio(cap, jnp.float32(25), jnp.float32(4)).a
    assert [ratio(jnp.inf), ratio(1.0)] == [2.5, 1.0]


def test_turning_by_hand():
    # r = (-1, 7) has length sqrt(50) and the tangent part (-4, 3), of length 5.
    update = turn(whole(W), W, jnp.array([[-1.0, 7.0]]), jnp.float32(5))
    reached = W + 2**0.5 * jnp.array([[-4.0, 3.0]])
    np.testing.assert_allclose(W + update, 5 * reached / jnp.linalg.norm(reached), rtol=1e-6)


def test_resize_by_hand():
    np.testing.assert_allclose(resize(whole(W), W, jnp.float32(10)), [[6.0, 8.0]], rtol=1e-6)


def test_a_relative_step_by_hand():
    # To (3, 4) / 5 a quarter of (4, -3) / 5 is added, which gives (4, 3.25) / 5.
    update = relative(whole(W), W, jnp.array([[8.0, -6.0]]), jnp.float32(10), 0.25)
    reached = np.array([[4.0, 3.25]])
    np.testing.assert_allclose(W + update, 10 * reached / np.linalg.norm(reached), rtol=1e-6)


def test_a_relative_step_from_zero_weights_reaches_the_norm():
    update = relative(whole(W), 0 * W, W, jnp.float32(10), 0.25)
    np.testing.assert_allclose(update, [[6.0, 8.0]], rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.65])
def test_a_relative_step_is_its_share_of_the_norm(share):
    r = jnp.array([[-30.0, -41.0]])  # Nearly opposite to the weights.
    reached = W + relative(whole(W), W, r, jnp.float32(5), share)
    expected = W / norm(W) + share * r / norm(r)
    np.testing.assert_allclose(reached, 5 * expected / norm(expected), rtol=1e-5)


@pytest.mark.parametrize("share", [0.8, 1.0, 1.2])
def test_half_a_relative_step_is_taken_where_it_would_end_near_the_origin(share):
    r = jnp.array([[-30.0, -41.0]])
    reached = W + relative(whole(W), W, r, jnp.float32(5), share)
    expected = W / norm(W) + share / 2 * r / norm(r)
    np.testing.assert_allclose(reached, 5 * expected / norm(expected), rtol=1e-5)


def test_a_norm_for_each_slice():
    w = jnp.array([[3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(norm_of(one(0), w), [5.0, 1.0])
    np.testing.assert_allclose(norm_of(one(1), w), [10**0.5, 4.0], rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0,), (1, 2), (0, 2)])
def test_projection_is_tangent_and_idempotent(axes):
    w, d = jax.random.normal(jax.random.key(0), (2, 4, 5, 6))
    sphere = one(*axes)
    tangent = project(sphere, w, d)
    size = norm_of(sphere, w) * norm_of(sphere, d)
    np.testing.assert_allclose(product(sphere, w, tangent) / size, 0, atol=1e-6)
    np.testing.assert_allclose(project(sphere, w, tangent), tangent, atol=1e-6)


def test_projection_leaves_tangent_vectors_alone():
    np.testing.assert_allclose(project(whole(W), W, jnp.array([[-4.0, 3.0]])), [[-4.0, 3.0]])


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
def test_rescale_reaches_the_norm(axes):
    w, r = jax.random.normal(jax.random.key(1), (2, 30, 40))
    sphere = one(*axes)
    c = 3 * norm_of(sphere, w)
    np.testing.assert_allclose(norm(w + rescale(sphere, w, r, c), axes), c, rtol=3e-6)


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e6])
def test_retraction_is_projection_then_rescale(axes, size):
    w, r = jax.random.normal(jax.random.key(1), (2, 30, 40))
    sphere = one(*axes)
    c, r = 3 * norm_of(sphere, w), size * r
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
    for step in (rescale, retract, turn):
        update = step(whole(W), W, d, jnp.float32(5), False)
        np.testing.assert_array_equal(update, d)
        np.testing.assert_array_equal(jnp.signbit(update), jnp.signbit(d))


def test_zero_weights_project_nothing():
    d = jnp.array([[1.0, 2.0]])
    np.testing.assert_array_equal(project(whole(d), jnp.zeros((1, 2)), d), d)


def test_zero_slice_beside_a_nonzero_one():
    w, d = jnp.array([[0.0, 3.0], [0.0, 4.0]]), jnp.ones((2, 2))
    tangent = project(one(0), w, d)
    np.testing.assert_array_equal(tangent[:, 0], [1.0, 1.0])
    assert abs(inner(w[:, 1], tangent[:, 1])) < 1e-6


def test_a_step_to_zero_is_not_taken():
    update = rescale(whole(W), W, -W, jnp.float32(5))
    np.testing.assert_array_equal(update, 0 * W)
    # Its direction is kept, and the norm is the one to end on.
    for r in (-W, 1e20 * W):
        np.testing.assert_allclose(W + rescale(whole(W), W, r, jnp.float32(2)), 0.4 * W, rtol=1e-6)


@pytest.mark.parametrize("distance", [1e-1, 2e-2, 1e-2, 1e-3, 1e-5, 1e-7])
def test_a_step_near_the_origin_holds_the_norm_and_has_a_direction(distance):
    w, d = jax.random.normal(jax.random.key(3), (2, 32, 32))
    d = d - jnp.vdot(d, w) / jnp.vdot(w, w) * w
    x = distance * (w + d * norm(w) / norm(d))  # 45 degrees off.
    reached = w + rescale(whole(w), w, x - w, norm_of(whole(w), w))
    np.testing.assert_allclose(norm(reached), norm(w), rtol=1e-6)
    towards = x if distance > 0.9e-2 else w
    assert inner(reached, towards) > 0.9999 * norm(reached) * norm(towards)


def test_scalar_leaf():
    w = jnp.float32(-2.0)
    assert norm_of(whole(w), w) == 2
    assert project(whole(w), w, jnp.float32(3.0)) == 0
    assert w + rescale(whole(w), w, jnp.float32(0.5), jnp.float32(2.0)) == -2


def test_empty_leaf():
    w = jnp.zeros((0, 3))
    assert norm_of(whole(w), w) == 0
    assert project(whole(w), w, w).shape == (0, 3)
    assert rescale(whole(w), w, w, jnp.float32(0)).shape == (0, 3)


def test_complex_leaf():
    w, d = jnp.array([3 + 4j, 0]), jnp.array([1j, 1 + 1j])
    sphere = one(0)
    assert norm_of(sphere, w).dtype == jnp.float32
    assert norm_of(sphere, w) == 5
    # Re conj(3 + 4i) i = 4.
    np.testing.assert_allclose(product(sphere, w, d), 4)
    np.testing.assert_allclose(inner(w, project(sphere, w, d)), 0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_sums_in_float32(dtype):
    w = jnp.full((1000, 100), 3.0, dtype)  # its sum of squares, 9e5, is beyond float16
    assert norm_of(whole(w), w).dtype == jnp.float32
    np.testing.assert_allclose(norm_of(whole(w), w), 3 * 1e5**0.5, rtol=1e-6)


def test_double_precision_stays(x64):
    w = jnp.array([[3.0, 4.0]], jnp.float64)
    assert norm_of(whole(w), w).dtype == jnp.float64
    assert whole(w).zero_norms(w)[""].dtype == jnp.float64


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)])
def test_zero_norms_have_the_shape_of_norms(axes):
    w = jnp.ones((2, 3), jnp.bfloat16)
    expected = jax.eval_shape(one(*axes).norms, w)[""]
    zeros = one(*axes).zero_norms(w)[""]
    assert (zeros.shape, zeros.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("axes", [(0, 1), (1,)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
@pytest.mark.parametrize(("leaves", "products"), [(1, 1), (1, 2), (3, 1), (3, 2), (2, 3)])
def test_sums_in_one_kernel_are_the_sums(leaves, products, dtype, axes):
    keys = jax.random.split(jax.random.key(0), leaves)
    w, d = zip(*(jax.random.normal(key, (2, 8, 32)).astype(dtype) for key in keys), strict=True)
    if dtype == jnp.complex64:
        w, d = zip(*((x + 1j * y, y - 1j * x) for x, y in zip(w, d, strict=True)), strict=True)
    product = lambda x, y: jnp.real(jnp.conj(x) * y).astype(jnp.float32)
    terms = [
        [product(*pair) for pair in ((x, x), (x, y), (y, y))[:products]]
        for x, y in zip(w, d, strict=True)
    ]
    one_by_one, at_once = (
        f(terms, axes=axes) for f in (_kernels._sums, _kernels._sums_in_one_kernel)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(one_by_one, at_once)
    chex.assert_trees_all_close(one_by_one, at_once, rtol=1e-5, atol=1e-4)


def test_one_sum_mixes_neither_precisions_nor_what_overflows(x64):
    huge, fine = jnp.full((3,), 1e30, jnp.float32), jnp.full((3,), 1e-9, jnp.float64)
    (squares,) = _kernels._sums_in_one_kernel([[huge * huge, fine * fine]], axes=(0,))
    assert [x.dtype for x in squares] == [jnp.float32, jnp.float64]
    assert jnp.isinf(squares[0])
    np.testing.assert_allclose(squares[1], 3e-18, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_where_nothing_moves_what_is_not_finite_passes_as_it_is(dtype):
    r = jnp.array([jnp.inf, -jnp.inf, jnp.nan, -0.0, 1.5], jnp.float32)
    r = jax.lax.complex(r, jnp.flip(r)) if dtype == jnp.complex64 else r.astype(dtype)
    w, spheres, one = jnp.full_like(r, jnp.inf), whole(r), jnp.float32(1)
    still = {"": jnp.bool_(False)}
    for rule, numbers in ((_geometry.project, 2), (_geometry.retract, 4), (_geometry.resize, 2)):
        moved = spheres.move(rule, w, r, *[{"": one}] * numbers, where=still)
        assert moved.dtype == dtype
        np.testing.assert_array_equal(*(_kernels.upcast(x) for x in (moved, r)))


def test_large_sums_are_accurate():
    w = jax.random.normal(jax.random.key(2), (1 << 22,))
    np.testing.assert_allclose(norm_of(whole(w), w), norm(w), rtol=1e-6)


def test_a_step_too_large_to_measure_is_not_taken():
    for step in (rescale, retract, turn, relative):
        np.testing.assert_array_equal(step(whole(W), W, 1e20 * W, jnp.float32(5)), 0 * W)
        assert jnp.all(jnp.isnan(step(whole(W), W, jnp.nan * W, jnp.float32(5))))


@pytest.mark.parametrize("method", ["project", "rescale", "retract", "turn", "relative", "norm"])
def test_gradients_through_zero_weights_are_finite(method):
    zeros, ones = jnp.zeros((2, 2)), jnp.ones((2, 2))
    sphere = one(0)
    outputs = {
        "project": lambda w: project(sphere, w, ones).sum(),
        "rescale": lambda w: rescale(sphere, w, zeros, jnp.ones(2)).sum(),
        "retract": lambda w: retract(sphere, w, zeros, jnp.ones(2)).sum(),
        "turn": lambda w: turn(sphere, w, zeros, jnp.ones(2)).sum(),
        "relative": lambda w: relative(sphere, w, zeros, jnp.ones(2)).sum(),
        "norm": lambda w: norm_of(sphere, w).sum(),
    }
    assert jnp.all(jnp.isfinite(jax.grad(outputs[method])(zeros)))
