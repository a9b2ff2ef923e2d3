"""The links of a chain: one step of Algorithm 1 each, as an Optax transformation.

    optax.chain(
        project_to_tangent(),        # line 4
        optax.adam(1e-3),            # lines 5-8: any optimizer
        project_to_tangent(),        # line 9
        rescale_to_norms(),          # lines 10-11
    )

is `lawn(optax.adam(1e-3), switch=0)`, written out.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lawn_optax._geometry import Sphere
from lawn_optax._selection import (
    AxesOrFn,
    AxisNameOrFn,
    MaskOrFn,
    leaves_by_path,
    replace_leaves,
    require_params,
    select_spheres,
)
from lawn_optax._spheres import (
    Norms,
    Spheres,
    capture,
    check_state,
    check_target_scale,
    held_by_lawn,
    inner_products,
    project,
    rescale,
    scale_norms,
    zero_norms,
)


def project_to_tangent(
    *, mask: MaskOrFn = None, axes: AxesOrFn = None, axis_name: AxisNameOrFn = None
) -> optax.GradientTransformationExtraArgs:
    r"""Removes the part of the updates that would change a weight norm.

    .. math::
      d \leftarrow d - \frac{\langle w, d\rangle}{\langle w, w\rangle} w

    A leaf or slice whose weights are all zero has no tangent space, and its updates pass. Inside
    the inner optimizer of `lawn` this link is quiet until the switch.

    Args:
      mask: which leaves; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
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

    def init(params: optax.Params) -> optax.EmptyState:
        select_spheres(params, mask, axes, axis_name)
        return optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = require_params(params, "project_to_tangent")
        spheres = select_spheres(params, mask, axes, axis_name)
        held = held_by_lawn(spheres, params)
        return optax.tree.cast_like(project(spheres, params, updates, held), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


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
    target_scale: optax.ScalarOrSchedule = 1.0,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Makes every step end on the spheres that its first update finds the weights on.

    .. math::
      w_{next} = c \frac{w + r}{\lVert w + r \rVert}, \qquad c = \lVert w_0 \rVert

    To be the last link of a chain: it turns the whole step `r` into the update `w_next - w`.
    A leaf or slice whose captured norm is 0 stays free.

    Args:
      mask: which leaves; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
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
    return steps_on_norms(
        "rescale_to_norms",
        lambda spheres, updates, *_: updates,
        mask=mask,
        axes=axes,
        target_scale=target_scale,
        axis_name=axis_name,
    )


def steps_on_norms(
    name: str,
    step: Callable[[Spheres, optax.Updates, Norms, Norms, jax.Array], optax.Updates],
    *,
    mask: MaskOrFn,
    axes: AxesOrFn,
    target_scale: optax.ScalarOrSchedule,
    axis_name: AxisNameOrFn,
) -> optax.GradientTransformationExtraArgs:
    """Captures norms at its first update, then takes `step(spheres, u, c, held, count)` on them."""
    check_target_scale(target_scale)

    def init(params: optax.Params) -> RescaleToNormsState:
        spheres = select_spheres(params, mask, axes, axis_name)
        return RescaleToNormsState(jnp.zeros([], jnp.int32), zero_norms(spheres, params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = require_params(params, name)
        spheres = select_spheres(params, mask, axes, axis_name)
        check_state(name, state, RescaleToNormsState, spheres, params)
        (ww,) = inner_products(spheres, (params, params))
        norms = capture(ww, state.norms, when=state.steps == 0)
        held = {path: c > 0 for path, c in norms.items()} if spheres else {}
        c = scale_norms(norms, target_scale, state.steps)
        r = step(spheres, updates, c, held, state.steps)
        updates = optax.tree.cast_like(rescale(spheres, params, r, c, held), updates)
        return updates, RescaleToNormsState(optax.safe_increment(state.steps), norms)

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_capped_trust_ratio(
    max_ratio: float | jax.Array = 1.0,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales each leaf's update to the size of its weights, up to a cap.

    .. math::
      u \leftarrow \min\left(\frac{\lVert w \rVert}{\lVert u \rVert},\ \rho\right) u

    The ratio is 1 where either norm is 0, as in `optax.scale_by_trust_ratio`, before the cap.
    Without a cap a small update of large weights is blown up, and training may become unstable;
    with `max_ratio=1.0` it is the paper's LAMB+.

    Args:
      max_ratio: the cap :math:`\rho`, positive; `jnp.inf` for none, which is LAMB.
      mask: the leaves that `axes` speak of; see `lawn`. Others have one ratio a leaf.
      axes: which axes a norm runs over; see `lawn`.
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
    if not isinstance(max_ratio, jax.core.Tracer) and not max_ratio > 0:
        raise ValueError(f"max_ratio={max_ratio!r} must be positive; jnp.inf means no cap.")

    def spheres_of(params: optax.Params) -> Spheres:
        if axes is None and axis_name is None:
            return {path: _whole_leaf(w) for path, w in leaves_by_path(params).items()}
        whole = select_spheres(params, True, None, axis_name)
        return whole | select_spheres(params, mask, axes, axis_name)

    def init(params: optax.Params) -> optax.EmptyState:
        spheres_of(params)
        return optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = require_params(params, "scale_by_capped_trust_ratio")
        spheres = spheres_of(params)
        ww, uu = inner_products(spheres, (params, params), (updates, updates))
        scaled = {
            path: jnp.minimum(spheres[path].trust_ratio(ww[path], uu[path]), max_ratio) * u
            for path, u in leaves_by_path(updates).items()
        }
        scaled = optax.tree.cast_like(replace_leaves(updates, scaled), updates)
        return scaled, state

    return optax.GradientTransformationExtraArgs(init, update)


def _whole_leaf(w: jax.Array) -> Sphere:
    return Sphere(tuple(range(jnp.ndim(w))))
