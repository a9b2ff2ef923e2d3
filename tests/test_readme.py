"""The README's code runs as it stands."""

import re
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from helpers import norm

import lawn_optax as lo

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(r" *```python\n(.*?)```", README, flags=re.DOTALL)
]


class Network(nnx.Module):
    """One hidden layer."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 8, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


def test_the_ten_lines_that_a_flax_user_adds():
    model = Network(nnx.Rngs(0))
    x, y = jax.random.normal(jax.random.key(0), (16, 3)), jnp.arange(16) % 4

    def loss_fn(model, batch):
        return optax.softmax_cross_entropy_with_integer_labels(model(batch[0]), batch[1]).mean()

    names = {"nnx": nnx, "model": model, "loss_fn": loss_fn, "steps_per_epoch": 1}
    exec(BLOCKS[0], names)
    norms = []
    for _ in range(9):
        assert names["train_step"](model, names["optimizer"], (x, y)) > 0
        norms.append(norm(model.head.kernel[...]))
    assert max(norms[4:]) / min(norms[4:]) - 1 < 3e-6
    assert abs(norms[4] / norms[0] - 1) > 1e-6


def test_every_other_block():
    params = {
        "embedding": jnp.ones((5, 3)),
        "blocks": {"kernel": jnp.ones((2, 3, 3))},
        "head": {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)},
    }
    tx = lo.adam_lawn(1e-3, lo.at_median_margin())
    names = {
        "lo": lo,
        "optax": optax,
        "steps_per_epoch": 10,
        "params": params,
        "grads": params,
        "tx": tx,
        "state": tx.init(params),
        "logits": jnp.ones((6, 4)),
        "labels": jnp.zeros(6, int),
    }
    blocks = [block for block in BLOCKS[1:] if not block.startswith(">>>")]
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert names["state"].steps == 1
