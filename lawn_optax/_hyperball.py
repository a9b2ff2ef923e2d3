"""Norms fixed from the first update on, with steps relative to them: Hyperball."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lawn_optax import _geometry as geometry
from lawn_optax._checks import (
    check_inner,
    check_radius,
    check_rate,
    check_target_scale,
    check_update,
)
from lawn_optax._kernels import upcast
from lawn_optax._masks import MaskOrFn
from lawn_optax._paths import leaves_by_path, replace_leaves
from lawn_optax._selection import AxesOrFn, AxisNameOrFn, Selection, StackedOrFn
from lawn_optax._spheres import Norms, Products, Spheres, capture, scale_norms


class HyperballState(NamedTuple):
    """State of `hyperball`.

    Attributes:
      steps: int32 scalar; the updates made so far. The norms are captured at the first.
      norms: the norms `c`, before `target_scale`, as in `LawnState`.
      inner: the inner optimizer's state.
    """

    steps: jax.Array
    norms: Norms
    inner: optax.OptState


def hyperball(
    inner: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: optax.ScalarOrSchedule = 1.0,
    radius: ArrayLike | None = None,
    rms: ArrayLike | None = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Fix the norms from the first update on, with relative steps along any direction.

    .. math::
      w \leftarrow c \, N(w - \eta c \, N(u)), \qquad N(x) = x / \lVert x \rVert

    With `optax.scale_by_adam()` inside it is AdamH, LAMB-LAWN with a free phase of zero and no
    tangent projection; `adam_h` and `muon_h` are ready-made for a whole model. Free leaves take the
    step :math:`-\eta u`. Where :math:`N(w) - \eta N(u)` is shorter than 0.3, as it can be for rates
    near 1, half the step is taken: its direction would be rounding.

    Args:
      inner: gives the direction `u`, without a learning rate and of the gradient's sign, not its
        opposite. In float16 give `optax.scale_by_adam` an `eps` of 1e-6 or more: 1e-8 is 0 there.
      learning_rate: a float or a schedule of the update: the size of a step relative to `c`.
      mask: which leaves are constrained; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      target_scale: factor on the norms; see `lawn`.
      radius: the norm `c` of every sphere, in place of the one captured at the first update. The
        first update scales the weights to it; its gradient is still that at the initial weights.
        Weights that are 0 stay free.
      rms: the same as a root mean square per element: `c` is `rms` times the square root of the
        number of elements of a norm.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs` with a `HyperballState`.

    Raises:
      TypeError: if `inner` is not a `GradientTransformation`.
      ValueError: for a radius or rms outside of 1e-18 to 1e18, or both; on `update`, without
        `params`, or with updates that are not a tree like them.
      TypeError, ValueError: on `init`, for a mask or axes that do not fit; see `lawn`.

    Examples:
      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> w, g = jnp.array([[3., 4.]]), jnp.array([[1., -1.]])
      >>> tx = lawn_optax.hyperball(optax.scale_by_adam(), 0.1)
      >>> step, _ = tx.update(g, tx.init(w), w)
      >>> print(f"{jnp.linalg.norm(w + step):.4f}")
      5.0000

    References:
      `Hyperball Optimization <https://arxiv.org/abs/2606.16899>`_.
    """
    inner = check_inner(inner, "optax.scale_by_adam(), without a learning rate")
    inner = optax.with_extra_args_support(inner)
    learning_rate = check_rate("learning_rate", learning_rate)
    check_target_scale(target_scale)
    check_radius(radius, rms)
    selection = Selection(mask, axes, stacked, axis_name)

    def init(params: optax.Params) -> HyperballState:
        norms = selection.spheres_or_warn(params).zero_norms(params)
        return HyperballState(jnp.zeros([], jnp.int32), norms, inner.init(params))

    def update(updates, state, params, **extra_args):
        w, spheres = params, selection.spheres(params)
        u, inner_state = inner.update(updates, state.inner, w, **extra_args)
        rate = learning_rate(state.steps) if callable(learning_rate) else learning_rate
        # Sums of `u`, not of the step: the squares of small steps would underflow.
        ww, wu, uu = spheres.inner_products((w, w), (w, u), (u, u))
        cc = ww if radius is rms is None else _given_squares(spheres, w, ww, radius, rms)
        norms = capture(cc, state.norms, captured=state.steps > 0, wanted=True)
        c = scale_norms(norms, target_scale, state.steps)
        on_sphere = {path: norms[path] > 0 for path in cc}
        share = dict.fromkeys(uu, jnp.negative(rate))
        moved = spheres.move(_relative_or_free, w, u, on_sphere, share, c, ww, wu, uu)
        free = {
            path: (-rate * upcast(x)).astype(jnp.result_type(x))
            for path, x in leaves_by_path(u).items()
            if path not in uu
        }
        steps = optax.safe_increment(state.steps)
        return replace_leaves(moved, free), HyperballState(steps, norms, inner_state)

    checked = check_update("hyperball", update, HyperballState, init)
    return optax.GradientTransformationExtraArgs(init, checked)


def _relative_or_free(
    on_sphere: jax.Array, k: jax.Array, *numbers: jax.Array
) -> geometry.Coefficients:
    """Move by `relative`, and by `k r` off the spheres."""
    a, b = geometry.relative(k, *numbers)
    return geometry.Coefficients(jnp.where(on_sphere, a, k), jnp.where(on_sphere, b, 0))


def _given_squares(
    spheres: Spheres,
    w: optax.Params,
    ww: Products,
    radius: ArrayLike | None,
    rms: ArrayLike | None,
) -> Products:
    """Return the squares of given norms; 0 for weights that are 0, which stay free."""
    sizes = spheres.sizes(w)

    def square(path: str, ww: jax.Array) -> jax.Array:
        # In another dtype it could overflow.
        c = jnp.asarray(radius if rms is None else rms, ww.dtype)
        c = c if rms is None else c * math.sqrt(sizes[path])
        return jnp.where(ww > 0, c**2, 0)

    return {path: square(path, x) for path, x in ww.items()}
