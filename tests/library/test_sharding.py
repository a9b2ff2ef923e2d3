"""Sharded training equals unsharded training, and its only traffic is the sums of the norms."""

import functools
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lawn_optax as lo
from tests.helpers import max_difference, norm, pull

SWITCH, STEPS = 3, 6
OPTIMIZERS = {
    "adam_lawn": lambda **options: lo.adam_lawn(0.1, SWITCH, **options),
    "adam_lawn, not projected": lambda **options: lo.adam_lawn(
        0.1, SWITCH, project=False, **options
    ),
    "lamb_lawn": lambda **options: lo.lamb_lawn(0.1, SWITCH, **options),
    "sgd_lawn": lambda **options: lo.sgd_lawn(0.1, SWITCH, **options),
    "hyperball": lambda **options: lo.hyperball(optax.scale_by_adam(), 0.1, **options),
    "links": lambda **options: optax.chain(
        lo.project_to_tangent(**options),
        optax.adam(0.1),
        lo.project_to_tangent(**options),
        lo.rescale_to_norms(**options),
    ),
    "lawn(muon)": lambda **options: lo.lawn(optax.contrib.muon(0.1), SWITCH, **options),
}
ELEMENTWISE = [name for name in OPTIMIZERS if name != "lawn(muon)"]


def mesh(axis_type: AxisType = AxisType.Auto) -> Mesh:
    """Eight devices: 2 data x 2 fsdp x 2 tensor."""
    return jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(axis_type,) * 3)


def place(tree: Any, specs: Any, mesh: Mesh) -> Any:
    return jax.device_put(tree, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs))


def normal(shapes: dict[str, tuple[int, ...]], dtype: Any = jnp.float64) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def run(tx, params, state=None, gradient=pull):
    """The parameters and captured norms after `STEPS` updates, all of them in one program."""

    def step(t, carry):
        params, state = carry
        updates, state = tx.update(gradient(t, params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params) if state is None else state
    params, state = jax.lax.fori_loop(0, STEPS, step, (params, state))
    return params, optax.tree.get(state, "norms")


def assert_same(sharded, unsharded, tolerance=1e-12):
    """Parameters of order 1 and norms of order 10, in double precision."""
    assert max_difference(sharded, unsharded) < tolerance


# Under jit XLA splits the work by itself: one leaf of each layout, and how it is spread.

SHAPES = {
    "rows": (8, 12),
    "rows_over_all": (16, 24),
    "rows_and_columns": (8, 24),
    "neurons": (32, 16),
    "layers": (4, 6, 8),
    "bias": (8,),
}
SPECS = {
    "rows": P("fsdp"),
    "rows_over_all": P(("data", "fsdp", "tensor")),
    "rows_and_columns": P("fsdp", "tensor"),
    "neurons": P("fsdp", "tensor"),
    "layers": P("fsdp"),
    "bias": P("tensor"),
}
# One norm for each output neuron, one for each of the stacked layers, and else one a leaf.
AXES = dict.fromkeys(SHAPES) | {"neurons": 0, "layers": (1, 2)}
NORMS = {
    "rows": P(),
    "rows_over_all": P(),
    "rows_and_columns": P(),
    "neurons": P("tensor"),
    "layers": P("fsdp"),
}
FEW = 3 * (3 + 8)  # three sums of each norm that is summed over devices, as one device holds them


@functools.cache
def unsharded(optimizer: str) -> Any:
    return jax.jit(lambda params: run(OPTIMIZERS[optimizer](axes=AXES), params))(normal(SHAPES))


@functools.cache
def sharded(optimizer: str, axis_type: AxisType) -> tuple[Any, str]:
    """What training gives, and the text of its compiled program."""
    devices = mesh(axis_type)
    with jax.set_mesh(devices):
        placed = place(normal(SHAPES), SPECS, devices)
        train = jax.jit(lambda params: run(OPTIMIZERS[optimizer](axes=AXES), params))
        compiled = train.lower(placed).compile()
        return compiled(placed), compiled.as_text()


# Optax's muon multiplies matrices that are split along the same axis, which explicit axes refuse.
BOTH_TYPES = [(name, AxisType.Auto) for name in OPTIMIZERS] + [
    (name, AxisType.Explicit) for name in ("adam_lawn", "lamb_lawn")
]


@pytest.mark.works_with(
    "jax.sharding.NamedSharding", "under jit: every layout trains as on one device"
)
@pytest.mark.parametrize(("optimizer", "axis_type"), BOTH_TYPES)
def test_every_layout_trains_as_on_one_device(optimizer, axis_type, x64):
    assert_same(sharded(optimizer, axis_type)[0], unsharded(optimizer))


@pytest.mark.parametrize(("optimizer", "axis_type"), BOTH_TYPES)
def test_weights_stay_where_they_are_and_single_norms_are_on_every_device(
    optimizer, axis_type, x64
):
    params, norms = sharded(optimizer, axis_type)[0]
    for array, spec in [(params[n], SPECS[n]) for n in SPECS] + [
        (norms[n], NORMS[n]) for n in NORMS
    ]:
        expected = NamedSharding(mesh(axis_type), spec)
        assert array.sharding.is_equivalent_to(expected, array.ndim), array.sharding


class Collective(NamedTuple):
    """One exchange between devices in a compiled program, and the largest array in it."""

    kind: str
    elements: int


KINDS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"


def collectives(program: str) -> list[Collective]:
    """All exchanges in the text of a compiled program, asynchronous ones counted once."""
    found = []
    for line in program.splitlines():
        # `%name = f32[2,3]{1,0} all-gather(...)`, or a tuple of shapes; uses are `%all-gather.1`.
        match = re.search(rf"= (.*?) ((?:ragged-)?(?:{KINDS}))(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"\w+\[([\d,]*)\]", match[1])
            sizes = [math.prod(map(int, filter(None, shape.split(",")))) for shape in shapes]
            found.append(Collective(match[2], max(sizes)))
    return found


def test_a_gather_would_be_seen():
    def gather(w):
        return jax.lax.with_sharding_constraint(w, NamedSharding(mesh(), P()))

    w = place(jnp.ones((8, 3)), P("fsdp"), mesh())
    assert collectives(jax.jit(gather).lower(w).compile().as_text()) == [("all-gather", 24)]


def smallest_shard() -> int:
    return min(math.prod(NamedSharding(mesh(), SPECS[n]).shard_shape(SHAPES[n])) for n in NORMS)


# Muon is left out because it multiplies whole matrices, which XLA gathers, LAWN or not.
@pytest.mark.parametrize("optimizer", ELEMENTWISE)
def test_only_sums_of_norms_are_exchanged(optimizer, x64):
    found = collectives(sharded(optimizer, AxisType.Auto)[1])
    assert {collective.kind for collective in found} == {"all-reduce"}
    assert max(collective.elements for collective in found) <= FEW < smallest_shard()


def test_norms_of_sharded_layers_are_exchanged_with_nobody():
    w = place(jnp.ones((4, 3, 5)), P("fsdp"), mesh())
    tx = lo.lamb_lawn(0.1, SWITCH, axes=(1, 2))
    program = jax.jit(lambda w: run(tx, w)).lower(w).compile().as_text()
    assert collectives(program) == []


def count_exchanges(leaves: int, under: str) -> int:
    """How many exchanges one update of so many leaves makes."""
    split = P("fsdp", "tensor")
    params = place({f"kernel{i:02}": jnp.ones((4, 6)) for i in range(leaves)}, split, mesh())
    tx = lo.sgd_lawn(0.1, SWITCH, axis_name=None if under == "jit" else ("fsdp", "tensor"))
    update, state = lambda params, state: tx.update(params, state, params), tx.init(params)
    if under == "shard_map":
        specs = jax.tree.map(lambda w: split if w.ndim else P(), (params, state))
        update = jax.shard_map(update, mesh=mesh(), in_specs=specs, out_specs=specs)
    return len(collectives(jax.jit(update).lower(params, state).compile().as_text()))


@pytest.mark.parametrize("under", ["jit", "shard_map"])
def test_exchanges_do_not_grow_with_the_number_of_leaves(under):
    assert 0 < count_exchanges(12, under) <= count_exchanges(2, under)


def test_norms_of_rows_stay_where_their_table_is():
    # Tables of one shape, each split in its own way: nothing of one goes where the other is.
    specs = {"users": P("fsdp"), "items": P("tensor"), "whole": P()}
    params = {name: place(jnp.ones((64, 4)), spec, mesh()) for name, spec in specs.items()}
    tx = lo.adam_lawn(0.1, SWITCH, axes=1)
    update = jax.jit(lambda params, state: tx.update(params, state, params))
    compiled = update.lower(params, jax.jit(tx.init)(params)).compile()
    assert collectives(compiled.as_text()) == []
    for name, sharding in compiled.output_shardings[0].items():
        assert sharding.is_equivalent_to(params[name].sharding, 2)


def test_sizes_that_the_mesh_does_not_divide(x64):
    # JAX places no array unevenly; within a program a constraint does it, with padding that the
    # sums must not count.
    shape, spec = (7, 5), P(("data", "fsdp"), "tensor")
    tx = lo.lamb_lawn(0.1, SWITCH)
    split = NamedSharding(mesh(), spec)

    def gradient(t, w):
        return pull(t, jax.lax.with_sharding_constraint(w, split))

    def padded(w):
        return run(tx, jax.lax.with_sharding_constraint(w, split), gradient=gradient)

    (w,) = normal({"w": shape}).values()
    compiled = jax.jit(padded, in_shardings=NamedSharding(mesh(), P())).lower(w).compile()
    assert "f64[2,3]" in compiled.as_text()  # a shard of 8 x 6
    assert_same(compiled(w), jax.jit(lambda w: run(tx, w))(w))


# A model and its batch: data parallel, fully sharded, tensor parallel.

BATCH = {"x": (16, 8)}
MODEL = {"in": (8, 16), "bias": (16,), "out": (16, 4)}
PARALLEL = {
    "data": (P(("data", "fsdp", "tensor")), {"in": P(), "bias": P(), "out": P()}),
    "fsdp": (P(("data", "fsdp")), {"in": P("fsdp"), "bias": P("fsdp"), "out": P("fsdp")}),
    "tensor": (P("data"), {"in": P(None, "tensor"), "bias": P("tensor"), "out": P("tensor")}),
    "fsdp and tensor": (
        P(("data", "fsdp")),
        {"in": P("fsdp", "tensor"), "bias": P("tensor"), "out": P("tensor", "fsdp")},
    ),
}


def loss(params, x):
    return jnp.mean((jnp.tanh(x @ params["in"] + params["bias"]) @ params["out"] - 1) ** 2)


def train_model(params, x):
    tx = lo.adam_lawn(0.05, SWITCH)

    @jax.jit
    def step(params, state, x):
        updates, state = tx.update(jax.grad(loss)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    state, history = tx.init(params), []
    for t in range(STEPS):
        params, state = step(params, state, jnp.roll(x, t, axis=1))
        history.append(params)
    return history, state


@functools.cache
def model_on_one_device():
    return train_model(normal(MODEL, jnp.float32), *normal(BATCH, jnp.float32).values())


@pytest.mark.parametrize("layout", PARALLEL)
def test_a_model_trains_as_on_one_device(layout):
    batch_spec, specs = PARALLEL[layout]
    (x,) = normal(BATCH, jnp.float32).values()
    placed = place(normal(MODEL, jnp.float32), specs, mesh())
    history, state = train_model(placed, place(x, batch_spec, mesh()))
    expected, expected_state = model_on_one_device()
    assert_same((history, state.norms), (expected, expected_state.norms), 1e-6)
    assert all(c.sharding.is_fully_replicated for c in state.norms.values())
    moments = state.inner[0]
    for name, spec in specs.items():
        for array in (history[-1][name], moments.mu[name], moments.nu[name]):
            assert array.sharding.is_equivalent_to(NamedSharding(mesh(), spec), array.ndim)


# Under shard_map each device sees its own shard, and `axis_name` completes the sums: given the
# same PartitionSpecs, just those that are split.


@pytest.mark.works_with("jax.shard_map", "with axis_name: trains as on one device")
@pytest.mark.parametrize("optimizer", ELEMENTWISE)
def test_shard_map_with_the_same_specs_trains_as_on_one_device(optimizer, x64):
    tx, params = OPTIMIZERS[optimizer](axes=AXES, axis_name=SPECS), normal(SHAPES)
    state = OPTIMIZERS[optimizer](axes=AXES).init(params)
    of_state = optax.tree.map_params(
        tx, lambda _, spec: spec, state, SPECS, transform_non_params=lambda _: P()
    )
    of_state = optax.tree.set(of_state, norms=NORMS)
    split = jax.shard_map(
        lambda params, state: run(tx, params, state),
        mesh=mesh(),
        in_specs=(SPECS, of_state),
        out_specs=(SPECS, NORMS),  # JAX proves that single norms are the same on every device
    )
    assert_same(jax.jit(split)(params, state), unsharded(optimizer))


SPLIT = {"in": P("fsdp", "tensor"), "bias": P(), "out": P(("fsdp", "tensor"))}


def test_training_may_start_within_shard_map(x64):
    tx = lo.adam_lawn(0.1, SWITCH, axis_name=("fsdp", "tensor"))
    split = jax.shard_map(
        lambda params: run(tx, params), mesh=mesh(), in_specs=(SPLIT,), out_specs=(SPLIT, P())
    )
    params = normal(MODEL)
    expected = jax.jit(lambda params: run(lo.adam_lawn(0.1, SWITCH), params))(params)
    assert_same(jax.jit(split)(params), expected)


@pytest.mark.parametrize(
    "axis_name",
    [
        SPLIT | {"whole": P()},
        {"in": ("fsdp", "tensor"), "bias": None, "out": ("fsdp", "tensor"), "whole": None},
        lambda params: {name: SPLIT.get(name) for name in params},
    ],
    ids=["specs", "names", "callable"],
)
def test_a_leaf_that_every_device_has_whole_is_counted_once(axis_name, x64):
    params = normal(MODEL | {"whole": (3, 5)})
    specs = SPLIT | {"whole": P()}
    tx = lo.lawn(optax.sgd(0.1), 0, axis_name=axis_name)
    _, state = jax.jit(
        jax.shard_map(
            lambda params, state: tx.update(params, state, params),
            mesh=mesh(),
            in_specs=(specs, P()),
            out_specs=(specs, P()),
        )
    )(params, tx.init(params))
    for name in ("in", "out", "whole"):
        np.testing.assert_allclose(state.norms[name], norm(params[name]), rtol=1e-12)


@pytest.mark.parametrize(
    ("axis_name", "error", "message"),
    [
        ({"in": 3, "bias": None, "out": None}, TypeError, r"axis_name has 3 for parameter 'in'"),
        ({"bias": None, "out": None}, ValueError, r"axis_name has no entry for parameter 'in'"),
    ],
)
def test_refuses_a_wrong_axis_name(axis_name, error, message):
    with pytest.raises(error, match=message):
        lo.adam_lawn(0.1, SWITCH, axis_name=axis_name).init(normal(MODEL, jnp.float32))


def test_layers_split_under_shard_map_need_no_axis_name(x64):
    tx = lo.adam_lawn(0.1, SWITCH, axes=(1, 2))
    (w,) = normal({"w": (4, 3, 5)}).values()
    split = jax.shard_map(
        lambda w: run(tx, w), mesh=mesh(), in_specs=P("fsdp"), out_specs=(P("fsdp"), P("fsdp"))
    )
    assert_same(jax.jit(split)(w), jax.jit(lambda w: run(tx, w))(w))


def test_data_parallel_under_shard_map_needs_no_axis_name(x64):
    tx = lo.adam_lawn(0.05, SWITCH)
    params, (x,) = normal(MODEL), normal(BATCH).values()

    def train(x, mean):
        # Each device has its part of the batch and all of the weights.
        return run(tx, params, gradient=lambda t, p: jax.grad(lambda p: mean(loss(p, x)))(p))

    split = jax.shard_map(
        lambda x: train(x, lambda value: jax.lax.pmean(value, "data")),
        mesh=mesh(),
        in_specs=P("data"),
        out_specs=P(),
    )
    assert_same(jax.jit(split)(x), jax.jit(lambda x: train(x, lambda value: value))(x))


@pytest.mark.works_with("jax.pmap", "with axis_name: trains as on one device")
def test_pmap_completes_the_sums(x64):
    (w,) = normal({"w": (8, 6)}).values()
    tx = lo.adam_lawn(0.1, SWITCH, axis_name="device")
    w_split, norms = jax.pmap(lambda w: run(tx, w), axis_name="device")(w.reshape(4, 2, 6))
    expected, expected_norms = jax.jit(lambda w: run(lo.adam_lawn(0.1, SWITCH), w))(w)
    assert_same(w_split.reshape(8, 6), expected)
    for norm_of_device in norms[""]:
        np.testing.assert_allclose(norm_of_device, expected_norms[""], rtol=1e-12)


def test_runs_side_by_side_that_share_some_weights(x64):
    shared, own = normal({"shared": (8, 12), "own": (3, 8, 12)}).values()
    tx = lo.adam_lawn(0.1, 0)

    def step(own, shared):
        params = {"own": own, "shared": shared}
        return tx.update(params, tx.init(params), params)[0]

    expected = jax.vmap(step, in_axes=(0, None))(own, shared)
    split = place([own, shared], [P(None, "data"), P("data")], mesh())
    assert_same(jax.jit(jax.vmap(step, in_axes=(0, None)))(*split), expected)


# A framework's own annotations.


@pytest.mark.works_with("flax.nnx.with_partitioning", "partitioned variables keep their norms")
def test_partitioned_variables_of_nnx():
    with jax.set_mesh(jax.make_mesh((2, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)):
        init = nnx.with_partitioning(nnx.initializers.normal(), ("x", "y"))
        model = nnx.Linear(4, 6, kernel_init=init, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, lo.adam_lawn(0.1, 1), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer):
            grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((2, 4))) ** 2))(model)
            optimizer.update(model, grads)

        for _ in range(3):
            step(model, optimizer)
    table = lo.describe(nnx.state(model, nnx.Param), optimizer.opt_state)
    np.testing.assert_allclose(table[1].norm, table[1].captured, rtol=3e-6)
