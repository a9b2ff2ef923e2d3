"""Seeing what is constrained: a table of the parameters, before and after the switch."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from lawn_optax._geometry import Sphere
from lawn_optax._selection import (
    AxesOrFn,
    MaskOrFn,
    leaves_by_path,
    replace_leaves,
    select_spheres,
)
from lawn_optax.diagnostics import norms_by_path


class LeafSummary(NamedTuple):
    """One parameter in a `Summary`.

    Attributes:
      path: its place in the tree, components joined by `/`.
      shape: its shape.
      constrained: whether it is, or will be after the switch, kept on its spheres.
      axes: the axes that a norm runs over; None for a free leaf.
      norm: `||w||`, one number a norm; for a free leaf, of the whole leaf.
      captured: the norm captured at the switch, of the same shape; None where there is none yet.
    """

    path: str
    shape: tuple[int, ...]
    constrained: bool
    axes: tuple[int, ...] | None
    norm: np.ndarray
    captured: np.ndarray | None


class Summary(tuple[LeafSummary, ...]):
    """The leaves of a tree, as `describe` saw them; prints as a table."""

    def __str__(self) -> str:
        """A table with a row a leaf."""
        header = ("parameter", "shape", "constrained", "axes", "norm", "captured")
        rows = [header, *(_cells(leaf) for leaf in self)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)


def describe(
    params: optax.Params,
    state: Any = None,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
) -> Summary:
    """Tells of each parameter whether it is constrained, over which axes, and its norms.

    Args:
      params: the parameters, concrete.
      state: an optimizer state that holds one of `lawn` or `rescale_to_norms`, however wrapped:
        it tells which leaves are constrained, and their captured norms.
      mask: as given to the optimizer; not needed with a state.
      axes: as given to the optimizer.

    Returns:
      A tuple of `LeafSummary`; `print` shows it as a table.

    Raises:
      TypeError, ValueError: for a mask or axes that do not fit, as `lawn`.
      ValueError: for a mask or axes that are not those of the optimizer that `state` is of.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> params = {'dense': {'kernel': 3 * jnp.eye(2), 'bias': jnp.zeros(2)}}
      >>> tx = lawn_optax.adam_lawn(1e-3, switch=100, axes=0)
      >>> print(lawn_optax.describe(params, tx.init(params), axes=0))
      parameter     shape   constrained  axes  norm   captured
      ------------  ------  -----------  ----  -----  --------
      dense/bias    (2,)    free         -     0      -
      dense/kernel  (2, 2)  yes          (0,)  3 (2)  not yet
    """
    held = norms_by_path(state) if state is not None else {}
    if state is not None and mask is None:
        mask = _mask_of(params, held)
    spheres = select_spheres(params, mask, axes, None)
    rows = []
    for path, leaf in leaves_by_path(params).items():
        sphere = spheres.get(path)
        norm = np.asarray((sphere or Sphere(tuple(range(jnp.ndim(leaf))))).norm(leaf))
        if state is not None:
            _check_agreement(path, norm if sphere else None, held.get(path))
        captured = np.asarray(held[path][0]) if path in held and held[path][1] else None
        axes_of = sphere.axes if sphere else None
        rows.append(LeafSummary(path, jnp.shape(leaf), bool(sphere), axes_of, norm, captured))
    return Summary(rows)


def _mask_of(params: optax.Params, held: dict[str, Any]) -> Any:
    """The mask that an optimizer was made with, from the norms in its state."""
    return replace_leaves(params, {path: path in held for path in leaves_by_path(params)})


def _check_agreement(path: str, norm: np.ndarray | None, held: tuple[Any, bool] | None) -> None:
    """Refuses a leaf that `mask` and `axes` describe otherwise than the optimizer's state does."""
    ours = None if norm is None else norm.shape
    theirs = None if held is None else jnp.shape(held[0])
    if ours != theirs:
        shown = lambda shape: "is free" if shape is None else f"has norms of shape {shape}"
        raise ValueError(
            f"mask and axes say that {path!r} {shown(ours)}; in the optimizer's state it"
            f" {shown(theirs)}. Give describe the mask= and axes= that the optimizer was given."
        )


def _cells(leaf: LeafSummary) -> tuple[str, ...]:
    captured = "-" if not leaf.constrained else "not yet"
    return (
        leaf.path,
        str(leaf.shape),
        "yes" if leaf.constrained else "free",
        "-" if leaf.axes is None else str(leaf.axes),
        _range(leaf.norm),
        captured if leaf.captured is None else _range(leaf.captured),
    )


def _range(values: np.ndarray) -> str:
    """One number, or the smallest and largest of several and how many they are."""
    if values.size == 0:
        return "none"
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    several = f" ({math.prod(values.shape)})" if values.ndim else ""
    return (low if low == high else f"{low} to {high}") + several
