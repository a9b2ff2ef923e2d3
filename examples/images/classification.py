"""The task: to tell images apart, augmented on the device, in the precision that is asked for."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.bounded import Bounded
from examples.images.augmentation import Draws, augmented, draw
from examples.images.data import Split
from examples.images.models import ModelName, make_model
from lawn_optax import diagnostics, losses, metrics

ECE_BINS = 15
EVALUATED_AT_ONCE = 1000  # Images, so that evaluation takes no more memory than training.


class Batch(NamedTuple):
    """Which images, and how each is augmented: `(steps_per_epoch, batch_size)` or one step's."""

    images: jax.Array
    draws: Draws


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Classification:
    """The task. Images stay uint8 on the device; a batch is augmented, then centred by the mean.

    An epoch is whole batches of the training set in a new order: what does not fill one is left
    out, other images each time.

    Attributes:
      images: `(n, size, size, 3)` uint8 to train on.
      labels: `(n,)` int32.
      held_out_images: `(m, size, size, 3)` uint8 to judge by.
      held_out_labels: `(m,)` int32.
      mean: `(3,)` float32, of each colour over the training set, from 0 to 1.
      classes: how many to tell apart.
      batch_size: images in a batch.
      degrees: images are rotated by up to that; 0 for not at all.
      model_name: which network.
      width: factor on its channels.
      dtype: of the computation.
      gamma: of the focal loss; 0 for cross-entropy.
      label_smoothing: the share of each label that is spread over all classes.
      bounded_weight_norm: whether the network is `Bounded`.
      virtual_batch_size: images that are normalised together; None for the whole batch.
    """

    images: jax.Array
    labels: jax.Array
    held_out_images: jax.Array
    held_out_labels: jax.Array
    mean: jax.Array
    classes: int = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})
    degrees: float = dataclasses.field(metadata={"static": True})
    model_name: ModelName = dataclasses.field(metadata={"static": True})
    width: float = dataclasses.field(metadata={"static": True})
    dtype: str = dataclasses.field(metadata={"static": True})
    gamma: float = dataclasses.field(metadata={"static": True})
    label_smoothing: float = dataclasses.field(metadata={"static": True})
    bounded_weight_norm: bool = dataclasses.field(metadata={"static": True})
    virtual_batch_size: int | None = dataclasses.field(metadata={"static": True})
    score = "accuracy"
    vmaps_runs = False

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return len(self.labels) // self.batch_size

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """The network."""
        model = make_model(
            self.model_name,
            self.classes,
            self.dtype,
            rngs,
            width=self.width,
            virtual_batch_size=self.virtual_batch_size,
        )
        return Bounded(model) if self.bounded_weight_norm else model

    def batches(self, key: jax.Array) -> Batch:
        """What of an epoch is random."""
        order_key, draw_key = jax.random.split(key)
        shape = (self.steps_per_epoch, self.batch_size)
        order = jax.random.permutation(order_key, len(self.labels))
        return Batch(order[: math.prod(shape)].reshape(shape), draw(draw_key, shape, self.degrees))

    def loss(self, model: nnx.Module, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Losses and margins of the augmented images, `(batch,)` each."""
        logits = model(self._centred(self.pixels(batch)))
        labels = self.labels[batch.images]
        return self._losses(logits, labels), metrics.logit_margin(logits, labels)

    def pixels(self, batch: Batch) -> jax.Array:
        """The images of a batch, augmented: `(batch, size, size, 3)` uint8."""
        return augmented(self.images, batch.images, batch.draws)

    def evaluate(self, model: nnx.Module) -> dict[str, jax.Array]:
        """Accuracy, calibration error, mean negative log-likelihood, margins: all held out."""
        logits, labels = self._held_out_logits(model), self.held_out_labels
        margins = metrics.logit_margin(logits, labels)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        probabilities = jax.nn.softmax(logits)
        return {
            "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels),
            "ece": metrics.expected_calibration_error(probabilities, labels, bins=ECE_BINS),
            "nll": jnp.mean(nll),
            "held_out_margin_p50": jnp.median(margins),
            "held_out_flat_share": diagnostics.flat_zone_share(margins),
        }

    def _centred(self, pixels: jax.Array) -> jax.Array:
        """From 0 to 1, less the mean."""
        return (pixels.astype(jnp.float32) / 255 - self.mean).astype(self.dtype)

    def _losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = jax.nn.one_hot(labels, self.classes)
        if self.label_smoothing:
            targets = optax.smooth_labels(targets, self.label_smoothing)
        if self.gamma:
            return losses.softmax_focal_loss(logits, targets, gamma=self.gamma)
        return optax.softmax_cross_entropy(logits, targets)

    def _held_out_logits(self, model: nnx.Module) -> jax.Array:
        """`(m, classes)`, some images at a time."""
        m = len(self.held_out_labels)
        chunks = math.ceil(m / EVALUATED_AT_ONCE)
        # As many in each; the last is filled up with images that are then left out.
        filled = jnp.arange(chunks * math.ceil(m / chunks)).reshape(chunks, -1) % m
        logits = jax.lax.map(lambda i: model(self._centred(self.held_out_images[i])), filled)
        return logits.reshape(-1, self.classes)[:m]


def make_task(
    data: Split,
    *,
    batch_size: int,
    degrees: float,
    model: ModelName,
    width: float,
    dtype: str,
    gamma: float,
    label_smoothing: float,
    bounded_weight_norm: bool,
    virtual_batch_size: int | None = None,
) -> Classification:
    """Puts images on the device; for the arguments see `Classification`."""
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
        model_name=model,
        width=width,
        dtype=dtype,
        gamma=gamma,
        label_smoothing=label_smoothing,
        bounded_weight_norm=bounded_weight_norm,
        virtual_batch_size=virtual_batch_size,
    )
