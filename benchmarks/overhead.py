"""What an optimizer step costs: memory traffic, time, temporary memory, compilation.

    python -m benchmarks.overhead --trees ncf resnet50 --out runs/overhead.jsonl

Traffic and arithmetic are XLA's own count for one compiled step without donation. Time is a scan
of steps with its state donated, every optimizer in turn in each window, as a ratio to Adam's in
the same window: medians, with the smallest and largest. A figure without its machine is no
result, so each line of `--out` names the device.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
import tyro

import lawn_optax
from benchmarks import trees
from examples import records

FREE, NOW = 1_000_000_000, 0

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: optax.adam(1e-3, eps=1e-6),
    "adam_lawn": lambda: lawn_optax.adam_lawn(1e-3, NOW),
    "adam_lawn, free": lambda: lawn_optax.adam_lawn(1e-3, FREE),
    "adam_lawn, links": lambda: optax.chain(
        lawn_optax.project_to_tangent(),
        optax.adam(1e-3, eps=1e-6),
        lawn_optax.project_to_tangent(),
        lawn_optax.rescale_to_norms(),
    ),
    "adamw": lambda: optax.adamw(1e-3),
    "lamb": lambda: optax.lamb(1e-3),
    "lamb_lawn": lambda: lawn_optax.lamb_lawn(1e-3, NOW),
    "hyperball": lambda: lawn_optax.hyperball(optax.scale_by_adam(), 1e-3),
    "sgd": lambda: optax.sgd(1e-3, momentum=0.9),
    "sgd_lawn": lambda: lawn_optax.sgd_lawn(1e-3, NOW),
}
BASELINE = "adam"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Measures one step of each optimizer on each tree."""

    trees: tuple[str, ...] = ("ncf", "vgg19", "resnet50")
    """Of block, ncf, vgg19, resnet50, gpt2."""
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    """Which; adam is always measured, as what the others are compared with."""
    windows: int = 7
    """How often each is timed, in turn with the others."""
    steps: int = 10
    """Steps in a window."""
    out: Path | None = None
    """JSONL file to append the measurements to."""

    def __post_init__(self) -> None:
        for name, known in (("trees", trees.TREES), ("optimizers", OPTIMIZERS)):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name} holds {value!r}: choose from {', '.join(known)}.")


def main(config: Config) -> None:
    """Measures, prints a table a tree, appends the records."""
    names = dict.fromkeys((BASELINE, *config.optimizers))
    for tree in config.trees:
        params = trees.fill(trees.TREES[tree](), jax.random.key(0))
        size = sum(w.size for w in params.values())
        programs = {name: Program(OPTIMIZERS[name](), params, config.steps) for name in names}
        seconds = interleave({n: p.window for n, p in programs.items()}, config.windows, tree)
        ratios = {name: seconds[name] / seconds[BASELINE] for name in names}
        rows = [
            {"optimizer": name, **programs[name].counts(size), **spread(ratios[name])}
            for name in names
        ]
        for row, times in zip(rows, seconds.values(), strict=True):
            row["ms"] = 1e3 * float(np.median(times))
        print(f"\n{tree}: {len(params)} leaves, {size:,} parameters, {device()}\n{table(rows)}")
        if config.out:
            append(config.out, config, tree, size, rows)


class Program:
    """One optimizer on one tree, compiled: a step to count, a scan of steps to time."""

    def __init__(self, tx: optax.GradientTransformation, params: Any, steps: int):
        grads = jax.tree.map(lambda w: 0.1 * w[::-1], params)
        state = tx.init(params)

        def step(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        def scan(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
            body = lambda carry, _: (step(grads, carry[1], carry[0]), None)
            return jax.lax.scan(body, (params, state), length=steps)[0]

        start = time.perf_counter()
        self.step = jax.jit(step).lower(grads, state, params).compile()
        self.compile_s = time.perf_counter() - start
        self._scan = jax.jit(scan, donate_argnums=(1, 2))
        self._steps, self._grads = steps, grads
        self._carry = self._scan(
            grads, jax.tree.map(jnp.copy, state), jax.tree.map(jnp.copy, params)
        )

    def window(self) -> float:
        """Seconds a step."""
        params, state = jax.block_until_ready(self._carry)
        start = time.perf_counter()
        self._carry = jax.block_until_ready(self._scan(self._grads, state, params))
        return (time.perf_counter() - start) / self._steps

    def counts(self, size: int) -> dict[str, float]:
        """What XLA counts of one step, per parameter where that makes sense."""
        cost: Any = self.step.cost_analysis()
        memory: Any = self.step.memory_analysis()
        return {
            "bytes": cost["bytes accessed"] / size,
            "flops": cost["flops"] / size,
            "temporary": memory.temp_size_in_bytes / size,
            "compile_s": self.compile_s,
        }


def interleave(
    runs: dict[str, Callable[[], float]], windows: int, title: str
) -> dict[str, np.ndarray]:
    """Each run once a window, so that a slow moment of the machine meets all alike."""
    rounds = [{n: run() for n, run in runs.items()} for _ in tqdm.trange(windows, desc=title)]
    return {name: np.array([seconds[name] for seconds in rounds]) for name in runs}


def spread(ratios: np.ndarray) -> dict[str, float]:
    """Median, smallest, largest."""
    return {"time": float(np.median(ratios)), "low": ratios.min(), "high": ratios.max()}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a row an optimizer."""
    baseline = rows[0]["bytes"]
    lines = [
        "| optimizer | bytes a parameter | to Adam | FLOPs | temporary | ms | time to Adam |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['optimizer']} | {row['bytes']:.0f} | {row['bytes'] / baseline:.2f}"
            f" | {row['flops']:.0f} | {row['temporary']:.1f} | {row['ms']:.2f}"
            f" | {row['time']:.2f} ({row['low']:.2f} to {row['high']:.2f}) |"
        )
    return "\n".join(lines)


def append(out: Path, config: Config, tree: str, size: int, rows: list[dict[str, Any]]) -> None:
    """One JSON line an optimizer."""
    shared = {
        "benchmark": "overhead",
        "tree": tree,
        "parameters": size,
        "windows": config.windows,
        "steps": config.steps,
        "versions": records.versions(),
        "device": device(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(shared | row) + "\n" for row in rows)


def device() -> str:
    """The kind of machine that computed."""
    return jax.devices()[0].device_kind


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.overhead"))
