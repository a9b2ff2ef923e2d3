"""The task of telling the class of an example, a row of numbers, with a perceptron."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.training.task import Layout
from lawn_optax import metrics

Examples = tuple[jax.Array, jax.Array]


class Perceptron(nnx.Module):
    """Hidden layers with ReLU, and a last one to the logits."""

    def __init__(self, features: int, widths: tuple[int, ...], classes: int, rngs: nnx.Rngs):
        ends = (features, *widths)
        self.hidden = nnx.List(
            nnx.Linear(i, o, rngs=rngs) for i, o in zip(ends, widths, strict=False)
        )
        self.last = nnx.Linear(ends[-1], classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, features)` -> `(batch, classes)` logits."""
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.last(x)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Labelled:
    """The task: of each part `(n, features)` float32 and `(n,)` int32 labels.

    Attributes:
      train: what is trained on.
      validation: what settings are chosen by.
      test: what is reported.
      classes: how many there are.
      widths: of the hidden layers.
      batch_size: examples per update; what does not fill a batch is left out of an epoch.
    """

    train: Examples
    validation: Examples
    test: Examples
    classes: int = dataclasses.field(metadata={"static": True})
    widths: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})
    score = "accuracy"
    vmaps_runs = True
    layout = Layout(ends=("last",))

    @property
    def steps_per_epoch(self) -> int:
        """Return how many whole batches the training set has."""
        return len(self.train[1]) // self.batch_size

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Return the perceptron."""
        return Perceptron(self.train[0].shape[1], self.widths, self.classes, rngs)

    def batches(self, key: jax.Array) -> Examples:
        """Return the training set in a new order, `(steps_per_epoch, batch_size, ...)`."""
        order = jax.random.permutation(key, len(self.train[1]))
        order = order[: self.steps_per_epoch * self.batch_size].reshape(-1, self.batch_size)
        return self.train[0][order], self.train[1][order]

    def loss(self, model: Perceptron, batch: Examples) -> tuple[jax.Array, jax.Array]:
        """Return cross-entropies and margins, `(batch,)` each, towards the labels trained on."""
        logits = model(batch[0])
        return _losses(logits, batch[1]), metrics.logit_margin(logits, batch[1])

    def evaluate(self, model: Perceptron) -> dict[str, jax.Array]:
        """Return accuracy and loss to choose by; both, and calibration (15 bins), to report."""
        labels, test_labels = self.validation[1], self.test[1]
        logits, test_logits = model(self.validation[0]), model(self.test[0])
        return {
            "validation_accuracy": jnp.mean(_hits(logits, labels)),
            "validation_loss": jnp.mean(_losses(logits, labels)),
            "accuracy": jnp.mean(_hits(test_logits, test_labels)),
            "nll": jnp.mean(_losses(test_logits, test_labels)),
            "ece": metrics.expected_calibration_error(jax.nn.softmax(test_logits), test_labels),
        }

    def score_examples(self, model: Perceptron) -> dict[str, jax.Array]:
        """Return whether each example is right, `(n,)` bools: those to choose by, and to report."""
        parts = {"validation_hits": self.validation, "hits": self.test}
        return {name: _hits(model(x), labels) for name, (x, labels) in parts.items()}


def _losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.argmax(logits, axis=-1) == labels
