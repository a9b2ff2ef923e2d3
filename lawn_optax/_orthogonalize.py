"""Muon's direction: each matrix of a tree, orthogonalised, and which axes are a matrix's."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lawn_optax._paths import (
    called,
    is_masked,
    join,
    leaves_by_path,
    leaves_with_paths,
    match_deepest,
    parameters,
    replace_leaves,
)
from lawn_optax._selection import StackedOrFn, stacked_axes


def orthogonalize(
    numbers_of: Callable[[optax.Params], dict[str, Any]], **newton_schulz: Any
) -> optax.GradientTransformation:
    """Make a transformation that orthogonalises each matrix: Muon without its momentum."""

    def muon(leaf_numbers: Any) -> optax.GradientTransformation:
        return optax.contrib.scale_by_muon(
            beta=0.0, nesterov=False, weight_dimension_numbers=leaf_numbers, **newton_schulz
        )

    def init(params: optax.Params) -> optax.EmptyState:
        numbers_of(params)
        jax.eval_shape(muon(None).init, params)  # refuses coefficients that do not fit
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        leaves = leaves_by_path(updates)
        orthogonalized = {}
        for path, leaf_numbers in numbers_of(updates).items():
            of_leaf = muon(leaf_numbers)
            direction = lambda x, tx=of_leaf: tx.update(x, tx.init(x))[0]
            orthogonalized[path] = _however_sharded(direction)(leaves[path])
        return replace_leaves(updates, orthogonalized), state

    return optax.GradientTransformation(init, update)


def _however_sharded(function: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """Return `function` of an array whose explicit sharding its products would not accept."""

    def call(x: jax.Array) -> jax.Array:
        sharding: Any = jax.typeof(x).sharding
        if not sharding.mesh.explicit_axes:
            return function(x)
        axes = sharding.mesh.explicit_axes
        return jax.sharding.auto_axes(function, axes=axes, out_sharding=sharding)(x)

    return call


def dimension_numbers(params: optax.Params, given: Any, stacked: StackedOrFn) -> dict[str, Any]:
    """Return the rows and columns of each leaf's matrices, counted from its first axis."""
    leaves = parameters(params)
    if not leaves:
        return {}
    entries = _numbers_by_leaf(params, called(given, params))
    found = {}
    for (path, leaf), count, numbers in zip(
        leaves, stacked_axes(params, stacked), entries, strict=True
    ):
        rank = jnp.ndim(leaf) - count
        if numbers is None and rank != 2:
            raise ValueError(
                f"parameter {join(path)!r} has {rank} axes per layer, and muon_h orthogonalises"
                " matrices: give weight_dimension_numbers= an optax.contrib.MuonDimensionNumbers"
                " for it, stacked= the number of its leading axes that count layers, or labels="
                " another group, such as 'other'."
            )
        rows_and_columns = _sides(join(path), numbers or optax.contrib.MuonDimensionNumbers(), rank)
        found[join(path)] = optax.contrib.MuonDimensionNumbers(
            *(tuple(count + axis for axis in axes) for axes in rows_and_columns)
        )
    return found


def _sides(path: str, numbers: Any, rank: int) -> list[tuple[int, ...]]:
    """Return the axes of a matrix's two sides among those of a layer, none of them negative."""
    try:
        sides = [tuple(map(operator.index, _as_tuple(axes))) for axes in numbers]
    except TypeError:
        sides = [()]
    axes = [axis for side in sides for axis in side]
    inside = all(-rank <= axis < rank for axis in axes)
    if not inside or not all(sides) or len({axis % rank for axis in axes}) < len(axes):
        raise ValueError(
            f"weight_dimension_numbers={numbers!r} for parameter {path!r}: each side must have one"
            f" or more of the {rank} axes of a layer, from {-rank} to {rank - 1}, none of them"
            " twice."
        )
    return [tuple(axis % rank for axis in side) for side in sides]


def _numbers_by_leaf(params: optax.Params, given: Any) -> list[Any]:
    """Return the dimension numbers that the user gives each parameter; None for none."""
    are_numbers = lambda x: isinstance(x, optax.contrib.MuonDimensionNumbers)
    if given is None or are_numbers(given):
        return [given] * len(parameters(params))
    rows = [(p, x) for p, x in leaves_with_paths(given, are_numbers) if not is_masked(x)]
    if not all(path and are_numbers(x) for path, x in rows):
        raise TypeError(
            f"weight_dimension_numbers={given!r} must be an optax.contrib.MuonDimensionNumbers, or"
            " a dict from names to them."
        )
    return match_deepest(given, params, are_numbers)


def _as_tuple(axes: Any) -> tuple[int, ...]:
    """Return one axis or several as a tuple."""
    return tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
