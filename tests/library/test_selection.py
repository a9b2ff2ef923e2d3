"""Masks and axes: every form they may have, and every mistake in them."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lawn_optax as lo
from lawn_optax._selection import Selection
from lawn_optax._spheres import Sphere
from tests.helpers import norm, train

PARAMS = {
    "encoder": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "head": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
}


def constrained(params, mask=None, axes=None):
    """Path to axes of each constrained leaf."""
    rows = lo.describe(params, mask=mask, axes=axes)
    return {row.path: row.axes for row in rows if row.constrained}


def test_kernels_and_embeddings_by_default():
    assert constrained(PARAMS) == {"encoder/kernel": (0, 1), "head/kernel": (0, 1)}


@pytest.mark.parametrize(
    "mask",
    [
        {"encoder": {"kernel": False, "bias": False}, "head": {"kernel": True, "bias": False}},
        {"encoder": False, "head": {"kernel": True, "bias": False}},
        lambda params: {"encoder": False, "head": {"kernel": True, "bias": False}},
        lo.only_paths("head"),
        lo.except_paths("encoder"),
        lo.only_paths("head/kernel"),
        lo.only_paths("he*/ker*"),
    ],
)
def test_every_form_of_a_mask(mask):
    assert constrained(PARAMS, mask) == {"head/kernel": (0, 1)}


def test_a_mask_may_constrain_a_bias():
    assert constrained(PARAMS, {"encoder": False, "head": True}) == {
        "head/kernel": (0, 1),
        "head/bias": (0,),
    }


def test_a_mask_fits_other_containers_of_the_same_names():
    from flax.core import freeze

    mask = jax.tree.map(lambda w: w.ndim == 2, PARAMS)
    assert constrained(freeze(PARAMS), mask) == constrained(PARAMS)


def test_path_patterns_match_whole_components():
    params = {"head": {"w": jnp.ones((2, 2))}, "overhead": {"w": jnp.ones((2, 2))}}
    assert set(constrained(params, lo.only_paths("head"))) == {"head/w"}
    assert set(constrained(params, lo.only_paths("*head"))) == {"head/w", "overhead/w"}


@pytest.mark.parametrize(
    "axes",
    [
        0,
        (0,),
        -2,
        {"encoder": 0, "head": 0},
        {"encoder": {"kernel": 0, "bias": None}, "head": {"kernel": (0,), "bias": None}},
        lambda params: 0,
    ],
)
def test_every_form_of_axes(axes):
    assert constrained(PARAMS, axes=axes) == {"encoder/kernel": (0,), "head/kernel": (0,)}


NESTED = {
    "embed": jnp.ones((5, 2)),
    "decoder": {"embed": {"w": jnp.ones((5, 2))}, "mlp": jnp.ones((2, 4))},
    "overhead": jnp.ones((2, 3)),
    "head": jnp.ones(3),
}


@pytest.mark.parametrize(
    ("axes", "embed", "decoder_embed", "mlp", "overhead"),
    [
        # Names: of several that match, the deepest; of none, all axes.
        ({"embed": 1}, (1,), (1,), (0, 1), (0, 1)),
        ({"head": 0, "mlp": (0,)}, (0, 1), (0, 1), (0,), (0, 1)),
        ({"*head": 0}, (0, 1), (0, 1), (0, 1), (0,)),
        ({"decoder": 0, "decoder/embed": 1}, (0, 1), (1,), (0,), (0, 1)),
        ({"decoder": {"embed": 1}, "embed": 0}, (0,), (1,), (0, 1), (0, 1)),
        ({"decoder": 0, "decoder/embed": None, "embed": 1}, (1,), (0, 1), (0,), (0, 1)),
        ({"*": 0, "embed": 1}, (1,), (1,), (0,), (0,)),
        (lambda params: {"mlp": 1}, (0, 1), (0, 1), (1,), (0, 1)),
        # A prefix with an entry for each parameter, where "embed" is the outer one.
        ({"decoder": 0, "embed": 1, "overhead": None, "head": 0}, (1,), (0,), (0,), (0, 1)),
    ],
)
def test_axes_by_name_or_by_prefix(axes, embed, decoder_embed, mlp, overhead):
    assert constrained(NESTED, axes=axes) == {
        "embed": embed,
        "decoder/embed/w": decoder_embed,
        "decoder/mlp": mlp,
        "overhead": overhead,
    }


def test_axes_may_name_what_another_optimizer_has():
    axes = {"embed": 1, "mlp": 0}
    tx = lo.adam_h(0.1, 0.1, labels={"mlp": "other"}, axes=axes)
    norms = optax.tree.get(tx.init(NESTED), "norms")
    assert {path: norm.shape for path, norm in norms.items()} == {"overhead": ()}


def test_axes_may_be_none_for_some():
    axes = {"encoder": None, "head": 1}
    assert constrained(PARAMS, axes=axes) == {"encoder/kernel": (0, 1), "head/kernel": (1,)}


def test_axes_of_a_tuple_of_parameters():
    params = (jnp.ones((2, 3)), jnp.ones((2, 3)))
    assert constrained(params, axes=(None, 1)) == {"0": (0, 1), "1": (1,)}
    assert constrained(params, axes=(0, 1)) == {"0": (0, 1), "1": (0, 1)}


class Pair(NamedTuple):
    """Parameters, a mask or axes, by name."""

    value: Any
    query: Any


def test_a_named_tuple_is_a_tree_not_the_axes_of_one_leaf():
    params = Pair(jnp.ones((3, 4)), jnp.ones((3, 4)))
    assert constrained(params, axes=Pair(0, 1)) == {"value": (0,), "query": (1,)}


def test_a_field_may_be_called_value():
    params = Pair(jnp.ones((3, 4)), jnp.ones((3, 4)))
    assert list(constrained(params, lo.only_paths("value"))) == ["value"]
    assert list(constrained({"a": params}, {"a": {"value": True, "query": False}})) == ["a/value"]


def test_a_module_may_be_the_mask():
    net = eqx.filter(eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0)), eqx.is_array)
    mask = jax.tree.map(lambda w: w.ndim == 2, net)
    assert set(constrained(net, mask)) == {"layers/0/weight", "layers/1/weight"}
    axes = jax.tree.map(lambda w: w.ndim - 1, net)
    assert set(constrained(net, axes=axes).values()) == {(1,)}


def test_patterns_match_inside_keys_that_hold_a_slash():
    params = {"mlp/~/linear_0": {"w": jnp.ones((2, 2))}, "mlp/~/linear_1": {"w": jnp.ones((2, 2))}}
    assert list(constrained(params, lo.only_paths("linear_0"))) == ["mlp/~/linear_0/w"]


def test_a_leaf_that_is_no_array_is_named():
    with pytest.raises(TypeError, match=r"parameter 'name' has dtype str"):
        constrained({"w": jnp.ones((2, 2)), "name": "x"}, {"w": True, "name": True})


def test_stacked_layers_have_a_norm_each():
    w = jax.random.normal(jax.random.key(0), (5, 3, 4))  # five layers
    tx = lo.adam_lawn(0.1, 0, axes=(1, 2))
    history, state = train(tx, w, lambda t, p: p + 1, 10)
    assert state.norms[""].shape == (5,)
    np.testing.assert_allclose(norm(history[-1], (1, 2)), norm(w, (1, 2)), rtol=3e-6)
    # Each layer trains as it would alone.
    alone, _ = train(lo.adam_lawn(0.1, 0), w[2], lambda t, p: p + 1, 10)
    np.testing.assert_allclose(history[-1][2], alone[-1], rtol=1e-5, atol=1e-6)


def test_masked_nodes_and_none_are_no_parameters():
    params = {"a": jnp.ones((2, 2)), "b": optax.MaskedNode(), "c": None}
    assert list(constrained(params)) == ["a"]
    mask = {"a": True, "b": True, "c": None}
    assert list(constrained(params, mask)) == ["a"]


def test_an_empty_tree_is_no_mistake():
    assert lo.describe({}) == ()


def test_spheres_carry_the_mesh_axis():
    spheres = Selection(axis_name="model").spheres(PARAMS)
    assert spheres["head/kernel"] == Sphere((0, 1), ("model",))


INTEGERS = {"w": jnp.ones((2, 2)), "table": jnp.ones((2, 2), jnp.int32)}
MISTAKES = {
    "mask lacks an entry": (
        PARAMS,
        {"mask": {"encoder": True}},
        ValueError,
        r"mask has no entry for parameter 'head/bias'.*Give mask the tree",
    ),
    "mask has one too many": (
        PARAMS,
        {"mask": {"encoder": True, "head": True, "tail": True}},
        ValueError,
        r"mask has an entry for 'tail', which is not a parameter.*Give mask the tree",
    ),
    "mask selects nothing": (
        PARAMS,
        {"mask": {"encoder": False, "head": False}},
        ValueError,
        r"mask=.* selects none of the 4 parameters.*pass mask= with True",
    ),
    "mask holds a number": (
        PARAMS,
        {"mask": {"encoder": 0.5, "head": True}},
        TypeError,
        r"mask has 0.5 for parameter 'encoder/bias'.*must be True or False",
    ),
    "mask holds an array": (
        PARAMS,
        {"mask": {"encoder": jnp.array(True), "head": True}},
        TypeError,
        r"mask has .* for parameter 'encoder/bias'.*must be True or False",
    ),
    "axes lack an entry": (
        [jnp.ones((2, 3)), jnp.ones((2, 3))],
        {"axes": [0]},
        ValueError,
        r"axes has no entry for parameter '1'",
    ),
    "axes have one too many": (
        PARAMS,
        {"axes": {"encoder": 0, "head": 0, "tail": 0}},
        ValueError,
        r"pattern 'tail' matches no parameter: they are 'encoder/bias', 'encoder/kernel', 'head",
    ),
    "axes name what is not there": (
        PARAMS,
        {"axes": {"haed": 0}},
        ValueError,
        r"pattern 'haed' matches no parameter: they are 'encoder/bias'",
    ),
    "axes by name out of range": (
        PARAMS,
        {"axes": {"encoder": 2}},
        ValueError,
        r"axes=2 is out of range for parameter 'encoder/kernel'.*dict from names to axes",
    ),
    "axes named twice": (
        PARAMS,
        {"axes": {"encoder": 0, "kernel": 1}},
        ValueError,
        r"patterns 'encoder', 'kernel' match one parameter .* and say 0, 1",
    ),
    "axes out of range": (
        PARAMS,
        {"axes": (1, 2)},
        ValueError,
        r"axes=\(1, 2\) is out of range for parameter 'encoder/kernel' of shape \(2, 3\)"
        r".*from -2 to 1",
    ),
    "axes negative out of range": (PARAMS, {"axes": -3}, ValueError, r"axes=-3 is out of range"),
    "axes twice": (PARAMS, {"axes": (0, -2)}, ValueError, r"axes=\(0, -2\).*names an axis twice"),
    "no axes": (PARAMS, {"axes": ()}, ValueError, r"axes=\(\).*names no axis"),
    "axes a float": (
        PARAMS,
        {"axes": 0.0},
        TypeError,
        r"axes=0.0 for parameter 'encoder/kernel': axes must be an integer or a tuple",
    ),
    "axes a bool": (
        PARAMS,
        {"axes": True},
        TypeError,
        r"axes=True .*must be an integer or a tuple",
    ),
    "integer leaf": (
        INTEGERS,
        {},
        TypeError,
        r"parameter 'table' has dtype int32 and cannot be kept on a sphere: give it False in mask=",
    ),
    "pattern matches nothing": (
        PARAMS,
        {"mask": lo.only_paths("haed")},
        ValueError,
        r"pattern 'haed' matches no parameter: they are 'encoder/bias'",
    ),
}


@pytest.mark.parametrize("make", ["lawn", "project", "rescale", "hyperball"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_before_any_work(mistake, make):
    params, options, error, message = MISTAKES[mistake]
    tx = {
        "lawn": lambda: lo.lawn(optax.sgd(0.1), 5, **options),
        "project": lambda: lo.project_to_tangent(**options),
        "rescale": lambda: lo.rescale_to_norms(**options),
        "hyperball": lambda: lo.hyperball(optax.identity(), 0.1, **options),
    }[make]()
    with pytest.raises(error, match=message):
        tx.init(params)


@pytest.mark.parametrize("make", ["lawn", "hyperball"])
def test_a_model_without_a_leaf_to_constrain_trains_freely_with_one_warning(make):
    params = {"bias": jnp.ones(3), "scale": jnp.ones((4, 3))}
    tx = {
        "lawn": lambda: lo.lawn(optax.sgd(0.1), 0),
        "hyperball": lambda: lo.hyperball(optax.identity(), 0.1),
    }[make]()
    with pytest.warns(UserWarning, match=r"No leaf is constrained.*pass mask=") as warned:
        state = tx.init(params)
    assert [found.filename for found in warned] == [__file__]
    updates, _ = tx.update(params, state, params)
    np.testing.assert_allclose(updates["scale"], -0.1 * params["scale"], rtol=1e-6)


def test_traced_axes_are_refused():
    make = optax.inject_hyperparams(lo.adam_lawn)
    with pytest.raises(
        TypeError, match=r"known before tracing \(under optax.inject_hyperparams, name"
    ):
        jax.eval_shape(make(0.1, 5, axes=0).init, PARAMS)


def test_an_integer_leaf_may_be_masked_out():
    assert list(constrained(INTEGERS, {"w": True, "table": False})) == ["w"]


def test_a_pattern_is_needed():
    with pytest.raises(ValueError, match=r"patterns=\(\): give at least one path"):
        lo.only_paths()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": lo.except_paths("x")}, "under optax.inject_hyperparams, static_args must name"),
        ({"stacked": 1}, "under optax.inject_hyperparams, name 'stacked' in static_args"),
    ],
)
def test_what_inject_hyperparams_takes_for_a_number_is_told(options, message):
    make = optax.inject_hyperparams(lo.adam_lawn)
    with pytest.raises(ValueError, match=f"(?i){message}"):
        make(learning_rate=0.1, switch=0, **options).init({"x": jnp.ones((2, 3))})
