"""Layers stacked along leading axes, as Flax NNX, Linen and Equinox stack them."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import lawn_optax as lo
from tests.helpers import norm, train

LAYERS, WIDTH = 4, 8


def of_nnx():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
            self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
            self.batch = nnx.BatchNorm(WIDTH, rngs=rngs)

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.vmap(Block)(rngs.split(LAYERS))
            self.head = nnx.Linear(WIDTH, 2, rngs=rngs)

    return nnx.state(Model(nnx.Rngs(0)), nnx.Param)


def of_linen():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.LayerNorm(name="norm")(nn.Dense(WIDTH, name="linear")(x)), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            blocks = nn.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS
            )
            x, _ = blocks(name="blocks")(x, None)
            return nn.Dense(2, name="head")(x)

    return Model().init(jax.random.key(0), jnp.ones((3, WIDTH)))["params"]


def of_equinox():
    class Block(eqx.Module):
        linear: eqx.nn.Linear
        norm: eqx.nn.LayerNorm

        def __init__(self, key):
            self.linear = eqx.nn.Linear(WIDTH, WIDTH, key=key)
            self.norm = eqx.nn.LayerNorm(WIDTH)

    class Model(eqx.Module):
        blocks: Block
        head: eqx.nn.Linear

    keys = jax.random.split(jax.random.key(0), LAYERS)
    model = Model(eqx.filter_vmap(Block)(keys), eqx.nn.Linear(WIDTH, 2, key=keys[0]))
    return eqx.filter(model, eqx.is_inexact_array)


MODELS = {"nnx": of_nnx, "linen": of_linen, "equinox": of_equinox}
STACKED = {
    "a name": "blocks",
    "names": ("blocks",),
    "a dict": {"blocks": 1},
    "a pattern": {"bl*": 1},
    "axes": {"blocks": (0,)},
    "a callable": lambda params: {"blocks": 1},
}


def constrained(params, **where):
    return {row.path: row for row in lo.describe(params, **where) if row.constrained}


@pytest.mark.parametrize("framework", MODELS)
def test_without_stacked_neither_biases_nor_scales_are_constrained(framework):
    paths = constrained(MODELS[framework]())
    assert {path.split("/")[0:2][-1] for path in paths} == {"linear", path_of_head(framework)}
    assert len(paths) == 2


def path_of_head(framework):
    return "weight" if framework == "equinox" else "kernel"


@pytest.mark.parametrize("stacked", STACKED)
@pytest.mark.parametrize("framework", MODELS)
def test_a_stacked_kernel_has_a_norm_per_layer(framework, stacked):
    rows = constrained(MODELS[framework](), stacked=STACKED[stacked])
    shapes = {path.split("/")[0]: row.norm.shape for path, row in rows.items()}
    assert shapes == {"blocks": (LAYERS,), "head": ()}
    assert {row.reason for row in rows.values()} == {"rank 2 per layer", "rank 2"}


@pytest.mark.parametrize("make", [lo.adam_lawn, lo.lamb_lawn])
def test_stacked_layers_train_as_layers_apart(make):
    key = jax.random.key(1)
    kernels = jax.random.normal(key, (LAYERS, WIDTH, WIDTH))
    biases = jax.random.normal(key, (LAYERS, WIDTH))
    apart = {str(i): {"kernel": kernels[i], "bias": biases[i]} for i in range(LAYERS)}
    together = {"blocks": {"kernel": kernels, "bias": biases}}
    gradient = lambda t, params: jax.tree.map(lambda w: jnp.sin(3 * w + t), params)
    ours, state = train(make(0.05, 2, stacked="blocks"), together, gradient, 6)
    theirs, _ = train(make(0.05, 2), apart, gradient, 6)
    for a, b in zip(ours, theirs, strict=True):
        for i in range(LAYERS):
            for name in ("kernel", "bias"):
                np.testing.assert_allclose(
                    a["blocks"][name][i], b[str(i)][name], rtol=1e-5, atol=1e-6
                )
    assert state.norms["blocks/kernel"].shape == (LAYERS,)


def test_every_link_and_preset_takes_stacked():
    params = {"blocks": {"kernel": jnp.ones((LAYERS, 3, 2)), "bias": jnp.ones((LAYERS, 2))}}
    makers = {
        "adam_lawn": lambda **kw: lo.adam_lawn(0.1, 0, **kw),
        "lamb_lawn": lambda **kw: lo.lamb_lawn(0.1, 0, **kw),
        "sgd_lawn": lambda **kw: lo.sgd_lawn(0.1, 0, **kw),
        "lamb_plus": lambda **kw: lo.lamb_plus(0.1, **kw),
        "hyperball": lambda **kw: lo.hyperball(optax.identity(), 0.1, **kw),
        "lawn": lambda **kw: lo.lawn(optax.sgd(0.1), 0, **kw),
        "project": lo.project_to_tangent,
        "rescale": lo.rescale_to_norms,
        "trust ratio": lo.scale_by_capped_trust_ratio,
    }
    grads = jax.tree.map(lambda w: jnp.cumsum(w, axis=0), params)  # another one for each layer
    for name, make in makers.items():
        tx = make(stacked="blocks")
        updates, _ = tx.update(grads, tx.init(params), params)
        layer = lambda tree, i: jax.tree.map(lambda x: x[i], tree["blocks"])
        for i in range(LAYERS):
            single = make()
            w, g = layer(params, i), layer(grads, i)
            expected, _ = single.update(g, single.init(w), w)
            for key in expected:
                np.testing.assert_allclose(
                    layer(updates, i)[key], expected[key], rtol=1e-5, atol=1e-6, err_msg=name
                )


def test_axes_are_those_of_a_single_layer():
    params = {"blocks": {"kernel": jnp.ones((LAYERS, 3, 2))}, "head": {"kernel": jnp.ones((3, 2))}}
    rows = constrained(params, stacked="blocks", axes=0)
    assert {path: row.norm.shape for path, row in rows.items()} == {
        "blocks/kernel": (LAYERS, 2),
        "head/kernel": (2,),
    }
    assert rows["blocks/kernel"].axes == (1,)


def test_the_longest_pattern_speaks_of_experts_within_blocks():
    params = {
        "blocks": {
            "experts": {"kernel": jnp.ones((LAYERS, 5, 3, 2)), "bias": jnp.ones((LAYERS, 5, 2))},
            "router": {"kernel": jnp.ones((LAYERS, 3, 5))},
        }
    }
    rows = constrained(params, stacked={"blocks": 1, "blocks/experts": 2})
    assert {path: row.norm.shape for path, row in rows.items()} == {
        "blocks/experts/kernel": (LAYERS, 5),
        "blocks/router/kernel": (LAYERS,),
    }


@pytest.mark.parametrize(
    "name",
    ["bias", "scale", "offset", "layernorm_scale", "bias_ih", "in_proj_bias", "norm_scale"],
)
def test_a_matrix_named_as_a_bias_or_a_scale_is_free(name):
    params = {"attention": {name: jnp.ones((4, 8)), "kernel": jnp.ones((4, 8))}}
    assert list(constrained(params)) == ["attention/kernel"]


@pytest.mark.parametrize("name", ["kernel", "embedding", "w", "weight", "biased", "rescale", "b"])
def test_other_names_of_matrices_are_constrained(name):
    assert list(constrained({"layer": {name: jnp.ones((4, 8))}})) == [f"layer/{name}"]


def test_haiku_calls_a_bias_b():
    params = {"blocks/~/linear": {"w": jnp.ones((4, 8, 8)), "b": jnp.ones((4, 8))}}
    assert list(constrained(params)) == ["blocks/~/linear/w"]


def test_a_mask_may_still_constrain_a_stacked_bias():
    params = {"blocks": {"bias": jnp.ones((4, 8))}}
    rows = constrained(params, stacked="blocks", mask={"blocks": True})
    assert rows["blocks/bias"].norm.shape == (4,)
    assert rows["blocks/bias"].reason == "mask"


@pytest.mark.parametrize(
    ("stacked", "error", "message"),
    [
        ("blokcs", ValueError, r"pattern 'blokcs' matches no parameter"),
        ({"blocks": -1}, ValueError, r"stacked has -1 for 'blocks': give how many leading axes"),
        ({"blocks": (1,)}, ValueError, r"stacked has \(1,\) for 'blocks'"),
        ({"blocks": 0}, ValueError, r"stacks nothing"),
        (True, TypeError, r"stacked=True must be a number of leading axes"),
        (1.5, TypeError, r"stacked=1.5 must be"),
        ({"blocks": "x"}, (TypeError, ValueError), r"'x'"),
    ],
)
def test_a_mistake_in_stacked_is_named(stacked, error, message):
    params = {"blocks": {"kernel": jnp.ones((4, 3, 2))}}
    with pytest.raises(error, match=message):
        lo.adam_lawn(0.1, 0, stacked=stacked).init(params)


def test_norms_stay_per_layer_after_the_switch():
    params = of_nnx()
    gradient = lambda t, params: jax.tree.map(lambda w: jnp.cos(5 * w + t), params)
    history, _ = train(lo.adam_lawn(0.1, 2, stacked="blocks"), params, gradient, 6)
    norms = [norm(p["blocks"]["linear"]["kernel"][...], (1, 2)) for p in history]
    np.testing.assert_allclose(norms[-1], norms[1], rtol=3e-6)
    assert np.ptp(norms[1]) > 0
