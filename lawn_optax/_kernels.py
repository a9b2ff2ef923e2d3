"""Computes the sums, coefficients and moves of many leaves in few kernels.

Leaves that are alike share one traced function. On an accelerator, where many small kernels cost
more than their work, the numbers of all leaves are taken at once. Nothing here knows of trees.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lawn_optax._geometry import Coefficients

Rule = Callable[..., Any]  # From numbers of a norm, elementwise; mostly to its `Coefficients`.
Terms = list[list[jax.Array]]  # Some of each leaf, all of one shape.


def upcast(x: jax.Array) -> jax.Array:
    """Cast to at least float32 (complex64), the precision that sums are taken in."""
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


def map_norms(
    function: Callable[..., Iterable[Any]], *numbers: Mapping[Any, jax.Array]
) -> dict[Any, Any]:
    """Return an elementwise function of the numbers of every norm.

    Leaves with one norm of one type are taken together: `function` has their numbers in one tuple
    per argument. A leaf with several norms stays by itself, because they may be spread over devices
    in a way of their own.
    """
    alike = collections.defaultdict(list)
    for key, last in numbers[-1].items():
        kinds = tuple(jax.typeof(xs[key]) for xs in numbers)
        alike[kinds if jnp.ndim(last) == 0 else key].append(key)
    results: dict[Any, Any] = {}
    for keys in alike.values():
        columns = (tuple(xs[key] for key in keys) for xs in numbers)
        results |= zip(keys, function(*columns), strict=True)
    return results


@functools.cache
def where(rule: Rule) -> Rule:
    """Return a rule with a condition before its numbers: where that is false, `r` stays itself."""

    def select(condition: jax.Array, *numbers: jax.Array) -> Coefficients:
        a, b = rule(*numbers)
        return Coefficients(
            None if a is None else jnp.where(condition, a, 1),
            None if b is None else jnp.where(condition, b, 0),
        )

    return select


# What is done per leaf is jitted: it is traced once for all leaves of a shape, and is one call
# where a user works op by op.


@functools.partial(jax.jit, static_argnums=1)
def inner_products(
    leaves: tuple[tuple[tuple[jax.Array, jax.Array], ...], ...], axes: tuple[int, ...]
) -> tuple[tuple[jax.Array, ...], ...]:
    """Return `<x, y>` over `axes` of each pair of each leaf, the leaves being alike."""
    terms = [[jnp.real(jnp.conj(upcast(x)) * upcast(y)) for x, y in pairs] for pairs in leaves]
    return jax.lax.platform_dependent(
        terms,
        default=functools.partial(_sums, axes=axes),
        cuda=functools.partial(_sums_in_one_kernel, axes=axes),
    )


def _sums(terms: Terms, axes: tuple[int, ...]) -> tuple[tuple[jax.Array, ...], ...]:
    """Return the sums of all terms over `axes`."""
    return tuple(tuple(jnp.sum(x, axis=axes) for x in of_leaf) for of_leaf in terms)


def _sums_in_one_kernel(terms: Terms, axes: tuple[int, ...]) -> tuple[tuple[jax.Array, ...], ...]:
    """Return the same by one reduction, of pairs of a leaf's terms as complex numbers.

    XLA for GPUs starts a kernel for the first stage of each sum and one for the second, and seldom
    takes two sums of a leaf in a kernel with other results. On CPU it would write the complex terms
    out before it sums them.
    """
    pairs = [xs[i : i + 2] for xs in terms for i in range(0, len(xs), 2)]
    columns = [xs[0] if len(xs) == 1 else jax.lax.complex(*_promoted(*xs)) for xs in pairs]
    if len(columns) == 1:
        totals = [jnp.sum(columns[0], axis=axes)]
    else:
        add = lambda xs, ys: [x + y for x, y in zip(xs, ys, strict=True)]
        totals = jax.lax.reduce(columns, [jnp.zeros([], x.dtype) for x in columns], add, axes)
    sums = (
        part.astype(x.dtype)
        for total, xs in zip(totals, pairs, strict=True)
        for part, x in zip((total.real, total.imag), xs, strict=False)
    )
    return tuple(tuple(itertools.islice(sums, len(of_leaf))) for of_leaf in terms)


def _promoted(*arrays: jax.Array) -> list[jax.Array]:
    """Return arrays of one dtype."""
    return [x.astype(jnp.result_type(*arrays)) for x in arrays]


@functools.partial(jax.jit, static_argnums=0)
def evaluate(rule: Rule, *columns: tuple[jax.Array, ...]) -> tuple[Any, ...]:
    """Apply a rule to the numbers of several leaves with one norm each, or of one with several.

    On an accelerator all leaves are taken at once, so that many of them do not mean many small
    kernels. On a CPU kernels are cheap to start, and those of leaves alike are compiled once.
    """
    rule = jax.jit(rule)
    return jax.lax.platform_dependent(
        *columns,
        cpu=functools.partial(_one_by_one, rule),
        default=functools.partial(_all_at_once, rule),
    )


def _one_by_one(rule: Rule, *columns: tuple[jax.Array, ...]) -> tuple[Any, ...]:
    """Return the rule of each row of the columns."""
    return tuple(rule(*row) for row in zip(*columns, strict=True))


def _all_at_once(rule: Rule, *columns: tuple[jax.Array, ...]) -> tuple[Any, ...]:
    """Return the same, computed from one array per column."""
    if len(columns[-1]) == 1:
        return _one_by_one(rule, *columns)
    results = rule(*map(jnp.stack, columns))
    return _rows(jax.lax.optimization_barrier(results), len(columns[-1]))


def psum(axis_name: tuple[str, ...], numbers: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Return the sums of numbers over mesh axes, in one exchange."""
    if len(numbers) == 1:
        return (jax.lax.psum(numbers[0], axis_name),)
    return _rows(jax.lax.psum(jnp.stack(numbers), axis_name), len(numbers))


def _rows(arrays: Any, count: int) -> tuple[Any, ...]:
    """Return what is at each index of the first axis of arrays."""
    return tuple(jax.tree.map(lambda x, i=i: x[i], arrays) for i in range(count))


@functools.partial(jax.jit, static_argnums=0)
def move(
    axes: tuple[int, ...], w: jax.Array, r: jax.Array, coefficients: Coefficients
) -> jax.Array:
    """Return `a r + b w`; a number that is 0 takes its vector out, were it infinite."""
    per_slice = lambda x: x if x.ndim == 0 else jnp.expand_dims(x, axes)
    a, b = coefficients
    moved = upcast(r)
    if a is not None:
        moved = jnp.where(per_slice(a == 0), 0, _scaled(per_slice(a), moved))
    if b is not None:
        moved = jnp.where(per_slice(b == 0), moved, moved + _scaled(per_slice(b), upcast(w)))
    return moved.astype(jnp.result_type(r))


def _scaled(a: jax.Array, x: jax.Array) -> jax.Array:
    """Return `a x` for a real `a`, without a product of infinity and the imaginary part 0."""
    return jax.lax.complex(a * x.real, a * x.imag) if jnp.iscomplexobj(x) else a * x
