"""Random crops, flips and rotations, as one look-up of where each pixel comes from.

In the order of torchvision's `RandomCrop(32, padding=4)`, `RandomHorizontalFlip()` and
`RandomRotation(15)`, whose default takes the nearest pixel; what comes from outside is black. Of
each pixel of the result the steps are followed back, the last first, so that pixels are moved once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

PADDING = 4


class Draws(NamedTuple):
    """What is random of an augmentation, each `(...)` with one element an image.

    Attributes:
      top: int32, the first row of the crop in the padded image, from 0 to `2 * PADDING`.
      left: int32, the first column.
      flip: bool, whether left and right change places.
      angle: float32 degrees, counter-clockwise; None where nothing is rotated.
    """

    top: jax.Array
    left: jax.Array
    flip: jax.Array
    angle: jax.Array | None


def draw(key: jax.Array, shape: tuple[int, ...], degrees: float) -> Draws:
    """Draw uniformly for images of a shape, rotated by up to `degrees` either way."""
    crop_key, flip_key, angle_key = jax.random.split(key, 3)
    top, left = jax.random.randint(crop_key, (2, *shape), 0, 2 * PADDING + 1)
    flip = jax.random.bernoulli(flip_key, shape=shape)
    angle = None
    if degrees:
        angle = jax.random.uniform(angle_key, shape, minval=-degrees, maxval=degrees)
    return Draws(top, left, flip, angle)


def augment(images: jax.Array, index: jax.Array, draws: Draws) -> jax.Array:
    """Return `images[index]`, cropped, flipped and rotated.

    Args:
      images: `(n, size, size, channels)` of any dtype, the whole set.
      index: `(batch,)` int32, which of them.
      draws: one of each for every image of the batch.

    Returns:
      `(batch, size, size, channels)` of the dtype of `images`.
    """
    n, size, _, channels = images.shape
    rows, columns, inside = sources(draws, size)
    pixel = (index[:, None, None] * size + rows) * size + columns
    flat = images.reshape(n * size * size, channels)
    return jnp.where(inside[..., None], flat[jnp.where(inside, pixel, 0)], 0)


def sources(draws: Draws, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the row and column of each pixel's source, and if it is inside: `(batch, size, size)`.

    Args:
      draws: one of each for every image.
      size: rows and columns of an image.
    """
    top, left, flip = (x[:, None, None] for x in draws[:3])
    row, column = jnp.arange(size)[:, None], jnp.arange(size)[None, :]
    inside = jnp.ones((len(draws.flip), size, size), bool)
    if draws.angle is not None:
        angle = jnp.deg2rad(draws.angle)[:, None, None]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        centre = (size - 1) / 2
        y, x = row - centre, column - centre
        nearest = lambda v: jnp.floor(v + (centre + 0.5)).astype(jnp.int32)
        row, column = nearest(sin * x + cos * y), nearest(cos * x - sin * y)
        inside = _within(row, size) & _within(column, size)
    column = jnp.where(flip, size - 1 - column, column)
    row, column = row + top - PADDING, column + left - PADDING
    return row, column, inside & _within(row, size) & _within(column, size)


def _within(x: jax.Array, size: int) -> jax.Array:
    return (x >= 0) & (x < size)
