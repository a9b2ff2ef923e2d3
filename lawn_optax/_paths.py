"""Trees by path: the leaves by name, what a pattern matches, and trees that users give.

A path is the names from the root to a leaf. A tree given by the user is matched to the parameters
component by whole component, so a plain dict fits a `FrozenDict`, an `nnx.State` or a module of the
same names, and a prefix fits the whole subtree below it.
"""

import collections
import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import optax

Path = tuple[str, ...]
_VALUE = jax.tree_util.GetAttrKey("value")


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Return each leaf of a tree like the parameters by its path, components joined by `/`."""
    leaves, structure = jax.tree.flatten(tree)
    return dict(zip(_joined_paths(structure), leaves, strict=True))


def replace_leaves(tree: Any, leaves: dict[str, Any]) -> Any:
    """Return `tree` with some of its leaves, given by their paths, in place of its own."""
    old, structure = jax.tree.flatten(tree)
    new = map(leaves.get, _joined_paths(structure), old)
    return jax.tree.unflatten(structure, new)


def parameters(tree: Any) -> list[tuple[Path, Any]]:
    """Return the path and the value of each leaf, without `optax.MaskedNode`s."""
    return [(path, leaf) for path, leaf in leaves_with_paths(tree) if not is_masked(leaf)]


def leaves_with_paths(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> list[tuple[Path, Any]]:
    """Return the path and the value of each leaf, with `optax.MaskedNode`s as leaves."""
    stop = lambda x: is_masked(x) or (is_leaf is not None and is_leaf(x))
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=stop)
    siblings = collections.Counter(path[:-1] for path, _ in flat)
    rows = []
    for path, leaf in flat:
        # Flax boxes a variable's array as its only child, `.value`, which is not a user's name.
        boxed = path[-1:] == (_VALUE,) and siblings[path[:-1]] == 1
        named = path[:-1] if boxed else path
        rows.append((tuple(jax.tree_util.keystr((k,), simple=True) for k in named), leaf))
    return rows


def is_masked(x: Any) -> bool:
    """Tell whether `x` stands for a leaf that `optax.masked` hides."""
    return isinstance(x, optax.MaskedNode)


def join(path: Path) -> str:
    """Return a path as text."""
    return "/".join(path)


def components(path: Path) -> Path:
    """Return the components of a path, those within keys that hold a `/`, as Haiku's, split."""
    return tuple(join(path).split("/"))


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names as text, the first few of many."""
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - most} more" if len(quoted) > most else ""
    return ", ".join(quoted[:most]) + more if quoted else "none"


def called(tree: Any, params: optax.Params) -> Any:
    """Return `tree`, or what it makes of `params`; a module is callable, and yet a tree."""
    return tree(params) if callable(tree) and jax.tree_util.all_leaves([tree]) else tree


def match_tree(
    name: str,
    tree: Any,
    params: Any,
    paths: list[Path],
    is_leaf: Callable[[Any], bool] | None = None,
) -> list[Any]:
    """Return the entry of `tree`, itself or that of a prefix, for each of `paths`.

    Raises:
      ValueError: for a path without an entry, and for an entry without a path.
    """
    entries = dict(leaves_with_paths(tree, is_leaf))
    lengths = sorted({len(prefix) for prefix in entries}, reverse=True)
    used = set()
    matched = []
    for path in paths:
        prefix = next((path[:n] for n in lengths if path[:n] in entries), None)
        if prefix is None:
            raise ValueError(
                f"{name} has no entry for parameter {join(path)!r}: it has"
                f" {listed(map(join, entries))}. Give {name} the tree of the parameters, or a"
                " prefix of it."
            )
        used.add(prefix)
        matched.append(entries[prefix])
    present = {path[:n] for path, _ in leaves_with_paths(params) for n in range(len(path) + 1)}
    for prefix, entry in entries.items():
        if prefix not in used and prefix not in present and not _says_nothing(entry):
            raise ValueError(
                f"{name} has an entry for {join(prefix)!r}, which is not a parameter: they are"
                f" {listed(map(join, paths))}. Give {name} the tree of the parameters, or a"
                " prefix of it."
            )
    return matched


def match_patterns(
    patterns: Iterable[str], paths: list[Path], hidden: Iterable[Path] = ()
) -> list[list[str]]:
    """Return, for each path, those patterns of which it has a run of whole components.

    Raises:
      ValueError: for a pattern that matches none of the paths, nor of those that are `hidden`.
    """
    split = {pattern: tuple(pattern.strip("/").split("/")) for pattern in patterns}
    within = [components(path) for path in paths]
    present = [*within, *map(components, hidden)]
    for pattern, parts in split.items():
        if not any(_contains(path, parts) for path in present):
            remedy = "Whole path components are matched; use * inside one."
            if not any(map(join, paths)):  # A bare array.
                remedy = "Under optax.inject_hyperparams, static_args must name what holds it."
            raise ValueError(
                f"pattern {pattern!r} matches no parameter: they are {listed(map(join, paths))}."
                f" {remedy}"
            )
    return [[p for p, parts in split.items() if _contains(path, parts)] for path in within]


def match_deepest(
    tree: Any, params: Any, is_leaf: Callable[[Any], bool] | None = None, otherwise: Any = None
) -> list[Any]:
    """Return, for each parameter, the entry of the pattern that matches it by most components.

    Of patterns with as many, one without wildcards counts.

    Args:
      tree: a dict from patterns to entries, or a tree whose paths are patterns; each must match a
        parameter, if only one that `optax.masked` hides.
      params: the tree of parameters.
      is_leaf: tells what an entry is, if not a leaf.
      otherwise: the entry of a parameter that no pattern matches.
    """
    named = leaves_with_paths(tree, is_leaf)
    entries = {join(path): entry for path, entry in named if not is_masked(entry)}
    rows = leaves_with_paths(params)
    hidden = [path for path, leaf in rows if is_masked(leaf)]
    found = match_patterns(entries, [path for path, leaf in rows if not is_masked(leaf)], hidden)
    return [entries[_deepest(names, entries)] if names else otherwise for names in found]


def _deepest(patterns: list[str], entries: Mapping[str, Any]) -> str:
    """Return the pattern of most components, of equals one without wildcards.

    Raises:
      ValueError: if several are left that say different things.
    """
    depth = lambda p: (p.strip("/").count("/"), not any(character in p for character in "*?["))
    best = [p for p in patterns if depth(p) == max(map(depth, patterns))]
    if any(entries[p] != entries[best[0]] for p in best):
        raise ValueError(
            f"patterns {listed(best)} match one parameter by as many components, and say"
            f" {', '.join(repr(entries[p]) for p in best)}: give one of them more components."
        )
    return best[0]


@functools.lru_cache(maxsize=64)
def _joined_paths(structure: Any) -> tuple[str, ...]:
    """Return the paths of a tree's leaves; every update asks for them several times."""
    tree = jax.tree.unflatten(structure, range(structure.num_leaves))
    paths = tuple(join(path) for path, _ in parameters(tree))
    if twice := [path for path, n in collections.Counter(paths).items() if n > 1]:
        raise ValueError(
            f"two parameters have the path {twice[0]!r}: give one of them a name without the '/'."
        )
    return paths


def _contains(path: Path, parts: Path) -> bool:
    """Tell whether a run of whole components of `path` matches `parts`."""
    starts = range(len(path) - len(parts) + 1)
    return any(
        all(
            path[start + i] == part or fnmatch.fnmatchcase(path[start + i], part)
            for i, part in enumerate(parts)
        )
        for start in starts
    )


def _says_nothing(entry: Any) -> bool:
    """Tell whether an entry is the None or the empty tuple of a place without parameters."""
    return entry is None or (isinstance(entry, tuple) and not entry)
