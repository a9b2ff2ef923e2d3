"""The handwritten digits that ship with scikit-learn, and a perceptron to read them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn import datasets

from examples.training.task import Layout
from lawn_optax import metrics

Examples = tuple[jax.Array, jax.Array]


class MLP(nnx.Module):
    """64-512-512-10 with ReLU."""

    def __init__(self, rngs: nnx.Rngs):
        self.layer1 = nnx.Linear(64, 512, rngs=rngs)
        self.layer2 = nnx.Linear(512, 512, rngs=rngs)
        self.layer3 = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, 64)` pixels -> `(batch, 10)` logits."""
        return self.layer3(nnx.relu(self.layer2(nnx.relu(self.layer1(x)))))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Digits:
    """The task: of each part `(n, 64)` float32 pixels from 0 to 1 and `(n,)` int32 labels."""

    train: Examples
    validation: Examples
    test: Examples
    batch_size: int = dataclasses.field(metadata={"static": True})
    score = "accuracy"
    vmaps_runs = True
    layout = Layout(ends=("layer3",))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return len(self.train[1]) // self.batch_size

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Return the perceptron."""
        return MLP(rngs)

    def batches(self, key: jax.Array) -> Examples:
        """Return the training set in a new order, `(steps_per_epoch, batch_size, ...)`."""
        order = jax.random.permutation(key, len(self.train[1]))
        order = order[: self.steps_per_epoch * self.batch_size].reshape(-1, self.batch_size)
        return self.train[0][order], self.train[1][order]

    def loss(self, model: MLP, batch: Examples) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy and margins, `(batch,)` each, both towards the labels trained on."""
        logits = model(batch[0])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return losses, metrics.logit_margin(logits, batch[1])

    def evaluate(self, model: MLP) -> dict[str, jax.Array]:
        """Accuracy and loss for choosing; accuracy and calibration error (15 bins) to report."""
        labels, test_labels = self.validation[1], self.test[1]
        logits, test_logits = model(self.validation[0]), model(self.test[0])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return {
            "validation_accuracy": jnp.mean(_hits(logits, labels)),
            "validation_loss": jnp.mean(losses),
            "accuracy": jnp.mean(_hits(test_logits, test_labels)),
            "ece": metrics.expected_calibration_error(jax.nn.softmax(test_logits), test_labels),
        }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerImage(Digits):
    """Makes a task that evaluates to which images are read."""

    def evaluate(self, model: MLP) -> dict[str, jax.Array]:
        """Return whether each image is read, `(n,)` bools: those to choose by, and of the test."""
        parts = {"validation_hits": self.validation, "hits": self.test}
        return {name: _hits(model(pixels), labels) for name, (pixels, labels) in parts.items()}


def per_image(task: Digits) -> PerImage:
    """Return the task that evaluates to which images are read."""
    return PerImage(**vars(task))


def load(noise: float, batch_size: int) -> Digits:
    """Load the 1,797 digits, split in one way: 1,000 to train, 400 to choose, 397 to test.

    Args:
      noise: share of the training labels that are changed to another class, always the same ones.
      batch_size: training examples in a batch, at most 1,000.
    """
    if not 0 <= noise <= 1:
        raise ValueError(f"noise={noise} must be a share between 0 and 1.")
    if not 1 <= batch_size <= 1000:
        raise ValueError(f"batch_size={batch_size} must lie between 1 and the 1,000 examples.")
    images, classes = datasets.load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(classes))
    pixels, labels = (images[order] / 16).astype(np.float32), classes[order].astype(np.int32)
    wrong = rng.permutation(1000)[: round(noise * 1000)]
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    train, validation, test = (
        (jnp.asarray(pixels[part]), jnp.asarray(labels[part]))
        for part in (slice(0, 1000), slice(1000, 1400), slice(1400, None))
    )
    return Digits(train, validation, test, batch_size)


def _hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.argmax(logits, axis=-1) == labels
