"""When to constrain: the conditions that end the free phase.

A `Switch` is asked at the start of every update, with the number of updates made before it. Once
it has said yes, `lawn` stays constrained and its later answers do not matter.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Switch(NamedTuple):
    """A condition on the course of training, for `lawn(inner, switch)`.

    Attributes:
      init: `init() -> state`, a pytree of arrays.
      update: `update(count, state, extra_args) -> (constrain, state)`, with `count` an int32
        scalar, the updates made before this one; `extra_args` the keyword arguments of the
        optimizer's `update`; `constrain` a bool scalar.
      extra_args: names of those arguments that are the switch's own, not the inner optimizer's.
    """

    init: Callable[[], Any]
    update: Callable[[jax.Array, Any, Mapping[str, Any]], tuple[jax.Array, Any]]
    extra_args: tuple[str, ...] = ()


def at_step(n: int | jax.Array) -> Switch:
    """Constrains from update number `n` on, counting from 0.

    Args:
      n: how many updates are free, at least 0; 0 constrains from the initial weights. A traced
        int32 scalar may stand here, so that `jax.vmap` runs a whole grid of free phases at once.

    Returns:
      A stateless `Switch`.

    Raises:
      TypeError: if `n` is not an integer.
      ValueError: if `n` is negative or not a scalar.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> switch = lawn_optax.at_step(2)
      >>> [bool(switch.update(jnp.int32(t), switch.init(), {})[0]) for t in range(4)]
      [False, False, True, True]
    """
    return _at_step("n", n)


def at_epoch(epochs: float | jax.Array, steps_per_epoch: int) -> Switch:
    """Constrains after `epochs` of free training: the paper's `E_free`.

    Args:
      epochs: length of the free phase, a fraction allowed, at least 0; rounded to the nearest
        step, halves to even. A traced scalar may stand here.
      steps_per_epoch: updates an epoch, at least 1.

    Returns:
      A stateless `Switch`.

    Raises:
      TypeError: if `steps_per_epoch` is not an integer or `epochs` not a number.
      ValueError: if `epochs` is negative or not finite, or `steps_per_epoch` below 1.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> switch = lawn_optax.at_epoch(0.16, steps_per_epoch=100)
      >>> [bool(switch.update(jnp.int32(t), switch.init(), {})[0]) for t in (15, 16)]
      [False, True]

    References:
      Section 3 of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    steps = _step("steps_per_epoch", steps_per_epoch, least=1)
    if isinstance(epochs, jax.core.Tracer) or isinstance(steps, jax.core.Tracer):
        return at_step(jnp.round(epochs * steps).astype(jnp.int32))
    epochs = _number("epochs", epochs)
    if not 0 <= epochs < math.inf:
        raise ValueError(
            f"epochs={epochs} must be finite and at least 0; 0 constrains from the initial weights."
        )
    return at_step(round(epochs * int(steps)))


class MedianMarginState(NamedTuple):
    """State of `at_median_margin`.

    Attributes:
      averaged: int32 scalar; how many margins, the finite ones, are in the average.
      average: float32 scalar; their running average, from 0.
    """

    averaged: jax.Array
    average: jax.Array


def at_median_margin(threshold: float = 2.5, decay: float = 0.9, min_steps: int = 0) -> Switch:
    r"""Constrains when the training loss begins to flatten: the automatic switch.

    The optimizer's `update` is given `margin=`: the margins of the minibatch at the current
    weights, which the forward pass has at hand (see `metrics.logit_margin`). Their median
    :math:`x_t`, `t` counted from 0, is averaged from :math:`a = 0` on, and the update that brings
    the average to the threshold is the first constrained one:

    .. math::
      a \leftarrow a + \min\left(1 - \beta,\ \frac{3}{t + 3}\right) (x_t - a)

    That is an exponential moving average whose window grows with training, to about a third of the
    steps taken. Early in training the median shoots past the threshold for a few steps while the
    output bias learns the class prior; a window in proportion ignores that at every batch size,
    without knowing how long an epoch is. The price is a switch that comes about a quarter of the
    steps taken so far after the crossing for good.

    A margin that is not finite is left out. Where one class is so frequent that predicting it
    alone gives a lasting median near the threshold, raise the threshold, or set `min_steps`.

    Args:
      threshold: the median margin, in logits, at which most losses are flat; finite.
      decay: :math:`\beta`, from 0 to below 1: smooths the first `3 / (1 - decay)` steps.
      min_steps: updates that are free in any case, at least 0.

    Returns:
      A `Switch` with a `MedianMarginState`. `margin` may be a scalar, the median itself, or an
      array of per-example margins, of any shape and floating dtype. Under `shard_map`, give the
      same margin on every device.

    Raises:
      TypeError: if `min_steps` is not an integer.
      ValueError: if an argument is out of its range; on `update`, without `margin=`.

    Examples:
      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> tx = lawn_optax.adam_lawn(0.1, lawn_optax.at_median_margin())
      >>> w = jnp.ones((2, 2))
      >>> state = tx.init(w)
      >>> for margin in jnp.linspace(0., 8., 40):   # a margin that rises steadily
      ...   _, state = tx.update(w, state, w, margin=margin)
      >>> int(state.steps - state.constrained_steps)   # it was 2.7 at step 13
      21

    References:
      Section 3 and appendix A of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_, which proposes
      such a switch as future work.
    """
    threshold, decay = _number("threshold", threshold), _number("decay", decay)
    if not math.isfinite(threshold):
        raise ValueError(f"threshold={threshold} must be finite: a margin in logits, such as 2.5.")
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay} must be at least 0 and below 1, such as 0.9.")
    free_steps = _step("min_steps", min_steps)

    def init() -> MedianMarginState:
        return MedianMarginState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.float32))

    def update(
        count: jax.Array, state: MedianMarginState, extra_args: Mapping[str, Any]
    ) -> tuple[jax.Array, MedianMarginState]:
        if extra_args.get("margin") is None:
            raise ValueError(
                "margin=None: at_median_margin needs the minibatch's margins. Call"
                " update(grads, state, params, margin=logit_margin(logits, labels))."
            )
        x = jnp.median(jnp.asarray(extra_args["margin"], jnp.float32))
        finite = jnp.isfinite(x)
        weight = jnp.minimum(1 - decay, 3 / (state.averaged + 3))
        average = jnp.where(finite, state.average + weight * (x - state.average), state.average)
        averaged = jnp.where(finite, optax.safe_increment(state.averaged), state.averaged)
        constrain = finite & (average >= threshold) & (count >= free_steps)
        return constrain, MedianMarginState(averaged, average)

    return Switch(init, update, extra_args=("margin",))


def as_switch(switch: Switch | int | jax.Array) -> Switch:
    """A `Switch` as it is, an integer as `at_step` of it."""
    if isinstance(switch, Switch):
        return switch
    if callable(switch) or isinstance(switch, (str, float, tuple)) or switch is None:
        raise TypeError(
            f"switch={switch!r} must be a number of free updates, at_step(n),"
            " at_epoch(epochs, steps_per_epoch) or at_median_margin()."
        )
    return _at_step("switch", switch)


def _at_step(name: str, n: int | jax.Array) -> Switch:
    first = _step(name, n)
    return Switch(init=lambda: (), update=lambda count, state, extra_args: (count >= first, state))


def _step(name: str, value: Any, least: int = 0) -> int | jax.Array:
    """A number of steps: an integer of at least `least`, or an int32 scalar that may be traced."""
    if isinstance(value, jax.core.Tracer):
        if value.ndim:
            raise ValueError(
                f"{name} has shape {value.shape}: give a scalar; jax.vmap runs a grid."
            )
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{name} has dtype {value.dtype}: cast it to int32.")
        return value
    if getattr(value, "ndim", 0):
        raise ValueError(f"{name} has shape {value.shape}: give a scalar; jax.vmap runs a grid.")
    try:
        if isinstance(value, bool):
            raise TypeError
        value = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}={value!r} must be an integer, a number of steps; at_epoch(epochs,"
            " steps_per_epoch) takes fractions of an epoch."
        ) from None
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}.")
    return min(value, jnp.iinfo(jnp.int32).max)


def _number(name: str, value: Any) -> float:
    """A real number as a Python float."""
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)
    except TypeError:
        raise TypeError(f"{name}={value!r} must be a number, such as 0.5.") from None
