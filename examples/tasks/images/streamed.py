"""The task whose images come from the host, some steps at a time."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from examples.tasks.images.task import ImageTask
from lawn_optax import metrics

# Of the red, green and blue of ImageNet from 0 to 1, as they are usually given.
MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Streamed(ImageTask):
    """The task, a chunk of it with images: they are uint8 on the device, and normalised there.

    Attributes:
      steps_per_epoch: updates in an epoch.
      images: `(steps, batch, size, size, 3)` uint8 to train on, `(batch, size, size, 3)` to
        evaluate on, None of the task as a whole.
      labels: `(steps, batch)` or `(batch,)` int32.
    """

    steps_per_epoch: int = dataclasses.field(metadata={"static": True})
    images: Any = None
    labels: Any = None

    def batches(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the images and labels of each step, which no key changes."""
        return self.images, self.labels

    def loss(
        self, model: nnx.Module, batch: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Return losses and margins, `(batch,)` each."""
        images, labels = batch
        logits = model(self._normalised(images))
        return self.losses(logits, labels), metrics.logit_margin(logits, labels)

    def evaluate(self, model: nnx.Module) -> tuple[jax.Array, jax.Array]:
        """Return logits `(batch, classes)` and labels `(batch,)` of the images to evaluate on."""
        return model(self._normalised(self.images)), self.labels

    def _normalised(self, pixels: jax.Array) -> jax.Array:
        """Return pixels of mean 0 and standard deviation 1 over ImageNet, colour by colour."""
        mean, deviation = jnp.array(MEAN), jnp.array(STANDARD_DEVIATION)
        return ((pixels.astype(jnp.float32) / 255 - mean) / deviation).astype(self.network.dtype)


@functools.partial(jax.jit, static_argnames="count")
def aggregate(
    task: Streamed, evaluated: Sequence[tuple[jax.Array, jax.Array]], count: int
) -> dict[str, jax.Array]:
    """Score `(runs,)` by name, of the first `count` images of some batches.

    Args:
      task: any chunk.
      evaluated: logits `(runs, batch, classes)` and labels `(runs, batch)` of each batch.
      count: images that are no filling of the last batch.
    """
    logits, labels = (
        jnp.concatenate(arrays, axis=1)[:, :count] for arrays in zip(*evaluated, strict=True)
    )
    return jax.lax.map(lambda run: task.scores(*run), (logits, labels))
