"""Hyperball, AdamH and MuonH: published updates, and which norms are held."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import lawn_optax as lo
from tests import reference
from tests.helpers import max_difference, norm, train

Numbers = optax.contrib.MuonDimensionNumbers
SHAPES = {
    "blocks/kernel": (3, 6, 4),
    "blocks/bias": (3, 4),
    "first/kernel": (5, 6),
    "norm/scale": (6,),
    "wte": (9, 6),
    "lm_head/kernel": (6, 9),
}
MATRICES = ("blocks/kernel", "first/kernel")
RATES = {"wte": 0.3, "lm_head/kernel": 0.004, "blocks/bias": 0.02, "norm/scale": 0.02}
rate = lambda step: 0.03 / (1 + 0.1 * step)


def weights(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def pull(t, params):
    """A noisy quadratic, whose noise on a leaf does not depend on the others."""

    def of(name, w):
        rng = np.random.default_rng([t, *name.encode()])
        return (
            np.asarray(w)
            - 2 * np.cos(np.arange(w.size)).reshape(w.shape)
            + rng.normal(size=w.shape)
        )

    return {name: of(name, w) for name, w in params.items()}


def trained(tx, start, gradient=pull, steps=100):
    return train(tx, jax.tree.map(jnp.float64, start), gradient, steps)[0]


def published(start, direction, *, steps=100, names=MATRICES, axes=None, **adam):
    """The matrices by Hyperball around a direction, each other leaf by Adam at its own rate."""
    axes = axes or dict.fromkeys(names, (-2, -1))
    pick = lambda keep: {name: w for name, w in start.items() if keep(name)}
    history = reference.hyperball(
        pick(lambda n: n in names), pull, direction, rate, steps=steps, constrained=names, axes=axes
    )
    for name in start.keys() - set(names):
        rule = reference.Adam(RATES[name], **adam)
        alone = reference.train(
            pick(lambda n, own=name: n == own), pull, rule, steps=steps, switch=steps
        )
        history = [ours | leaf for ours, leaf in zip(history, alone, strict=True)]
    return history


@pytest.mark.parametrize("axes", [None, {"dense": (0,), "conv": (0, 1, 2), "embedding": (1,)}])
@pytest.mark.parametrize(
    ("inner", "rule"),
    [
        (optax.scale_by_adam(eps=1e-6), reference.Adam(0.0)),
        (optax.trace(0.9), reference.Sgd(0.0)),
    ],
)
def test_hyperball_follows_the_reference(inner, rule, axes, x64):
    start = weights({"dense": (6, 4), "conv": (3, 3, 2, 4), "embedding": (7, 3), "bias": (4,)})
    ours = trained(lo.hyperball(inner, rate, axes=axes), start, steps=50)
    expected = reference.hyperball(start, pull, rule, rate, steps=50, axes=axes)
    assert max_difference(ours, expected) < 1e-12


def test_hyperball_with_zero_slices_and_directions_stays_finite(x64):
    start = {"dense": np.array([[0.0, 1.0], [0.0, 2.0]])}
    gradient = lambda t, p: {"dense": np.array([[1.0, 0.0], [2.0, 0.0]])}
    rule = reference.Sgd(0.0, momentum=0.0)
    ours = trained(lo.hyperball(optax.identity(), 0.1, axes=0), start, gradient, 5)
    expected = reference.hyperball(start, gradient, rule, 0.1, steps=5, axes={"dense": (0,)})
    assert max_difference(ours, expected) < 1e-12


def test_hyperball_of_muon_holds_its_norms():
    start = jax.tree.map(jnp.float32, weights({"dense": (6, 4), "embedding": (7, 3)}))
    tx = lo.hyperball(optax.contrib.muon(learning_rate=-1.0), 0.05)
    history, _ = train(tx, start, pull, 10)
    for name in start:
        np.testing.assert_allclose(norm(history[-1][name]), norm(start[name]), rtol=3e-6)


def test_hyperball_refuses_what_is_no_optimizer():
    with pytest.raises(TypeError, match=r"inner=.* must be an optax.GradientTransformation"):
        lo.hyperball(optax.adam, 0.1)


ADAM = {"b1": 0.9, "b2": 0.95, "eps": 1e-8}
OTHERS = {
    "adam_learning_rate": 0.02,
    "embedding_learning_rate": 0.3,
    "head_learning_rate": lambda step: 0.004,
    "stacked": "blocks",
}


def test_adam_h_is_the_published_update_of_each_group(x64):
    start = weights(SHAPES)
    expected = published(start, reference.Adam(0.0, **ADAM), **ADAM)
    assert max_difference(trained(lo.adam_h(rate, **OTHERS), start), expected) < 1e-12


FIVE = ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"beta": 0.8, "nesterov": False}, {"beta": 0.8, "nesterov": False}),
        ({"ns_eps": 0.7}, {"eps": 0.7}),
        (
            {"ns_coeffs": (1.5, -0.5, 0.0), "ns_steps": 3},
            {"coefficients": ((1.5, -0.5, 0.0),) * 3},
        ),
        ({"ns_coeffs": FIVE, "ns_steps": 3}, {"coefficients": FIVE}),
    ],
)
def test_muon_h_is_the_published_update_of_each_group(ours, theirs, x64):
    start = weights(SHAPES)
    expected = published(start, reference.Muon(0.0, **theirs), **ADAM)
    assert max_difference(trained(lo.muon_h(rate, **OTHERS, **ours), start), expected) < 1e-10


def test_lawn_around_muon_follows_algorithm_1(x64):
    start = weights({"wide": (4, 6), "tall": (6, 4)})

    class WidthScaled(reference.Muon):
        """As `optax.contrib.muon`: times the root of outputs over inputs, where that is over 1."""

        def leaf(self, name, g):
            inputs, outputs = g.shape
            return np.sqrt(max(1, outputs / inputs)) * super().leaf(name, g)

    # Without an eps, for Optax has a moving average where the reference has a sum.
    tx = lo.lawn(optax.contrib.muon(rate, nesterov=False, eps=0.0), 5)
    rule = WidthScaled(rate, nesterov=False, eps=0.0)
    expected = reference.train(start, pull, rule, steps=100, switch=5)
    assert max_difference(trained(tx, start), expected) < 1e-10


def test_lamb_lawn_without_its_projections_is_adam_h(x64):
    start = weights({"a": (5, 6), "b": (6, 4)})
    ours = trained(lo.adam_h(rate, 0.0, b2=0.999, eps=1e-6), start)
    lamb_lawn = functools.partial(
        reference.train, start, pull, reference.Lamb(rate), steps=100, switch=0
    )
    assert max_difference(ours, lamb_lawn()) > 0.01
    assert max_difference(ours, lamb_lawn(project=False)) < 1e-12
    assert max_difference(ours, trained(lo.lamb_lawn(rate, 0, project=False), start)) < 1e-12


def test_adam_h_with_its_gradient_and_direction_projected_is_lamb_lawn(x64):
    start = weights({"a": (5, 6), "b": (6, 4)})
    project = lo.project_to_tangent()
    tx = optax.chain(
        project, lo.hyperball(optax.chain(optax.scale_by_adam(eps=1e-6), project), rate)
    )
    expected = trained(lo.lamb_lawn(rate, lo.at_step(0)), start)
    assert max_difference(trained(tx, start), expected) < 1e-12


def test_a_group_may_have_any_optimizer(x64):
    start = weights(SHAPES)
    groups = {
        "head": lo.hyperball(optax.scale_by_adam(b2=0.95), rate),
        "slow": optax.sgd(0.01),
    }
    tx = lo.muon_h(rate, 0.02, stacked="blocks", labels={"wte": "slow"}, groups=groups)
    last = trained(tx, start, steps=10)[-1]
    adam = reference.Adam(0.0, **ADAM)
    head = {"lm_head/kernel": start["lm_head/kernel"]}
    expected = reference.hyperball(head, pull, adam, rate, steps=10)[-1]
    assert max_difference({"lm_head/kernel": last["lm_head/kernel"]}, expected) < 1e-12
    wte = reference.train(
        {"wte": start["wte"]}, pull, reference.Sgd(0.01, momentum=0.0), steps=10, switch=10
    )
    assert max_difference({"wte": last["wte"]}, wte[-1]) < 1e-12


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ns_steps": 0}, ValueError, r"ns_steps=0 must be at least 1"),
        ({"ns_eps": -1.0}, ValueError, r"ns_eps=-1.0 must be finite and at least 0"),
        (
            {"ns_coeffs": (1.0, 2.0), "weight_dimension_numbers": Numbers(1, 2)},
            ValueError,
            r"ns_coeffs must have shape",
        ),
        ({}, ValueError, r"parameter 'w' has 3 axes per layer, and muon_h orthogonalises"),
        ({"weight_dimension_numbers": {"w": 1}}, TypeError, r"must be an optax.contrib.Muon"),
        ({"weight_dimension_numbers": {"v": Numbers()}}, ValueError, r"'v' matches no parameter"),
        *(
            (
                {"weight_dimension_numbers": numbers},
                ValueError,
                r"for parameter 'w': each side must",
            )
            for numbers in (Numbers(0, 5), Numbers((0, 1), -2), Numbers(0.5, 1), Numbers((), 1))
        ),
    ],
)
def test_muon_h_refuses_what_does_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        lo.muon_h(0.1, 0.1, **options).init({"w": jnp.ones((2, 3, 4))})


# Which norms are held.


def test_one_norm_per_expert_or_one_over_all_experts_of_a_layer(x64):
    start = weights({"blocks/experts/kernel": (2, 3, 6, 4)})
    names = ("blocks/experts/kernel",)
    for stacked, numbers, axes in (
        ({"blocks": 1, "blocks/experts": 2}, None, (2, 3)),
        ({"blocks": 1}, {"experts": Numbers(1, 2)}, (1, 2, 3)),
    ):
        tx = lo.muon_h(rate, 0.02, stacked=stacked, weight_dimension_numbers=numbers)
        history = trained(tx, start)
        of_muon = {"axes": dict.fromkeys(names, axes), "names": names}
        expected = published(start, reference.Muon(0.0), **of_muon)
        assert max_difference(history, expected) < 1e-10
        ours = trained(lo.adam_h(rate, 0.02, stacked=stacked), start)
        expected = published(start, reference.Adam(0.0, **ADAM), **of_muon)
        assert max_difference(ours, expected) < 1e-12
        per_expert = [norm(w[names[0]], (2, 3)) for w in (start, history[-1])]
        assert np.allclose(*per_expert, rtol=1e-12) == (len(axes) == 2)


def test_norms_per_neuron_or_short_axis_around_the_direction_of_a_matrix(x64):
    start = weights({"tall/kernel": (6, 4), "wide/kernel": (4, 6)})
    names = tuple(start)
    for axes in ({"tall/kernel": 0, "wide/kernel": 0}, {"tall/kernel": 1, "wide/kernel": 0}):
        over = {name: (axis,) for name, axis in axes.items()}
        expected = published(start, reference.Muon(0.0), names=names, axes=over)
        assert max_difference(trained(lo.muon_h(rate, 0.02, axes=axes), start), expected) < 1e-10


def test_a_leaf_of_more_axes_is_turned_as_the_matrix_that_it_is_said_to_be(x64):
    start = weights({"query": (6, 2, 3)})
    flat = {"query": start["query"].reshape(6, 6)}
    tx = lo.muon_h(rate, 0.0, weight_dimension_numbers={"query": Numbers(0, (1, 2))})
    ours = trained(tx, start, lambda t, p: {"query": np.sin(t + start["query"])}, 20)
    expected = reference.hyperball(
        flat, lambda t, p: {"query": np.sin(t + flat["query"])}, reference.Muon(0.0), rate, steps=20
    )
    for w, matrix in zip(ours, expected, strict=True):
        np.testing.assert_allclose(w["query"].reshape(6, 6), matrix["query"], atol=1e-10)


@pytest.mark.parametrize("axes", [None, 0])
@pytest.mark.parametrize("given", ["radius", "rms"])
@pytest.mark.parametrize("make", [lo.adam_h, lo.muon_h])
def test_a_given_radius_is_that_of_weights_brought_there_at_the_start(make, given, axes, x64):
    start = weights({"a": (5, 6), "b": (6, 4)})
    over = axes if axes is None else (axes,)
    c = {
        n: 0.7 * (np.sqrt(w.size if over is None else len(w)) if given == "rms" else 1.0)
        for n, w in start.items()
    }
    brought = {n: c[n] * reference.unit(w, over) for n, w in start.items()}
    # Gradients that do not ask where the weights are: those of the first update would differ.
    noise = lambda t, params: pull(t, {name: 0 * w for name, w in params.items()})
    ours = trained(make(rate, 0.02, axes=axes, **{given: 0.7}), start, noise)
    expected = trained(make(rate, 0.02, axes=axes), brought, noise)
    assert max_difference(ours, expected) < 1e-10
    for w in ours:
        np.testing.assert_allclose(norm(w["a"], axes), c["a"], rtol=1e-12)


def test_a_given_radius_is_in_the_state_and_leaves_zero_weights_free():
    params = {"a": jnp.ones((5, 6)), "zeros": jnp.zeros((6, 4))}
    tx = lo.hyperball(optax.scale_by_adam(), 0.1, radius=3.0)
    _, state = tx.update(params, tx.init(params), params)
    held = lo.diagnostics.captured_norms(state)
    assert (float(held["a"]), float(held["zeros"])) == (3.0, 0.0)


@pytest.mark.parametrize("radius", [np.float16(300), jnp.float16(300), np.int32(50_000), 3])
def test_a_given_radius_may_have_any_dtype(radius):
    params = {"a": jnp.arange(1.0, 31.0).reshape(5, 6)}
    tx = lo.hyperball(optax.scale_by_adam(), 0.1, radius=radius)
    step, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(norm(params["a"] + step["a"]), float(radius), rtol=1e-6)


def test_numbers_of_numpy_leave_low_precision_alone():
    params = {"a": jnp.ones((4, 4), jnp.bfloat16), "bias": jnp.ones(4, jnp.bfloat16)}
    tx = lo.muon_h(np.array(0.1), np.array(0.1), ns_eps=np.float32(1e-6))
    step, _ = tx.update(params, tx.init(params), params)
    assert {u.dtype for u in step.values()} == {jnp.dtype(jnp.bfloat16)}


def test_an_rms_counts_the_elements_of_all_devices():
    params = {"a": jnp.arange(1.0, 49.0).reshape(8, 6), "bias": jnp.ones(6)}
    specs = {"a": PartitionSpec("x"), "bias": PartitionSpec()}
    tx = lo.adam_h(0.1, 0.1, rms=0.5, axis_name=specs)
    mesh = jax.make_mesh((8,), ("x",))
    place = lambda w, spec: jax.device_put(w, jax.sharding.NamedSharding(mesh, spec))
    params = jax.tree.map(place, params, specs)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(specs,), out_specs=specs)
    def step(params):
        return tx.update(params, tx.init(params), params)[0]

    after = optax.apply_updates(params, jax.jit(step)(params))
    np.testing.assert_allclose(norm(after["a"]), 0.5 * np.sqrt(48), rtol=1e-6)


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_muon_h_turns_whole_matrices_however_they_are_sharded(kind, x64):
    start = jax.tree.map(jnp.float64, weights({"blocks/kernel": (2, 6, 4)}))
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind, kind))
    sharding = jax.sharding.NamedSharding(mesh, PartitionSpec(None, "x", "y"))
    tx = lo.muon_h(rate, 0.0, stacked="blocks")
    step = jax.jit(lambda params: tx.update(params, tx.init(params), params)[0])
    placed = jax.device_put(start, sharding)
    assert max_difference(jax.device_get(step(placed)), step(start)) < 1e-12


@pytest.mark.parametrize("make", [lo.adam_h, lo.muon_h])
def test_a_restart_does_not_move_the_norm(make):
    tx = make(0.05, 0.05, stacked="blocks")
    params = jax.tree.map(jnp.float32, weights(SHAPES))
    (*_, params), state = train(tx, params, pull, 5)
    leaves, structure = jax.tree.flatten((params, state))
    saved = [np.asarray(leaf) for leaf in leaves]
    # Weights of a checkpoint in few digits: a norm that is computed anew is theirs.
    rough, state = jax.tree.unflatten(structure, saved)
    rough = jax.tree.map(lambda w: jnp.float32(1.1 * jnp.bfloat16(w)), rough)
    updates, after = tx.update(jax.tree.map(jnp.ones_like, params), state, rough)
    moved = optax.apply_updates(rough, updates)
    held = lo.diagnostics.captured_norms(after)
    for name in MATRICES:
        c = norm(weights(SHAPES)[name], (-2, -1))
        np.testing.assert_allclose(held[name], c, rtol=1e-6)
        np.testing.assert_allclose(norm(moved[name], (-2, -1)), c, rtol=1e-5)


@pytest.mark.parametrize("make", [lo.adam_h, lo.muon_h])
def test_bfloat16_weights_do_not_move_the_norm(make):
    tx = make(0.01, 0.01, stacked="blocks")
    params = jax.tree.map(jnp.bfloat16, weights(SHAPES))
    c = {name: norm(params[name], (-2, -1)) for name in MATRICES}
    history, state = train(tx, params, pull, 300)
    held = lo.diagnostics.captured_norms(state)
    for name in MATRICES:
        assert held[name].dtype == jnp.float32
        np.testing.assert_allclose(held[name], c[name], rtol=1e-6)
        # A rounding of each weight, not three hundred of them.
        np.testing.assert_allclose(norm(history[-1][name], (-2, -1)), c[name], rtol=2**-9)


def test_hyperparameters_may_be_injected():
    tx = optax.inject_hyperparams(lo.muon_h, static_args=("ns_steps", "ns_coeffs"))(
        learning_rate=0.1, adam_learning_rate=lambda step: 0.01
    )
    params = {"a": jnp.ones((3, 2)) + jnp.eye(3, 2), "bias": jnp.zeros(2)}
    history, state = train(tx, params, lambda t, p: jax.tree.map(jnp.ones_like, p), 3)
    np.testing.assert_allclose(norm(history[-1]["a"]), norm(params["a"]), rtol=1e-6)
    np.testing.assert_allclose(history[-1]["bias"], -0.03, rtol=1e-5)
    assert float(state.hyperparams["adam_learning_rate"]) == pytest.approx(0.01)


@pytest.mark.parametrize("size", [1e-17, 1e-12, 1.0, 1e12])
@pytest.mark.parametrize("learning_rate", [1e-6, 1e-2])
def test_a_relative_step_is_as_long_whatever_the_size_of_its_direction(size, learning_rate):
    w, u = jax.random.normal(jax.random.key(0), (2, 16, 16))
    tx = lo.hyperball(optax.identity(), learning_rate)
    step, _ = tx.update(size * u, tx.init(w), w)
    plain, _ = tx.update(u, tx.init(w), w)
    np.testing.assert_allclose(step, plain, rtol=1e-3, atol=1e-3 * learning_rate)
    assert norm(plain) > 0.9 * learning_rate * norm(w)


@pytest.mark.parametrize("largest", [1.0, np.inf])
def test_a_rate_of_zero_takes_no_step(largest):
    w, u = jax.random.normal(jax.random.key(0), (2, 8, 8))
    tx = lo.hyperball(optax.identity(), 0.0)
    step, _ = tx.update(u.at[0, 0].set(largest), tx.init(w), w)
    np.testing.assert_allclose(w + step, w, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda state: None, TypeError, "a NoneType, and hyperball needs its own HyperballState"),
        (lambda state: state._asdict(), TypeError, "restored without a template"),
        (lambda state: state._replace(inner=()), ValueError, "hyperball's inner is .* it needs"),
        (lambda state: state._replace(norms={}), ValueError, "hyperball needs norms of shapes"),
    ],
)
def test_a_state_that_is_not_its_own_is_named(change, error, message):
    w = jnp.ones((2, 3))
    tx = lo.hyperball(optax.scale_by_adam(), 0.1)
    with pytest.raises(error, match=message):
        tx.update(w, change(tx.init(w)), w)
    with pytest.raises(ValueError, match=r"of shapes {'v': \(\)} .* its state holds {'w': \(\)}"):
        tx.update({"v": w}, tx.init({"w": w}), {"v": w})
