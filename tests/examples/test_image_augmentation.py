"""Augmentation, against NumPy for crops and flips and Pillow for rotations: the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from examples.tasks.images import augmentation
from examples.tasks.images.augmentation import PADDING, Draws

SIZE, COUNT = 32, 100
augment, draw = jax.jit(augmentation.augment), jax.jit(augmentation.draw, static_argnums=(1, 2))


@pytest.fixture(scope="module")
def images():
    """Noise, so that no two pixels are alike, and none of it black."""
    return np.random.default_rng(0).integers(1, 256, (40, SIZE, SIZE, 3), dtype=np.uint8)


def on_the_host(image, top, left, flip, angle):
    """One image, step by step."""
    padded = np.pad(image, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    cropped = padded[top : top + SIZE, left : left + SIZE]
    flipped = cropped[:, ::-1] if flip else cropped
    if angle is None:
        return flipped
    return np.asarray(Image.fromarray(np.ascontiguousarray(flipped)).rotate(angle))


@pytest.mark.parametrize("degrees", [0.0, 15.0, 180.0])
def test_on_the_device_as_on_the_host(images, degrees):
    index = np.random.default_rng(1).integers(0, len(images), COUNT)
    draws = draw(jax.random.key(2), (COUNT,), degrees)
    found = np.asarray(augment(images, index, draws))
    assert (found.shape, found.dtype) == ((COUNT, SIZE, SIZE, 3), np.uint8)
    angles = draws.angle.tolist() if degrees else COUNT * [None]
    rows = zip(index, *(x.tolist() for x in draws[:3]), angles, strict=True)
    expected = np.stack([on_the_host(images[i], *row) for i, *row in rows])
    different = np.any(found != expected, axis=-1).mean()
    # Pillow counts in 65536ths of a pixel: now and then another neighbour is the nearest.
    assert different <= (0.001 if degrees else 0)


def test_nothing_drawn_is_nothing_changed(images):
    zero = jnp.zeros(len(images), jnp.int32)
    draws = Draws(zero + PADDING, zero + PADDING, zero > 0, zero.astype(jnp.float32))
    np.testing.assert_array_equal(augment(images, jnp.arange(len(images)), draws), images)


def test_rotated_counter_clockwise_by_a_quarter(images):
    one = jnp.ones(1, jnp.int32)
    draws = Draws(PADDING * one, PADDING * one, one < 0, jnp.full(1, 90.0))
    turned = augment(images, 0 * one, draws)[0]
    np.testing.assert_array_equal(turned, np.rot90(images[0]))


def test_draws_are_uniform():
    draws = draw(jax.random.key(0), (100, 270), 15.0)
    assert {x.shape for x in draws} == {(100, 270)}
    for x in (draws.top, draws.left):
        np.testing.assert_allclose(np.bincount(x.ravel(), minlength=9), 3000, atol=300)
    assert not np.array_equal(draws.top, draws.left)
    np.testing.assert_allclose(draws.flip.mean(), 0.5, atol=0.02)
    counts, _ = np.histogram(draws.angle, bins=10, range=(-15, 15))
    np.testing.assert_allclose(counts, 2700, atol=300)


def test_nothing_is_drawn_for_no_rotation():
    assert draw(jax.random.key(0), (2,), 0.0).angle is None
