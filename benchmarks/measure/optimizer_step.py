r"""Measures an optimizer step: memory traffic, time, temporary memory, compilation.

    python -m benchmarks.measure.optimizer_step --trees ncf resnet50 --out runs/overhead.jsonl

- bytes, FLOPs: XLA's own count for one compiled step, per parameter; beside the bytes stands the
  floor, what a step must read and write in any case (see benchmarks/tools/optimizers.py).
- temporary: bytes per parameter beside arguments and results; of one step, and of a loop of steps.
- kernels, sums: what a step launches, and how many of its sums run over 1,000 elements or more.
- launched, in kernels: with `--profile` on a GPU, what JAX's profiler saw it launch, and the
  milliseconds of the step that kernels ran in.
- time: a scan of steps with its state donated, every optimizer in turn in each window, as a ratio
  to Adam's in the same window: the median, with the smallest and the largest.
- of copy bandwidth, on an accelerator: the floor's bytes in that time, beside a copy of the
  parameters within its memory. A CPU's copy takes new memory, which a step does not.

LAWN stands there twice: on its spheres from the first step, and in its free phase. Where PyTorch is
installed, AdamP follows, as a ratio to PyTorch's fused Adam. Each line of `--out` names
the machine.

Without the machine, its program can still be counted:

    JAX_PLATFORMS=cpu python -m benchmarks.measure.optimizer_step \
        --compile-for h200.txtpb --trees resnet50

compiles for the GPU that a target config describes, and runs nothing: no times. It needs JAX's CUDA
plugin (pip install 'jax[cuda12]'). Target configs of many GPUs stand in XLA's repository,
github.com/openxla/xla, under xla/backends/gpu/target_config/specs (Apache 2.0). Bytes are then the
operands and results of all kernels, by the program's text; XLA's count on CPU is the same to 0.01%.
`--compile-for tpu-v5e:2x2` does the same for a TPU, with libtpu (pip install libtpu); `--sharded`
splits every leaf over all its chips and counts what they exchange, the rest being of one chip.
XLA's own count there is higher: it counts an operand twice that is brought near before its fusion.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import jax
import tqdm

from benchmarks.tools import profile, torch_peers, xla
from benchmarks.tools.optimizers import BASELINE, OPTIMIZERS, Stepper
from benchmarks.tools.timing import Loop, compare, copy_bytes_per_s, interleave, machine
from benchmarks.tools.trees import TREES, fill
from examples.results import records, tables
from examples.training import command
from examples.training.limits import AT_LEAST_1, OneOf, check_names, check_ranges

COUNTED = ("optimizer", "bytes", "floor", "to Adam", "temporary", "kernels", "sums")
TIMED = ("FLOPs", "temporary in a loop", "compiles in s", "ms", "time to Adam", "of copy bandwidth")
WITHOUT_COMMAND_BUFFERS = {"xla_gpu_enable_command_buffer": ""}
COMPILED = "compiled for "  # How the backend of what was not run begins.


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerStepConfig:
    """Measures one step of each optimizer on each tree of parameters."""

    trees: Annotated[tuple[str, ...], OneOf(TREES)] = ("ncf", "vgg19", "resnet50")
    """Of block (0.5 GB a copy), ncf, vgg19, resnet50, gpt2 (0.5 GB)."""
    optimizers: Annotated[tuple[str, ...], OneOf(OPTIMIZERS)] = tuple(OPTIMIZERS)
    """Which; adam is always measured, as what the others are compared with."""
    windows: Annotated[int, AT_LEAST_1] = 7
    """How often each is timed, in turn with the others."""
    steps: Annotated[int, AT_LEAST_1] = 10
    """Steps in a window."""
    torch: bool = torch_peers.installed()
    """Whether to measure AdamP in PyTorch too."""
    command_buffers: bool = True
    """Whether a GPU may take the launches of a step from a buffer, as it does by default."""
    profile: bool = False
    """Whether to count what a GPU launches, by JAX's profiler: clearest without command buffers."""
    compile_for: str | None = None
    """A GPU's target config, or a TPU such as tpu-v5e:2x2, to compile for: nothing is timed."""
    sharded: bool = False
    """Whether to split every leaf over all chips of that TPU, and to count what they exchange."""
    out: Path | None = None
    """JSONL file to append the measurements to."""

    def __post_init__(self) -> None:
        check_names(self)
        check_ranges(self)
        if self.torch and not torch_peers.installed():
            raise ValueError("torch=True, but PyTorch is not there: pip install torch.")
        if self.compile_for and not (
            self.compile_for.startswith(xla.TPU) or Path(self.compile_for).is_file()
        ):
            raise ValueError(
                f"compile_for={self.compile_for!r} is not a file: give a target config, such"
                " as xla/backends/gpu/target_config/specs/h200.txtpb of XLA's repository."
            )
        if self.sharded and not (self.compile_for or "").startswith(xla.TPU):
            raise ValueError(
                f"sharded=True needs a TPU of several chips: give compile_for={xla.TPU}v5e:2x2."
            )


def main(config: OptimizerStepConfig) -> None:
    """Measure, print a table per tree; append the records."""
    devices = xla.describe(config.compile_for) if config.compile_for else []
    if config.sharded and len(devices) < 2:
        raise ValueError(
            f"compile_for={config.compile_for!r} has one chip, over which sharded=True splits"
            f" nothing: give several, such as {xla.TPU}v5e:2x2."
        )
    for tree in config.trees:
        rows = compile_only(tree, config, devices) if devices else measure(tree, config)
        print(f"\n{heading(rows)}\n{table(rows)}")
        if config.out:
            records.append_records(config.out, rows)


def measure(tree: str, config: OptimizerStepConfig) -> list[records.Record]:
    """Return a record per optimizer."""
    shapes = TREES[tree]()
    params = fill(shapes, jax.random.key(0))
    about = describe(tree, params)
    shared = about | {
        "windows": config.windows,
        "steps": config.steps,
        "backend": jax.default_backend(),
        "device": machine(),
        "command_buffers": config.command_buffers,
    }
    if shared["backend"] != "cpu":
        shared["copy_bytes_per_s"] = copy_bytes_per_s(4 * about["parameters"])
    size = shared["parameters"]
    optimizers = {n: OPTIMIZERS[n].make() for n in (BASELINE, *config.optimizers)}
    with ThreadPoolExecutor() as pool:  # What is only counted need not wait its turn.
        steps = pool.map(lambda optimizer: compile_step(optimizer, params), optimizers.values())
        counted = dict(zip(optimizers, steps, strict=True))
    programs = {
        n: StepProgram(optimizers[n], counted[n], params, config) for n in every(config, tree)
    }
    times = interleave({n: p.loop.window for n, p in programs.items()}, config.windows, tree)
    rows = [
        shared
        | {"optimizer": name, "floor": OPTIMIZERS[name].floor}
        | programs[name].counts(size)
        | (programs[name].launched(config.steps) if config.profile else {})
        | row
        for name, row in compare(times, BASELINE).items()
    ]
    if config.torch:
        theirs = torch_peers.make(shapes, config.steps)
        times = interleave(
            {n: p.window for n, p in theirs.items()}, config.windows, f"{tree}, PyTorch"
        )
        rows += [
            shared | {"optimizer": name, "compile_s": theirs[name].compile_s} | row
            for name, row in compare(times, torch_peers.BASELINE).items()
        ]
    return rows


def compile_only(
    tree: str, config: OptimizerStepConfig, devices: Sequence[jax.Device]
) -> list[records.Record]:
    """Return what the programs for devices that are not there say, a record per optimizer."""
    device = devices[0]
    used = devices if config.sharded else devices[:1]
    params = jax.eval_shape(lambda key: fill(TREES[tree](), key), jax.random.key(0))
    shared = describe(tree, params) | {
        "backend": f"{COMPILED}{'tpu' if device.platform == 'tpu' else 'gpu'}",
        "device": f"{len(used)} x {device.device_kind}" if len(used) > 1 else device.device_kind,
    }
    of_device = sum(
        math.prod(xla.split(used, w.shape).shard_shape(w.shape)) for w in params.values()
    )
    rows = []
    for name in every(config, tree):
        optimizer = OPTIMIZERS[name].make()
        state = jax.eval_shape(optimizer.init, params)
        step = xla.compile_for(used, optimizer.step, params, state, params)
        counted = of_step(xla.count(step, by_text=True), of_device)
        if config.sharded:
            counted["exchanges"] = xla.exchanges(step.as_text() or "")
        rows.append(shared | {"optimizer": name, "floor": OPTIMIZERS[name].floor} | counted)
    return rows


def describe(tree: str, params: dict[str, jax.Array]) -> records.Record:
    """Say what is measured, and with which code."""
    sizes = [w.size for w in params.values()]
    return {
        "benchmark": "overhead",
        "tree": tree,
        "leaves": len(sizes),
        "parameters": sum(sizes),
        "largest_leaf": max(sizes),
        "versions": records.versions(),
    }


def every(config: OptimizerStepConfig, tree: str) -> Iterable[str]:
    """Yield the optimizers, Adam first, with a bar that shows how far their compilation is."""
    return tqdm.tqdm(dict.fromkeys((BASELINE, *config.optimizers)), desc=f"{tree}, compiling")


class StepProgram:
    """Compiles one optimizer on one tree: a step to count, a loop of steps to time."""

    def __init__(
        self,
        optimizer: Stepper,
        step: jax.stages.Compiled,
        params: Any,
        config: OptimizerStepConfig,
    ):
        grads = jax.tree.map(lambda w: 0.1 * w[::-1], params)
        self.step = step
        self.loop = Loop(
            lambda grads, carry: optimizer.step(grads, carry[1], carry[0]),
            grads,
            lambda: (params, optimizer.init(params)),
            config.steps,
            {} if config.command_buffers else WITHOUT_COMMAND_BUFFERS,
        )

    def counts(self, size: int) -> dict[str, float]:
        """Return what a step takes, per parameter where that makes sense."""
        step, loop = xla.count(self.step), xla.count(self.loop.compiled)
        return of_step(step, size) | {
            "temporary_in_loop": loop.temporary / size,
            "compile_s": self.loop.compile_s,
        }

    def launched(self, steps: int) -> dict[str, Any]:
        """Return what the profiler sees of a step: kernels launched, milliseconds in them."""
        seen = profile.kernels(self.loop.ready())
        of_step = lambda name, count, s: {
            "name": name,
            "launched": count / steps,
            "ms": 1e3 * s / steps,
        }
        return {
            "launched": seen.launched / steps,
            "in_kernels_ms": 1e3 * seen.seconds / steps,
            "slowest": [of_step(*row) for row in seen.slowest],
        }


def of_step(step: xla.Counts, size: int) -> dict[str, float]:
    """Return the counts of one step, per parameter where that makes sense."""
    flops = {} if step.flops is None else {"flops": step.flops / size}
    return flops | {
        "bytes": step.bytes / size,
        "temporary": step.temporary / size,
        "kernels": step.kernels,
        "reductions": step.reductions,
    }


def compile_step(optimizer: Stepper, params: Any) -> jax.stages.Compiled:
    """Compile one step, nothing donated, whose bytes are counted."""
    state = jax.eval_shape(optimizer.init, params)
    return jax.jit(optimizer.step).lower(params, state, params).compile()


def heading(rows: Sequence[records.Record]) -> str:
    """Say what was measured, and where."""
    row = rows[0]
    how = (
        "compiled for, not run"
        if row["backend"].startswith(COMPILED)
        else f"{row['windows']} windows of {row['steps']} steps"
    )
    if not row.get("command_buffers", True):
        how += ", without command buffers"
    return (
        f"{row['tree']}: {row['leaves']} leaves, {row['parameters']:,} parameters."
        f" {row['device']}, {how}."
    )


def table(rows: Sequence[records.Record]) -> str:
    """Return a row per optimizer, PyTorch's in a table of their own."""
    theirs = [row for row in rows if "bytes" not in row]
    ours = [row for row in rows if "bytes" in row]
    timed = [(*counted(row, ours[0]["bytes"]), *clocked(row)) for row in ours if "ms" in row]
    if not timed:
        columns = (*COUNTED, "exchanges") if "exchanges" in ours[0] else COUNTED
        return tables.markdown(columns, [counted(row, ours[0]["bytes"]) for row in ours])
    shown = len(timed[0]) - (not any(share for *_, share in timed))
    text = tables.markdown((*COUNTED, *TIMED)[:shown], [row[:shown] for row in timed])
    if theirs:
        head = ("optimizer", "first step in s", "ms", "time to PyTorch's fused Adam")
        cells = [
            (row["optimizer"], f"{row['compile_s']:.1f}", f"{row['ms']:.2f}", ratio(row))
            for row in theirs
        ]
        text += f"\n\n{tables.markdown(head, cells)}"
    return text


def counted(row: Mapping[str, Any], adam: float) -> tuple[str, ...]:
    """Return what a row shows of a program; `adam` is the bytes of Adam's step."""
    return (
        row["optimizer"],
        f"{row['bytes']:.0f}",
        "" if row["floor"] is None else str(row["floor"]),
        f"{row['bytes'] / adam:.2f}",
        f"{row['temporary']:.1f}",
        str(row["kernels"]),
        str(row["reductions"]),
        *([str(row["exchanges"])] if "exchanges" in row else []),
    )


def clocked(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a row shows of running a program."""
    share = share_of_copy(row)
    return (
        f"{row['flops']:.0f}",
        f"{row['temporary_in_loop']:.1f}",
        f"{row['compile_s']:.1f}",
        f"{row['ms']:.2f}",
        ratio(row),
        "" if share is None else f"{share:.0%}",
    )


def share_of_copy(row: Mapping[str, Any]) -> float | None:
    """Return the floor's bytes per second beside a copy's, None where they are not to compare."""
    if row["floor"] is None or row["backend"] == "cpu" or "copy_bytes_per_s" not in row:
        return None
    moved = row["floor"] * row["parameters"] / (row["ms"] / 1e3)
    return float(moved / row["copy_bytes_per_s"])


def ratio(row: Mapping[str, Any]) -> str:
    """Return a median with its spread."""
    return f"{row['time']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


if __name__ == "__main__":
    read = command.parser(OptimizerStepConfig, "benchmarks.measure.optimizer_step", __doc__)
    command.run(main, read)
