"""What a constrained step costs by the compiler's word: no machine's speed comes in.

Counted on CPU for leaves that are large beside a sum's result. The thresholds stand just above what
is reached; who reaches less tightens them.
"""

import jax
import jax.numpy as jnp
import optax
import pytest

import lawn_optax
from benchmarks.measure.optimizer_step import compile_step
from benchmarks.tools import optimizers, xla

BYTES_TO_ADAM = 2.21  # XLA's bytes accessed of one step, to Adam's
TEMPORARY = 4.1  # bytes a parameter beyond Adam's own
SUMS = 4  # of parameter-sized operands, a constrained leaf

SHAPES = {"embedding": (512, 128), "kernel": (256, 128), "conv": (3, 3, 64, 64), "bias": (128,)}
CONSTRAINED = 3


@pytest.fixture(scope="module")
def programs() -> dict[str, jax.stages.Compiled]:
    params = {n: jnp.ones(shape) for n, shape in SHAPES.items()}
    names = ("adam", "adam_lawn")
    return {n: compile_step(optimizers.OPTIMIZERS[n].make(), params, params) for n in names}


@pytest.fixture(scope="module")
def adam(programs) -> xla.Counts:
    return xla.count(programs["adam"])


@pytest.fixture(scope="module")
def adam_lawn(programs) -> xla.Counts:
    return xla.count(programs["adam_lawn"])


def test_memory_traffic_beside_adam(adam, adam_lawn):
    assert adam_lawn.bytes <= BYTES_TO_ADAM * adam.bytes


def test_temporary_memory_beyond_adam(adam, adam_lawn):
    size = sum(w.size for w in map(jnp.zeros, SHAPES.values()))
    assert adam_lawn.temporary - adam.temporary <= TEMPORARY * size


def test_sums_over_whole_leaves(adam, adam_lawn):
    assert adam.reductions == 0
    assert 0 < adam_lawn.reductions <= SUMS * CONSTRAINED


@pytest.mark.parametrize(("platform", "sums"), [("cpu", 4), ("cuda", 2)])
def test_sums_of_a_leaf_by_platform(platform, sums):
    params = {n: jnp.ones(shape) for n, shape in SHAPES.items()}
    tx = lawn_optax.adam_lawn(1e-3, switch=0)
    traced = jax.jit(tx.update).trace(params, tx.init(params), params)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert program.count("stablehlo.reduce(") == sums * CONSTRAINED


@pytest.mark.parametrize("name", ["adam", "adam_lawn"])
def test_bytes_by_the_text_of_a_program_are_those_that_xla_counts(programs, name):
    counted = programs[name].cost_analysis()["bytes accessed"]
    assert xla.traffic(programs[name].as_text()) == pytest.approx(counted, rel=1e-4)


def test_one_trace_from_the_free_phase_into_the_constrained_one():
    tx, traces = lawn_optax.adam_lawn(1e-3, switch=2), []
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}

    @jax.jit
    def step(grads, state, params):
        traces.append(1)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(4):
        params, state = step(params, state, params)
    assert int(state.constrained_steps) == 2
    assert len(traces) == 1


@pytest.mark.parametrize("shape", [(64, 64), (50, 50)])  # XLA sums the latter in two stages
def test_sums_and_kernels_are_read_off_a_compiled_program(shape):
    x = jnp.ones(shape)

    def program(x):
        total = jnp.sum(x * x)  # one sum
        y = jnp.sin(x) * total  # one fusion that waits for it
        return jax.lax.fori_loop(0, 3, lambda _, y: y @ x, y)  # one product, run in a loop

    found = xla.count(jax.jit(program).lower(x).compile())
    assert found.reductions == 1
    assert found.kernels >= 3
    few = xla.count(jax.jit(lambda x: x + 1).lower(x).compile())
    assert (few.kernels, few.reductions) == (1, 0)
    assert few.bytes == 2 * 4 * x.size
