"""The README's code runs as it stands."""

import re
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import PartitionSpec

import lawn_optax as lo

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(r" *```python\n(.*?)```", README, flags=re.DOTALL)
]


def test_the_script_that_a_flax_user_starts_from(capsys):
    names = {}
    exec(BLOCKS[0], names)
    assert names["loss"] < 0.2
    for row in lo.describe(nnx.state(names["model"], nnx.Param), names["optimizer"].opt_state):
        assert row.constrained == row.path.endswith("kernel")
        if row.constrained:
            np.testing.assert_allclose(row.norm, row.captured, rtol=3e-6)


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
        "specs": PartitionSpec("data"),
        "params": params,
        "grads": params,
        "tx": tx,
        "state": tx.init(params),
        "logits": jnp.ones((6, 4)),
        "labels": jnp.zeros(6, int),
    }
    assert len(BLOCKS) == 4
    for block in BLOCKS[1:]:
        exec(block, names)
    assert names["state"].steps == 1
