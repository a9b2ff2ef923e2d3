"""What a constrained step costs by the compiler's word: no machine's speed comes in.

Counted on CPU for leaves that are large beside a sum's result. The thresholds stand just above what
is reached; who reaches less tightens them.
"""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import lawn_optax
from benchmarks.measure.optimizer_step import compile_step
from benchmarks.tools import optimizers, xla
from lawn_optax._spheres import Sphere, Spheres

pytestmark = pytest.mark.usefixtures("compiled_as_for_users")

BYTES_TO_ADAM = 2.21  # XLA's bytes accessed of one step, to Adam's
UNPROJECTED_BYTES = 60.1  # the same without projections, per parameter
LAMB_BYTES = 92.1  # the same of LAMB-LAWN, per parameter
TEMPORARY = 4.1  # bytes per parameter beyond Adam's own
SUMS = 4  # of parameter-sized operands, per constrained leaf
LAMB_SUMS = 5
LOWERED_TO_ADAM = 1.6  # operations per leaf as JAX hands them to XLA, to Adam's
COMPILED_TO_ADAM = 6.0  # instructions per leaf as XLA has compiled them on CPU, to Adam's

SHAPES = {"embedding": (512, 128), "kernel": (256, 128), "conv": (3, 3, 64, 64), "bias": (128,)}
CONSTRAINED = 3


@pytest.fixture(scope="module")
def programs() -> dict[str, jax.stages.Compiled]:
    params = {n: jnp.ones(shape) for n, shape in SHAPES.items()}
    names = ("adam", "adam_lawn", "adam_lawn, not projected", "lamb_lawn")
    return {n: compile_step(optimizers.OPTIMIZERS[n].make(), params) for n in names}


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


def test_without_projections_the_gradient_is_read_once(programs, adam):
    counts = xla.count(programs["adam_lawn, not projected"])
    size = sum(w.size for w in map(jnp.zeros, SHAPES.values()))
    assert counts.bytes <= UNPROJECTED_BYTES * size
    assert counts.temporary - adam.temporary < 0.1 * size
    assert counts.reductions <= 2 * CONSTRAINED


def test_lamb_lawn_takes_its_ratio_and_its_turn_from_few_sums(programs):
    counts = xla.count(programs["lamb_lawn"])
    size = sum(w.size for w in map(jnp.zeros, SHAPES.values()))
    assert counts.bytes <= LAMB_BYTES * size
    assert counts.reductions <= LAMB_SUMS * CONSTRAINED + 1  # a free leaf has a ratio, too


@pytest.mark.parametrize(("platform", "sums"), [("cpu", 2), ("cuda", 1)])
def test_sums_of_a_sweep_by_platform(platform, sums):
    w = jnp.ones((4, 3))
    sweep = jax.jit(lambda w, g: Spheres({"": Sphere((0, 1))}).inner_products((w, w), (w, g)))
    program = sweep.trace(w, w).lower(lowering_platforms=(platform,)).as_text()
    assert program.count("stablehlo.reduce(") == sums


def per_leaf(tx, count):
    """What one more kernel adds to a program, by `count` of its lowering."""

    def counted(leaves):
        params = {f"kernel{i}": jnp.ones((16, 16)) for i in range(leaves)}
        return count(jax.jit(tx.update).lower(params, tx.init(params), params))

    return (counted(12) - counted(4)) / 8


@pytest.mark.parametrize(
    ("count", "most"),
    [
        (lambda lowered: lowered.as_text().count(" = "), LOWERED_TO_ADAM),
        (lambda lowered: lowered.compile().as_text().count(" = "), COMPILED_TO_ADAM),
    ],
)
def test_a_program_stays_small_so_that_it_compiles_fast(count, most):
    ours = per_leaf(lawn_optax.adam_lawn(1e-3, switch=3), count)
    assert 0 < ours <= most * per_leaf(optax.adam(1e-3), count)


def reductions(program):
    """The reductions that a run starts: those of a function count as often as it is called."""
    bodies = {f.split("(")[0]: f for f in re.split(r"func\.func \w+ @", program)}

    def count(name):
        called = re.findall(r"call @(\w+)", bodies[name])
        return bodies[name].count("stablehlo.reduce(") + sum(map(count, called))

    return count("main")


def test_on_a_gpu_leaves_alike_are_summed_by_one_reduction():
    params = {f"kernel{i}": jnp.ones((16, 16)) for i in range(10)} | {"other": jnp.ones((16, 8))}
    tx = lawn_optax.adam_lawn(1e-3, switch=3)
    traced = jax.jit(tx.update).trace(params, tx.init(params), params)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert reductions(program) == 2 * 2  # Two sweeps over two shapes.


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


# XLA sums the latter in two stages, and combines them in a further kernel.
@pytest.mark.parametrize(("shape", "kernels"), [((64, 64), 2), ((50, 50), 4)])
def test_sums_and_kernels_are_read_off_a_compiled_program(shape, kernels):
    x = jnp.ones(shape)
    # One sum, and one fusion that waits for it.
    found = xla.count(jax.jit(lambda x: jnp.sin(x) * jnp.sum(x * x)).lower(x).compile())
    assert (found.kernels, found.reductions) == (kernels, 1)
    few = xla.count(jax.jit(lambda x: x + 1).lower(x).compile())
    assert (few.kernels, few.reductions) == (1, 0)
    assert few.bytes == 2 * 4 * x.size


def test_what_a_loop_runs_counts_once():
    x = jnp.ones((64, 64))
    loop = lambda trips: jax.jit(lambda x: jax.lax.fori_loop(0, trips, lambda _, y: y @ x, x))
    counted = [xla.count(loop(trips).lower(x).compile()).kernels for trips in (3, 30)]
    assert counted[0] == counted[1] > 1
