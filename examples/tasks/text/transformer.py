r"""A transformer: which token comes next, from those before, or which is hidden, from all others.

x = embedding(tokens)
x = x + attention(norm(x)),  x = x + mlp(norm(x))      depth times, by one scan over stacked blocks
logits = head(norm(x))

RMSNorm, rotary positions, no biases; the MLP is four times as wide and squares a ReLU. The head is
not tied to the embedding: rows that are looked up and columns that make logits want different
norms, and so each has its own.

Between the blocks tokens are rows, `(batch * length, width)`: on CPU XLA takes twice as long for
the gradient of a layer that has an axis more.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

DType = jnp.dtype
OF_LOGITS = 1 / 16  # Their variance at the start, so the first loss is near `log(vocabulary)`.
BASE = 10_000.0  # Of the rotary wavelengths, in tokens.


class Attention(nnx.Module):
    """Attention of several heads, with rotary positions.

    Queries, keys and values have kernels of their own: each has a norm.
    """

    def __init__(
        self, width: int, heads: int, depth: int, dtype: DType, rngs: nnx.Rngs, causal: bool
    ):
        self.query = linear(width, width, dtype, rngs)
        self.key = linear(width, width, dtype, rngs)
        self.value = linear(width, width, dtype, rngs)
        self.out = linear(width, width, dtype, rngs, variance=1 / (2 * depth))
        self.heads, self.causal = heads, causal

    def __call__(self, x: jax.Array, length: int) -> jax.Array:
        """`(batch * length, width)` -> the same."""
        heads = lambda y: y.reshape(-1, length, self.heads, y.shape[-1] // self.heads)
        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        positions = jnp.arange(length)
        y = attend(rotate(q, positions), rotate(k, positions), v, causal=self.causal)
        return self.out(y.reshape(x.shape))


class MLP(nnx.Module):
    """A layer four times as wide."""

    def __init__(self, width: int, depth: int, dtype: DType, rngs: nnx.Rngs):
        self.up = linear(width, 4 * width, dtype, rngs)
        self.down = linear(4 * width, width, dtype, rngs, variance=1 / (2 * depth))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(rows, width)` -> the same."""
        return self.down(jnp.square(nnx.relu(self.up(x))))


class Block(nnx.Module):
    """One layer of the transformer."""

    def __init__(
        self, width: int, heads: int, depth: int, dtype: DType, rngs: nnx.Rngs, causal: bool
    ):
        self.attention_norm = nnx.RMSNorm(width, dtype=dtype, rngs=rngs)
        self.attention = Attention(width, heads, depth, dtype, rngs, causal)
        self.mlp_norm = nnx.RMSNorm(width, dtype=dtype, rngs=rngs)
        self.mlp = MLP(width, depth, dtype, rngs)

    def __call__(self, x: jax.Array, length: int) -> jax.Array:
        """`(batch * length, width)` -> the same."""
        x = x + self.attention(self.attention_norm(x), length)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nnx.Module):
    """The model; each parameter of `blocks` has a leading axis of layers.

    A token of a causal one sees those before it; of another, all. Tokens beyond the vocabulary are
    `extra`: they are read and never foretold.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int,
        depth: int,
        heads: int,
        dtype: DType,
        rngs: nnx.Rngs,
        causal: bool = True,
        extra: int = 0,
    ):
        self.embedding = nnx.Embed(vocabulary + extra, width, dtype=dtype, rngs=rngs)
        block = lambda rngs: Block(width, heads, depth, dtype, rngs, causal)
        self.blocks = nnx.vmap(block)(rngs.split(depth))
        self.norm = nnx.RMSNorm(width, dtype=dtype, rngs=rngs)
        self.head = linear(width, vocabulary, dtype, rngs, variance=OF_LOGITS)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """`(batch, length)` int -> `(batch, length, vocabulary)` float32 logits."""
        # Split by hand: `nnx.scan` refuses a model that is called within another `jax.lax.map`.
        structure, layers = nnx.split(self.blocks)
        layer = lambda x, one: (nnx.merge(structure, one)(x, tokens.shape[1]), None)
        x, _ = jax.lax.scan(layer, self.embedding(tokens.ravel()), layers)
        logits = self.head(self.norm(x)).reshape(*tokens.shape, -1)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def linear(
    inputs: int, outputs: int, dtype: DType, rngs: nnx.Rngs, *, variance: float = 1.0
) -> nnx.Linear:
    """Return a layer without bias.

    Args:
      inputs: features of them.
      outputs: features of what it makes.
      dtype: of the computation; the kernel is float32.
      rngs: for the kernel.
      variance: of the outputs at the start, for inputs of variance 1. What ends one of the `n`
        branches that are added up has `1 / n`, so that the sum does not grow with the depth.
    """
    kernel_init = nnx.initializers.variance_scaling(variance, "fan_in", "normal")
    return nnx.Linear(
        inputs, outputs, use_bias=False, kernel_init=kernel_init, dtype=dtype, rngs=rngs
    )


def attend(q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool = True) -> jax.Array:
    """Mix the values of tokens by how well their keys match the query of the one that sees them.

    Scores and their softmax are float32 at least, unlike the rest.

    Args:
      q: `(batch, length, heads, features)` queries.
      k: keys of the same shape.
      v: values of the same shape.
      causal: whether a token sees itself and those before it, or all.

    Returns:
      As `v`.
    """
    precise = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("bthf,bshf->bhts", q, k, preferred_element_type=precise)
    scores = scores / math.sqrt(q.shape[-1])
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jnp.einsum("bhts,bshf->bthf", jax.nn.softmax(scores).astype(v.dtype), v)


def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Turn pairs of features by angles in proportion to the position (Su et al., 2021).

    So the inner product of a query and a key depends on how far they are from each other alone.

    Args:
      x: `(..., length, heads, features)`, an even number of features.
      positions: `(length,)`.

    Returns:
      As `x`; the first half of the features holds one of each pair, the second half the other.
    """
    half = x.shape[-1] // 2
    precise = jnp.promote_types(x.dtype, jnp.float32)
    frequencies = BASE ** -(jnp.arange(half, dtype=precise) / half)
    angles = (positions[:, None] * frequencies)[:, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x.astype(precise), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)
