"""Ready-made optimizers, each one visible composition of the pieces below it.

Defaults are the paper's (section 4): `b1 = 0.9`, `b2 = 0.999`, `eps = 1e-6`, momentum 0.9.
"""

import math

import jax
import optax
from jax.typing import ArrayLike

from lawn_optax._checks import (
    check_adam,
    check_decay_rate,
    check_flag,
    check_not_negative,
    check_rate,
)
from lawn_optax._gradient_switches import at_flattening
from lawn_optax._lawn import lawn
from lawn_optax._masks import MaskOrFn
from lawn_optax._selection import AxesOrFn, AxisNameOrFn, StackedOrFn
from lawn_optax._switches import Switch
from lawn_optax._transforms import scale_by_capped_trust_ratio


def adam_lawn(
    learning_rate: optax.ScalarOrSchedule,
    switch: Switch | int | jax.Array | None = None,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-6,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: optax.ScalarOrSchedule = 1.0,
    project: bool = True,
    reset_inner: bool = False,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Make Adam-LAWN: `lawn` around `optax.adam`, the paper's main optimizer.

    Args:
      learning_rate: a float or a schedule of the update, from 0; the paper warms it up and lets it
        decay linearly to 0, see `schedules.warmup_linear_decay`.
      switch: when to constrain; see `lawn`. By default `at_flattening()`, for which `update` is
        given the loss as `value=`.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      mask: which leaves are constrained; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      target_scale: factor on the captured norms; see `lawn`.
      project: whether to project onto the tangent space; see `lawn`.
      reset_inner: forget the moments at the switch; see `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs` with a `LawnState`.

    Raises:
      TypeError, ValueError: as `lawn`; ValueError, too, for a constant outside its range; on
        `update`, with the default switch and without `value=`.

    Examples:
      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> tx = lawn_optax.adam_lawn(1e-3, lawn_optax.at_epoch(0.5, steps_per_epoch=500))
      >>> params = {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)}
      >>> lawn_optax.diagnostics.is_constrained(tx.init(params)).item()
      False

    References:
      Algorithm 1 of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    learning_rate, b1, b2, eps = check_adam(learning_rate, b1, b2, eps)
    return lawn(
        optax.adam(learning_rate, b1=b1, b2=b2, eps=eps),
        at_flattening() if switch is None else switch,
        mask=mask,
        axes=axes,
        stacked=stacked,
        target_scale=target_scale,
        project=project,
        reset_inner=reset_inner,
        axis_name=axis_name,
    )


def lamb_lawn(
    learning_rate: optax.ScalarOrSchedule,
    switch: Switch | int | jax.Array,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-6,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: optax.ScalarOrSchedule = 1.0,
    project: bool = True,
    reset_inner: bool = False,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Make LAMB-LAWN: `lawn` around LAMB, whose steps keep their length on the spheres.

    A constrained step therefore moves by exactly `learning_rate` relative to the norm held: the
    same as a projection between Adam and the trust ratio, an order that the paper leaves open.
    Until the switch this is `optax.lamb` without weight decay, but for norms that are summed in
    float32 whatever the leaf's dtype, and run over `axes`.

    Args:
      learning_rate: a float or a schedule of the update: the size of a step relative to the norm.
      switch: when to constrain; see `lawn`.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      mask: which leaves are constrained; see `lawn`.
      axes: which axes a norm, and with it a trust ratio, runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      target_scale: factor on the captured norms; see `lawn`.
      project: whether to project onto the tangent space; see `lawn`. Without, a step is relative
        to the norm before the weights are brought back to it, as AdamH's.
      reset_inner: forget the moments at the switch; see `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs` with a `LawnState`.

    Raises:
      TypeError, ValueError: as `lawn`; ValueError, too, for a constant outside its range.

    Examples:
      The angle of a step is that of its learning rate, whatever the gradient's size:

      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> w, g = jnp.array([[1., 2., 2.]]), jnp.array([[1e3, -2e3, 5e2]])
      >>> tx = lawn_optax.lamb_lawn(0.1, switch=0)
      >>> step, _ = tx.update(g, tx.init(w), w)
      >>> cosine = jnp.vdot(w, w + step) / 9
      >>> print(f"{jnp.tan(jnp.arccos(cosine)):.4f}")
      0.1000

    References:
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_, section 4;
      `Large Batch Optimization for Deep Learning <https://arxiv.org/abs/1904.00962>`_.
    """
    learning_rate, b1, b2, eps = check_adam(learning_rate, b1, b2, eps)
    selection = {"mask": mask, "axes": axes, "stacked": stacked, "axis_name": axis_name}
    return lawn(
        optax.chain(
            optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
            scale_by_capped_trust_ratio(math.inf, **selection),
            optax.scale_by_learning_rate(learning_rate),
        ),
        switch,
        target_scale=target_scale,
        project=project,
        keep_length=project,
        reset_inner=reset_inner,
        **selection,
    )


def sgd_lawn(
    learning_rate: optax.ScalarOrSchedule,
    switch: Switch | int | jax.Array,
    *,
    momentum: ArrayLike | None = 0.9,
    nesterov: bool = False,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: optax.ScalarOrSchedule = 1.0,
    project: bool = True,
    reset_inner: bool = False,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Make SGD-LAWN: `lawn` around `optax.sgd` with momentum.

    Args:
      learning_rate: a float or a schedule of the update, from 0.
      switch: when to constrain; see `lawn`.
      momentum: decay of the trace of gradients; None for none.
      nesterov: whether to look ahead, as `optax.sgd`.
      mask: which leaves are constrained; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      target_scale: factor on the captured norms; see `lawn`.
      project: whether to project onto the tangent space; see `lawn`.
      reset_inner: forget the trace at the switch; see `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs` with a `LawnState`.

    Raises:
      TypeError, ValueError: as `lawn`; ValueError, too, for a constant outside its range.

    Examples:
      A step along the weights is no step at all:

      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> w = jnp.array([[3., 4.]])
      >>> tx = lawn_optax.sgd_lawn(0.1, switch=0)
      >>> step, _ = tx.update(w, tx.init(w), w)
      >>> print(jnp.abs(step).max())
      0.0

    References:
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_, section 3.
    """
    learning_rate = check_rate("learning_rate", learning_rate)
    if momentum is not None:
        momentum = check_decay_rate("momentum", momentum)
    check_flag("nesterov", nesterov)
    return lawn(
        optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
        switch,
        mask=mask,
        axes=axes,
        stacked=stacked,
        target_scale=target_scale,
        project=project,
        reset_inner=reset_inner,
        axis_name=axis_name,
    )


def lamb_plus(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-6,
    weight_decay: ArrayLike = 0.0,
    max_ratio: float | jax.Array = 1.0,
    mask: MaskOrFn = None,
    stacked: StackedOrFn = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Make LAMB+: LAMB with its trust ratio capped, a baseline that constrains nothing.

    Args:
      learning_rate: a float or a schedule of the update, from 0.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: strength of the decoupled weight decay; the paper's ImageNet runs have 0.01.
      max_ratio: the cap on the trust ratio; `jnp.inf` gives `optax.lamb`.
      mask: the leaves that decay, as in `optax.lamb`; by default all.
      stacked: which subtrees hold layers stacked along leading axes, for a ratio per layer; see
        `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs`.

    Raises:
      ValueError: for a constant outside its range; on `update`, without `params`.

    Examples:
      Large weights no longer blow a step up:

      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> w, g = jnp.array([3e3, 4e3]), jnp.array([1., 1.])
      >>> for tx in (optax.lamb(0.1), lawn_optax.lamb_plus(0.1)):
      ...   print(jnp.linalg.norm(tx.update(g, tx.init(w), w)[0]).round(2))
      500.0
      0.14

    References:
      Appendix B.3.3 of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    learning_rate, b1, b2, eps = check_adam(learning_rate, b1, b2, eps)
    weight_decay = check_not_negative("weight_decay", weight_decay)
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay, mask),
        scale_by_capped_trust_ratio(max_ratio, stacked=stacked, axis_name=axis_name),
        optax.scale_by_learning_rate(learning_rate),
    )
