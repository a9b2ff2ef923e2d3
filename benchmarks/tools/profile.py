"""Counts the kernels that a GPU ran, as JAX's profiler saw them."""

import collections
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

SHOWN = 20
_MOVES = ("memcpy", "memset")  # How the names of what is no kernel begin.


class KernelProfile(NamedTuple):
    """Says what ran.

    Attributes:
      launched: kernels, those of loops each time; no copies and no fills.
      seconds: of all of them together.
      slowest: the names that took longest, each with its launches and seconds.
    """

    launched: int
    seconds: float
    slowest: list[tuple[str, int, float]]


def kernels(run: Callable[[], Any]) -> KernelProfile:
    """Run something that waits for its own result, and return the kernels that it ran."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        return read(jax.profiler.ProfileData.from_file(str(trace)).planes)


def read(planes: Iterable[Any]) -> KernelProfile:
    """Return the kernels of the streams of all GPUs among the planes of a trace."""
    lines = (line for p in planes if p.name.startswith("/device:GPU") for line in p.lines)
    events = [
        event
        for line in lines
        if line.name.startswith("Stream")
        for event in line.events
        if not event.name.lower().startswith(_MOVES)
    ]
    by_name: dict[str, list[float]] = collections.defaultdict(list)
    for event in events:
        by_name[event.name].append(event.duration_ns / 1e9)
    rows = [(name, len(seconds), sum(seconds)) for name, seconds in by_name.items()]
    slowest = sorted(rows, key=lambda row: -row[2])[:SHOWN]
    return KernelProfile(len(events), sum(row[2] for row in rows), slowest)
