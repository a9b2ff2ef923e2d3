"""The task on the device: images that it holds, augmented there."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from examples.tasks.images.augmentation import Draws, augment, draw
from examples.tasks.images.data import Split
from examples.tasks.images.task import ImageTask
from lawn_optax import metrics

EVALUATED_AT_ONCE = 1000  # Images, so that evaluation takes no more memory than training.


class Batch(NamedTuple):
    """Which images, and how each is augmented: `(steps_per_epoch, batch_size)` or one step's."""

    images: jax.Array
    draws: Draws


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(ImageTask):
    """The task. Images stay uint8 on the device; a batch is augmented, then centred by the mean.

    An epoch is whole batches of the training set in a new order: what does not fill one is left
    out, other images each time.

    Attributes:
      images: `(n, size, size, 3)` uint8 to train on.
      labels: `(n,)` int32.
      held_out_images: `(m, size, size, 3)` uint8 to evaluate on.
      held_out_labels: `(m,)` int32.
      mean: `(3,)` float32, of each colour over the training set, from 0 to 1.
      batch_size: images in a batch.
      degrees: images are rotated by up to that; 0 for not at all.
      augmented: whether images are augmented; without it they are trained on as they are.
    """

    images: jax.Array
    labels: jax.Array
    held_out_images: jax.Array
    held_out_labels: jax.Array
    mean: jax.Array
    batch_size: int = dataclasses.field(metadata={"static": True})
    degrees: float = dataclasses.field(metadata={"static": True})
    augmented: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def steps_per_epoch(self) -> int:
        """Return how many whole batches the training set has."""
        return len(self.labels) // self.batch_size

    def batches(self, key: jax.Array) -> Batch:
        """Draw what of an epoch is random."""
        order_key, draw_key = jax.random.split(key)
        shape = (self.steps_per_epoch, self.batch_size)
        order = jax.random.permutation(order_key, len(self.labels))
        return Batch(order[: math.prod(shape)].reshape(shape), draw(draw_key, shape, self.degrees))

    def loss(self, model: nnx.Module, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Return losses and margins of the images of a batch, `(batch,)` each."""
        logits = model(self._centred(self.pixels(batch)))
        labels = self.labels[batch.images]
        return self.losses(logits, labels), metrics.logit_margin(logits, labels)

    def pixels(self, batch: Batch) -> jax.Array:
        """Return the images of a batch to train on: `(batch, size, size, 3)` uint8."""
        if not self.augmented:
            return self.images[batch.images]
        return augment(self.images, batch.images, batch.draws)

    def evaluate(self, model: nnx.Module) -> dict[str, jax.Array]:
        """Score what is held out."""
        return self.scores(self._held_out_logits(model), self.held_out_labels)

    def _centred(self, pixels: jax.Array) -> jax.Array:
        """Return pixels from 0 to 1, less the mean."""
        return (pixels.astype(jnp.float32) / 255 - self.mean).astype(self.network.dtype)

    def _held_out_logits(self, model: nnx.Module) -> jax.Array:
        """Return `(m, classes)` logits, computed for some images at a time."""
        m = len(self.held_out_labels)
        chunks = math.ceil(m / EVALUATED_AT_ONCE)
        # As many in each; the last is filled up with images that are then left out.
        filled = jnp.arange(chunks * math.ceil(m / chunks)).reshape(chunks, -1) % m
        logits = jax.lax.map(lambda i: model(self._centred(self.held_out_images[i])), filled)
        return logits.reshape(-1, self.classes)[:m]


def make_task(data: Split, *, batch_size: int, degrees: float, **of_task: Any) -> Classification:
    """Put images on the device; for the arguments see `Classification` and `ImageTask`."""
    n = len(data.train.labels)
    if batch_size > n:
        raise ValueError(f"batch_size={batch_size} must be at most the {n} training images.")
    mean = data.train.pixels.mean(axis=(0, 1, 2)) / 255
    return Classification(
        images=jnp.asarray(data.train.pixels),
        labels=jnp.asarray(data.train.labels),
        held_out_images=jnp.asarray(data.held_out.pixels),
        held_out_labels=jnp.asarray(data.held_out.labels),
        mean=jnp.asarray(mean, jnp.float32),
        classes=data.classes,
        batch_size=batch_size,
        degrees=degrees,
        **of_task,
    )
