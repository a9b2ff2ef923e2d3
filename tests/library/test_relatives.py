"""AdamP and CPR against the algorithms of their papers, written out in NumPy."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from lawn_optax.baselines import adamp, cpr
from tests import reference
from tests.helpers import max_difference, norm, train

SHAPES = {"neurons": (6, 4), "layer": (6, 4), "radial": (6, 4), "blocks": (2, 5, 3), "bias": (4,)}
STEPS = 100


@pytest.fixture
def start():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def noise(t, params):
    """A gradient that ignores the norm of each neuron, of the layer, of some of them, or none."""

    def of(name, w):
        w = np.asarray(w)
        g = np.random.default_rng([t, *name.encode()]).normal(size=w.shape)
        match name:
            case "neurons":
                return reference.project(g, w, (0,))
            case "layer":
                return reference.project(g, w, None)
            case "radial":
                return g - w
            case "blocks":
                return np.stack([reference.project(g[0], w[0], (0,)), g[1]])
            case _:
                return g

    return {name: of(name, w) for name, w in params.items()}


def projected(w, g, u, neuron, layer, delta):
    """The projection of Algorithm 2 of AdamP: by neuron, else by layer, else none; and which."""
    for name, axes in (("neuron", neuron), ("layer", layer)):
        n = np.prod([w.shape[axis] for axis in axes])
        cosine = np.abs(reference.inner(w, g, axes))
        cosine = cosine / (reference.norm(w, axes) * reference.norm(g, axes))
        if cosine.max() < delta / np.sqrt(n):
            return u - reference.inner(w, u, axes) / reference.norm(w, axes) ** 2 * w, name
    return u, "none"


def adamp_by_hand(start, neuron, layer, *, lr, wd, delta, wd_ratio):
    """AdamP over 100 steps, and how often each leaf was projected how."""
    params, history, taken = start, [], collections.Counter()
    rule = reference.Adam(0.0, eps=1e-8)
    for t in range(STEPS):
        g = noise(t, params)
        u = rule.direction(g)
        moved = {}
        for name, w in params.items():
            parts = [(w, g[name], u[name])]
            if name == "blocks":
                parts = zip(*parts[0], strict=True)
            after = []
            for w_l, g_l, u_l in parts:
                how = "none"
                if name != "bias":
                    u_l, how = projected(w_l, g_l, u_l, neuron, layer, delta)
                taken[name, how] += 1
                decay = wd * (wd_ratio if how != "none" else 1.0)
                after.append((1 - lr(t) * decay) * w_l - lr(t) * u_l)
            moved[name] = np.stack(after) if name == "blocks" else after[0]
        params = moved
        history.append(params)
    return history, taken


@pytest.mark.parametrize("axes", [0, None])
def test_adamp_follows_algorithm_2(axes, start, x64):
    lr = lambda t: 0.05 / (1 + 0.1 * t)
    options = {"delta": 0.3, "wd_ratio": 0.2}
    neuron = (0, 1) if axes is None else (0,)
    expected, taken = adamp_by_hand(start, neuron, (0, 1), lr=lr, wd=0.1, **options)
    tx = adamp(lr, weight_decay=0.1, axes=axes, stacked="blocks", **options)
    history, _ = train(tx, jax.tree.map(jnp.float64, start), noise, STEPS)
    assert max_difference(history, expected) < 1e-12
    if axes is None:
        return
    assert taken["neurons", "neuron"] == taken["bias", "none"] == STEPS
    assert taken["layer", "layer"] > STEPS / 2
    assert taken["radial", "none"] > STEPS / 2
    assert {how for name, how in taken if name == "blocks"} == {"neuron", "layer", "none"}


def cpr_by_hand(start, axes, *, begin, mu, factor, every):
    """CPR over 100 steps of Adam: Algorithm 1 with `R = ||w||^2` and `mu / n`; and its bounds."""
    rule, params, history = reference.Adam(0.0, eps=1e-8), start, []
    names = [name for name in start if name != "bias"]
    square = lambda w, name: reference.inner(w, w, axes[name])
    kappa = {n: factor * square(start[n], n) if begin == 0 else None for n in names}
    multiplier = dict.fromkeys(names, 0.0)
    measured = {n: [] for n in names}
    for t in range(1, STEPS + 1):
        u = rule.direction(noise(t, params))
        params = {n: w - 0.05 * u[n] for n, w in params.items()}
        for n in names:
            r = square(params[n], n)
            if begin is None and t % every == 0:
                measured[n].append(r)
            if kappa[n] is None:
                if begin == t:
                    kappa[n] = factor * r
                if begin is None and t % every == 0 and len(measured[n]) >= 4:
                    *_, a, b, c = measured[n]
                    if c - b < b - a:
                        kappa[n] = factor * r
                continue
            size = params[n].size / r.size
            multiplier[n] = np.maximum(multiplier[n] + mu / size * (r - kappa[n]), 0)
            params = params | {n: params[n] - 2 * multiplier[n] * params[n]}
        history.append(params)
    return history, kappa


@pytest.mark.parametrize("begin", [None, 0, 7])
def test_cpr_follows_algorithm_1(begin, start, x64):
    start = {n: w for n, w in start.items() if n != "blocks"} if begin is None else start
    axes = dict.fromkeys(start, None) | {"blocks": (1, 2)}
    options = {"mu": 0.002, "factor": 0.9, "every": 6}
    expected, kappa = cpr_by_hand(start, axes, begin=begin, **options)
    held = {name: bound for name, bound in kappa.items() if bound is not None}
    assert held.keys() >= ({"neurons", "layer"} if begin is None else {"blocks", "layer", "radial"})
    link = cpr(
        begin,
        factor=0.9,
        update_rate=0.002,
        measure_every=6,
        stacked=None if begin is None else "blocks",
    )
    shifted = lambda t, params: noise(t + 1, params)
    tx = optax.chain(optax.adam(0.05), link)
    history, state = train(tx, jax.tree.map(jnp.float64, start), shifted, STEPS)
    assert max_difference(history, expected) < 1e-11
    for name, bound in held.items():
        np.testing.assert_allclose(state[1].bounds[name], bound.squeeze(), rtol=1e-11)
    unbounded, _ = train(optax.adam(0.05), jax.tree.map(jnp.float64, start), shifted, STEPS)
    assert max_difference(history, unbounded) > 0.1


def test_cpr_leaves_weights_below_their_bound_to_the_optimizer(start):
    params = jax.tree.map(jnp.float32, start)
    inwards = lambda t, params: {name: np.asarray(w) for name, w in params.items()}
    ours, _ = train(optax.chain(optax.sgd(0.01), cpr(0)), params, inwards, 10)
    theirs, _ = train(optax.sgd(0.01), params, inwards, 10)
    assert max_difference(ours, theirs) < 1e-6


def test_cpr_holds_each_neuron_to_a_bound_of_its_own(start, x64):
    outwards = lambda t, params: {name: -np.asarray(w) for name, w in params.items()}
    small = {name: jnp.float64(0.1 * w) for name, w in start.items()}
    tx = optax.chain(
        optax.sgd(0.01), cpr(0, axes=0, mask={**dict.fromkeys(start, False), "layer": True})
    )
    history, state = train(tx, small, outwards, 2000)
    assert state[1].bounds["layer"].shape == (4,)
    np.testing.assert_allclose(norm(history[-1]["layer"], 0), norm(small["layer"], 0), rtol=0.1)
    assert norm(history[-1]["radial"]) > 1e6 * norm(small["radial"])


def test_cpr_passes_on_what_is_not_finite_until_its_bound_is_set():
    params = {"w": jnp.ones((4, 3))}
    tx = cpr(2)
    state = tx.init(params)
    step = {"w": params["w"].at[0, 0].set(jnp.nan).at[1, 0].set(jnp.inf)}
    passed, state = tx.update(step, state, params)
    np.testing.assert_array_equal(passed["w"], step["w"])
    assert state.multipliers["w"] == 0


@pytest.mark.parametrize("start", [0, 1, 3])
def test_the_start_of_cpr_may_be_traced(start):
    params = {"w": 0.1 * jnp.arange(1.0, 7.0).reshape(2, 3)}

    def run(start):
        tx, w = optax.chain(optax.sgd(-0.1), cpr(start)), params
        state = tx.init(w)
        for _ in range(5):
            step, state = tx.update(w, state, w)
            w = optax.apply_updates(w, step)
        return w

    assert max_difference(jax.jit(run)(start), run(start)) < 1e-5


def test_adamp_leaves_integers_alone():
    params = {"kernel": jnp.eye(2), "ids": jnp.arange(3)}
    grads = params | {"ids": jnp.zeros(3)}
    tx = adamp(0.1, weight_decay=0.1)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert not updates["ids"].any()
    assert updates["kernel"].any()


def test_adamp_judges_all_neurons_of_a_layer_wherever_they_are(x64):
    rng = np.random.default_rng(0)
    w, g = jnp.asarray(rng.normal(size=(2, 16, 8)))
    g = jnp.asarray(reference.project(g, w, (0,))).at[:, 0].set(w[:, 0])  # One ignores it not.
    params, grads, specs = {"k": w}, {"k": g}, {"k": PartitionSpec("x", "y")}
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def step(tx, params, grads):
        return tx.update(grads, tx.init(params), params)[0]

    make = functools.partial(adamp, 0.1, delta=0.5, axes=0, weight_decay=0.1)
    expected = step(make(), params, grads)
    of_devices = jax.shard_map(
        functools.partial(step, make(axis_name=specs)),
        mesh=mesh,
        in_specs=(specs, specs),
        out_specs=specs,
    )
    assert max_difference(jax.jit(of_devices)(params, grads), expected) < 1e-12
    radial = np.abs(np.sum(np.asarray(w) * np.asarray(expected["k"]), axis=0))
    assert (radial > 1e-3).sum() > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cpr(-1), r"start=-1 must be at least 0"),
        (lambda: cpr(measure_every=0), r"measure_every=0 must be at least 1"),
        (lambda: cpr(0, factor=0.0), r"factor=0.0 must be positive"),
        (lambda: cpr(0, update_rate=-1.0), r"update_rate=-1.0 must be positive"),
        (lambda: adamp(0.1, delta=-1.0), r"delta=-1.0 must be finite and at least 0"),
        (lambda: adamp(0.1, wd_ratio=-1.0), r"wd_ratio=-1.0 must be"),
        (lambda: adamp(0.1, weight_decay=lambda count: 0.1), r"weight_decay=<function"),
        (lambda: adamp(0.1, b1=1.0), r"b1=1.0 must be at least 0 and below 1"),
    ],
)
def test_refuses_what_is_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
