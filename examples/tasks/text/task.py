"""The tasks: the next byte of a text, or those that are masked in it; windows make the batches.

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
from examples.training import cpu, sharding
from examples.training.task import Layout, OnDevice
from lawn_optax import metrics

VOCABULARY = 256  # Of bytes.
MASK_TOKEN = VOCABULARY
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
      held_out: `(m,)` uint8 to evaluate on.
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
    unit = "byte"  # What losses are means over.
    score = "bits_per_byte"
    vmaps_runs = False
    layout = Layout(stacked=("blocks",), ends=("embedding", "head"))

    def model(self, rngs: nnx.Rngs) -> Transformer:
        """Return the transformer."""
        return self._transformer(rngs)

    def _transformer(self, rngs: nnx.Rngs, **options: Any) -> Transformer:
        return Transformer(
            VOCABULARY,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            dtype=jnp.dtype(self.dtype),
            rngs=rngs,
            **options,
        )

    def batches(self, key: jax.Array) -> jax.Array:
        """Draw an epoch: `(steps_per_epoch, batch_size)` int32, the numbers of windows."""
        shape = (self.steps_per_epoch, self.batch_size)
        order = cpu.random_permutation(key, windows_in(self.train, self.length))
        return order[: math.prod(shape)].reshape(shape)

    def loss(self, model: Transformer, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return cross-entropies in nats and margins of the tokens that are asked for, `(n,)`."""
        losses, margins = self._losses_and_margins(model, self.train, batch)
        return losses.ravel(), margins.ravel()

    def evaluate(self, model: Transformer) -> dict[str, jax.Array]:
        """Return the mean loss of what is held out, in nats per token and so in bits per byte."""
        nats = jnp.mean(self.held_out_losses(model))
        return {"held_out_loss": nats, "bits_per_byte": nats / math.log(2)}

    def score_examples(self, model: Transformer) -> dict[str, jax.Array]:
        """Return the bits per byte of `PIECES` pieces of what is held out, one after the other.

        Raises:
          ValueError: if less is held out than `PIECES` windows.
        """
        losses = self.held_out_losses(model)
        if len(losses) < PIECES:
            raise ValueError(
                f"the text held out has {len(losses)} windows of {self.length} tokens, fewer than"
                f" {PIECES}: give more text, or shorter windows."
            )
        pieces = losses[: len(losses) // PIECES * PIECES].reshape(PIECES, -1)
        return {"pieces": jnp.mean(pieces, axis=1) / math.log(2)}

    def held_out_losses(self, model: Transformer) -> jax.Array:
        """Return the mean loss of each window that is held out, `(windows,)` nats per token.

        Every window begins without a context, and what does not fill one is left out.
        """
        m = windows_in(self.held_out, self.length)
        # As many at once as in training; the last ones are filled up with others, then left out.
        filled = jnp.arange(-(-m // self.batch_size) * self.batch_size) % m
        batches = self._batches_of(filled.reshape(-1, self.batch_size))

        def of_windows(batch: jax.Array) -> jax.Array:
            losses, _ = self._losses_and_margins(model, self.held_out, batch)
            return jnp.mean(losses, axis=1)

        return jax.lax.map(of_windows, batches).ravel()[:m]

    def _batches_of(self, windows: jax.Array) -> jax.Array:
        """Return batches of windows by their numbers, `(...)`, to evaluate on: always alike."""
        return windows

    def _losses_and_margins(
        self, model: Transformer, text: jax.Array, batch: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return losses and margins of the tokens that are asked for, `(windows, n)` each."""
        tokens = self._tokens(text, batch, self.length + 1)
        return losses_and_margins(model(tokens[:, :-1]), tokens[:, 1:])

    def _tokens(self, text: jax.Array, windows: jax.Array, count: int) -> jax.Array:
        """Return the first `count` tokens from where each window begins, `(windows, count)`."""
        places = windows[:, None] * self.length + jnp.arange(count)
        return text[places].astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedText(Text):
    """The task of BERT (Devlin et al., 2019): which bytes are masked, from those on both sides.

    In every window a share of the places are drawn. Of their tokens 80% are masked, 10% become a
    random byte, and 10% stay; what stood there is asked for. A batch is pairs of a window's number
    and a seed, `(batch_size, 2)`; an epoch draws new seeds, and an evaluation always has the same.

    Attributes:
      mask_rate: the share of the places.
    """

    # JAX takes two registered dataclasses for one if their fields are equal, and then may run what
    # is compiled for the one with the other: so this is a field, and not a constant.
    mask_rate: float = dataclasses.field(default=0.15, metadata={"static": True})
    unit = "masked byte"

    def model(self, rngs: nnx.Rngs) -> Transformer:
        """Return the transformer, which sees both sides."""
        return self._transformer(rngs, causal=False, extra=1)

    def batches(self, key: jax.Array) -> jax.Array:
        """Draw an epoch: `(steps_per_epoch, batch_size, 2)` int32."""
        windows = super().batches(key)
        seeds = jax.random.bits(jax.random.fold_in(key, 1), windows.shape, jnp.uint32)
        return jnp.stack([windows, seeds.astype(jnp.int32)], axis=-1)

    def _batches_of(self, windows: jax.Array) -> jax.Array:
        return jnp.stack([windows, windows], axis=-1)

    def _losses_and_margins(
        self, model: Transformer, text: jax.Array, batch: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        tokens = self._tokens(text, batch[:, 0], self.length)
        mask = lambda tokens, seed: mask_tokens(tokens, seed, self.mask_rate)
        places, masked = jax.vmap(mask)(tokens, batch[:, 1])
        of_places = lambda of_window, places: of_window[places]
        logits, targets = (jax.vmap(of_places)(x, places) for x in (model(masked), tokens))
        return losses_and_margins(logits, targets)


def mask_tokens(tokens: jax.Array, seed: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    """Draw places of a window, and mask what stands there.

    Args:
      tokens: `(length,)` int32.
      seed: int32 scalar.
      rate: the share of the places that are drawn; at least one is.

    Returns:
      The places, `(n,)` int32, each once; and the tokens with those places changed.
    """
    count = max(round(rate * len(tokens)), 1)
    of_places, of_changes, of_bytes = jax.random.split(jax.random.key(seed), 3)
    places = jax.random.permutation(of_places, len(tokens))[:count]
    change = jax.random.uniform(of_changes, (count,))
    other = jax.random.randint(of_bytes, (count,), 0, VOCABULARY)
    drawn = jnp.where(change < 0.8, MASK_TOKEN, jnp.where(change < 0.9, other, tokens[places]))
    return places, tokens.at[places].set(drawn)


def losses_and_margins(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return cross-entropies in nats and margins, of the shape of the targets."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses, metrics.logit_margin(logits, targets)


@dataclasses.dataclass(frozen=True)
class Lengthening(OnDevice):
    """The source of a task whose last epochs have longer windows, as many tokens to a batch.

    Attributes:
      task: the task to begin with.
      long: the same with longer windows.
      after: the epochs of the short one.
    """

    task: Text
    long: Text
    after: int

    @property
    def identity(self) -> dict[str, Any]:
        """Return a checksum of the text, and when its windows lengthen."""
        return {**super().identity, "long_length": self.long.length, "after": self.after}

    def task_of(self, epoch: int) -> Text:
        """Return the task of an epoch."""
        return sharding.put(self.task if epoch <= self.after else self.long)


def lengthen(task: Text, length: int, after: int) -> Lengthening:
    """Return the source of a task whose windows are longer after some epochs.

    Raises:
      ValueError: if the length or the size of a batch does not divide, or if no window of that
        length is held out.
    """
    times, rest = divmod(length, task.length)
    if rest or times < 2 or task.batch_size % times:
        raise ValueError(
            f"long_length={length} must be a multiple of length={task.length}, by a factor from 2"
            f" that divides batch_size={task.batch_size}: a batch has as many tokens before and"
            " after."
        )
    if not windows_in(task.held_out, length):
        raise ValueError(
            f"long_length={length}: the text held out has no window as long; give more text."
        )
    long = dataclasses.replace(task, length=length, batch_size=task.batch_size // times)
    return Lengthening(task, long, after)


def windows_in(text: Any, length: int) -> int:
    """Return how many whole windows there are, each with a target after its last token."""
    return (len(text) - 1) // length


def make_task(
    corpus: Corpus,
    *,
    length: int,
    batch_size: int,
    epoch_tokens: int | None,
    objective: type[Text] = Text,
    **model: Any,
) -> Text:
    """Put text on the device; for the arguments see `Text`.

    Args:
      corpus: the text.
      length: tokens of a window.
      batch_size: windows in a batch.
      epoch_tokens: tokens of an epoch, rounded down to whole batches; None for all there are.
      objective: which task.
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
    return objective(
        train=jnp.asarray(train),
        held_out=jnp.asarray(held_out),
        length=length,
        batch_size=batch_size,
        steps_per_epoch=wanted // batch_size,
        **model,
    )
