r"""Automatic switches that decide by the norm of the gradient.

Both follow a running average, wait until it has fallen from its maximum, and track its minimum. The
norms that are held are those of the moment when it has begun to rise from there.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lawn_optax._checks import check_scalar, number
from lawn_optax._geometry import safe_divide
from lawn_optax._switches import Switch, running_average


class Valley(NamedTuple):
    """What is known of a course that falls and rises.

    Attributes:
      peak: float32 scalar; its maximum so far.
      low: float32 scalar; its minimum since it has fallen from the peak.
      fallen: bool scalar; whether its minimum is looked for: it has fallen far enough.
      marked: bool scalar; whether it has begun to rise from there.
    """

    peak: jax.Array
    low: jax.Array
    fallen: jax.Array
    marked: jax.Array


class GradientRiseState(NamedTuple):
    """State of `at_gradient_rise`.

    Attributes:
      average: float32 scalar; the running average of the gradient's norm, from 0.
      valley: the course of the average.
    """

    average: jax.Array
    valley: Valley


class FlatteningState(NamedTuple):
    """State of `at_flattening`.

    Attributes:
      gradient: float32 scalar; the running average of the gradient's norm, from 0.
      loss: float32 scalar; that of the loss, from 0.
      highest_loss: float32 scalar; its maximum so far.
      valley: the course of their ratio.
    """

    gradient: jax.Array
    loss: jax.Array
    highest_loss: jax.Array
    valley: Valley


def at_flattening(ratio: float = 1.25, mark_ratio: float = 1.1) -> Switch:
    r"""Hold the norms of the moment at which the loss begins to flatten; nothing is to be tuned.

    The optimizer's `update` is given `value=`, the loss :math:`L` of the minibatch. With the norm
    of the gradient `g` over the constrained leaves, the rule observes
    :math:`\|g\| / L = \|\nabla \log L\|`. That falls while the network learns what is common to all
    examples, and their gradients cancel more and more. It rises when the network begins to fit
    single examples: :math:`-\log L` is then about the smallest margin, whose gradient grows with
    the weights. Both are averaged from :math:`a = b = 0` on, :math:`t` counted from 0:

    .. math::
      w_t = \min\left(\tfrac{1}{10},\ \tfrac{6}{t + 6}\right), \qquad
      a \leftarrow a + w_t (\|g\| - a), \qquad b \leftarrow b + w_t (L - b)

    Once :math:`a / b` has fallen from its maximum by the factor `ratio`, or `b` from its own to
    less than half, the minimum of :math:`a / b` is tracked. The norms are marked when :math:`a / b`
    has risen from its minimum by the factor `mark_ratio`, and again after each lower minimum. When
    it has risen by `ratio`, training is constrained, and the first constrained update scales the
    weights to the marked norms. Until then training is free, to the end if need be. A factor on the
    loss does not matter; a constant added to it does.

    A link before `lawn` that fixes the gradient's norm, such as `optax.clip_by_global_norm`, hides
    the fall: put it within `lawn`, or give `update` the norm as `gradient_norm=`. A gradient whose
    norm is not finite and a loss that is not positive and finite are left out. Within
    `optax.MultiSteps` the loss seen is that of the last part, beside the mean gradient of all.

    Args:
      ratio: the factor by which :math:`a / b` must fall, unless the loss halves, and then rise;
        above 1 and finite.
      mark_ratio: the factor by which it must rise for the norms to be marked; from 1 to `ratio`.

    Returns:
      A `Switch` with a `FlatteningState`. `lawn` gives it the gradient's norm; within `shard_map`,
      where one device sees a piece of the gradient, give `update` the norm of the whole as
      `gradient_norm=`, and the loss of the whole batch, the same on every device.

    Raises:
      ValueError: if an argument is out of its range; on `update`, without `value=` or with one that
        is not a scalar, and where `axis_name` is given and `gradient_norm=` is not.

    Examples:
      A gradient that falls from 8 to 1 at step 20 and stays there, while the loss begins to fall
      at step 120:

      >>> import jax.numpy as jnp, lawn_optax
      >>> switch = lawn_optax.at_flattening()
      >>> state, constrain, step = switch.init(), False, 0
      >>> while not constrain:
      ...   norm, loss = (8. if step < 20 else 1.), 0.98 ** max(step - 120, 0)
      ...   seen = {'gradient_norm': norm, 'value': loss}
      ...   constrain, state = switch.update(jnp.int32(step), state, seen)
      ...   step += 1
      >>> step, bool(switch.marked(state))
      (150, True)
    """
    ratio, mark_ratio = _check_ratios(ratio, mark_ratio)

    def init() -> FlatteningState:
        gradient, loss, highest = (jnp.zeros([], jnp.float32) for _ in range(3))
        return FlatteningState(gradient, loss, highest, _unseen())

    def update(
        count: jax.Array, state: FlatteningState, extra_args: Mapping[str, Any]
    ) -> tuple[jax.Array, FlatteningState]:
        if extra_args.get("value") is None:
            raise ValueError(
                "value=None: at_flattening needs the minibatch's loss. Call update(grads, state,"
                " params, value=loss), or take at_gradient_rise(), which needs nothing."
            )
        norm, loss = _norm("at_flattening", extra_args), _scalar("value", extra_args)
        seen = jnp.isfinite(norm) & jnp.isfinite(loss) & (loss > 0)
        weight = _weight(count)
        gradient = running_average(state.gradient, norm, weight, seen)
        average_loss = running_average(state.loss, loss, weight, seen)
        relative = safe_divide(gradient, average_loss)
        highest = jnp.maximum(state.highest_loss, average_loss)
        halved = 2 * average_loss < highest
        constrain, valley = _follow(state.valley, relative, ratio, mark_ratio, begin=halved)
        return constrain, FlatteningState(gradient, average_loss, highest, valley)

    return _switch(init, update)


def at_gradient_rise(ratio: float = 1.25, mark_ratio: float = 1.1) -> Switch:
    r"""Hold the norms of the moment at which the gradient begins to rise; needs no argument.

    For where the loss is not at hand when weights are updated: `at_flattening`, which is given the
    loss, also acts where the gradient falls as slowly as it would rise.

    The norm :math:`x_t` of the gradient, over the constrained leaves, shoots up in the first steps,
    falls while the network learns what is common to all examples, and rises as it begins to tell
    single examples apart and its weights grow. It is averaged from :math:`a = 0` on, :math:`t`
    counted from 0:

    .. math::
      a \leftarrow a + \min\left(\tfrac{1}{10},\ \tfrac{6}{t + 6}\right) (x_t - a)

    Once the average has fallen from its maximum by the factor `ratio`, its minimum is tracked. The
    norms are marked when the average has risen from its minimum by the factor `mark_ratio`, and
    again after each lower minimum. When it has risen by `ratio`, training is constrained, and the
    first constrained update scales the weights to the marked norms. If the gradient only falls,
    training stays free. The scale of the loss does not matter.

    A link before `lawn` that fixes the gradient's norm, such as `optax.clip_by_global_norm`, hides
    the rise: put it within `lawn`, or give `update` the norm as `gradient_norm=`. A gradient whose
    norm is not finite is left out.

    Args:
      ratio: the factor by which the average must fall, and then rise, to constrain; above 1 and
        finite.
      mark_ratio: the factor by which it must rise for the norms to be marked; from 1 to `ratio`.

    Returns:
      A `Switch` with a `GradientRiseState`. `lawn` gives it the norm; within `shard_map`, where
      one device sees a piece of the gradient, give `update` the norm of the whole as
      `gradient_norm=`, the same on every device.

    Raises:
      ValueError: if an argument is out of its range; on `update`, where `axis_name` is given and
        `gradient_norm=` is not.

    Examples:
      A norm that falls from 8 to 1 at step 20 and rises to 2 at step 120:

      >>> import jax.numpy as jnp, lawn_optax
      >>> switch = lawn_optax.at_gradient_rise()
      >>> state, constrain = switch.init(), False
      >>> norms = iter(20 * [8.] + 100 * [1.] + 100 * [2.])
      >>> step = 0
      >>> while not constrain:
      ...   seen = {'gradient_norm': next(norms)}
      ...   constrain, state = switch.update(jnp.int32(step), state, seen)
      ...   step += 1
      >>> step, bool(switch.marked(state))
      (127, True)
    """
    ratio, mark_ratio = _check_ratios(ratio, mark_ratio)

    def init() -> GradientRiseState:
        return GradientRiseState(jnp.zeros([], jnp.float32), _unseen())

    def update(
        count: jax.Array, state: GradientRiseState, extra_args: Mapping[str, Any]
    ) -> tuple[jax.Array, GradientRiseState]:
        norm = _norm("at_gradient_rise", extra_args)
        average = running_average(state.average, norm, _weight(count), jnp.isfinite(norm))
        constrain, valley = _follow(state.valley, average, ratio, mark_ratio, begin=False)
        return constrain, GradientRiseState(average, valley)

    return _switch(init, update)


def _switch(init: Callable[[], Any], update: Callable) -> Switch:
    """Return the switch, which is given the gradient's norm and remembers the marked norms."""
    return Switch(
        init, update, extra_args=("gradient_norm",), marked=lambda state: state.valley.marked
    )


def _check_ratios(ratio: float, mark_ratio: float) -> tuple[float, float]:
    """Return both as numbers, or refuse them."""
    ratio, mark_ratio = number("ratio", ratio), number("mark_ratio", mark_ratio)
    if not 1 < ratio < math.inf:
        raise ValueError(f"ratio={ratio} must be above 1 and finite, such as 1.25.")
    if not 1 <= mark_ratio <= ratio:
        raise ValueError(f"mark_ratio={mark_ratio} must lie between 1 and ratio={ratio}.")
    return ratio, mark_ratio


def _norm(name: str, extra_args: Mapping[str, Any]) -> jax.Array:
    """Return the norm of the gradient, a float32 scalar."""
    if extra_args.get("gradient_norm") is None:
        raise ValueError(
            f"gradient_norm=None: where axis_name is given, {name} needs the norm of the whole"
            " gradient. Call update(grads, state, params, gradient_norm=norm), the same on every"
            " device."
        )
    return _scalar("gradient_norm", extra_args)


def _scalar(name: str, extra_args: Mapping[str, Any]) -> jax.Array:
    """Return an argument as a float32 scalar, or refuse one that is not a scalar."""
    check_scalar(name, extra_args[name])
    return jnp.asarray(extra_args[name]).astype(jnp.float32)


def _weight(count: jax.Array) -> jax.Array:
    """Return the weight of what update `count` sees in a running average."""
    return jnp.minimum(0.1, 6 / (count + 6))


def _unseen() -> Valley:
    """Return the valley of a course of which nothing is known, in arrays that may be donated."""
    return Valley(
        jnp.zeros([], jnp.float32),
        jnp.zeros([], jnp.float32),
        jnp.zeros([], bool),
        jnp.zeros([], bool),
    )


def _follow(
    valley: Valley, x: jax.Array, ratio: float, mark_ratio: float, begin: jax.Array | bool
) -> tuple[jax.Array, Valley]:
    """Return whether a course has risen from its valley, and what is known of it with `x`.

    `begin` looks for the valley from now on, whether the course has fallen or not.
    """
    peak = jnp.maximum(valley.peak, x)
    fallen = (valley.fallen | (ratio * x < peak) | begin) & (x > 0)
    low = jnp.where(valley.fallen, jnp.minimum(valley.low, x), x)
    marked = fallen & (x > low) & (valley.marked | (x >= mark_ratio * low))
    return fallen & (x >= ratio * low), Valley(peak, low, fallen, marked)
