"""Which leaves are constrained, and over which axes: from `mask` and `axes` to one sphere a leaf.

Trees given by the user are matched to the parameters by path, component by whole component, so a
plain dict fits a `FrozenDict`, an `nnx.State` or a module of the same names, and a prefix fits
the whole subtree below it.
"""

import collections
import fnmatch
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from lawn_optax._geometry import Sphere

Path = tuple[str, ...]
_VALUE = jax.tree_util.GetAttrKey("value")

MaskOrFn = Any | Callable[[optax.Params], Any] | None
AxesOrFn = Any | Callable[[optax.Params], Any] | None
AxisNameOrFn = Any | Callable[[optax.Params], Any] | None


def select_spheres(
    params: optax.Params, mask: MaskOrFn, axes: AxesOrFn, axis_name: AxisNameOrFn
) -> dict[str, Sphere]:
    """The sphere of each constrained parameter, by its path.

    Raises:
      ValueError: for a `mask`, `axes` or `axis_name` that does not fit `params`, or a `mask` that
        constrains nothing.
      TypeError: for an entry of the wrong type, or a constrained leaf that is not inexact.
    """
    parameters = _parameters(params)
    if not parameters:
        return {}
    paths = [path for path, _ in parameters]
    constrained = _select(params, parameters, mask)
    if not any(constrained):
        raise ValueError(
            f"mask={_name(mask)} selects none of the {len(paths)} parameters, so nothing would be"
            f" constrained. They are {_listing(paths)}. By default a leaf needs two dimensions or"
            " more; pass mask= with True at the leaves to constrain."
        )
    axes_tree = _called(axes, params)
    axes_of = _match("axes", axes_tree, params, paths, is_leaf=_is_axes)
    name_tree = _called(axis_name, params)
    names_of = _match("axis_name", name_tree, params, paths, is_leaf=_is_axis_name)
    spheres = {}
    for (path, leaf), entry, names, held in zip(
        parameters, axes_of, names_of, constrained, strict=True
    ):
        if held:
            resolved = _resolve_axes(path, leaf, entry)
            spheres[_join(path)] = Sphere(resolved, _resolve_axis_name(path, resolved, names))
    return spheres


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Each leaf of a tree like the parameters by its path, components joined by `/`."""
    return {_join(path): leaf for path, leaf in _parameters(tree)}


def replace_leaves(tree: Any, leaves: dict[str, Any]) -> Any:
    """`tree` with some of its leaves, given by their paths, in place of its own."""
    replaced = [leaves.get(path, leaf) for path, leaf in leaves_by_path(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), replaced)


def only_paths(*patterns: str) -> Callable[[optax.Params], Any]:
    """A mask: of the leaves constrained by default, those that one of `patterns` matches.

    A pattern is one or more path components separated by `/`, each matched whole, with the shell's
    wildcards: `"head"` matches `head/kernel` and `decoder/head/kernel`, never `overhead/kernel`.

    Args:
      *patterns: at least one pattern.

    Returns:
      A callable from parameters to a tree of bools, for `mask=`.

    Raises:
      ValueError: without a pattern, or, on use, for a pattern that matches no parameter.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> params = {'head': {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)},
      ...           'overhead': {'kernel': jnp.ones((2, 3))}}
      >>> lawn_optax.only_paths('head')(params)
      {'head': {'bias': False, 'kernel': True}, 'overhead': {'kernel': False}}
    """
    return _path_mask(patterns, keep_matches=True)


def except_paths(*patterns: str) -> Callable[[optax.Params], Any]:
    """A mask: of the leaves constrained by default, those that none of `patterns` matches.

    Args:
      *patterns: at least one pattern, as for `only_paths`.

    Returns:
      A callable from parameters to a tree of bools, for `mask=`.

    Raises:
      ValueError: as `only_paths`.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> params = {'embed': jnp.ones((5, 2)), 'out': {'kernel': jnp.ones((2, 3))}}
      >>> lawn_optax.except_paths('embed')(params)
      {'embed': False, 'out': {'kernel': True}}
    """
    return _path_mask(patterns, keep_matches=False)


def require_params(params: optax.Params | None, transform: str) -> optax.Params:
    """`params`, or a clear error where `update` was called without them."""
    if params is None:
        raise ValueError(
            f"params=None: {transform} needs the current parameters. Call"
            " update(grads, state, params)."
        )
    return params


def constrained_by_default(leaf: jax.Array) -> bool:
    """Kernels and embeddings are constrained; biases and normalisation scales are not."""
    return jnp.ndim(leaf) >= 2


def _leaves_with_paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list:
    """`(path components, leaf)` of each leaf, `optax.MaskedNode`s included as leaves."""
    stop = lambda x: _is_masked(x) or (is_leaf is not None and is_leaf(x))
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=stop)
    siblings = collections.Counter(path[:-1] for path, _ in flat)
    rows = []
    for path, leaf in flat:
        # Flax boxes a variable's array as its only child, `.value`: no name of the user's.
        boxed = path[-1:] == (_VALUE,) and siblings[path[:-1]] == 1
        named = path[:-1] if boxed else path
        rows.append((tuple(jax.tree_util.keystr((k,), simple=True) for k in named), leaf))
    return rows


def _parameters(tree: Any) -> list:
    """`(path components, leaf)` of each leaf that is a parameter."""
    return [(path, leaf) for path, leaf in _leaves_with_paths(tree) if not _is_masked(leaf)]


def _select(params: Any, parameters: list, mask: MaskOrFn) -> list[bool]:
    """One bool a parameter."""
    if mask is None:
        constrained = [constrained_by_default(leaf) for _, leaf in parameters]
    else:
        constrained = _match(
            "mask", _called(mask, params), params, [path for path, _ in parameters]
        )
    for (path, leaf), entry in zip(parameters, constrained, strict=True):
        if not isinstance(entry, (bool, np.bool_)):
            raise TypeError(
                f"mask has {entry!r} for parameter {_join(path)!r}: it must be True or False, known"
                " before tracing."
            )
        dtype = getattr(leaf, "dtype", type(leaf).__name__)
        if entry and not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"parameter {_join(path)!r} has dtype {dtype} and cannot be kept on a sphere: give"
                " it False in mask=, or a floating dtype."
            )
    return [bool(entry) for entry in constrained]


def _resolve_axes(path: Path, leaf: jax.Array, axes: Any) -> tuple[int, ...]:
    """`axes` of one leaf as sorted non-negative integers; None means all of them."""
    ndim = jnp.ndim(leaf)
    if axes is None:
        return tuple(range(ndim))
    resolved = []
    for axis in axes if isinstance(axes, tuple) else (axes,):
        try:
            if isinstance(axis, bool):
                raise TypeError
            axis = operator.index(axis)
        except Exception as error:  # a tracer raises an error of its own
            raise TypeError(
                f"axes={axes!r} for parameter {_join(path)!r}: axes must be an integer or a tuple"
                " of them, known before tracing (under optax.inject_hyperparams, name 'axes' in"
                " static_args)."
            ) from error
        if not -ndim <= axis < ndim:
            raise ValueError(
                f"axes={axes!r} is out of range for parameter {_join(path)!r} of shape"
                f" {jnp.shape(leaf)}: use axes from {-ndim} to {ndim - 1}, or a tree of axes that"
                " names each leaf's own."
            )
        resolved.append(axis % ndim)
    if len(set(resolved)) < len(resolved) or not resolved:
        raise ValueError(
            f"axes={axes!r} for parameter {_join(path)!r} names "
            f"{'an axis twice' if resolved else 'no axis'}: name each axis that the norm runs over"
            " once, or None for all of them."
        )
    return tuple(sorted(resolved))


def _resolve_axis_name(path: Path, axes: tuple[int, ...], entry: Any) -> tuple[str, ...] | None:
    """The mesh axes over which a sum over `axes` of one leaf is spread; None for none of them."""
    if isinstance(entry, PartitionSpec):
        entry = tuple(
            name
            for axis, split in enumerate(entry)
            if axis in axes and split is not None
            for name in (split if isinstance(split, tuple) else (split,))
        )
    listed = entry if isinstance(entry, (tuple, list)) else [entry]
    names = tuple(name for name in listed if name is not None)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"axis_name has {entry!r} for parameter {_join(path)!r}: give the name of a mesh axis,"
            " a tuple of names, a PartitionSpec, or None for a leaf that every device has whole."
        )
    return names or None


def _match(
    name: str,
    tree: Any,
    params: Any,
    paths: list[Path],
    is_leaf: Callable[[Any], bool] | None = None,
) -> list:
    """The entry of `tree`, itself or of a prefix, for each of `paths`."""
    entries = dict(_leaves_with_paths(tree, is_leaf))
    lengths = sorted({len(prefix) for prefix in entries}, reverse=True)
    used = set()
    matched = []
    for path in paths:
        prefix = next((path[:n] for n in lengths if path[:n] in entries), None)
        if prefix is None:
            raise ValueError(
                f"{name} has no entry for parameter {_join(path)!r}: it has {_listing(entries)}."
                f" Give {name} the tree of the parameters, or a prefix of it."
            )
        used.add(prefix)
        matched.append(entries[prefix])
    absent = {path[:n] for path, _ in _leaves_with_paths(params) for n in range(len(path) + 1)}
    for prefix, entry in entries.items():
        if prefix not in used and prefix not in absent and not _is_empty(entry):
            raise ValueError(
                f"{name} has an entry for {_join(prefix)!r}, which is no parameter: they are"
                f" {_listing(paths)}. Give {name} the tree of the parameters, or a prefix of it."
            )
    return matched


def _path_mask(patterns: tuple[str, ...], keep_matches: bool) -> Callable[[optax.Params], Any]:
    if not patterns:
        raise ValueError("patterns=(): give at least one path, such as 'head' or 'layers/0'.")
    split = {pattern: tuple(pattern.strip("/").split("/")) for pattern in patterns}

    def mask(params: optax.Params) -> Any:
        # Joined and split again, because a key may hold a "/" itself, as Haiku's do.
        parameters = {path: tuple(path.split("/")) for path in leaves_by_path(params)}
        for pattern, parts in split.items():
            if not any(_contains(path, parts) for path in parameters.values()):
                raise ValueError(
                    f"pattern {pattern!r} matches no parameter: they are"
                    f" {_listing(parameters.values())}. Whole path components are matched; use *"
                    " inside one."
                )
        selected = []
        for path, leaf in leaves_by_path(params).items():
            match = any(_contains(parameters[path], parts) for parts in split.values())
            selected.append(constrained_by_default(leaf) and match == keep_matches)
        return jax.tree.unflatten(jax.tree.structure(params), selected)

    return mask


def _contains(path: Path, parts: Path) -> bool:
    """Whether a run of whole components of `path` matches `parts`."""
    starts = range(len(path) - len(parts) + 1)
    return any(
        all(fnmatch.fnmatchcase(path[start + i], part) for i, part in enumerate(parts))
        for start in starts
    )


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def _is_axes(x: Any) -> bool:
    """Whether `x` is one leaf's axes: None, or a plain tuple of no containers."""
    named = hasattr(x, "_fields")
    return x is None or (isinstance(x, tuple) and not named and jax.tree_util.all_leaves(x))


def _is_axis_name(x: Any) -> bool:
    """Whether `x` is one leaf's mesh axes: None, a `PartitionSpec`, or a tuple of names."""
    named = isinstance(x, (tuple, list)) and all(isinstance(name, str) for name in x)
    return x is None or isinstance(x, PartitionSpec) or named


def _is_empty(entry: Any) -> bool:
    """Whether an entry for no parameter says nothing: None, or a tuple of no parameters."""
    return entry is None or (isinstance(entry, tuple) and not entry)


def _called(tree: Any, params: optax.Params) -> Any:
    """`tree`, or what it makes of `params`; a module is callable, and a tree all the same."""
    return tree(params) if callable(tree) and jax.tree_util.all_leaves([tree]) else tree


def _join(path: Path) -> str:
    return "/".join(path)


def _listing(paths: Any, most: int = 8) -> str:
    names = [repr(_join(path)) for path in paths]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def _name(mask: MaskOrFn) -> str:
    return getattr(mask, "__name__", type(mask).__name__) if callable(mask) else repr(mask)
