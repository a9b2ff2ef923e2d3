"""The code in README and in the guides runs as it stands."""

import re
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

import lawn_optax as lo

ROOT = Path(__file__).parent.parent
GUIDES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def blocks(document: Path) -> list[str]:
    """Returns the blocks of Python in a document."""
    found = re.findall(r" *```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    return [textwrap.dedent(block) for block in found]


BLOCKS = blocks(ROOT / "README.md")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide(guide):
    names = {}
    for block in blocks(ROOT / "docs" / guide):
        exec(block, names)


def test_the_guide_explains_every_name_of_a_report():
    guide = ROOT / "docs" / "choosing.md"
    names = {}
    for block in blocks(guide):
        exec(block, names)
    told = re.findall(r"`([\w/]+)`", "".join(re.findall(r"^\| (`.*?) \|", guide.read_text(), re.M)))
    assert set(told) == {name.replace("kernel", "PATH") for name in names["report"]}


def test_a_newcomer_reads_the_readme_in_minutes():
    prose = re.sub(
        r"```.*?```|<!-- ([\w-]+) -->.*?<!-- /\1 -->",
        "",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    assert len(prose.split()) < 900


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
    tx = lo.adam_lawn(1e-3, lo.at_flattening())
    names = {
        "lo": lo,
        "optax": optax,
        "steps_per_epoch": 10,
        "specs": PartitionSpec("data"),
        "params": params,
        "grads": params,
        "tx": tx,
        "state": tx.init(params),
        "loss": jnp.float32(0.7),
    }
    assert len(BLOCKS) == 3
    for block in BLOCKS[1:]:
        exec(block, names)
    assert names["state"].steps == 1
