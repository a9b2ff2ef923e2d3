"""Which leaves are constrained: those of the user's mask, or kernels by their rank and name."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lawn_optax._checks import check_inexact
from lawn_optax._paths import (
    Path,
    called,
    components,
    join,
    leaves_with_paths,
    listed,
    match_patterns,
    match_tree,
    parameters,
)

MaskOrFn = Any | Callable[[optax.Params], Any] | None


def only_paths(*patterns: str) -> Callable[[optax.Params], Any]:
    """Return a mask: of the leaves constrained by default, those that a pattern matches.

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
    return PathMask(_at_least_one(patterns), keep_matches=True)


def except_paths(*patterns: str) -> Callable[[optax.Params], Any]:
    """Return a mask: of the leaves constrained by default, those that no pattern matches.

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
    return PathMask(_at_least_one(patterns), keep_matches=False)


def choose_leaves(
    params: optax.Params, leaves: list, counts: list[int], mask: MaskOrFn
) -> list[tuple[bool, str]]:
    """Return whether each leaf is constrained, and why: by the mask, or by default.

    Raises:
      ValueError: for a mask that does not fit `params`, or that selects nothing.
      TypeError: for an entry that is not a bool, or a constrained leaf that is not inexact.
    """
    if mask is None:
        chosen = by_default(params, leaves, counts)
    elif isinstance(mask, PathMask):
        chosen = mask.entries(params, leaves, counts)
    else:
        paths = [path for path, _ in leaves]
        entries = match_tree("mask", called(mask, params), params, paths)
        chosen = [(entry, "mask") for entry in entries]
    for (path, leaf), (entry, _) in zip(leaves, chosen, strict=True):
        _check_entry(path, leaf, entry)
    if mask is not None and not any(entry for entry, _ in chosen):
        raise ValueError(
            f"mask={getattr(mask, '__name__', repr(mask))} selects none of the {len(leaves)}"
            " parameters, so nothing would be constrained. They are"
            f" {listed(join(path) for path, _ in leaves)}; pass mask= with True at the leaves to"
            " constrain."
        )
    return chosen


@dataclasses.dataclass(frozen=True)
class PathMask:
    """The mask of `only_paths` or `except_paths`, which asks how many axes are stacked."""

    patterns: tuple[str, ...]
    keep_matches: bool

    def __repr__(self) -> str:
        """Return the call that made it."""
        return f"{'only' if self.keep_matches else 'except'}_paths{self.patterns!r}"

    def __call__(self, params: optax.Params) -> Any:
        """Return a tree of bools, where no axis is stacked."""
        leaves = parameters(params)
        chosen = [entry for entry, _ in self.entries(params, leaves, [0] * len(leaves))]
        return jax.tree.unflatten(jax.tree.structure(params), chosen)

    def entries(
        self, params: optax.Params, leaves: list, counts: list[int]
    ) -> list[tuple[bool, str]]:
        """Return whether each leaf is constrained, and why."""
        default = by_default(params, leaves, counts)
        matches = match_patterns(self.patterns, [path for path, _ in leaves])
        chosen = []
        for (constrained, reason), found in zip(default, matches, strict=True):
            kept = bool(found) == self.keep_matches
            chosen.append((constrained and kept, reason if kept else "mask"))
        return chosen


def _at_least_one(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"patterns={patterns!r} must be strings, one or several: ('head', 'wte').")
    if not patterns:
        raise ValueError("patterns=(): give at least one path, such as 'head' or 'layers/0'.")
    return patterns


def _check_entry(path: Path, leaf: Any, entry: Any) -> None:
    """Refuse an entry of a mask that is not a bool, or that constrains what cannot be."""
    if not isinstance(entry, (bool, np.bool_)):
        by_name = f"; by name, give only_paths({entry!r})" if isinstance(entry, str) else ""
        raise TypeError(
            f"mask has {entry!r} for parameter {join(path)!r}: it must be True or False, known"
            f" before tracing{by_name}."
        )
    if entry:
        check_inexact(path, leaf, "give it False in mask=")


def by_default(params: optax.Params, leaves: list, counts: list[int]) -> list[tuple[bool, str]]:
    """Return whether each leaf is a kernel or an embedding by its rank and its name, and why."""
    modules = modules_of_class(params, "Norm")
    paths = {components(path) for path, _ in leaves}
    chosen = []
    for (path, leaf), count in zip(leaves, counts, strict=True):
        rank = jnp.ndim(leaf) - count
        per_layer = " per layer" if count else ""
        if rank < 2:
            chosen.append((False, f"rank {max(rank, 0)}{per_layer}"))
        elif what := _name_of_free(components(path), paths, modules):
            chosen.append((False, f"named as a {what}"))
        else:
            chosen.append((True, f"rank {rank}{per_layer}"))
    return chosen


def _name_of_free(path: Path, paths: set[Path], normalisation_modules: set[Path]) -> str | None:
    """Return "bias" or "normalisation" where the frameworks' names say so, None elsewhere.

    Flax calls them `bias` and `scale`, Haiku `b` (beside a `w`), `offset` and `scale`, Equinox
    `bias`, and `weight` within a normalisation layer, which its class tells. Words within a name
    count whole: `bias_n` and `relative_attention_bias` are biases, `biased` is not.
    """
    if not path:
        return None
    *module, name = path
    words = name.lower().split("_")
    if "bias" in words:
        return "bias"
    if name == "b" and any(p[:-1] == tuple(module) and p[-1].startswith("w") for p in paths):
        return "bias"
    if words[-1] in ("scale", "offset") or tuple(module) in normalisation_modules:
        return "normalisation"
    return None


def modules_of_class(tree: Any, endings: str | tuple[str, ...], at: Path = ()) -> set[Path]:
    """Return the paths of the modules whose class has a name that ends so, such as in "Norm"."""
    is_one = lambda x: type(x).__name__.endswith(endings)
    found = {at} if is_one(tree) else set()
    for path, node in leaves_with_paths(tree, lambda x: x is not tree and is_one(x)):
        if is_one(node):
            found |= modules_of_class(node, endings, (*at, *components(path)))
    return found
