"""From a user's arguments to `Spheres`: which leaves are constrained, and over which axes."""

import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from lawn_optax._checks import check_array
from lawn_optax._masks import MaskOrFn, choose_leaves
from lawn_optax._paths import (
    Path,
    called,
    is_masked,
    join,
    leaves_with_paths,
    listed,
    match_deepest,
    match_tree,
    parameters,
)
from lawn_optax._spheres import Sphere, Spheres

AxesOrFn = Any | Callable[[optax.Params], Any] | None
StackedOrFn = Any | Callable[[optax.Params], Any] | None
AxisNameOrFn = Any | Callable[[optax.Params], Any] | None


class Choice(NamedTuple):
    """What was chosen for one parameter.

    Attributes:
      sphere: where it lives when constrained; None for a free leaf.
      reason: why, in a few words.
    """

    sphere: Sphere | None
    reason: str


class Selection(NamedTuple):
    """Says which leaves are constrained, and over which axes: the arguments of `lawn`."""

    mask: MaskOrFn = None
    axes: AxesOrFn = None
    stacked: StackedOrFn = None
    axis_name: AxisNameOrFn = None

    def spheres(self, params: optax.Params) -> Spheres:
        """Return the sphere of each constrained parameter, by its path.

        Raises:
          ValueError: for a `mask`, `axes`, `axis_name` or `stacked` that does not fit `params`, or
            a `mask` that constrains nothing.
          TypeError: for an entry of the wrong type, or a constrained leaf that is not inexact.
        """
        choices = self.choices(params)
        return Spheres({path: choice.sphere for path, choice in choices.items() if choice.sphere})

    def whole_leaves(self, params: optax.Params) -> Spheres:
        """Return a sphere for every inexact leaf, whatever mask and axes: one, or one per layer."""
        inexact = jax.tree.map(lambda w: jnp.issubdtype(jnp.result_type(w), jnp.inexact), params)
        return self._replace(mask=inexact, axes=None).spheres(params)

    def spheres_or_warn(self, params: optax.Params) -> Spheres:
        """Return the spheres, and warn where the default rule constrains nothing."""
        spheres = self.spheres(params)
        paths = [join(path) for path, _ in parameters(params)]
        if self.mask is None and not spheres and paths:
            warnings.warn(
                f"No leaf is constrained: none of the {len(paths)} parameters is a kernel or an"
                f" embedding by rank and name. They are {listed(paths)}. Training stays free; pass"
                " mask= with True at the leaves to constrain.",
                stacklevel=3,
            )
        return spheres

    def choices(self, params: optax.Params) -> dict[str, Choice]:
        """Return what is chosen for each parameter, and why; raise as `spheres` does."""
        leaves = parameters(params)
        if not leaves:
            return {}
        for path, leaf in leaves:
            check_array(join(path), leaf)
        paths = [path for path, _ in leaves]
        counts = stacked_axes(params, self.stacked)
        constrained = choose_leaves(params, leaves, counts, self.mask)
        axes = _axes_by_leaf(params, paths, called(self.axes, params))
        given = called(self.axis_name, params)
        names = match_tree("axis_name", given, params, paths, is_leaf=_is_axis_name)
        choices = {}
        for (path, leaf), (chosen, reason), count, entry, name in zip(
            leaves, constrained, counts, axes, names, strict=True
        ):
            sphere = None
            if chosen:
                norm_axes = _resolve_axes(path, leaf, entry, count)
                sphere = Sphere(norm_axes, _resolve_axis_name(path, norm_axes, name), count)
            choices[join(path)] = Choice(sphere, reason)
        return choices


def stacked_axes(params: optax.Params, stacked: StackedOrFn) -> list[int]:
    """Return how many leading axes of each parameter count layers or experts."""
    ranks = [jnp.ndim(leaf) for _, leaf in parameters(params)]
    stacked = called(stacked, params)
    if stacked is None:
        return [0] * len(ranks)
    if _is_count(stacked):
        return [min(_stacked_count("", stacked), rank) for rank in ranks]
    counts = {pattern: _stacked_count(pattern, n) for pattern, n in _patterns(stacked).items()}
    if not any(counts.values()):
        raise ValueError(
            f"stacked={stacked!r} stacks nothing: name a subtree and how many leading axes its"
            " leaves carry, such as {'blocks': 1} (under optax.inject_hyperparams, name 'stacked'"
            " in static_args)."
        )
    found = match_deepest(counts, params, otherwise=0)
    return [min(count, rank) for count, rank in zip(found, ranks, strict=True)]


def _patterns(stacked: Any) -> dict[str, Any]:
    """Return patterns and the leading axes that each speaks of, in whatever form they came."""
    if isinstance(stacked, str):
        return {stacked: 1}
    if isinstance(stacked, (tuple, list, set, frozenset)):
        if all(isinstance(name, str) for name in stacked):
            return dict.fromkeys(stacked, 1)
    elif not isinstance(stacked, (bool, float)):
        rows = leaves_with_paths(stacked, is_leaf=_is_axes)
        return {join(path): n for path, n in rows if path and n is not None and not is_masked(n)}
    raise TypeError(
        f"stacked={stacked!r} must be a number of leading axes, the names of subtrees, or a dict"
        " from names to numbers, such as {'blocks': 1}."
    )


def _is_count(stacked: Any) -> bool:
    """Tell whether `stacked` is one number of leading axes for all leaves."""
    axes = stacked if isinstance(stacked, tuple) and stacked else (stacked,)
    return all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in axes)


def _stacked_count(pattern: str, n: Any) -> int:
    """Return a number of leading axes, also given as the axes `(0, 1, ...)` themselves."""
    if isinstance(n, tuple) and n and n == tuple(range(len(n))):
        return len(n)
    if isinstance(n, (int, np.integer)) and n >= 0:
        return int(n)
    raise ValueError(
        f"stacked has {n!r}{f' for {pattern!r}' if pattern else ''}: give how many leading axes"
        " count layers or experts, 1 for layers stacked once."
    )


def _axes_by_leaf(params: optax.Params, paths: list[Path], axes: Any) -> list[Any]:
    """Return the axes that the user gives each leaf, by a tree, by a prefix of it or by names.

    A dict with an entry for every parameter, and none besides, is a tree or a prefix.
    """
    try:
        return match_tree("axes", axes, params, paths, is_leaf=_is_axes)
    except ValueError:
        if not isinstance(axes, Mapping):
            raise
    return match_deepest(axes, params, _is_axes)


def _resolve_axes(path: Path, leaf: jax.Array, axes: Any, stacked: int) -> tuple[int, ...]:
    """Return `axes` of one leaf, sorted and counted from its first axis; None means all of them.

    Axes are those of a single layer: the stacked ones are not counted.
    """
    shape = jnp.shape(leaf)[stacked:]
    ndim = len(shape)
    if axes is None:
        return tuple(range(stacked, stacked + ndim))
    resolved = []
    for axis in axes if isinstance(axes, tuple) else (axes,):
        try:
            if isinstance(axis, bool):
                raise TypeError
            axis = operator.index(axis)
        except Exception as error:  # a tracer raises an error of its own
            raise TypeError(
                f"axes={axes!r} for parameter {join(path)!r}: axes must be an integer or a tuple"
                " of them, known before tracing (under optax.inject_hyperparams, name 'axes' in"
                " static_args)."
            ) from error
        if not -ndim <= axis < ndim:
            per_layer = " per layer (stacked axes are not counted)" if stacked else ""
            raise ValueError(
                f"axes={axes!r} is out of range for parameter {join(path)!r} of shape"
                f" {shape}{per_layer}: use axes from {-ndim} to {ndim - 1}, or a dict from names to"
                " axes, such as {'embed': 1, 'head': 0}."
            )
        resolved.append(stacked + axis % ndim)
    if len(set(resolved)) < len(resolved) or not resolved:
        raise ValueError(
            f"axes={axes!r} for parameter {join(path)!r} names "
            f"{'an axis twice' if resolved else 'no axis'}: name each axis that the norm runs over"
            " once, or None for all of them."
        )
    return tuple(sorted(resolved))


def _resolve_axis_name(path: Path, axes: tuple[int, ...], entry: Any) -> tuple[str, ...]:
    """Return the mesh axes over which a sum over `axes` of one leaf is spread."""
    if isinstance(entry, PartitionSpec):
        entry = tuple(
            name
            for axis, split in enumerate(entry)
            if axis in axes and split is not None
            for name in (split if isinstance(split, tuple) else (split,))
        )
    entries = entry if isinstance(entry, (tuple, list)) else [entry]
    names = tuple(name for name in entries if name is not None)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"axis_name has {entry!r} for parameter {join(path)!r}: give the name of a mesh axis,"
            " a tuple of names, a PartitionSpec, or None for a leaf that every device has whole."
        )
    return names


def _is_axes(x: Any) -> bool:
    """Tell whether `x` is one leaf's axes: None, or a plain tuple that holds no containers."""
    named = hasattr(x, "_fields")
    return x is None or (isinstance(x, tuple) and not named and jax.tree_util.all_leaves(x))


def _is_axis_name(x: Any) -> bool:
    """Tell whether `x` is one leaf's mesh axes: None, a `PartitionSpec`, or a tuple of names."""
    named = isinstance(x, (tuple, list)) and all(isinstance(name, str) for name in x)
    return x is None or isinstance(x, PartitionSpec) or named
