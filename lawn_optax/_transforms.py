"""The links of a chain: one step of Algorithm 1 each, as an Optax transformation.

    optax.chain(
        project_to_tangent(),        # line 4
        optax.adam(1e-3),            # lines 5-8: any optimizer
        project_to_tangent(),        # line 9
        rescale_to_norms(),          # lines 10-11
    )

is `lawn(optax.adam(1e-3), switch=0)`, written out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lawn_optax._checks import (
    check_positive,
    check_target_scale,
    check_update,
)
from lawn_optax._geometry import capped_trust_ratio, project, rescale
from lawn_optax._masks import MaskOrFn
from lawn_optax._selection import AxesOrFn, AxisNameOrFn, Selection, StackedOrFn
from lawn_optax._spheres import Norms, Spheres, capture, scale_norms


def project_to_tangent(
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Remove the part of the updates that would change a weight norm.

    .. math::
      d \leftarrow d - \frac{\langle w, d\rangle}{\langle w, w\rangle} w

    A leaf or slice whose weights are all zero has no tangent space, and its updates pass.

    Args:
      mask: which leaves; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      A stateless `optax.GradientTransformationExtraArgs`; updates keep their dtypes.

    Raises:
      ValueError: for a mask or axes that do not fit, on `init`; without `params`, on `update`.
      TypeError: for an entry of mask or axes of the wrong type, or an integer leaf, on `init`.

    Examples:
      The result is orthogonal to the weights:

      >>> import jax.numpy as jnp, lawn_optax
      >>> w, g = jnp.array([[3., 4.]]), jnp.array([[1., 1.]])
      >>> tx = lawn_optax.project_to_tangent()
      >>> tangent, _ = tx.update(g, tx.init(w), w)
      >>> bool(abs(jnp.vdot(w, tangent)) < 1e-6)
      True

    References:
      Algorithm 1, lines 4 and 9, and equation (3) of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    selection = Selection(mask, axes, stacked, axis_name)

    def init(params: optax.Params) -> optax.EmptyState:
        selection.spheres_or_warn(params)
        return optax.EmptyState()

    def update(updates, state, params, **extra_args):
        del extra_args
        spheres = selection.spheres(params)
        ww, wd = spheres.inner_products((params, params), (params, updates))
        return spheres.move(project, params, updates, ww, wd), state

    return optax.GradientTransformationExtraArgs(init, check_update("project_to_tangent", update))


class RescaleToNormsState(NamedTuple):
    """State of `rescale_to_norms`.

    Attributes:
      steps: int32 scalar; the updates made so far. The norms are captured at the first.
      norms: the captured norms by the path of their parameter, such as `"dense/kernel"`: one
        float32 each (float64 for float64 weights), in the shape that `axes` leave.
    """

    steps: jax.Array
    norms: Norms


def rescale_to_norms(
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: optax.ScalarOrSchedule = 1.0,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Make every step keep the weight norms that the first update finds.

    .. math::
      w_{next} = c \frac{w + r}{\lVert w + r \rVert}, \qquad c = \lVert w_0 \rVert

    Make it the last link of a chain: it turns the whole step `r` into the update `w_next - w`.
    A leaf or slice whose captured norm is 0 stays free. Where :math:`w + r` is shorter than a
    hundredth of `w` in float32, the weights keep their direction: the new one would be rounding.

    Args:
      mask: which leaves; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      target_scale: factor on the captured norms; see `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs` with a `RescaleToNormsState`.

    Raises:
      ValueError: for a mask, axes or target_scale that do not fit; without `params`, on `update`.
      TypeError: for an entry of mask or axes of the wrong type, or an integer leaf, on `init`.

    Examples:
      The norm before is the norm after, whatever the step:

      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> w = jnp.array([[3., 4.]])
      >>> tx = lawn_optax.rescale_to_norms()
      >>> step, _ = tx.update(jnp.array([[7., -1.]]), tx.init(w), w)
      >>> print(f"{jnp.linalg.norm(optax.apply_updates(w, step)):.4f}")
      5.0000

    References:
      Algorithm 1, lines 10 and 11, of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    check_target_scale(target_scale)
    selection = Selection(mask, axes, stacked, axis_name)

    def init(params: optax.Params) -> RescaleToNormsState:
        norms = selection.spheres_or_warn(params).zero_norms(params)
        return RescaleToNormsState(jnp.zeros([], jnp.int32), norms)

    def update(updates, state, params, **extra_args):
        del extra_args
        spheres = selection.spheres(params)
        x = spheres.add(params, updates)
        ww, xx = spheres.inner_products((params, params), (x, x))
        norms = capture(ww, state.norms, captured=state.steps > 0, wanted=True)
        c = scale_norms(norms, target_scale, state.steps)
        on_sphere = {path: norms[path] > 0 for path in ww}
        step = spheres.move(rescale, params, updates, c, ww, xx, where=on_sphere)
        return step, RescaleToNormsState(optax.safe_increment(state.steps), norms)

    checked = check_update("rescale_to_norms", update, RescaleToNormsState, init)
    return optax.GradientTransformationExtraArgs(init, checked)


def scale_by_capped_trust_ratio(
    max_ratio: float | jax.Array = 1.0,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scale each leaf's update to the size of its weights, up to a cap.

    .. math::
      u \leftarrow \min\left(\frac{\lVert w \rVert}{\lVert u \rVert},\ \rho\right) u

    The ratio, before the cap, is 1 where either norm is 0, as in `optax.scale_by_trust_ratio`.
    Without a cap, small updates of large weights are scaled up, and training may become unstable;
    `max_ratio=1.0` is the paper's LAMB+.

    Args:
      max_ratio: the cap :math:`\rho`, positive; `jnp.inf` for none, which is LAMB.
      mask: the leaves to which `axes` apply; see `lawn`. Others have one ratio per leaf.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      A stateless `optax.GradientTransformationExtraArgs`; updates keep their dtypes.

    Raises:
      ValueError: for a max_ratio that is not positive, and for a mask or axes that do not fit.
      TypeError: for an entry of mask or axes of the wrong type, on `init`.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> w, u = jnp.array([3., 4.]), jnp.array([0., .1])   # a ratio of 50
      >>> tx = lawn_optax.scale_by_capped_trust_ratio(max_ratio=10.)
      >>> scaled, _ = tx.update(u, tx.init(w), w)
      >>> print(scaled)
      [0. 1.]

    References:
      Appendix B.3.3 of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_;
      `Large Batch Optimization for Deep Learning <https://arxiv.org/abs/1904.00962>`_.
    """
    max_ratio = check_positive("max_ratio", max_ratio, "1.0; jnp.inf means no cap")
    selection = Selection(mask, axes, stacked, axis_name)

    def spheres_of(params: optax.Params) -> Spheres:
        # A free leaf, too, has a ratio.
        return Spheres(selection.whole_leaves(params) | selection.spheres(params))

    def init(params: optax.Params) -> optax.EmptyState:
        spheres_of(params)
        return optax.EmptyState()

    def update(updates, state, params, **extra_args):
        del extra_args
        spheres = spheres_of(params)
        ww, uu = spheres.inner_products((params, params), (updates, updates))
        cap = dict.fromkeys(uu, max_ratio)
        return spheres.move(capped_trust_ratio, params, updates, cap, ww, uu), state

    return optax.GradientTransformationExtraArgs(
        init, check_update("scale_by_capped_trust_ratio", update)
    )
