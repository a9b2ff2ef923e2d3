"""What a compiled program costs by XLA's own word, and by the text of the program itself."""

import math
import re
from collections.abc import Iterator
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


class Counts(NamedTuple):
    """What one run of a program takes.

    Attributes:
      bytes: read and written by its kernels, as XLA's cost analysis counts them.
      flops: operations, counted likewise.
      temporary: bytes of memory beside the arguments and the results.
      kernels: what is launched one after the other: fusions, copies, library calls. On GPU these
        are kernels; on CPU they are tasks of its runtime, each of which may use many threads.
      reductions: sums over `LARGE` elements or more.
    """

    bytes: float
    flops: float
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
        dimensions = re.search(r"\[([\d,]*)\]", self.shape)
        return math.prod(map(int, filter(None, dimensions[1].split(",")))) if dimensions else 0


def count(compiled: Any) -> Counts:
    """Of a `jax.stages.Compiled`."""
    cost, text = compiled.cost_analysis(), compiled.as_text()
    return Counts(
        bytes=cost["bytes accessed"],
        flops=cost["flops"],
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
    computations = parse(text)

    def run(name: str) -> int:
        return sum(
            sum(map(run, called(line))) if line.opcode in _CALLS else line.opcode not in _FREE
            for line in computations[name]
        )

    return run(_entry(text))


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


def _entry(text: str) -> str:
    found = re.search(r"^ENTRY %([\w.-]+)", text, re.M)
    if found is None:
        raise ValueError("the text has no ENTRY: give it a compiled program's as_text().")
    return found[1]
