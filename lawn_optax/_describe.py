"""Tables of the parameters: which are constrained, and which optimizer trains which."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from lawn_optax._groups import LabelsOrFn, sort_leaves
from lawn_optax._masks import MaskOrFn
from lawn_optax._paths import leaves_by_path, listed, replace_leaves
from lawn_optax._selection import AxesOrFn, Choice, Selection, StackedOrFn
from lawn_optax._spheres import Sphere, Spheres
from lawn_optax.diagnostics._states import NormsOfLeaf, norms_by_path


class LeafSummary(NamedTuple):
    """One parameter in a `Summary`.

    Attributes:
      path: its place in the tree, components joined by `/`.
      shape: its shape.
      constrained: whether it is, or will be after the switch, kept on its spheres.
      axes: the axes that a norm runs over; None for a free leaf.
      norm: `||w||`, one number per norm; for a free leaf, of the whole leaf.
      captured: the norm captured at the switch, or marked for it, of the same shape; None where
        there is none yet.
      reason: why it is constrained or free: its rank (per layer), its name, or the mask.
      marked: whether `captured` is only marked: training is still free, and the switch may take
        the mark back.
    """

    path: str
    shape: tuple[int, ...]
    constrained: bool
    axes: tuple[int, ...] | None
    norm: np.ndarray
    captured: np.ndarray | None
    reason: str
    marked: bool


class Summary(tuple[LeafSummary, ...]):
    """The leaves of a tree, as `describe` saw them; shown as a table."""

    def __repr__(self) -> str:
        """Return a table with a row per leaf."""
        header = ("parameter", "shape", "constrained", "axes", "norm", "captured", "why")
        return _table([header, *(_cells(leaf) for leaf in self)])


class LeafGroup(NamedTuple):
    """One parameter in a `GroupSummary`.

    Attributes:
      path: its place in the tree, components joined by `/`.
      shape: its shape.
      group: the label of the group that it goes to.
      reason: why: its rank (per layer), its name, or the labels given.
    """

    path: str
    shape: tuple[int, ...]
    group: str
    reason: str


class GroupSummary(tuple[LeafGroup, ...]):
    """The leaves of a tree, as `describe_groups` sorted them; shown as a table."""

    def __repr__(self) -> str:
        """Return a table with a row per leaf."""
        rows = [(leaf.path, str(leaf.shape), leaf.group, leaf.reason) for leaf in self]
        return _table([("parameter", "shape", "group", "why"), *rows])


def describe(
    params: optax.Params,
    state: Any = None,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
) -> Summary:
    """List which parameters are constrained and why, over which axes, and their norms.

    Args:
      params: the parameters, concrete.
      state: an optimizer state that holds one of `lawn`, `hyperball` or `rescale_to_norms`, however
        wrapped: it tells which leaves are constrained, and their captured norms.
      mask: as given to the optimizer; not needed with a state.
      axes: as given to the optimizer.
      stacked: as given to the optimizer.

    Returns:
      A tuple of `LeafSummary`; `print` shows it as a table.

    Raises:
      TypeError, ValueError: for a mask, axes or stacked that do not fit, as `lawn`.
      ValueError: for a mask, axes or stacked that are not those of the optimizer of `state`.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> params = {'dense': {'kernel': 3 * jnp.eye(2), 'bias': jnp.zeros(2)}}
      >>> tx = lawn_optax.adam_lawn(1e-3, switch=100, axes=0)
      >>> print(lawn_optax.describe(params, tx.init(params), axes=0))
      parameter     shape   constrained  axes  norm   captured  why
      ------------  ------  -----------  ----  -----  --------  ------
      dense/bias    (2,)    free         -     0      -         rank 1
      dense/kernel  (2, 2)  yes          (0,)  3 (2)  not yet   rank 2
    """
    of_state = None if state is None else norms_by_path(state)
    choices = _choices(params, of_state, mask, axes, stacked)
    leaves = leaves_by_path(params)
    whole = {path: Sphere(tuple(range(jnp.ndim(leaf)))) for path, leaf in leaves.items()}
    norms = Spheres({path: choices[path].sphere or whole[path] for path in leaves}).norms(params)
    summary = []
    for path, leaf in leaves.items():
        sphere, reason = choices[path]
        norm = np.asarray(norms[path])
        found = (of_state or {}).get(path)
        if of_state is not None:
            _check_agreement(path, norm if sphere else None, found)
        known = found if found is not None and found.known else None
        summary.append(
            LeafSummary(
                path,
                jnp.shape(leaf),
                constrained=bool(sphere),
                axes=sphere.axes if sphere else None,
                norm=norm,
                captured=None if known is None else np.asarray(known.norms),
                reason=reason,
                marked=known is not None and not known.constrained,
            )
        )
    return Summary(summary)


def describe_groups(
    params: optax.Params, *, labels: LabelsOrFn = None, stacked: StackedOrFn = None
) -> GroupSummary:
    """Tell of each parameter which group `adam_h` and `muon_h` sort it into, and why.

    Args:
      params: the parameters, or their shapes.
      labels: as given to the optimizer.
      stacked: as given to the optimizer.

    Returns:
      A tuple of `LeafGroup`; `print` shows it as a table.

    Raises:
      TypeError, ValueError: for labels or stacked that do not fit, as `adam_h`.

    Examples:
      Whole path components count: `attn_gated_norm` is not `attn_gate`.

      >>> import jax.numpy as jnp, lawn_optax
      >>> params = {'attn_gate': jnp.ones((4, 1)), 'attn_gated_norm': {'w_up': jnp.ones((4, 2))},
      ...           'wte': jnp.ones((9, 4)), 'lm_head': {'kernel': jnp.ones((4, 9))}}
      >>> print(lawn_optax.describe_groups(params, labels={'attn_gate': 'other'}))
      parameter             shape   group      why
      --------------------  ------  ---------  ---------------------
      attn_gate             (4, 1)  other      labels
      attn_gated_norm/w_up  (4, 2)  matrix     rank 2
      lm_head/kernel        (4, 9)  head       named as a head
      wte                   (9, 4)  embedding  named as an embedding
    """
    groups = sort_leaves(params, labels, stacked)
    leaves = leaves_by_path(params)
    return GroupSummary(LeafGroup(path, jnp.shape(leaves[path]), *groups[path]) for path in leaves)


def _choices(
    params: optax.Params, of_state: dict[str, Any] | None, mask: Any, axes: Any, stacked: Any
) -> dict[str, Choice]:
    """Return what was chosen for each leaf; with norms in a state, these tell which leaves."""
    selection = Selection(mask, axes, stacked)
    if mask is not None or of_state is None:
        return selection.choices(params)
    leaves = leaves_by_path(params)
    if unknown := [path for path in of_state if path not in leaves]:
        raise ValueError(
            f"state has norms of {unknown[0]!r}, and params has {listed(leaves)}: give describe the"
            " parameters that the optimizer's init was given."
        )
    by_default = selection.choices(params)
    mask = replace_leaves(params, {path: path in of_state for path in leaves})
    return {
        path: choice._replace(reason=by_default[path].reason)
        if bool(choice.sphere) == bool(by_default[path].sphere)
        else choice
        for path, choice in selection._replace(mask=mask).choices(params).items()
    }


def _check_agreement(path: str, norm: np.ndarray | None, found: NormsOfLeaf | None) -> None:
    """Refuse a leaf that the arguments describe otherwise than the optimizer's state does."""
    ours = None if norm is None else norm.shape
    theirs = None if found is None else jnp.shape(found.norms)
    if ours != theirs:
        shown = lambda shape: "is free" if shape is None else f"has norms of shape {shape}"
        runs = ", or stacked=1 for runs side by side under jax.vmap" if theirs and not ours else ""
        raise ValueError(
            f"mask, axes and stacked say that {path!r} {shown(ours)}; in the optimizer's state it"
            f" {shown(theirs)}. Give describe the mask=, axes= and stacked= that the optimizer was"
            f" given{runs}."
        )


def _cells(leaf: LeafSummary) -> tuple[str, ...]:
    """Return one row of the table."""
    captured = "-" if not leaf.constrained else "not yet"
    if leaf.captured is not None:
        free = "" if np.any(leaf.captured) or not leaf.captured.size else ", stays free"
        captured = f"{_range(leaf.captured)}{', marked' if leaf.marked else free}"
    return (
        leaf.path,
        str(leaf.shape),
        "yes" if leaf.constrained else "free",
        "-" if leaf.axes is None else str(leaf.axes),
        _range(leaf.norm),
        captured,
        leaf.reason,
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    """Return rows of cells as text, with a line below the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _range(values: np.ndarray) -> str:
    """Return one number as text, or the smallest and largest of several and how many they are."""
    if values.size == 0:
        return "none"
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    several = f" ({math.prod(values.shape)})" if values.ndim else ""
    return (low if low == high else f"{low} to {high}") + several
