"""Sorts leaves for `adam_h` and `muon_h`: matrices with fixed norms, and several groups without.

Names are compared as whole path components: `attn_gated_norm` is neither `attn_gate` nor `norm`.
A head is a model's last layer, not one of several in its attention.
"""

import fnmatch
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import optax

from lawn_optax._checks import check_inexact
from lawn_optax._masks import by_default, modules_of_class
from lawn_optax._paths import (
    Path,
    called,
    components,
    is_masked,
    join,
    leaves_with_paths,
    listed,
    match_deepest,
    parameters,
    replace_leaves,
)
from lawn_optax._selection import StackedOrFn, stacked_axes

LabelsOrFn = Any | Callable[[optax.Params], Any] | None

MATRIX, EMBEDDING, HEAD, OTHER = "matrix", "embedding", "head", "other"
_EMBEDDINGS = ("emb", "embed", "embedder", "embedding", "embeddings", "embedding_table")
_NAMES = {
    EMBEDDING: (
        *_EMBEDDINGS,
        *(f"*_{name}" for name in _EMBEDDINGS),
        *("embed_tokens", "embed_positions", "wte", "wpe"),
    ),
    HEAD: ("head", "*_head", "unembed", "unembedding", "logits", "classifier"),
}
_ATTENTION = (
    *(f"*{name}{more}" for name in ("attention", "attn") for more in ("", "_[0-9]*", "_head")),
    "*multi_head",
)


class Group(NamedTuple):
    """The group of one parameter.

    Attributes:
      label: what the group is called.
      reason: why, in a few words.
    """

    label: str
    reason: str


def sort_leaves(
    params: optax.Params, labels: LabelsOrFn = None, stacked: StackedOrFn = None
) -> dict[str, Group]:
    """Return the group of each parameter, by its path.

    Raises:
      ValueError: for `labels` or `stacked` with a name that matches no parameter.
      TypeError: for `labels` that are not names, or not a tree of them.
    """
    leaves = parameters(params)
    if not leaves:
        return {}
    chosen = _by_name(params, leaves, stacked_axes(params, stacked))
    given = _given(params, called(labels, params))
    return {
        join(path): group if label is None else Group(label, "labels")
        for (path, _), group, label in zip(leaves, chosen, given, strict=True)
    }


def label_leaves(
    params: optax.Params, labels: LabelsOrFn, stacked: StackedOrFn, known: Collection[str]
) -> Any:
    """Return the tree of labels that `optax.partition` asks for, each of them `known`."""
    groups = sort_leaves(params, labels, stacked)
    for (path, leaf), group in zip(parameters(params), groups.values(), strict=True):
        if group.label not in known:
            raise ValueError(
                f"labels has {group.label!r} for parameter {join(path)!r}: there are"
                f" {listed(known)}; give groups= an optimizer for another one."
            )
        if group.label == MATRIX:
            remedy = "give it another group in labels=, whose optimizer may be optax.set_to_zero()"
            check_inexact(path, leaf, remedy)
    return replace_leaves(params, {path: group.label for path, group in groups.items()})


def _by_name(params: optax.Params, leaves: list, counts: list[int]) -> list[Group]:
    """Return the group of each leaf by its rank per layer, its name and that of its module."""
    embeddings = modules_of_class(params, ("Embed", "Embedding"))
    groups = []
    for (path, _), (is_matrix, reason) in zip(
        leaves, by_default(params, leaves, counts), strict=True
    ):
        if not is_matrix:
            groups.append(Group(OTHER, reason))
        elif label := _named(components(path), embeddings):
            groups.append(Group(label, f"named as {'an' if label == EMBEDDING else 'a'} {label}"))
        else:
            groups.append(Group(MATRIX, reason))
    return groups


def _named(path: Path, embedding_modules: set[Path]) -> str | None:
    """Return "embedding" or "head" where a leaf or the module that holds it is called so.

    A matrix further inside, such as the projection of a `patch_embed`, is a matrix, and so is a
    head of attention, by its own name or in a module that is called so.
    """
    if path[:-1] in embedding_modules:
        return EMBEDDING
    for label, patterns in _NAMES.items():
        if _called_as(patterns, path[-2:]):
            return None if label == HEAD and _called_as(_ATTENTION, path[-3:]) else label
    return None


def _called_as(patterns: tuple[str, ...], names: Path) -> bool:
    """Tell whether one of the names matches one of the patterns, upper case as lower."""
    return any(fnmatch.fnmatchcase(name.lower(), p) for name in names for p in patterns)


def _given(params: optax.Params, labels: Any) -> list[str | None]:
    """Return the label that the user gives each parameter; None for none."""
    if labels is None:
        return [None] * len(parameters(params))
    rows = [(path, label) for path, label in leaves_with_paths(labels) if not is_masked(label)]
    if not all(path and isinstance(label, str) for path, label in rows):
        raise TypeError(
            f"labels={labels!r} must be a dict from names to labels, such as {{'router': 'other'}},"
            " or a tree of labels."
        )
    return match_deepest(labels, params)
