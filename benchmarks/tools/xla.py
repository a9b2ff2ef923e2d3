"""Counts what a compiled program costs: by XLA's own word, and by the text of the program itself.

A program may be compiled for a GPU or a TPU that is not there: XLA needs only a description.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TPU = "tpu-"  # What the name of a TPU's topology starts with.
LARGE = 1_000  # Elements; no norm's scale of a common model has as many as the smallest kernel.
# Trying kernels out to choose among them would take the device itself.
WITHOUT_DEVICE: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"}

# Instructions that compute nothing, and those that run other computations.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
# How a TPU brings an operand near before the fusion that reads it, for which it is counted.
_FREE |= {"copy-start", "copy-done", "slice-start", "slice-done"}
_BROUGHT = 'custom_call_target="ConcatBitcast"'
_EXCHANGES = {"all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter"}
_CALLS = {"call", "while", "conditional", "async-start"}
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|true_computation|false_computation)"
    r"=\{?((?:%[\w.-]+(?:, )?)+)"
)
_NAME = re.compile(r"%([\w.-]+)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_EMPTY = {"token", "opaque"}


class Counts(NamedTuple):
    """Says what one run of a program takes.

    Attributes:
      bytes: read and written by its kernels, as XLA's cost analysis counts them; `traffic` of the
        program's text where XLA gives none, which is so of a device that is not there.
      flops: operations, by XLA's cost analysis; None where it gives none.
      temporary: bytes of memory beside the arguments and the results.
      kernels: what is launched one after the other: fusions, copies, library calls. On GPU these
        are kernels; on CPU they are tasks of its runtime, each of which may use many threads.
      reductions: sums over `LARGE` elements or more.
    """

    bytes: float
    flops: float | None
    temporary: int
    kernels: int
    reductions: int


class Instruction(NamedTuple):
    """Reads a line of a program: `%name = shape opcode(arguments), attributes`."""

    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def size(self) -> int:
        """Return the elements of the first array of the shape."""
        array = _ARRAY.search(self.shape)
        return _elements(array[2]) if array else 0

    @property
    def bytes(self) -> float:
        """Return the bytes of all arrays of the shape."""
        arrays = _ARRAY.findall(self.shape)
        return sum(_bits(kind) * _elements(dimensions) for kind, dimensions in arrays) / 8

    @property
    def operands(self) -> list[str]:
        """Return the names of its arguments, each once."""
        return list(dict.fromkeys(_NAME.findall(self.rest.split(")")[0])))

    @property
    def called(self) -> list[str]:
        """Return the names of the computations that it runs."""
        return [name for group in _CALLED.findall(self.rest) for name in _NAME.findall(group)]


def describe(target: str) -> list[jax.Device]:
    """Return the devices of a TPU's topology, such as tpu-v5e:2x2, or of a GPU's target config."""
    if not target.startswith(TPU):
        return [describe_gpu(Path(target))]
    # A lock keeps processes from sharing a TPU; here none is opened.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        topology = topologies.get_topology_desc(target.removeprefix(TPU), "tpu")
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"{target} is not a TPU that can be compiled for here: it needs libtpu (pip install"
            f" libtpu), and a topology such as v5e:2x2. {error}"
        ) from error
    return list(topology.devices)


def describe_gpu(target_config: Path) -> jax.Device:
    """Return the device of a target config, XLA's description of one in protobuf's text format."""
    text = target_config.read_text(encoding="utf-8")
    one_device = {"target_config": text, "topology": "1x1x1"}
    try:
        return topologies.get_topology_desc("", "cuda", **one_device).devices[0]
    except NotImplementedError as error:
        raise RuntimeError(
            "compiling for a GPU needs JAX's CUDA plugin: pip install 'jax[cuda12]'; and, where"
            " there is no GPU, JAX_PLATFORMS=cpu in the environment."
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            f"{target_config} is not a target config that this XLA can read, see above: delete the"
            f" fields that it does not know. {error}"
        ) from error


def compile_for(devices: Sequence[jax.Device], function: Any, *args: Any) -> jax.stages.Compiled:
    """Compile a function of arrays of these shapes, each split over the devices as by `split`.

    The program cannot be run here.
    """
    there = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split(devices, x.shape))
    options = WITHOUT_DEVICE if devices[0].platform != "tpu" else None
    return jax.jit(function).lower(*jax.tree.map(there, args)).compile(options)


def split(devices: Sequence[jax.Device], shape: Sequence[int]) -> jax.sharding.Sharding:
    """Return how an array is split: its last two axes over a mesh of two rows, where these divide.

    With one device it is whole.
    """
    if len(devices) == 1:
        return jax.sharding.SingleDeviceSharding(devices[0])
    mesh = Mesh(np.reshape(np.array(devices), (2, -1)), ("rows", "columns"))
    sizes = [*[0] * (2 - len(shape)), *shape[-2:]]
    names = [
        name if size and size % mesh.shape[name] == 0 else None
        for name, size in zip(mesh.axis_names, sizes, strict=True)
    ]
    spec = PartitionSpec(*[None] * (len(shape) - 2), *names[max(2 - len(shape), 0) :])
    return NamedSharding(mesh, spec)


def count(compiled: jax.stages.Compiled, *, by_text: bool = False) -> Counts:
    """Count what a compiled program takes, its bytes by its text alone if asked."""
    cost, text = compiled.cost_analysis(), compiled.as_text() or ""
    return Counts(
        bytes=cost["bytes accessed"] if cost and not by_text else traffic(text),
        flops=cost["flops"] if cost else None,
        temporary=_planned(compiled, "temp"),
        kernels=kernels(text),
        reductions=reductions(text),
    )


def memory(compiled: jax.stages.Compiled) -> int:
    """Return the bytes of the arguments, the results and the temporary arrays of a program."""
    held = sum(_planned(compiled, of) for of in ("argument", "output", "temp"))
    return held - _planned(compiled, "alias")  # Donated arguments are results too.


def kernels(text: str) -> int:
    """Return how many instructions are run, those of loops and branches once."""
    return int(_total(text, lambda line, sizes: 1, of_branches=sum))


def traffic(text: str) -> float:
    """Return the bytes that kernels read and write.

    Each reads its operands once and writes its results once, whatever it does with them. As in
    XLA's own count, loops are run once, and of branches the one that takes most.
    """

    def of_kernel(line: Instruction, sizes: dict[str, float]) -> float:
        return line.bytes + sum(sizes[name] for name in line.operands)

    return _total(text, of_kernel, of_branches=max)


def exchanges(text: str) -> int:
    """Return how often devices exchange numbers, each exchange counted where it starts."""
    return sum(
        line.opcode.removesuffix("-start") in _EXCHANGES
        for lines in parse(text).values()
        for line in lines
    )


def reductions(text: str, at_least: int = LARGE) -> int:
    """Return how many sums a program takes over arrays of `at_least` elements.

    A dot product is one too, and so is a sum in two stages, of windows and then of their sums; one
    that XLA computes twice counts twice.
    """
    total = 0
    for lines in parse(text).values():
        sizes = {line.name: line.size for line in lines}
        for line in lines:
            scalar_product = line.opcode == "dot" and line.size == 1
            if line.opcode in ("reduce", "reduce-window") or scalar_product:
                operand = _NAME.search(line.rest)
                total += operand is not None and sizes[operand[1]] >= at_least
    return total


def parse(text: str) -> dict[str, list[Instruction]]:
    """Return the instructions of each computation, by its name."""
    computations = re.findall(r"^(?:ENTRY )?%([\w.-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S)
    return {name: list(_instructions(body)) for name, body in computations}


def _total(
    text: str,
    of_kernel: Callable[[Instruction, dict[str, float]], float],
    of_branches: Callable[[Iterable[float]], float],
) -> float:
    """Sum `of_kernel(line, bytes of each line beside it, by name)` over all that is run."""
    computations = parse(text)

    def of_computation(name: str) -> float:
        lines = computations[name]
        sizes = {line.name: line.bytes for line in lines}
        return sum(of_line(line, sizes) for line in lines if line.opcode not in _FREE)

    def of_line(line: Instruction, sizes: dict[str, float]) -> float:
        if _BROUGHT in line.rest:
            return 0
        if line.opcode not in _CALLS:
            return of_kernel(line, sizes)
        combined = of_branches if line.opcode == "conditional" else sum
        return combined(map(of_computation, line.called))

    return of_computation(_entry(text))


def _planned(compiled: jax.stages.Compiled, of: str) -> int:
    return int(getattr(compiled.memory_analysis(), f"{of}_size_in_bytes"))


def _instructions(body: str) -> Iterator[Instruction]:
    for line in body.splitlines():
        found = re.match(r"\s+(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)", line)
        if found:
            yield Instruction(*found.groups())


def _elements(dimensions: str) -> int:
    return math.prod(map(int, filter(None, dimensions.split(","))))


def _bits(kind: str) -> int:
    """Return the bits of an element of a type by its name: f32, bf16, f8e4m3fn, pred."""
    digits = re.search(r"\d+", kind)
    return int(digits[0]) if digits else 0 if kind in _EMPTY else 8


def _entry(text: str) -> str:
    found = re.search(r"^ENTRY %([\w.-]+)", text, re.M)
    if found is None:
        raise ValueError("the text has no ENTRY: give it a compiled program's as_text().")
    return found[1]
