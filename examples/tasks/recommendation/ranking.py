"""Neural collaborative filtering (He et al., 2017): the model, its epochs and its ranking metrics.

Users and items have embeddings; a perceptron over both, one after the other, says how likely the
user interacts with the item.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.tasks.bounded_weight_norm import BoundedWeightNorm
from examples.tasks.recommendation import Interactions
from examples.training import cpu
from examples.training.task import Layout
from lawn_optax import metrics

NEGATIVES = 4  # For each positive.
TOP = 10  # Length of the recommended list.
VALIDATION = "validation_"  # Begins the names of scores that settings may be chosen by.

Batch = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


class NCF(nnx.Module):
    """Embeddings and a tower of ReLU layers, with the names and initialisers of He et al.'s code.

    The tower's first width is that of both embeddings together, the others are of dense layers,
    and one unit more predicts. So 256-128-64-1 has three layers of weights, as the LAWN paper says.
    """

    def __init__(self, users: int, items: int, tower: tuple[int, ...], rngs: nnx.Rngs):
        small, glorot = nnx.initializers.normal(0.01), nnx.initializers.glorot_uniform()
        self.users = nnx.Embed(users, tower[0] // 2, embedding_init=small, rngs=rngs)
        self.items = nnx.Embed(items, tower[0] // 2, embedding_init=small, rngs=rngs)
        self.layers = nnx.List(
            nnx.Linear(n, m, kernel_init=glorot, rngs=rngs) for n, m in itertools.pairwise(tower)
        )
        lecun = nnx.initializers.lecun_uniform()
        self.prediction = nnx.Linear(tower[-1], 1, kernel_init=lecun, rngs=rngs)

    def __call__(self, users: jax.Array, items: jax.Array) -> jax.Array:
        """`(batch,)` users and `(batch,)` items, int32 -> `(batch,)` logits."""
        return self.predict_from_hidden(self.embed(users, items))

    def embed(self, users: jax.Array, items: jax.Array) -> jax.Array:
        """Return both embeddings through the first layer's kernel, `(batch, tower[1])`."""
        of_users, of_items = jnp.split(self.layers[0].kernel[...], 2)
        x = _rows_times(self.users.embedding[...], users, of_users)
        return x + _rows_times(self.items.embedding[...], items, of_items)

    def predict_from_hidden(self, x: jax.Array) -> jax.Array:
        """Return `(batch,)` logits from what `embed` returns, through the rest of the tower."""
        first, *others = self.layers
        x = nnx.relu(x + first.bias)
        for layer in others:
            x = nnx.relu(layer(x))
        return self.prediction(x)[:, 0]


def _rows_times(table: jax.Array, rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return `table[rows] @ kernel`, each row multiplied once where it is taken more often."""
    if len(rows) < len(table):
        return table[rows] @ kernel
    return (table @ kernel)[rows]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ranking:
    """The task: to tell each user's interactions from what is drawn beside them.

    An epoch is every interaction once and `NEGATIVES` times as many pairs drawn afresh, uniformly
    from the items its user has not interacted with, all in a new order. Batches are counted in
    these examples; the last of an epoch is smaller if they do not divide.

    Attributes:
      users: `(n,)` int32, of each interaction, ascending.
      items: `(n,)` int32.
      offsets: `(num_users + 1,)` int32, where each user's interactions begin.
      draws: `(n,)` int32, ascending: `user * num_items + unobserved_below`.
      candidates: `(num_users, 100)` int32, the held-out item and those to rank it among.
      validation: `(num_users, 100)` int32, the same to choose settings by; `(0, 100)` for none.
      num_items: how many items there are.
      batch_size: examples in a batch.
      tower: the widths of the model.
      gamma: of the focal loss; None for cross-entropy.
      label_smoothing: how much of a label's probability goes to the other one.
      bounded_weight_norm: whether the model is `BoundedWeightNorm`.
    """

    users: jax.Array
    items: jax.Array
    offsets: jax.Array
    draws: jax.Array
    candidates: jax.Array
    validation: jax.Array
    num_items: int = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})
    tower: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    gamma: float | None = dataclasses.field(metadata={"static": True})
    label_smoothing: float = dataclasses.field(default=0.0, metadata={"static": True})
    bounded_weight_norm: bool = dataclasses.field(default=False, metadata={"static": True})
    score = f"hr_at_{TOP}"
    vmaps_runs = True
    layout = Layout(ends=("embedding", "prediction"))

    @property
    def num_examples(self) -> int:
        """Return how many positives and negatives an epoch has."""
        return (1 + NEGATIVES) * len(self.users)

    @property
    def held_out(self) -> dict[str, jax.Array]:
        """Return what is ranked, by what the names of its scores begin with."""
        ranked = {"": self.candidates, VALIDATION: self.validation}
        return {prefix: candidates for prefix, candidates in ranked.items() if len(candidates)}

    @property
    def steps_per_epoch(self) -> int:
        """Return how many batches an epoch has, the smaller one included."""
        return math.ceil(self.num_examples / self.batch_size)

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Return the network."""
        model = NCF(len(self.candidates), self.num_items, self.tower, rngs)
        return BoundedWeightNorm(model) if self.bounded_weight_norm else model

    def negatives(self, key: jax.Array) -> jax.Array:
        """Draw items for the users of the interactions, `(n, NEGATIVES)` int32."""
        begin, end = self.offsets[self.users], self.offsets[self.users + 1]
        free = self.num_items - (end - begin)
        r = jax.random.randint(key, (len(self.users), NEGATIVES), 0, free[:, None])
        # `r + sum(unobserved_below[begin:end] <= r)`: the users before come before in `draws`.
        query = self.users[:, None] * self.num_items + r
        return r + jnp.searchsorted(self.draws, query, side="right") - begin[:, None]

    def batches(self, key: jax.Array) -> Batch:
        """Draw users, items, their labels and weights, `(steps_per_epoch, batch)` each."""
        draw_key, order_key = jax.random.split(key)
        items = jnp.column_stack([self.items, self.negatives(draw_key)]).ravel()
        n = self.num_examples
        order = cpu.random_permutation(order_key, n)
        # The last batch is filled up with others of the epoch, which weigh nothing.
        filled = jnp.arange(self.steps_per_epoch * min(self.batch_size, n))
        order, real = order[filled % n], (filled < n).reshape(self.steps_per_epoch, -1)
        weights = real / jnp.mean(real, axis=1, keepdims=True)
        row, column = jnp.divmod(order, 1 + NEGATIVES)
        batched = lambda x: x.reshape(real.shape)
        return batched(self.users[row]), batched(items[order]), batched(column == 0), weights

    def loss(self, model: NCF, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Return losses, of weight 1 on average, and margins, `(batch,)` each."""
        users, items, labels, weights = batch
        logits = model(users, items)
        targets = jnp.where(labels, 1 - self.label_smoothing, self.label_smoothing)
        if self.gamma is None:
            losses = optax.sigmoid_binary_cross_entropy(logits, targets)
        else:
            losses = optax.sigmoid_focal_loss(logits, targets, gamma=self.gamma)
        return weights * losses, metrics.logit_margin(logits, labels)

    def evaluate(self, model: NCF) -> dict[str, jax.Array]:
        """Return hit ratio and NDCG of the held-out items."""
        found = {}
        for prefix, candidates in self.held_out.items():
            scores = self.scores(model, candidates)
            found[f"{prefix}hr_at_{TOP}"] = metrics.hit_ratio(scores, k=TOP)
            found[f"{prefix}ndcg_at_{TOP}"] = metrics.ndcg(scores, k=TOP)
        return found

    def scores(self, model: NCF, candidates: jax.Array) -> jax.Array:
        """Return `(num_users, 100)` logits of candidates, the held-out item's first."""
        users = jnp.arange(len(candidates))
        users = jnp.broadcast_to(users[:, None], candidates.shape)
        scores = model(users.ravel(), candidates.ravel()).reshape(users.shape)
        # A published negative may be the held-out item itself, which is no rival of its own.
        same = candidates[:, 1:] == candidates[:, :1]
        return scores.at[:, 1:].set(jnp.where(same, -jnp.inf, scores[:, 1:]))

    def score_examples(self, model: NCF) -> dict[str, jax.Array]:
        """Return whether each held-out item is among the first ten, `(num_users,)` bools."""
        hit = jax.vmap(lambda scores: metrics.hit_ratio(scores[None], k=TOP) > 0)
        return {f"{prefix}hits": hit(self.scores(model, c)) for prefix, c in self.held_out.items()}


def make_task(
    data: Interactions,
    batch_size: int,
    tower: tuple[int, ...],
    gamma: float | None,
    label_smoothing: float = 0.0,
    bounded_weight_norm: bool = False,
) -> Ranking:
    """Put interactions on the device; for the arguments see `Ranking`."""
    if len(tower) < 2 or tower[0] % 2:
        raise ValueError(f"tower={tower} must have two widths or more, of which the first is even.")
    users, items = data.train.T
    if data.num_users * data.num_items >= 2**31:
        raise ValueError(f"{data.num_users} users times {data.num_items} items exceed 31 bits.")
    draws = users * data.num_items + data.unobserved_below
    return Ranking(
        users=jnp.asarray(users),
        items=jnp.asarray(items),
        offsets=jnp.asarray(data.offsets),
        draws=jnp.asarray(draws),
        candidates=jnp.asarray(data.candidates),
        validation=jnp.asarray(data.validation),
        num_items=data.num_items,
        batch_size=batch_size,
        tower=tower,
        gamma=gamma,
        label_smoothing=label_smoothing,
        bounded_weight_norm=bounded_weight_norm,
    )
