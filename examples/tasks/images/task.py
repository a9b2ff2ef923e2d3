"""What all image tasks share, wherever the images are: the network, its losses, its scores."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.results.reports import ReportedMetric
from examples.tasks.images.models import Network
from examples.training.task import Layout
from lawn_optax import diagnostics, losses, metrics

ECE_BINS = 15
REPORTED = {
    "accuracy, %": ReportedMetric("accuracy", 100),
    f"ECE, {ECE_BINS} bins": ReportedMetric("ece", digits=4),
    "NLL": ReportedMetric("nll", digits=3),
    "median margin": ReportedMetric("held_out_margin_p50"),
    "training images in the flat zone, %": ReportedMetric("flat_share", 100, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTask:
    """A network that tells images apart, and how it is trained.

    Attributes:
      classes: how many to tell apart.
      network: which one, and how it is made.
      gamma: of the focal loss; 0 for cross-entropy.
      label_smoothing: the share of each label that is spread over all classes.
    """

    classes: int = dataclasses.field(metadata={"static": True})
    network: Network = dataclasses.field(metadata={"static": True})
    gamma: float = dataclasses.field(default=0.0, metadata={"static": True})
    label_smoothing: float = dataclasses.field(default=0.0, metadata={"static": True})
    score = "accuracy"
    vmaps_runs = False
    layout = Layout(ends=("fc",))

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Return the network."""
        return self.network.make(self.classes, rngs)

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the losses to train on, `(batch,)`, of logits `(batch, classes)`."""
        targets = jax.nn.one_hot(labels, self.classes)
        if self.label_smoothing:
            targets = optax.smooth_labels(targets, self.label_smoothing)
        if self.gamma:
            return losses.softmax_focal_loss(logits, targets, gamma=self.gamma)
        return optax.softmax_cross_entropy(logits, targets)

    def scores(self, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """Return accuracy, calibration error, mean negative log-likelihood and margins.

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
