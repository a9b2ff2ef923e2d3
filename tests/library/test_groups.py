"""Which leaf goes to which optimizer of AdamH and MuonH, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from tests.library.test_stacked import MODELS


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("attn_gated_norm/w_up", "matrix"),
        ("embed_gated_norm/w_up", "matrix"),
        ("overhead/kernel", "matrix"),
        ("attention/heads/kernel", "matrix"),
        ("attention/head/kernel", "matrix"),
        ("MultiHeadDotProductAttention_0/head/kernel", "matrix"),
        ("block/self_attn/head_proj/kernel", "matrix"),
        ("block/attn/out_head", "matrix"),
        ("attention_head/kernel", "matrix"),
        ("multi_head/w_q", "matrix"),
        ("encoder/multi_head/kernel", "matrix"),
        ("attention_pool/head/kernel", "head"),
        ("vit/attn_0/mlp/policy_head/kernel", "head"),
        ("patch_embed/proj/kernel", "matrix"),
        ("patch_embed/kernel", "embedding"),
        ("embed/embedding", "embedding"),
        ("tok_embeddings/weight", "embedding"),
        ("Transformer/posembed_input/pos_embedding", "embedding"),
        ("lm/~/wte/embeddings", "embedding"),
        ("head/kernel", "head"),
        ("lm_head/weight", "head"),
        ("decoder/logits/kernel", "head"),
        ("norm/scale", "other"),
        ("relative_attention_bias", "other"),
    ],
)
def test_leaves_are_sorted_by_whole_names(name, group):
    (leaf,) = lo.describe_groups({name: jnp.ones((4, 4))})
    assert (leaf.path, leaf.group) == (name, group)


@pytest.mark.parametrize("model", MODELS)
def test_the_frameworks_models_are_sorted(model):
    params = MODELS[model]()
    groups = {leaf.path: leaf.group for leaf in lo.describe_groups(params, stacked="blocks")}
    matrices = [path for path, group in groups.items() if group == "matrix"]
    heads = [path for path, group in groups.items() if group == "head"]
    kernel = "weight" if model == "equinox" else "kernel"
    assert (matrices, heads) == ([f"blocks/linear/{kernel}"], [f"head/{kernel}"])
    tx = lo.muon_h(0.1, 0.1, stacked="blocks")
    noise = lambda w: jnp.cos(jnp.arange(1.0, w.size + 1)).reshape(w.shape)
    updates, state = jax.jit(tx.update)(jax.tree.map(noise, params), tx.init(params), params)
    after = lo.describe(optax.apply_updates(params, updates), state, stacked="blocks")
    assert [leaf.path for leaf in after if leaf.constrained] == matrices
    (of_layers,) = (leaf for leaf in after if leaf.constrained)
    np.testing.assert_allclose(of_layers.norm, of_layers.captured, rtol=1e-6)
    assert of_layers.norm.shape == (4,)


def of_linen():
    from flax import linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.LayerNorm()(nn.Embed(5, 4)(tokens))
            x = nn.MultiHeadAttention(2)(nn.MultiHeadDotProductAttention(2)(x))
            x = nn.MultiHeadDotProductAttention(2, name="multi_head")(x)
            x = nn.RNN(nn.LSTMCell(4))(nn.Conv(4, (3,))(x))
            return nn.Dense(5, name="lm_head")(nn.DenseGeneral(4)(x))

    return Model().init(jax.random.key(0), jnp.zeros((2, 3), int))["params"]


def of_nnx():
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(5, 4, rngs=rngs)
            self.multi_head = nnx.MultiHeadAttention(2, 4, rngs=rngs)
            self.multi_head_attention = nnx.MultiHeadAttention(2, 4, rngs=rngs)
            self.norm = nnx.LayerNorm(4, rngs=rngs)
            self.cell = nnx.LSTMCell(4, 4, rngs=rngs)
            self.lm_head = nnx.Linear(4, 5, rngs=rngs)

    return nnx.state(Model(nnx.Rngs(0)), nnx.Param)


def of_equinox():
    eqx = pytest.importorskip("equinox")
    key = jax.random.key(0)
    model = {
        "embed": eqx.nn.Embedding(5, 4, key=key),
        "multi_head": eqx.nn.MultiheadAttention(2, 4, key=key),
        "cell": eqx.nn.GRUCell(4, 4, key=key),
        "norm": eqx.nn.LayerNorm(4),
        "lm_head": eqx.nn.Linear(4, 5, key=key),
    }
    return eqx.filter(model, eqx.is_inexact_array)


def of_haiku():
    """The names that Haiku's modules have, which is not installed here."""
    w = jnp.ones((4, 4))
    attention = ("query", "key", "value", "linear")
    return {
        "model/~/embed": {"embeddings": w},
        **{f"model/~/multi_head_attention/{name}": {"w": w, "b": w[0]} for name in attention},
        **{f"model/~/multi_head/{name}": {"w": w} for name in attention},
        "model/~/lstm/linear": {"w": w, "b": w[0]},
        "model/~/layer_norm": {"scale": w[0], "offset": w[0]},
        "model/~/lm_head": {"w": w, "b": w[0]},
    }


@pytest.mark.parametrize("make", [of_linen, of_nnx, of_equinox, of_haiku])
def test_the_frameworks_own_modules_are_sorted_by_their_names(make):
    rows = lo.describe_groups(jax.eval_shape(make))
    assert sum(row.group == "matrix" for row in rows) >= 6
    for row in rows:
        names = row.path.lower()
        if len(row.shape) < 2 or names.endswith("bias"):
            assert row.group == "other", row
        elif "lm_head" in names:
            assert row.group == "head", row
        else:
            assert row.group == ("embedding" if "embed" in names else "matrix"), row


def test_an_embedding_is_told_by_its_class():
    eqx = pytest.importorskip("equinox")
    params = {"tokens": eqx.nn.Embedding(5, 3, key=jax.random.key(0))}
    (leaf,) = lo.describe_groups(eqx.filter(params, eqx.is_inexact_array))
    assert (leaf.path, leaf.group) == ("tokens/weight", "embedding")


NAMED = {
    "attn": {"attn_gate": jnp.ones((4, 2)), "attn_gated_norm": jnp.ones((4, 2))},
    "out": jnp.ones((2, 4)),
}


@pytest.mark.parametrize(
    "labels",
    [
        {"attn_gate": "other", "out": "head"},
        {"attn": "other", "attn/attn_gated_norm": "matrix", "ou*": "head"},
        {"attn": {"attn_gate": "other", "attn_gated_norm": "matrix"}, "out": "head"},
        lambda params: {"attn_gate": "other", "out": "head"},
    ],
)
def test_labels_override_by_whole_names(labels):
    groups = [leaf.group for leaf in lo.describe_groups(NAMED, labels=labels)]
    assert groups == ["other", "matrix", "head"]
    state = lo.adam_h(0.1, 0.1, labels=labels).init(NAMED)
    assert list(optax.tree.get(state, "norms")) == ["attn/attn_gated_norm"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": {"attn_gat": "other"}}, ValueError, r"'attn_gat' matches no parameter"),
        ({"labels": {"out": "heads"}}, ValueError, r"labels has 'heads' for parameter 'out'"),
        ({"labels": {"out": 3}}, TypeError, r"labels=.* must be a dict from names to labels"),
        ({"labels": "matrix"}, TypeError, r"labels='matrix' must be a dict"),
        ({"radius": 0.0}, ValueError, r"radius=0.0 must be a number from 1e-18 to 1e18"),
        ({"rms": -1.0}, ValueError, r"rms=-1.0 must be a number from"),
        ({"radius": 1e30}, ValueError, r"radius=1e\+30 must be a number from"),
        ({"radius": lambda count: 1.0}, ValueError, r"radius=<function .* must be a number from"),
        ({"rms": np.ones(2)}, ValueError, r"rms=array\(.* must be one number"),
        ({"groups": [optax.sgd(0.1)]}, TypeError, r"groups=.* must be a dict from labels"),
        (
            {"labels": {"out": "other", "attn": "head", "attn_gate": "other"}},
            ValueError,
            r"patterns 'attn', 'attn_gate' match one parameter .* say 'head', 'other': give one",
        ),
        ({"radius": 1.0, "rms": 1.0}, ValueError, r"radius=1.0 and rms=1.0: give one"),
        ({"head_learning_rate": np.inf}, ValueError, r"head_learning_rate=inf must be finite"),
        ({"groups": {"slow": optax.sgd}}, TypeError, r"groups\['slow'\]=.* must be an optax.Grad"),
    ],
)
def test_refuses_what_does_not_fit(options, error, message):
    for make in (lo.adam_h, lo.muon_h):
        with pytest.raises(error, match=message):
            make(0.1, 0.1, **options).init(NAMED)


@pytest.mark.parametrize("make", [lo.adam_h, lo.muon_h])
def test_a_matrix_of_integers_is_told_of_labels(make):
    params = {"a": jnp.ones((3, 3), int), "b": jnp.ones((3, 3))}
    with pytest.raises(
        TypeError, match=r"parameter 'a' has dtype int32 .* group in labels=.*set_t"
    ):
        make(0.1, 0.1).init(params)
    tx = make(0.1, 0.1, labels={"a": "fixed"}, groups={"fixed": optax.set_to_zero()})
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["a"], np.zeros((3, 3)))


def test_a_model_without_matrices_is_told():
    with pytest.warns(UserWarning, match="adam_h finds no matrix"):
        lo.adam_h(0.1, 0.1).init({"bias": jnp.ones(3), "head": jnp.ones((3, 2))})


def test_a_stacked_subtree_may_hold_no_matrix():
    params = {"blocks": {"kernel": jnp.ones((2, 3, 3))}, "norms": {"scale": jnp.ones((2, 3))}}
    lo.muon_h(0.1, 0.1, stacked=("blocks", "norms")).init(params)


def test_an_exact_name_goes_before_a_wildcard_and_a_bracket_is_one_of_a_name():
    params = {"router": jnp.ones((2, 2)), "w[0]": jnp.ones((2, 2))}
    group = lambda labels: [leaf.group for leaf in lo.describe_groups(params, labels=labels)]
    assert group({"*": "head", "router": "other"}) == ["other", "head"]
    assert group(dict.fromkeys(params, "head")) == ["head", "head"]
