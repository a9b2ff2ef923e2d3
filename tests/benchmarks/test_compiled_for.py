"""Programs for a device that is not there: counted by their text, recorded, told from those run."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.measure import optimizer_step
from benchmarks.report import cost_tables, goals
from benchmarks.tools import trees, xla

pytestmark = pytest.mark.usefixtures("compiled_as_for_users")

# In the manner of what XLA prints for a GPU: a sum in two stages, a kernel with two results of two
# types, and a branch of one kernel or two.
TEXT = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %y = f32[] parameter(1)
  %x = f32[] parameter(0)
  ROOT %total = f32[] add(%x, %y)
}

%partly (p.0: f32[32,64]) -> f32[32] {
  %p.0 = f32[32,64]{1,0} parameter(0)
  %square = f32[32,64]{1,0} multiply(%p.0, %p.0)
  %zero.0 = f32[] constant(0)
  ROOT %reduce.0 = f32[32]{0} reduce(%square, %zero.0), dimensions={1}, to_apply=%add
}

%wholly (p.1: f32[32]) -> f32[] {
  %p.1 = f32[32]{0} parameter(0)
  %zero.1 = f32[] constant(0)
  ROOT %reduce.1 = f32[] reduce(%p.1, %zero.1), dimensions={0}, to_apply=%add
}

%both (p.2: f32[32,64], q.2: f32[]) -> (bf16[32,64], pred[32,64]) {
  %p.2 = f32[32,64]{1,0} parameter(0)
  %q.2 = f32[] parameter(1)
  %spread = f32[32,64]{1,0} broadcast(%q.2), dimensions={}
  %less = pred[32,64]{1,0} compare(%p.2, %spread), direction=LT
  %narrow = bf16[32,64]{1,0} convert(%p.2)
  ROOT %tuple.2 = (bf16[32,64]{1,0}, /*index=1*/pred[32,64]{1,0}) tuple(%narrow, %less)
}

%short (p.3: bf16[32,64]) -> bf16[32,64] {
  %p.3 = bf16[32,64]{1,0} parameter(0)
  ROOT %copy.3 = bf16[32,64]{1,0} copy(%p.3)
}

%long (p.4: bf16[32,64]) -> bf16[32,64] {
  %p.4 = bf16[32,64]{1,0} parameter(0)
  %copy.4 = bf16[32,64]{1,0} copy(%p.4)
  ROOT %copy.5 = bf16[32,64]{1,0} copy(%copy.4)
}

ENTRY %main (w: f32[32,64], i: s32[]) -> (bf16[32,64], pred[32,64]) {
  %w = f32[32,64]{1,0} parameter(0), metadata={op_name="w"}
  %i = s32[] parameter(1)
  %sums = f32[32]{0} fusion(%w), kind=kInput, calls=%partly, metadata={op_name="a(b)/c"}
  %sum = f32[] fusion(%sums), kind=kInput, calls=%wholly
  %results = (bf16[32,64]{1,0}, pred[32,64]{1,0}) fusion(%w, %sum), kind=kLoop, calls=%both
  %first = bf16[32,64]{1,0} get-tuple-element(%results), index=0
  %second = pred[32,64]{1,0} get-tuple-element(%results), index=1
  %third = bf16[32,64]{1,0} conditional(%i, %first, %first), branch_computations={%short, %long}
  ROOT %tuple = (bf16[32,64]{1,0}, pred[32,64]{1,0}) tuple(%third, %second)
}
"""
SIZE = 32 * 64


def test_traffic_is_the_operands_and_results_of_every_kernel_that_is_run():
    sums = (4 * SIZE + 4 * 32) + (4 * 32 + 4)
    results = (4 * SIZE + 4) + (2 * SIZE + SIZE)
    longer_branch = 2 * (2 * SIZE + 2 * SIZE)
    assert xla.traffic(TEXT) == sums + results + longer_branch


def test_kernels_and_sums_of_a_program_for_a_gpu():
    assert xla.kernels(TEXT) == 3 + 1 + 2  # both branches
    assert xla.reductions(TEXT) == 1  # the second stage adds up 32
    assert xla.reductions(TEXT, at_least=32) == 2


class Deviceless:
    """A compiled program of a device that is not there, as JAX gives it."""

    def cost_analysis(self):
        return None

    def as_text(self):
        return TEXT

    def memory_analysis(self):
        return type("Memory", (), {"temp_size_in_bytes": 132})


def test_a_step_is_recorded_without_what_takes_running(monkeypatch):
    described = []
    compiled = lambda *args: described.append(args) or Deviceless()
    monkeypatch.setattr(xla, "compile_for", compiled)
    device = type("Device", (), {"device_kind": "some GPU", "platform": "cuda"})
    config = optimizer_step.OptimizerStepConfig(optimizers=("sgd",), torch=False)
    adam, sgd = rows = optimizer_step.compile_only("ncf", config, [device])
    assert [(row["optimizer"], row["floor"]) for row in rows] == [("adam", 28), ("sgd", 20)]
    assert (sgd["backend"], sgd["device"]) == ("compiled for gpu", "some GPU")
    assert sgd["bytes"] == xla.traffic(TEXT) / sgd["parameters"]
    assert not {"ms", "time", "flops", "windows"} & adam.keys()
    _, step, *trees = described[1]  # of shapes alone: no array of any device is made
    assert callable(step)
    assert {type(x) for x in jax.tree.leaves(trees)} == {jax.ShapeDtypeStruct}
    assert optimizer_step.heading(rows).endswith("some GPU, compiled for, not run.")
    header = [cell.strip() for cell in optimizer_step.table(rows).splitlines()[0].split("|")[1:-1]]
    assert tuple(header) == optimizer_step.COUNTED


def record(backend, optimizer, **measured):
    about = {"benchmark": "overhead", "tree": "block", "leaves": 1, "device": "some GPU"}
    sizes = {"parameters": 100, "largest_leaf": 100, "versions": {"commit": "abc"}}
    cost = {"bytes": 28, "floor": 28, "temporary": 0.0, "kernels": 3, "reductions": 0}
    return about | sizes | cost | {"backend": backend, "optimizer": optimizer} | measured


def shown(found):
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in goals.table(found).splitlines()]
    return {(what, where): measured for what, where, _, measured in rows[2:]}


BOTH = ("adam", "adam_lawn")
BYTES = "bytes of a step to Adam's, on the worst tree"
MEMORY = "temporary memory beyond Adam's, in largest leaves, on the worst tree"
IN_LOOP = f"{MEMORY}, in a loop"
TIME = "time of a step to Adam's: block"
COPY = "a step's share of copy bandwidth: block"


def test_goals_are_measured_on_their_own_device_alone():
    compiled = [
        record("compiled for gpu", n, bytes=b) for n, b in (("adam", 28), ("adam_lawn", 56))
    ]
    where = goals.COMPILED.name
    assert shown(compiled) == {(BYTES, where): "2.00", (MEMORY, where): "0.00"}
    unrun = {entry.what for entry in goals.missing(compiled)}
    assert {f"{TIME}, on a GPU", f"{TIME}, on a CPU", f"{BYTES}, on a CPU"} <= unrun

    timed = {"ms": 1e-3, "time": 1.5, "low": 1.0, "high": 2.0, "copy_bytes_per_s": 9.6e9}
    timed |= {"floor": 48, "temporary_in_loop": 0.0}
    run = [record("gpu", n, **timed) for n in ("adam", "adam_lawn")]
    assert shown(run) == {
        (IN_LOOP, "a GPU"): "0.00",
        (TIME, "a GPU"): "1.50 (1.00 to 2.00)",
        (COPY, "a GPU"): "50%",
    }


def test_goals_are_of_the_last_record_and_the_worst_tree():
    ran = lambda name, **cost: record("cpu", name, **{"temporary_in_loop": 0.0} | cost)
    found = [
        ran("adam", tree="ncf", bytes=40),
        ran("adam_lawn", tree="ncf", bytes=999),
        ran("adam_lawn", tree="ncf", bytes=80, temporary=2.4),  # the last one counts
        ran("adam", bytes=40),
        ran("adam_lawn", bytes=90, time=2.4, low=2.0, high=3.0, temporary_in_loop=1.2),
    ]
    assert shown(found) == {
        (BYTES, "a CPU"): "2.25",
        (MEMORY, "a CPU"): "0.60",  # 2.4 bytes * 100 to 4 bytes * 100
        (IN_LOOP, "a CPU"): "0.30",
        (TIME, "a CPU"): "2.40 (2.00 to 3.00)",
    }


def test_steps_without_command_buffers_stand_apart():
    timed = {"ms": 1.0, "time": 1.0, "low": 1.0, "high": 1.0, "flops": 1, "temporary_in_loop": 0}
    more = timed | {"compile_s": 1.0, "windows": 7, "steps": 10}
    usual, without = (
        [record("gpu", n, **more | {"time": t, "command_buffers": given}) for n in BOTH]
        for t, given in ((1.5, True), (1.25, False))
    )
    assert shown(usual + without)[TIME, "a GPU"] == "1.50 (1.00 to 1.00)"
    headings = [
        line.endswith("without command buffers.")
        for line in cost_tables.steps(usual + without, goals.GPU).splitlines()
        if line.startswith("block")
    ]
    assert headings == [False, True]


def test_what_was_compiled_is_one_table():
    found = [
        record("compiled for gpu", "adam"),
        record("compiled for gpu", "adam_lawn", bytes=56, kernels=9, reductions=4),
        record("compiled for gpu", "adam_lawn", tree="ncf", bytes=49, leaves=8),
    ]
    head, _, adam, lawn = cost_tables.compiled(found).splitlines()[2:]
    assert [cell.strip() for cell in head.split("|")[3:-1]] == ["block, 1 leaves", "ncf, 8 leaves"]
    assert [cell.strip() for cell in adam.split("|")[3:-1]] == ["28 (3, 0)", ""]
    assert [cell.strip() for cell in lawn.split("|")[3:-1]] == ["56 (9, 4)", "49 (3, 0)"]


def test_a_target_config_that_is_not_there_or_not_one(tmp_path, monkeypatch):
    file = tmp_path / "gpu.txtpb"
    with pytest.raises(ValueError, match=r"compile_for='.*gpu.txtpb' is not a file: give a target"):
        optimizer_step.OptimizerStepConfig(compile_for=str(file))
    file.write_text("no description")

    def refuse(error):
        def refusing(*args, **kwargs):
            raise error

        monkeypatch.setattr(xla.topologies, "get_topology_desc", refusing)

    refuse(NotImplementedError("topology not implemented for cuda"))
    with pytest.raises(RuntimeError, match="needs JAX's CUDA plugin: pip install"):
        xla.describe(str(file))
    refuse(jax.errors.JaxRuntimeError("cannot parse"))
    with pytest.raises(ValueError, match=r"gpu.txtpb is not a target config .* cannot parse"):
        xla.describe(str(file))


def test_a_step_compiled_for_a_tpu_moves_the_floor():
    pytest.importorskip("libtpu")
    devices = xla.describe("tpu-v5e:2x2")
    config = optimizer_step.OptimizerStepConfig(optimizers=("adam_lawn",), torch=False)
    adam, lawn = optimizer_step.compile_only("block", config, devices)
    assert adam["backend"] == "compiled for tpu"
    assert (adam["bytes"], lawn["bytes"]) == pytest.approx((28, 48), rel=0.01)


def test_sharded_leaves_exchange_twice_on_a_tpu_however_many_they_are(monkeypatch):
    shapes = {f"{i}": (256, 512) for i in range(12)}
    monkeypatch.setitem(trees.TREES, "twelve", lambda: shapes)
    pytest.importorskip("libtpu")
    config = optimizer_step.OptimizerStepConfig(
        optimizers=("adam_lawn",), torch=False, compile_for="tpu-v5e:2x2", sharded=True
    )
    devices = xla.describe("tpu-v5e:2x2")
    for tree in ("block", "twelve"):
        adam, lawn = rows = optimizer_step.compile_only(tree, config, devices)
        assert lawn["device"] == "4 x TPU v5 lite"
        assert (adam["exchanges"], lawn["exchanges"]) == (0, 2)
        assert (adam["bytes"], lawn["bytes"]) == pytest.approx((28, 48), rel=0.03)
        assert optimizer_step.table(rows).splitlines()[-1].endswith("| 2         |")


def test_one_chip_splits_nothing(monkeypatch):
    monkeypatch.setattr(xla, "describe", lambda target: jax.devices()[:1])
    config = optimizer_step.OptimizerStepConfig(
        torch=False, compile_for="tpu-v5e:1x1", sharded=True
    )
    with pytest.raises(ValueError, match="compile_for='tpu-v5e:1x1' has one chip, over which"):
        optimizer_step.main(config)
    with pytest.raises(ValueError, match="sharded=True needs a TPU of several chips: give compile"):
        optimizer_step.OptimizerStepConfig(torch=False, sharded=True)


def test_an_array_is_split_where_the_mesh_divides_it():
    devices = jax.devices()[:4]
    shards = {
        shape: xla.split(devices, shape).shard_shape(shape)
        for shape in [(), (4,), (3,), (4, 6), (3, 6), (5, 4, 6), (7, 4, 3)]
    }
    assert shards == {
        (): (),
        (4,): (2,),
        (3,): (3,),
        (4, 6): (2, 3),
        (3, 6): (3, 3),
        (5, 4, 6): (5, 2, 3),
        (7, 4, 3): (7, 2, 3),
    }


def test_exchanges_are_seen():
    devices = jax.devices()[:2]
    add = lambda x: (jnp.sum(x), x + 1)
    split, whole = (
        xla.compile_for(some, add, jnp.ones((8, 8))).as_text() for some in (devices, devices[:1])
    )
    assert (xla.exchanges(split), xla.exchanges(whole)) == (1, 0)


def test_shapes_are_compiled_for_a_device_as_they_are():
    compiled = xla.compile_for(jax.devices()[:1], lambda x: x + 1, jnp.ones(3, jnp.bfloat16))
    text = compiled.as_text()
    assert "bf16[3]" in text
    assert xla.kernels(text) == 1
    assert xla.traffic(text) == 2 * 3 * 2
