"""Random trees, dtypes, shardings, masks, axes, wrappers and switches: what holds for all of them.

20 examples in an ordinary run, 150 more with `-m slow`.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import lawn_optax as lo
from tests.helpers import norm

STEPS = 8
SHAPES = [(), (3,), (0, 2), (1, 1), (4, 3), (2, 8), (4, 2, 3)]
TOLERANCE = {
    "float32": 1e-5,
    "bfloat16": 1e-2,
    "float16": 2e-3,
    "float64": 1e-12,
    "complex64": 1e-5,
}
# Optimizers that treat each leaf by itself, so that free leaves do not feel the constrained ones.
INNER: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, 0.9, nesterov=True),
    "adam": lambda rate: optax.adam(rate, eps=1e-3),  # 1e-8 is 0 in float16
    "adamw": lambda rate: optax.adamw(rate, eps=1e-3, weight_decay=1e-3),
    "lion": optax.lion,
}
WRAPPERS = [
    "apply_if_finite",
    "chain",
    "conditionally_transform",
    "inject_hyperparams",
    "jit",
    "masked",
    "multi_steps",
    "partition",
]
# Programs are compiled by the hundred here and run once.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter: what it is, what is asked of it, and where it goes in `masked`, `partition`.

    Attributes:
      axes: as in `lawn`.
      mask: as in `lawn`.
      outside: whether the wrapper leaves it to itself.
      spec: the mesh axes that it is split over.
    """

    shape: tuple[int, ...]
    dtype: str
    axes: tuple[int, ...] | None
    mask: bool
    outside: bool
    spec: tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A tree of `Leaf`, an optimizer around it, and the numbers to run it with."""

    tree: Any
    explicit: bool  # whether mask and axes are given, or left to their defaults
    inner: str
    rate: float
    switch: int
    target_scale: float
    reset_inner: bool
    wrappers: tuple[str, ...]
    sharded: bool
    scale: float  # of the weights
    bad_step: int
    seed: int


@st.composite
def leaves(draw):
    shape = draw(st.sampled_from(SHAPES))
    axes = draw(st.none() | st.sets(st.integers(0, max(len(shape) - 1, 0)), min_size=1))
    if axes is not None:
        axes = tuple(sorted(axes)) if draw(st.booleans()) else tuple(a - len(shape) for a in axes)
    split = [draw(st.sampled_from([None, name])) for name in ("data", "model")]
    divides = {"data": 4, "model": 2, None: 1}
    spec = tuple(
        name if size and size % divides[name] == 0 else None
        for name, size in zip(split, shape, strict=False)
    )
    return Leaf(
        shape=shape,
        dtype=draw(st.sampled_from(["float32", "float32", *sorted(TOLERANCE)])),
        axes=axes if shape else None,
        mask=draw(st.booleans()),
        outside=draw(st.integers(0, 3)) == 0,
        spec=spec,
    )


TREES = st.recursive(
    leaves() | st.none() | st.just({}) | st.just(()),
    lambda below: (
        st.lists(below, max_size=3)
        | st.tuples(below, below)
        | st.dictionaries(st.sampled_from(["kernel", "bias", "a/b", "0"]), below, max_size=3)
    ),
    max_leaves=5,
)
# One kernel is on its sphere whatever else is drawn, so that few problems are thrown away.
KERNEL = Leaf((4, 3), "float32", axes=None, mask=True, outside=False, spec=("data", None))
PROBLEMS = st.builds(
    Problem,
    tree=TREES.map(lambda tree: {"sure": KERNEL, "rest": tree}) | TREES,
    explicit=st.booleans(),
    inner=st.sampled_from(sorted(INNER)),
    rate=st.sampled_from([1e-3, 0.1, 10.0, 100.0]),
    switch=st.integers(0, 3),
    target_scale=st.sampled_from([1.0, 0.5]),
    reset_inner=st.booleans(),
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=3).map(tuple),
    sharded=st.integers(0, 5).map(lambda n: n == 5),
    scale=st.sampled_from([1e-2, 1.0, 30.0]),
    bad_step=st.integers(0, STEPS - 1),
    seed=st.integers(0, 2**31 - 1),
)


Make = Callable[[Any], optax.GradientTransformation]  # from a learning rate


def wrap(make: Make, wrapper: str, tree: Any) -> Make:
    """What makes an optimizer, in one of the wrappers."""
    inside = jax.tree.map(lambda leaf: not leaf.outside, tree)
    labels = jax.tree.map(lambda held: "inside" if held else "outside", inside)

    def wrapped(rate: Any) -> optax.GradientTransformation:
        if wrapper == "inject_hyperparams":
            return optax.inject_hyperparams(make, hyperparam_dtype=jnp.float32)(rate)
        tx = make(rate)
        match wrapper:
            case "chain":
                return optax.chain(optax.scale(0.5), tx)
            case "multi_steps":
                return optax.MultiSteps(tx, 2).gradient_transformation()
            case "apply_if_finite":
                return optax.apply_if_finite(tx, STEPS)
            case "masked":
                return optax.masked(tx, inside)
            case "partition":
                return optax.partition({"inside": tx, "outside": optax.sgd(0.1)}, labels)
            case "conditionally_transform":
                return optax.conditionally_transform(tx, lambda step: step >= 0)
            case "jit":
                return optax.GradientTransformationExtraArgs(jax.jit(tx.init), jax.jit(tx.update))
        raise ValueError(wrapper)

    return wrapped


def constrained(problem: Problem) -> Any:
    """Of each leaf, whether it is on its spheres after the switch."""
    inside = {"masked", "partition"}.isdisjoint(problem.wrappers)
    return jax.tree.map(
        lambda leaf: (
            (leaf.mask if problem.explicit else len(leaf.shape) >= 2)
            and (inside or not leaf.outside)
        ),
        problem.tree,
    )


def build(problem: Problem) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The optimizer, and the same without LAWN."""
    # An injected rate is in float32, and would make updates of bfloat16 float32 too.
    keep_dtypes = optax.stateless(optax.tree.cast_like)
    plain = lambda rate: optax.chain(INNER[problem.inner](rate), keep_dtypes)
    asked = {}
    if problem.explicit:
        asked["mask"] = jax.tree.map(lambda leaf: leaf.mask, problem.tree)
        asked["axes"] = jax.tree.map(lambda leaf: leaf.axes, problem.tree)
    make = lambda rate: lo.lawn(
        optax.chain(INNER[problem.inner](rate), keep_dtypes),
        problem.switch,
        target_scale=problem.target_scale,
        reset_inner=problem.reset_inner,
        **asked,
    )
    for wrapper in problem.wrappers:
        make, plain = wrap(make, wrapper, problem.tree), wrap(plain, wrapper, problem.tree)
    return make(problem.rate), plain(problem.rate)


def numbers(problem: Problem) -> tuple[Any, Any]:
    """Weights, and a gradient for each step."""
    rng = np.random.default_rng(problem.seed)

    def normal(shape, dtype):
        x = rng.normal(size=shape)
        return (x + 1j * rng.normal(size=shape) if dtype == "complex64" else x).astype(dtype)

    weights = jax.tree.map(
        lambda leaf: (problem.scale * normal(leaf.shape, leaf.dtype)).astype(leaf.dtype),
        problem.tree,
    )
    grads = jax.tree.map(lambda leaf: normal((STEPS, *leaf.shape), leaf.dtype), problem.tree)
    return weights, grads


def place(weights: Any, problem: Problem) -> Any:
    """The weights on one device, or on eight."""
    if not problem.sharded:
        return jax.tree.map(jnp.asarray, weights)
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
    return jax.tree.map(
        lambda w, leaf: jax.device_put(w, NamedSharding(mesh, PartitionSpec(*leaf.spec))),
        weights,
        problem.tree,
    )


def run(problem: Problem, txs: Any, weights: Any, grads: Any) -> list:
    """The weights after each step, for each of the optimizers."""

    def body(carry, g):
        after = []
        for tx, (w, state) in zip(txs, carry, strict=True):
            updates, state = tx.update(g, state, w)
            after.append((optax.apply_updates(w, updates), state))
        return after, [w for w, _ in after]

    start = [(weights, tx.init(weights)) for tx in txs]
    scan = lambda start, grads: jax.lax.scan(body, start, grads)[1]
    if problem.sharded or "jit" in problem.wrappers:
        scanned = jax.jit(scan, compiler_options=QUICKLY)(start, grads)
    else:
        # Op by op, branches and loop included: nothing is compiled that a cache does not hold.
        with jax.disable_jit():
            scanned = scan(start, grads)
    return [
        [jax.tree.map(lambda x, t=t: x[t], of_tx) for t in range(STEPS)]
        for of_tx in jax.device_get(scanned)
    ]


def avals(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def check(problem: Problem) -> None:
    """Trains, and looks at every step."""
    held = constrained(problem)
    if not any(jax.tree.leaves(held)):
        hypothesis.reject()
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(problem.tree)}
    if "multi_steps" in problem.wrappers and "complex64" in dtypes:
        hypothesis.reject()  # Optax accumulates in float32, with or without LAWN
    with jax.enable_x64(True) if "float64" in dtypes else contextlib.nullcontext():
        tx, plain = build(problem)
        weights, grads = numbers(problem)
        steps = list(range(STEPS))
        bad = problem.wrappers[-1:] == ("apply_if_finite",)
        if bad:
            for g in jax.tree.leaves(grads):
                g[problem.bad_step] = np.nan
        placed = place(weights, problem)

        state = jax.eval_shape(tx.init, placed)
        first = jax.tree.map(lambda g: jnp.asarray(g[0]), grads)
        _, next_state = jax.eval_shape(tx.update, first, state, placed)
        assert avals(next_state) == avals(state)

        history, expected = run(problem, (tx, plain), placed, grads)
    if bad:
        steps.remove(problem.bad_step)
        before = weights if problem.bad_step == 0 else history[problem.bad_step - 1]
        jax.tree.map(np.testing.assert_array_equal, history[problem.bad_step], before)
    history, expected = ([of[t] for t in steps] for of in (history, expected))

    every = 2 ** problem.wrappers.count("multi_steps")
    emitted = (problem.switch + 1) * every - 1  # the step that emits the first constrained update
    memory = problem.reset_inner and problem.inner != "sgd"

    def follow(leaf: Leaf, on_sphere: bool, start: Any, *both: Any) -> None:
        own, reference = both[: len(steps)], both[len(steps) :]
        rtol = TOLERANCE[leaf.dtype]
        for t, w in enumerate(own):
            assert w.dtype == leaf.dtype
            assert np.all(np.isfinite(w))
            if t < emitted or not (on_sphere or memory):
                size = max(np.max(np.abs(reference[t]), initial=0), problem.scale)
                np.testing.assert_allclose(w, reference[t], rtol=rtol, atol=rtol * float(size))
        if on_sphere:
            axes = leaf.axes if problem.explicit else None
            c = norm(start if emitted == 0 else own[min(emitted, len(own)) - 1], axes)
            for w in own[emitted:]:
                goal, now = problem.target_scale * c, norm(w, axes)
                np.testing.assert_allclose(now[c > 0], goal[c > 0], rtol=rtol)

    jax.tree.map(follow, problem.tree, held, weights, *history, *expected)


QUIET = [hypothesis.HealthCheck.filter_too_much]  # Of trees with nothing to constrain, at first.


@hypothesis.settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=QUIET)
@hypothesis.given(PROBLEMS)
def test_norms_hold_and_free_leaves_are_the_inner_optimizers_own(problem):
    check(problem)


@pytest.mark.slow
@hypothesis.settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=QUIET)
@hypothesis.given(PROBLEMS)
def test_so_they_are_in_many_more_examples(problem):
    check(problem)


# What was found so.


def test_axes_may_have_the_empty_nodes_of_the_parameters():
    params = {"w": jnp.ones((2, 3)), "none": None, "empty": {"list": [], "tuple": ()}}
    axes = jax.tree.map(lambda w: 0, params)
    assert lo.lawn(optax.sgd(0.1), 0, axes=axes).init(params).norms["w"].shape == (3,)
    with pytest.raises(ValueError, match="pattern 'none' matches no parameter"):
        lo.lawn(optax.sgd(0.1), 0, axes={"w": 0, "none": (0,)}).init(params)
