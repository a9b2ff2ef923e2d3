"""What all image tasks share, wherever the images are: the network, its losses, its scores."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.results.reports import Shown
from examples.tasks.bounded_weight_norm import BoundedWeightNorm
from examples.tasks.images.models import ModelName, make_model
from examples.training.task import Layout
from lawn_optax import diagnostics, losses, metrics

ECE_BINS = 15
REPORTED = {
    "accuracy, %": Shown("accuracy", 100),
    f"ECE, {ECE_BINS} bins": Shown("ece", digits=4),
    "NLL": Shown("nll", digits=3),
    "median margin": Shown("held_out_margin_p50"),
    "training images in the flat zone, %": Shown("flat_share", 100, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTask:
    """A network that tells images apart, and how it is trained.

    Attributes:
      classes: how many to tell apart.
      model_name: which network.
      width: factor on its channels.
      dtype: of the computation.
      gamma: of the focal loss; 0 for cross-entropy.
      label_smoothing: the share of each label that is spread over all classes.
      bounded_weight_norm: whether the network is `BoundedWeightNorm`.
      virtual_batch_size: images that are normalised together; None for the whole batch.
      init_scale: factor on all initial weights.
      bn_momentum: of the running averages of batch normalisation.
      bn_epsilon: what batch normalisation adds to variances.
      last_bn_scale: what the last scale of each block of a ResNet starts with.
    """

    classes: int = dataclasses.field(metadata={"static": True})
    model_name: ModelName = dataclasses.field(metadata={"static": True})
    width: float = dataclasses.field(metadata={"static": True})
    dtype: str = dataclasses.field(metadata={"static": True})
    gamma: float = dataclasses.field(metadata={"static": True})
    label_smoothing: float = dataclasses.field(metadata={"static": True})
    bounded_weight_norm: bool = dataclasses.field(metadata={"static": True})
    virtual_batch_size: int | None = dataclasses.field(default=None, metadata={"static": True})
    init_scale: float = dataclasses.field(default=1.0, metadata={"static": True})
    bn_momentum: float = dataclasses.field(default=0.9, metadata={"static": True})
    bn_epsilon: float = dataclasses.field(default=1e-5, metadata={"static": True})
    last_bn_scale: float = dataclasses.field(default=0.0, metadata={"static": True})
    score = "accuracy"
    vmaps_runs = False
    layout = Layout(ends=("fc",))

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Return the network."""
        model = make_model(
            self.model_name,
            self.classes,
            self.dtype,
            rngs,
            width=self.width,
            virtual_batch_size=self.virtual_batch_size,
            bn_momentum=self.bn_momentum,
            bn_epsilon=self.bn_epsilon,
            last_bn_scale=self.last_bn_scale,
        )
        if self.init_scale != 1:
            scaled = jax.tree.map(lambda w: self.init_scale * w, nnx.state(model, nnx.Param))
            nnx.update(model, scaled)
        return BoundedWeightNorm(model) if self.bounded_weight_norm else model

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """To train on: `(batch,)` from `(batch, classes)` and `(batch,)`."""
        targets = jax.nn.one_hot(labels, self.classes)
        if self.label_smoothing:
            targets = optax.smooth_labels(targets, self.label_smoothing)
        if self.gamma:
            return losses.softmax_focal_loss(logits, targets, gamma=self.gamma)
        return optax.softmax_cross_entropy(logits, targets)

    def scores(self, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """Accuracy, calibration error, mean negative log-likelihood, margins.

        Args:
          logits: `(m, classes)` of all images held out.
          labels: `(m,)` int32.
        """
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
