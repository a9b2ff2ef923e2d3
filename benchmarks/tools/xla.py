"""What a compiled program costs by XLA's own word, and by the text of the program itself."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

LARGE = 1_000  # Elements; no norm's scale of a common model has as many as the smallest kernel.

# Instructions that compute nothing, and those that run other computations.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_CALLS = {"call", "while", "conditional", "async-start"}
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|true_computation|false_computation)"
    r"=\{?((?:%[\w.-]+(?:, )?)+)"
)
_NAME = re.compile(r"%([\w.-]+)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_EMPTY = {"token", "opaque"}


class Counts(NamedTuple):
    """What one run of a program takes.

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
    """A line of a program: `%name = shape opcode(arguments), attributes`."""

    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def size(self) -> int:
        """Elements of the first array of the shape."""
        array = _ARRAY.search(self.shape)
        return _elements(array[2]) if array else 0

    @property
    def bytes(self) -> float:
        """Of all arrays of the shape."""
        arrays = _ARRAY.findall(self.shape)
        return sum(_bits(kind) * _elements(dimensions) for kind, dimensions in arrays) / 8

    @property
    def operands(self) -> list[str]:
        """The names of its arguments, each once."""
        return list(dict.fromkeys(_NAME.findall(self.rest.split(")")[0])))


def count(compiled: Any) -> Counts:
    """Of a `jax.stages.Compiled`."""
    cost, text = compiled.cost_analysis(), compiled.as_text()
    return Counts(
        bytes=cost["bytes accessed"] if cost else traffic(text),
        flops=cost["flops"] if cost else None,
        temporary=compiled.memory_analysis().temp_size_in_bytes,
        kernels=kernels(text),
        reductions=reductions(text),
    )


def memory(compiled: Any) -> int:
    """Bytes of the arguments, the results and the temporary arrays of a `jax.stages.Compiled`."""
    planned = compiled.memory_analysis()
    parts = [getattr(planned, f"{of}_size_in_bytes") for of in ("argument", "output", "temp")]
    return sum(parts) - int(planned.alias_size_in_bytes)  # Donated arguments are results too.


def kernels(text: str) -> int:
    """How many instructions of a compiled program are run, those of its loops and branches once."""
    return int(_total(text, lambda line, sizes: 1, of_branches=sum))


def traffic(text: str) -> float:
    """Bytes that the kernels of a compiled program read and write, by its text.

    Each reads its operands once and writes its results once, whatever it does with them. As in
    XLA's own count, loops are run once, and of branches the one that takes most.
    """

    def of_kernel(line: Instruction, sizes: dict[str, float]) -> float:
        return line.bytes + sum(sizes[name] for name in line.operands)

    return _total(text, of_kernel, of_branches=max)


def _total(
    text: str,
    of_kernel: Callable[[Instruction, dict[str, float]], float],
    of_branches: Callable[[Iterable[float]], float],
) -> float:
    """The sum over all that is run of `of_kernel(line, bytes of each line beside it, by name)`."""
    computations = parse(text)

    def of_computation(name: str) -> float:
        lines = computations[name]
        sizes = {line.name: line.bytes for line in lines}
        return sum(of_line(line, sizes) for line in lines if line.opcode not in _FREE)

    def of_line(line: Instruction, sizes: dict[str, float]) -> float:
        if line.opcode not in _CALLS:
            return of_kernel(line, sizes)
        combined = of_branches if line.opcode == "conditional" else sum
        return combined(map(of_computation, called(line)))

    return of_computation(_entry(text))


def reductions(text: str, at_least: int = LARGE) -> int:
    """How many sums a compiled program takes over arrays of `at_least` elements.

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
    """The instructions of each computation, by its name."""
    computations: dict[str, list[Instruction]] = {}
    for name, body in re.findall(r"^(?:ENTRY )?%([\w.-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S):
        computations[name] = list(_instructions(body))
    return computations


def called(line: Instruction) -> list[str]:
    """The computations that an instruction runs."""
    return [name for group in _CALLED.findall(line.rest) for name in _NAME.findall(group)]


def _instructions(body: str) -> Iterator[Instruction]:
    for line in body.splitlines():
        found = re.match(r"\s+(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)", line)
        if found:
            yield Instruction(*found.groups())


def _elements(dimensions: str) -> int:
    return math.prod(map(int, filter(None, dimensions.split(","))))


def _bits(kind: str) -> int:
    """Of an element of a type by its name, such as f32, bf16, f8e4m3fn or pred."""
    digits = re.search(r"\d+", kind)
    return int(digits[0]) if digits else 0 if kind in _EMPTY else 8


def _entry(text: str) -> str:
    found = re.search(r"^ENTRY %([\w.-]+)", text, re.M)
    if found is None:
        raise ValueError("the text has no ENTRY: give it a compiled program's as_text().")
    return found[1]
