"""Recommends identifiers to modules of Python's standard library: a task without a download.

A module is a user, an identifier an item, and a module that uses an identifier interacts with it.
Some of what each module uses is held out, to be ranked among identifiers that it does not use.
"""

import ast
import collections
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from examples.tasks import standard_library
from examples.tasks.recommendation.ranking import NCF, NEGATIVES, TOP
from examples.training import cpu
from examples.training.task import Layout
from lawn_optax import metrics

MIN_MODULES = 10  # That use an identifier, for it to count.
MIN_IDENTIFIERS = 20  # That a module uses, for it to count.
HELD_OUT = 0.1  # Of what a module uses, to choose by; as much again to report.
RIVALS = 99  # Identifiers that one held out is ranked among.


class HeldOut(NamedTuple):
    """What a model is evaluated on.

    Attributes:
      modules: `(n,)` int32.
      candidates: `(n, 1 + RIVALS)` int32: an identifier that the module uses, then its rivals.
    """

    modules: jax.Array
    candidates: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Identifiers:
    """The task: to tell the identifiers that a module uses from what is drawn beside them.

    An epoch is every pair once, with `NEGATIVES` identifiers drawn afresh from those that its
    module is not known to use. Batches are counted in these examples, negatives included.

    Attributes:
      modules: `(n,)` int32, of each pair to train on.
      identifiers: `(n,)` int32.
      unused: `(num_modules, num_identifiers)` int32: what each module is not known to use, first.
      num_unused: `(num_modules,)` int32, how many of these there are.
      validation: held out to choose by.
      test: held out to report.
      batch_size: examples per batch.
      tower: widths of the model, as `NCF` takes them.
    """

    modules: jax.Array
    identifiers: jax.Array
    unused: jax.Array
    num_unused: jax.Array
    validation: HeldOut
    test: HeldOut
    batch_size: int = dataclasses.field(metadata={"static": True})
    tower: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    score = f"hr_at_{TOP}"
    vmaps_runs = True
    layout = Layout(ends=("embedding", "prediction"))

    @property
    def pairs_per_batch(self) -> int:
        """Return how many pairs a batch has, without their negatives."""
        return self.batch_size // (1 + NEGATIVES)

    @property
    def steps_per_epoch(self) -> int:
        """Return how many whole batches there are."""
        return len(self.modules) // self.pairs_per_batch

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Return neural collaborative filtering."""
        modules, identifiers = self.unused.shape
        return NCF(modules, identifiers, self.tower, rngs)

    def batches(self, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return modules, identifiers and whether used: `(steps_per_epoch, batch_size)` each."""
        order_key, draw_key = jax.random.split(key)
        used = self.steps_per_epoch * self.pairs_per_batch
        order = cpu.random_permutation(order_key, len(self.modules))[:used]
        modules, positives = self.modules[order], self.identifiers[order]
        drawn = jax.random.randint(
            draw_key, (used, NEGATIVES), 0, self.num_unused[modules][:, None]
        )
        items = jnp.column_stack([positives, self.unused[modules[:, None], drawn]])
        modules = jnp.broadcast_to(modules[:, None], items.shape)
        labels = jnp.zeros(items.shape, bool).at[:, 0].set(True)
        batched = lambda x: x.reshape(self.steps_per_epoch, -1)
        return batched(modules), batched(items), batched(labels)

    def loss(self, model: NCF, batch: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        """Return cross-entropies and margins, `(batch_size,)` each."""
        modules, items, labels = batch
        logits = model(modules, items)
        losses = optax.sigmoid_binary_cross_entropy(logits, labels)
        return losses, metrics.logit_margin(logits, labels)

    def evaluate(self, model: NCF) -> dict[str, jax.Array]:
        """Return how what is held out ranks: HR@10 and NDCG@10, to choose by and to report."""
        modules, identifiers = map(jnp.arange, self.unused.shape)
        # A map, so that what a module's row takes stays in the cache of a CPU.
        row = lambda module: model(jnp.full_like(identifiers, module), identifiers)
        logits = jax.lax.map(row, modules)
        scores = {}
        for prefix, held_out in (("validation_", self.validation), ("", self.test)):
            of_candidates = logits[held_out.modules[:, None], held_out.candidates]
            scores[f"{prefix}hr_at_{TOP}"] = metrics.hit_ratio(of_candidates, k=TOP)
            scores[f"{prefix}ndcg_at_{TOP}"] = metrics.ndcg(of_candidates, k=TOP)
        return scores


def load(
    batch_size: int, tower: tuple[int, ...] = (64, 32, 16), split_seed: int = 0
) -> Identifiers:
    """Read the running Python's standard library and split what its modules use.

    Args:
      batch_size: examples per batch, of which one in five is a pair and the others its negatives.
      tower: widths of the model, the first those of both embeddings together.
      split_seed: decides what is held out, and its rivals.
    """
    folder = standard_library.folder()
    uses = table(dict(sources(folder)))
    if not uses.size:
        raise standard_library.missing(folder)
    return make_task(uses, batch_size, tower, split_seed)


def make_task(
    uses: np.ndarray, batch_size: int, tower: tuple[int, ...], split_seed: int
) -> Identifiers:
    """Split a table of uses, `(modules, identifiers)` bool; for the rest see `load`."""
    rng = np.random.default_rng(split_seed)
    known, parts = uses.copy(), []
    for _ in range(2):
        held_out, candidates = hold_out(uses, known, rng)
        known[held_out, candidates[:, 0]] = False
        parts.append(HeldOut(jnp.asarray(held_out), jnp.asarray(candidates)))
    validation, test = parts
    modules, identifiers = np.nonzero(known)
    smallest, largest = 1 + NEGATIVES, (1 + NEGATIVES) * len(modules)
    if not smallest <= batch_size <= largest:
        raise ValueError(f"batch_size={batch_size} must lie between {smallest} and {largest}.")
    return Identifiers(
        modules=jnp.asarray(modules, jnp.int32),
        identifiers=jnp.asarray(identifiers, jnp.int32),
        # A stable sort of booleans puts what is not used first, in its order.
        unused=jnp.asarray(np.argsort(known, axis=1, kind="stable"), jnp.int32),
        num_unused=jnp.asarray(np.sum(~known, axis=1), jnp.int32),
        validation=validation,
        test=test,
        batch_size=batch_size,
        tower=tower,
    )


def sources(folder: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield each module of a folder, its own tests left out, and the identifiers in its code."""
    for name, path in standard_library.modules(folder).items():
        try:
            nodes = list(ast.walk(ast.parse(path.read_bytes())))
        except SyntaxError:
            continue  # What this Python cannot parse is not a module of its library.
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        yield name, names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def table(uses: dict[str, set[str]]) -> np.ndarray:
    """Return `(modules, identifiers)` bool: which module uses which, rare ones left out."""
    modules_of = collections.Counter(name for names in uses.values() for name in names)
    columns = sorted(name for name, count in modules_of.items() if count >= MIN_MODULES)
    cells = [name in names for names in uses.values() for name in columns]
    rows = np.array(cells, bool).reshape(len(uses), len(columns))
    return rows[rows.sum(axis=1) >= MIN_IDENTIFIERS]


def hold_out(
    uses: np.ndarray, known: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw some of what each module is known to use, and rivals: what `HeldOut` has."""
    modules, candidates = [], []
    for module, row in enumerate(uses):
        count = max(1, round(HELD_OUT * row.sum()))
        for identifier in rng.choice(np.flatnonzero(known[module]), count, replace=False):
            rivals = rng.choice(np.flatnonzero(~row), RIVALS, replace=False)
            modules.append(module)
            candidates.append([identifier, *rivals])
    return np.array(modules, np.int32), np.array(candidates, np.int32)
