"""One constrained Adam step on one leaf, in each form that was tried: what it costs, what it loses.

    python -m benchmarks.measure.forms --out runs/forms.jsonl

The library has the form "two sweeps, plain sums", on a GPU "two sweeps, one complex sum". Bytes are
XLA's count for one step, a parameter; time is a ratio to Adam's step in the same window. The two
errors are of the norm that a step reaches: after Adam's first, and after one of ten times the
weights that is nearly parallel to them.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.tools import xla
from benchmarks.tools.rivals import Stepper, stepper
from benchmarks.tools.timing import Loop, compare, interleave, machine
from examples.results import records, tables
from examples.training import command

Pair = tuple[jax.Array, jax.Array]
Sums = Callable[[jax.Array, jax.Array], Pair]


class Form(NamedTuple):
    """How lines 4 and 9-11 are computed.

    Attributes:
      before: `<w, w>` and `<w, g>`.
      after: `<w, r>` and `<r, r>`.
      size: `||w + r_p||` from `w`, `r`, `<w, w>`, `<w, r>` and `<r, r>`.
    """

    before: Sums
    after: Sums
    size: Callable[..., jax.Array]


def plain(x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array) -> Pair:
    """`<x, y>` and `<a, b>`, a sum each."""
    return jnp.sum(x * y), jnp.sum(a * b)


def together(x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array) -> Pair:
    """`<x, y>` and `<a, b>` in one reduction of two operands."""
    zero, add = jnp.float32(0), lambda s, t: (s[0] + t[0], s[1] + t[1])
    return jax.lax.reduce((x * y, a * b), (zero, zero), add, tuple(range(x.ndim)))


def as_one(x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array) -> Pair:
    """`<x, y>` and `<a, b>` as the real and the imaginary part of one sum."""
    total = jnp.sum(jax.lax.complex(x * y, a * b))
    return total.real, total.imag


def closed(w: jax.Array, r: jax.Array, ww: jax.Array, wr: jax.Array, rr: jax.Array) -> jax.Array:
    """By Pythagoras, and by no more than that."""
    del w, r
    return jnp.sqrt(ww + jnp.maximum(rr - wr**2 / ww, 0))


def summed(w: jax.Array, r: jax.Array, ww: jax.Array, wr: jax.Array, rr: jax.Array) -> jax.Array:
    """From the vector itself, once `r_p` is known: a third sweep."""
    del rr
    return jnp.sqrt(jnp.sum((w + (r - wr / ww * w)) ** 2))


def chosen(w: jax.Array, r: jax.Array, ww: jax.Array, wr: jax.Array, rr: jax.Array) -> jax.Array:
    """The closed form, and the third sweep in a branch where that would lose digits."""
    size = closed(w, r, ww, wr, rr)
    return jax.lax.cond(rr > 9 * size**2, summed, closed, w, r, ww, wr, rr)


def _form(sums: Callable[..., Pair], size: Callable[..., jax.Array]) -> Form:
    return Form(
        lambda w, g: sums(w, w, w, g),
        lambda w, r: sums(w, r, r, r),
        size,
    )


FORMS: dict[str, Form] = {
    "three sweeps, plain sums": _form(plain, summed),
    "two sweeps, plain sums": _form(plain, closed),
    "two sweeps, sums together": _form(together, closed),
    "two sweeps, one complex sum": _form(as_one, closed),
    "two sweeps, a third in a branch": _form(plain, chosen),
}
BASELINE = "adam"
COLUMNS = (
    "form",
    "bytes",
    "to Adam",
    "temporary",
    "kernels",
    "time to Adam",
    "error of the norm",
    "nearly parallel",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Measures each form on one square leaf."""

    width: int = 2048
    """Of the leaf, which has its square of parameters."""
    windows: int = 7
    """How often each is timed, in turn with the others."""
    steps: int = 10
    """Steps in a window."""
    out: Path | None = None
    """JSONL file to append the measurements to."""


def main(config: Config) -> None:
    """Measures, prints the table, appends the records."""
    rows = measure(config)
    print(table(rows))
    if config.out:
        records.append_records(config.out, rows)


def measure(config: Config) -> list[records.Record]:
    """A record a form."""
    w, g, o = 0.02 * jax.random.normal(jax.random.key(0), (3, config.width, config.width))
    adam = optax.adam(1e-3, eps=1e-6)
    steppers = {BASELINE: stepper(adam)}
    steppers |= {name: constrained(form, adam, jnp.linalg.norm(w)) for name, form in FORMS.items()}
    start: Any = {name: lambda s=s: (w, s.init(w)) for name, s in steppers.items()}
    advance: Any = {n: lambda g, x, s=s: s.step(g, x[1], x[0]) for n, s in steppers.items()}
    loops = {n: Loop(advance[n], g, start[n], config.steps) for n in steppers}
    times = interleave({n: loop.window for n, loop in loops.items()}, config.windows, "forms")
    shared = {
        "benchmark": "forms",
        "shape": w.shape,
        "windows": config.windows,
        "steps": config.steps,
        "versions": records.versions(),
        "backend": jax.default_backend(),
        "device": machine(),
    }
    rows = []
    for name, timed in compare(times, BASELINE).items():
        step = steppers[name].step
        state = jax.eval_shape(steppers[name].init, w)
        count = xla.count(jax.jit(step).lower(g, state, w).compile())
        cost = {"bytes": count.bytes / w.size, "temporary": count.temporary / w.size}
        row: records.Record = {"form": name, **cost, "kernels": count.kernels, **timed}
        if name in FORMS:
            parallel = constrained(FORMS[name], direction(10 * w + o), jnp.linalg.norm(w))
            row |= {"error": error(steppers[name], w, g), "parallel": error(parallel, w, g)}
        rows.append(shared | row)
    return rows


def constrained(form: Form, inner: optax.GradientTransformation, c: jax.Array) -> Stepper:
    """Algorithm 1 on a sphere of radius `c`, from the first step."""

    def step(g: jax.Array, state: Any, w: jax.Array) -> tuple[jax.Array, Any]:
        ww, wg = form.before(w, g)
        r, state = inner.update(g - wg / ww * w, state, w)
        wr, rr = form.after(w, r)
        s = c / form.size(w, r, ww, wr, rr)
        return w + (s * r + (s * (1 - wr / ww) - 1) * w), state

    return Stepper(inner.init, step)


def direction(r: jax.Array) -> optax.GradientTransformation:
    """Always `r`."""
    return optax.stateless(lambda updates, params: r)


def error(of: Stepper, w: jax.Array, g: jax.Array) -> float:
    """By how much, relative, one step misses the norm that it should keep."""
    reached, _ = jax.jit(of.step)(g, of.init(w), w)
    norm = lambda x: np.linalg.norm(np.float64(x))
    return float(abs(norm(reached) / norm(w) - 1))


def table(rows: list[records.Record]) -> str:
    """Markdown, a row a form."""
    adam = rows[0]["bytes"]
    cells = [
        (
            row["form"],
            f"{row['bytes']:.0f}",
            f"{row['bytes'] / adam:.2f}",
            f"{row['temporary']:.1f}",
            str(row["kernels"]),
            f"{row['time']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            *(f"{row[name]:.0e}" if name in row else "" for name in ("error", "parallel")),
        )
        for row in rows
    ]
    return tables.markdown(COLUMNS, cells)


if __name__ == "__main__":
    command.run(main, command.parser(Config, "benchmarks.measure.forms", __doc__))
