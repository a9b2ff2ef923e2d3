r"""Automatic switches that decide by the norm of the gradient.

Both follow a course that falls into a valley and rises from it. The norms that are held are those
of the moment when it has begun to rise, or with `at_flattening` of an earlier one, when the loss
has fallen, if it goes on falling; never those of a moment before it has.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lawn_optax._checks import check_number, check_scalar
from lawn_optax._geometry import safe_divide
from lawn_optax._switches import Switch, running_average

FALLEN = 0.7  # Of its maximum: the loss below which norms are marked,
FALLEN_INTERCEPT = 0.8  # and the intercept, of the same maximum.
GOES_ON = 0.9  # Of its mean since a mark: the loss below which it goes on falling.


class Valley(NamedTuple):
    """Holds what is known of a course that falls and rises.

    Attributes:
      peak: float32 scalar; its maximum so far.
      low: float32 scalar; its minimum since it is followed; before, its last value.
      fallen: bool scalar; whether it has fallen from the peak by `ratio`.
      followed: bool scalar; whether its minimum is looked for.
      falling: bool scalar; whether it has yet to rise from the minimum by `mark_ratio`.
      risen: bool scalar; whether it has risen from there by `ratio`.
    """

    peak: jax.Array
    low: jax.Array
    fallen: jax.Array
    followed: jax.Array
    falling: jax.Array
    risen: jax.Array


class Mark(NamedTuple):
    """Says which update's norms are marked.

    Attributes:
      made: bool scalar; whether there is one.
      at: int32 scalar; the updates made before the one that was marked last, -1 without any.
      loss: float32 scalar; the mean loss since then.
      of_valley: bool scalar; whether a valley has shown it, and not the loss alone.
    """

    made: jax.Array
    at: jax.Array
    loss: jax.Array
    of_valley: jax.Array


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
      gradient: float32 scalar; the running average of the gradient's norm.
      loss: float32 scalar; that of the loss.
      intercept: float32 scalar; that of the loss that its tangent has at a scale of zero.
      highest_loss: float32 scalar; its maximum so far.
      valley: the course of their ratio.
      mark: the update whose norms will be held.
    """

    gradient: jax.Array
    loss: jax.Array
    intercept: jax.Array
    highest_loss: jax.Array
    valley: Valley
    mark: Mark


def at_flattening(ratio: float = 1.25, mark_ratio: float = 1.1) -> Switch:
    r"""Hold the norms of the moment at which the loss begins to flatten; nothing is to be tuned.

    The optimizer's `update` is given `value=`, the loss :math:`L` of the minibatch. With the norm
    of the gradient `g` over the constrained leaves, the rule observes
    :math:`\|g\| / L = \|\nabla \log L\|`. That falls while the network learns what is common to all
    examples, and their gradients cancel more and more. It rises when the network begins to fit
    single examples: :math:`-\log L` is then about the smallest margin, whose gradient grows with
    the weights. Both are averaged, :math:`t` counted from 0:

    .. math::
      w_t = \max\left(\tfrac{1}{t + 1},\ \min\left(\tfrac{1}{10},\ \tfrac{6}{t + 6}\right)\right),
      \qquad a \leftarrow a + w_t (\|g\| - a), \qquad b \leftarrow b + w_t (L - b)

    The norms are marked when the loss has fallen, :math:`b` below 0.7 of its maximum, and larger
    norms alone would not make it fall much further. A layer's scale changes the loss at the rate
    :math:`\langle w, g\rangle`. With :math:`s` the largest :math:`-\langle w, g\rangle` of a
    constrained layer, from 0 to :math:`L`, the tangent of the loss along that scale meets a
    scale of zero at :math:`L + s`; for cross-entropy, and logits proportional to the layer, that is
    the mean entropy of the predictions. While all logits grow alike, as in graph networks and
    factorised matrices, it stays at the maximum of the loss: the norms are still too small. Its
    average must be below 0.8 of that. A network whose initial norms are large enough begins to fit
    single examples about then.

    They are marked anew after a valley: when :math:`a / b` has fallen below its value at the mark
    and risen from its minimum by `mark_ratio`, one update later; but not if the loss goes on
    falling, :math:`b` below 0.9 of the mean :math:`L` since the mark. So a loss that falls onto a
    plateau and rests there loses its mark, and one that falls on keeps it. A recommender rests: it
    first learns how frequent a label is, and leaves that plateau when its norms have grown.

    Training is constrained when :math:`a / b` has risen by `ratio` from its minimum since the first
    mark. If that mark still stands, which the loss alone has made, :math:`b` must also be below 0.9
    of the mean :math:`L` since. The first constrained update scales the weights to the marked
    norms. Until then training is free, to the end if need be. A factor on the loss does not matter,
    if the gradient has it too; a constant added to the loss does.

    Choose a free phase by hand in few updates of very large batches or batches of a few examples,
    with LAMB, on sparse inputs, such as bags of words, and where a network never comes to fit its
    training set: the guide on choosing says why.

    A link before `lawn` that fixes the gradient's norm, such as `optax.clip_by_global_norm`, hides
    the valley: put it within `lawn`, or give `update` the norm as `gradient_norm=`. A gradient
    whose norm is not finite and a loss that is not positive and finite are left out: a loss that
    is never positive leaves training free. A single loss far above the others in the first updates
    marks norms at once. Within `optax.MultiSteps` the loss seen is that of the last part, beside
    the mean gradient of all.

    Args:
      ratio: the factor by which :math:`a / b` falls into a valley, and rises to be constrained;
        above 1 and finite.
      mark_ratio: the factor by which it must rise for the norms to be marked; from 1 to `ratio`.

    Returns:
      A `Switch` with a `FlatteningState`. `lawn` gives it the gradient's norm and :math:`s`; within
      `shard_map`, where one device sees a piece of the gradient, give `update` those of the whole
      as `gradient_norm=` and `loss_slope=`, 0 by default, and the loss of the whole batch, the same
      on every device.

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
      >>> step, int(state.mark.at)
      (253, 159)
    """
    ratio, mark_ratio = _check_ratios(ratio, mark_ratio)

    def init() -> FlatteningState:
        return FlatteningState(_zero(), _zero(), _zero(), _zero(), _unseen(), _no_mark())

    def update(
        count: jax.Array, state: FlatteningState, extra_args: Mapping[str, Any]
    ) -> tuple[jax.Array, FlatteningState]:
        if extra_args.get("value") is None:
            raise ValueError(
                "value=None: at_flattening needs the minibatch's loss. Call update(grads, state,"
                " params, value=loss), or take at_gradient_rise(), which needs nothing."
            )
        norm = _gradient_norm("at_flattening", extra_args)
        loss = _scalar("value", extra_args["value"])
        slope = _scalar("loss_slope", extra_args.get("loss_slope", 0.0))
        seen = jnp.isfinite(norm) & jnp.isfinite(slope) & jnp.isfinite(loss) & (loss > 0)
        weight = jnp.maximum(1 / (count + 1), _weight(count))
        weight = jnp.where(state.highest_loss > 0, weight, 1)  # The first that is seen.
        average = lambda x, now: running_average(x, now, weight, seen)
        gradient, mean_loss = average(state.gradient, norm), average(state.loss, loss)
        intercept = average(state.intercept, loss + jnp.clip(slope, 0, loss))
        highest = jnp.maximum(state.highest_loss, mean_loss)
        fallen = (mean_loss < FALLEN * highest) & (intercept < FALLEN_INTERCEPT * highest)
        relative = safe_divide(gradient, mean_loss)
        begin = (state.mark.at < 0) & fallen & (relative > 0)
        rises, valley = _follow(state.valley, relative, ratio, mark_ratio, begin)
        goes_on = lambda mark: mean_loss < GOES_ON * mark.loss
        since = running_average(state.mark.loss, loss, 1 / (count - state.mark.at), seen)
        old = state.mark._replace(loss=since)
        new = Mark(begin | ~valley.falling, count, mean_loss, valley.fallen & ~begin)
        mark = _renew(old, new, begin, taken_back=rises & ~goes_on(old))
        constrain = mark.made & valley.risen & (mark.of_valley | goes_on(mark))
        return constrain, FlatteningState(gradient, mean_loss, intercept, highest, valley, mark)

    marked = lambda state: state.mark.made
    return Switch(init, update, extra_args=("gradient_norm", "loss_slope"), marked=marked)


def at_gradient_rise(ratio: float = 1.25, mark_ratio: float = 1.1) -> Switch:
    r"""Hold the norms of the moment at which the gradient begins to rise; needs no argument.

    Use it where the loss is not at hand when weights are updated. With the loss, `at_flattening`
    also acts where the gradient only falls, but more slowly than the loss.

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
    training stays free. The scale of the loss does not matter. Where a network first learns an easy
    part and needs larger norms for the rest, as on patterns in the plane, the gradient rises too
    early, and the norms are too small.

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
        return GradientRiseState(_zero(), _unseen())

    def update(
        count: jax.Array, state: GradientRiseState, extra_args: Mapping[str, Any]
    ) -> tuple[jax.Array, GradientRiseState]:
        norm = _gradient_norm("at_gradient_rise", extra_args)
        average = running_average(state.average, norm, _weight(count), jnp.isfinite(norm))
        _, valley = _follow(state.valley, average, ratio, mark_ratio, begin=_no())
        return valley.risen, GradientRiseState(average, valley)

    marked = lambda state: ~state.valley.falling
    return Switch(init, update, extra_args=("gradient_norm",), marked=marked)


def _check_ratios(ratio: float, mark_ratio: float) -> tuple[float, float]:
    """Return both as numbers, or refuse them."""
    ratio, mark_ratio = check_number("ratio", ratio), check_number("mark_ratio", mark_ratio)
    if not 1 < ratio < math.inf:
        raise ValueError(f"ratio={ratio} must be above 1 and finite, such as 1.25.")
    if not 1 <= mark_ratio <= ratio:
        raise ValueError(f"mark_ratio={mark_ratio} must lie between 1 and ratio={ratio}.")
    return ratio, mark_ratio


def _gradient_norm(name: str, extra_args: Mapping[str, Any]) -> jax.Array:
    """Return the norm of the gradient, a float32 scalar."""
    if extra_args.get("gradient_norm") is None:
        raise ValueError(
            f"gradient_norm=None: where axis_name is given, {name} needs the norm of the whole"
            " gradient. Call update(grads, state, params, gradient_norm=norm), the same on every"
            " device."
        )
    return _scalar("gradient_norm", extra_args["gradient_norm"])


def _scalar(name: str, value: Any) -> jax.Array:
    """Return an argument as a float32 scalar, or refuse one that is not a scalar."""
    check_scalar(name, value)
    if isinstance(value, str) or np.iscomplexobj(value):
        raise TypeError(f"{name}={value!r} must be a real number, such as the mean loss.")
    return jnp.asarray(value).astype(jnp.float32)


def _renew(mark: Mark, new: Mark, begin: jax.Array, taken_back: jax.Array) -> Mark:
    """Return the mark, taken back or not, or a new one where there is none.

    The first is made where `begin`; those after it where `new` says so.
    """
    kept = mark._replace(made=mark.made & ~taken_back)
    make = ~mark.made & new.made & (begin | (mark.at >= 0))
    return Mark(*(jnp.where(make, x, y) for x, y in zip(new, kept, strict=True)))


def _weight(count: jax.Array) -> jax.Array:
    """Return the weight of what update `count` sees in a running average."""
    return jnp.minimum(0.1, 6 / (count + 6))


def _zero() -> jax.Array:
    return jnp.zeros([], jnp.float32)


def _no() -> jax.Array:
    return jnp.zeros([], bool)


def _unseen() -> Valley:
    """Return the valley of a course of which nothing is known, in arrays that may be donated."""
    return Valley(_zero(), _zero(), fallen=_no(), followed=_no(), falling=~_no(), risen=_no())


def _no_mark() -> Mark:
    """Return the mark before there is one, in arrays that may be donated."""
    return Mark(_no(), jnp.int32(-1), _zero(), _no())


def _follow(
    valley: Valley, x: jax.Array, ratio: float, mark_ratio: float, begin: jax.Array
) -> tuple[jax.Array, Valley]:
    """Update a valley with `x`; also return whether `x` has just risen by `mark_ratio` in it.

    `begin` follows the course from `x` on, as from a minimum that it has risen from.
    """
    peak = jnp.maximum(valley.peak, x)
    fallen = valley.fallen | (ratio * x < peak)
    lowest = ~valley.followed | (x < valley.low)
    low = jnp.where(lowest | begin, x, valley.low)
    above = lambda factor: (x > low) & (x >= factor * low)
    falling = (lowest | (valley.falling & ~above(mark_ratio))) & ~begin
    risen = (valley.risen & ~lowest & ~begin) | above(ratio)
    followed = valley.followed | fallen | begin
    return valley.falling & ~falling, Valley(peak, low, fallen, followed, falling, risen)
