"""Takes time by the clock: scans of steps with their state donated, every program in turn."""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm


class Loop:
    """Runs a number of steps in one compiled scan.

    Attributes:
      compiled: the program.
      compile_s: seconds that its tracing and compilation took.
    """

    def __init__(
        self,
        step: Callable[[Any, Any], Any],
        given: Any,
        start: Callable[[], Any],
        steps: int,
        compiler_options: Mapping[str, str] | None = None,
    ):
        """Compile it and run it once.

        Args:
          step: `step(given, carry) -> carry`.
          given: what every step is given, such as a batch.
          start: makes the first carry, which is donated. It is made anew for each window, so that
            the states of many optimizers need not be in memory together.
          steps: how many steps a window has.
          compiler_options: of XLA.
        """

        def scan(given: Any, carry: Any) -> Any:
            return jax.lax.scan(lambda x, _: (step(given, x), None), carry, length=steps)[0]

        self._given, self._steps = given, steps
        self._start = lambda: jax.tree.map(jnp.copy, start())
        begun = time.perf_counter()
        lowered = jax.jit(scan, donate_argnums=1).lower(given, self._start())
        self.compiled = lowered.compile(dict(compiler_options or {}))
        self.compile_s = time.perf_counter() - begun
        self.window()

    def window(self) -> float:
        """Return the seconds of a step."""
        run = self.ready()
        begun = time.perf_counter()
        run()
        return (time.perf_counter() - begun) / self._steps

    def ready(self) -> Callable[[], Any]:
        """Return the next window, of which nothing is left to do but the steps themselves."""
        carry = jax.block_until_ready(self._start())
        return lambda: jax.block_until_ready(self.compiled(self._given, carry))


def interleave(
    runs: Mapping[str, Callable[[], float]], windows: int, title: str
) -> dict[str, np.ndarray]:
    """Time each run once per window, so that a slow moment of the machine meets all alike."""
    rounds = [{n: run() for n, run in runs.items()} for _ in tqdm.trange(windows, desc=title)]
    return {name: np.array([seconds[name] for seconds in rounds]) for name in runs}


def compare(seconds: Mapping[str, np.ndarray], baseline: str) -> dict[str, dict[str, float]]:
    """Return the median of each run in ms, and its ratio to `baseline` in the same window.

    The median of the ratios is `time`, the smallest `low`, the largest `high`.
    """
    ratios = {name: times / seconds[baseline] for name, times in seconds.items()}
    return {
        name: {
            "ms": 1e3 * float(np.median(seconds[name])),
            "time": float(np.median(ratio)),
            "low": float(ratio.min()),
            "high": float(ratio.max()),
        }
        for name, ratio in ratios.items()
    }


def copy_bytes_per_s(size: int, windows: int = 5, calls: int = 10) -> float:
    """Return the bytes per second, read and written, of a copy of `size` bytes in memory.

    Several copies are in flight, so that the host's share of a call is not in it.
    """
    copy = jax.jit(jnp.copy).lower(jax.ShapeDtypeStruct((size // 4,), jnp.float32)).compile()
    x = jnp.zeros(size // 4, jnp.float32)
    times = []
    for _ in range(1 + windows):
        begun = time.perf_counter()
        for _ in range(calls):
            copied = copy(x)
        jax.block_until_ready(copied)
        times.append((time.perf_counter() - begun) / calls)
    return 2 * size / float(np.median(times[1:]))


def machine() -> str:
    """Name what computes: the GPU's name, or the processor's with its number of cores."""
    kind = jax.devices()[0].device_kind
    if kind != "cpu":
        return kind
    about = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", about.read_text()) if about.exists() else None
    return f"{os.cpu_count()} cores of {model[1]}" if model else f"{os.cpu_count()} CPU cores"
