"""The task: the next byte of a text, windows of which make the batches.

A token is a byte: there is nothing to download or to train before, any text can be read, and the
loss in bits per byte needs no count of tokens to be compared with that of other tokenizers.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from examples.tasks.text.corpus import Corpus
from examples.tasks.text.transformer import Transformer
from examples.training import cpu
from examples.training.task import Layout
from lawn_optax import metrics

VOCABULARY = 256  # Of bytes.
PIECES = 32  # Of the text held out: by every other one settings may be chosen.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """The task. The text lies on the device, a token per byte; a batch is numbers of windows.

    A window is `length` tokens and, as targets, those one further on; windows follow each other
    without a gap. An epoch is whole batches of them in a new order: all windows, or as many as an
    epoch has, other ones each time and none twice.

    Attributes:
      train: `(n,)` uint8 to train on.
      held_out: `(m,)` uint8 to judge by.
      length: tokens of a window.
      batch_size: windows in a batch.
      steps_per_epoch: batches in an epoch.
      width: features of a token within the model.
      depth: its blocks.
      heads: of each attention.
      dtype: of the computation.
    """

    train: jax.Array
    held_out: jax.Array
    length: int = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})
    steps_per_epoch: int = dataclasses.field(metadata={"static": True})
    width: int = dataclasses.field(metadata={"static": True})
    depth: int = dataclasses.field(metadata={"static": True})
    heads: int = dataclasses.field(metadata={"static": True})
    dtype: str = dataclasses.field(metadata={"static": True})
    score = "bits_per_byte"
    vmaps_runs = False
    layout = Layout(stacked=("blocks",), ends=("embedding", "head"))

    def model(self, rngs: nnx.Rngs) -> Transformer:
        """Return the transformer."""
        return Transformer(
            VOCABULARY,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            dtype=jnp.dtype(self.dtype),
            rngs=rngs,
        )

    def batches(self, key: jax.Array) -> jax.Array:
        """Draw an epoch: `(steps_per_epoch, batch_size)` int32, the numbers of windows."""
        shape = (self.steps_per_epoch, self.batch_size)
        order = cpu.random_permutation(key, windows_in(self.train, self.length))
        return order[: math.prod(shape)].reshape(shape)

    def loss(self, model: Transformer, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return cross-entropies in nats and margins of tokens, `(batch_size * length,)` each."""
        losses, margins = self._judge(model, self.train, batch)
        return losses.ravel(), margins.ravel()

    def evaluate(self, model: Transformer) -> dict[str, jax.Array]:
        """Return the mean loss of what is held out, in nats per token and so in bits per byte."""
        nats = jnp.mean(self.held_out_losses(model))
        return {"held_out_loss": nats, "bits_per_byte": nats / math.log(2)}

    def held_out_losses(self, model: Transformer) -> jax.Array:
        """Return the mean loss of each window that is held out, `(windows,)` nats per token.

        Every window begins without a context, and what does not fill one is left out.
        """
        m = windows_in(self.held_out, self.length)
        # As many at once as in training; the last ones are filled up with others, then left out.
        filled = jnp.arange(-(-m // self.batch_size) * self.batch_size) % m
        of_window = lambda batch: jnp.mean(self._judge(model, self.held_out, batch)[0], axis=1)
        return jax.lax.map(of_window, filled.reshape(-1, self.batch_size)).ravel()[:m]

    def _judge(
        self, model: Transformer, text: jax.Array, windows: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return losses and margins, `(windows, length)` each."""
        places = windows[:, None] * self.length + jnp.arange(self.length + 1)
        tokens = text[places].astype(jnp.int32)
        logits, targets = model(tokens[:, :-1]), tokens[:, 1:]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses, metrics.logit_margin(logits, targets)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class InPieces(Text):
    """The task, judged piece by piece."""

    def evaluate(self, model: Transformer) -> dict[str, jax.Array]:
        """Return the bits per byte of `PIECES` pieces of what is held out, one after the other."""
        losses = self.held_out_losses(model)
        pieces = losses[: len(losses) // PIECES * PIECES].reshape(PIECES, -1)
        return {"pieces": jnp.mean(pieces, axis=1) / math.log(2)}


def in_pieces(task: Text) -> InPieces:
    """Return the task that is judged piece by piece.

    Raises:
      ValueError: if less is held out than `PIECES` windows.
    """
    if (m := windows_in(task.held_out, task.length)) < PIECES:
        raise ValueError(
            f"the text held out has {m} windows of {task.length} tokens, fewer than {PIECES}: give"
            " more text, or shorter windows."
        )
    return InPieces(**vars(task))


def windows_in(text: Any, length: int) -> int:
    """Return how many whole windows there are, each with a target after its last token."""
    return (len(text) - 1) // length


def make_task(
    corpus: Corpus, *, length: int, batch_size: int, epoch_tokens: int | None, **model: Any
) -> Text:
    """Put text on the device; for the arguments see `Text`.

    Args:
      corpus: the text.
      length: tokens of a window.
      batch_size: windows in a batch.
      epoch_tokens: tokens of an epoch, rounded down to whole batches; None for all there are.
      **model: `width`, `depth`, `heads` and `dtype`.

    Raises:
      ValueError: if the text is too short, or has more tokens than 31 bits can count.
    """
    train, held_out = (np.frombuffer(part, np.uint8) for part in (corpus.train, corpus.held_out))
    there, held_out_windows = windows_in(train, length), windows_in(held_out, length)
    if len(train) >= 2**31:
        raise ValueError(f"{len(train)} tokens exceed 31 bits: give less text.")
    if there < batch_size or not held_out_windows:
        raise ValueError(
            f"batch_size={batch_size} with length={length}: the text has {there} windows of that"
            f" length to train on and {held_out_windows} held out; give more text, or smaller ones."
        )
    wanted = there if epoch_tokens is None else min(there, epoch_tokens // length)
    if wanted < batch_size:
        raise ValueError(
            f"epoch_tokens={epoch_tokens} must be at least one batch of {batch_size * length}."
        )
    return Text(
        train=jnp.asarray(train),
        held_out=jnp.asarray(held_out),
        length=length,
        batch_size=batch_size,
        steps_per_epoch=wanted // batch_size,
        **model,
    )
