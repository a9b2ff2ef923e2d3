"""Automatic switches that decide by the margins of the minibatches."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lawn_optax._checks import check_decay_rate, check_number, check_steps
from lawn_optax._switches import Switch, running_average

LEAST_SCALE, MOST_SCALE = 1e-6, 10.0  # Of `hold_median_margin`, to the norms at the switch.


class MedianMarginState(NamedTuple):
    """State of `at_median_margin`.

    Attributes:
      averaged: int32 scalar; how many margins, the finite ones, are in the average.
      average: float32 scalar; their running average, from 0.
    """

    averaged: jax.Array
    average: jax.Array


def at_median_margin(threshold: float = 2.5, decay: float = 0.9, min_steps: int = 0) -> Switch:
    r"""Constrain when the running median of the margins reaches a threshold.

    The optimizer's `update` is given `margin=`: the margins of the minibatch at the current
    weights, which the forward pass has at hand (see `metrics.logit_margin`). Their median
    :math:`x_t`, `t` counted from 0, is averaged from :math:`a = 0` on, and the update that brings
    the average to the threshold is the first constrained one:

    .. math::
      a \leftarrow a + \min\left(1 - \beta,\ \frac{3}{t + 3}\right) (x_t - a)

    That is an exponential moving average whose window grows with training, to about a third of the
    steps taken. Early in training the median exceeds the threshold for a few steps while the output
    bias learns the class prior. A window proportional to the steps taken ignores that at every
    batch size, without knowing the length of an epoch. In return, the switch comes late: by about a
    quarter of the steps that it takes until the median stays above the threshold.

    Margins that are not finite are left out. If one class is so frequent that always predicting it
    keeps the median near the threshold, raise the threshold, or set `min_steps`.

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
    threshold, decay = check_number("threshold", threshold), check_number("decay", decay)
    if not math.isfinite(threshold):
        raise ValueError(f"threshold={threshold} must be finite: a margin in logits, such as 2.5.")
    check_decay_rate("decay", decay)
    free_steps = check_steps("min_steps", min_steps)

    def init() -> MedianMarginState:
        return MedianMarginState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.float32))

    def update(
        count: jax.Array, state: MedianMarginState, extra_args: Mapping[str, Any]
    ) -> tuple[jax.Array, MedianMarginState]:
        x = _median_margin("at_median_margin", extra_args)
        finite = jnp.isfinite(x)
        weight = jnp.minimum(1 - decay, 3 / (state.averaged + 3))
        average = running_average(state.average, x, weight, finite)
        averaged = jnp.where(finite, optax.safe_increment(state.averaged), state.averaged)
        constrain = finite & (average >= threshold) & (count >= free_steps)
        return constrain, MedianMarginState(averaged, average)

    return Switch(init, update, extra_args=("margin",))


class HoldMedianMarginState(NamedTuple):
    """State of `hold_median_margin`.

    Attributes:
      average: float32 scalar; the running average of the median margin, from 0.
      reached: bool scalar; whether it has come to the threshold, so that norms are steered.
      scale: float32 scalar; the norms now, as a share of those at the switch.
      factor: float32 scalar; what the last update has multiplied them by.
    """

    average: jax.Array
    reached: jax.Array
    scale: jax.Array
    factor: jax.Array


def hold_median_margin(
    threshold: float = 3.0, decay: float = 0.9, rate: float = 0.005, least_scale: float = 0.5
) -> Switch:
    r"""Keep the median margin where the loss is not flat, without a free phase to choose.

    The optimizer's `update` is given `margin=`: the margins of the minibatch at the current
    weights, which the forward pass has at hand (see `metrics.logit_margin`). Their median
    :math:`x_t` is averaged from :math:`a = 0` on. The update that brings the average to the
    threshold :math:`\theta` is the first constrained one. From then on all norms are held at their
    values there times a common factor :math:`s`, which begins at 1:

    .. math::
      a \leftarrow a + (1 - \beta) (x_t - a), \qquad
      s \leftarrow \mathrm{clip}\left(s \, \exp\left(-\rho\,
        \mathrm{clip}\left(\frac{a}{\theta} - 1, -1, 1\right)\right),\ s_{min},\ 10\right)

    So the norms shrink while the median margin is above :math:`\theta` and grow while it is below:
    the margin is held, and the moment of the switch hardly matters. The bounds are for networks
    whose margins hardly depend on the norms, such as those with normalisation layers, and
    :math:`s_{min}` for data in which one class dominates.

    Margins that are not finite are left out; without another, norms stay as they are.

    Args:
      threshold: the median margin to hold, in logits; positive and finite.
      decay: :math:`\beta`, from 0 to below 1.
      rate: :math:`\rho`, the relative change of the norms per update where the average is 0 or
        twice the threshold or more; positive and below 1.
      least_scale: :math:`s_{min}`, from 0, which counts as 1e-6, to 1, with which the norms can
        only grow.

    Returns:
      A `Switch` with a `HoldMedianMarginState`. `margin` may be a scalar, the median itself, or an
      array of per-example margins, of any shape and floating dtype. Under `shard_map`, give the
      same margin on every device.

    Raises:
      ValueError: if an argument is out of its range; on `update`, without `margin=`.

    Examples:
      A margin in proportion to the norm: it is held, whatever the gradients do.

      >>> import jax, jax.numpy as jnp, optax, lawn_optax
      >>> tx = lawn_optax.sgd_lawn(-0.01, lawn_optax.hold_median_margin(), momentum=None)
      >>> w = jnp.array([[1., 0.]])
      >>> state, update = tx.init(w), jax.jit(tx.update)
      >>> for _ in range(1500):   # each gradient makes the free weights longer by 1%
      ...   updates, state = update(w, state, w, margin=jnp.linalg.norm(w))
      ...   w = optax.apply_updates(w, updates)
      >>> print(f"{jnp.linalg.norm(w):.2f}")
      3.00
    """
    threshold, decay, rate, least_scale = map(
        check_number,
        ("threshold", "decay", "rate", "least_scale"),
        (threshold, decay, rate, least_scale),
    )
    if not 0 < threshold < math.inf:
        raise ValueError(
            f"threshold={threshold} must be positive and finite: a margin in logits, such as 3.0."
        )
    check_decay_rate("decay", decay)
    if not 0 < rate < 1:
        raise ValueError(f"rate={rate} must be between 0 and 1, such as 0.005.")
    if not 0 <= least_scale <= 1:
        raise ValueError(f"least_scale={least_scale} must lie between 0 and 1, such as 0.5.")

    least = max(least_scale, LEAST_SCALE)

    def init() -> HoldMedianMarginState:
        # Arrays of their own, each of which may be donated.
        return HoldMedianMarginState(
            jnp.zeros([], jnp.float32),
            jnp.zeros([], bool),
            jnp.ones([], jnp.float32),
            jnp.ones([], jnp.float32),
        )

    def update(
        count: jax.Array, state: HoldMedianMarginState, extra_args: Mapping[str, Any]
    ) -> tuple[jax.Array, HoldMedianMarginState]:
        del count
        x = _median_margin("hold_median_margin", extra_args)
        average = running_average(state.average, x, 1 - decay, jnp.isfinite(x))
        reached = state.reached | (average >= threshold)
        excess = jnp.clip(average / threshold - 1, -1, 1)
        steered = jnp.clip(state.scale * jnp.exp(-rate * excess), least, MOST_SCALE)
        scale = jnp.where(state.reached & jnp.isfinite(x), steered, state.scale)
        factor = jnp.where(state.reached, scale / state.scale, state.factor)
        return reached, HoldMedianMarginState(average, reached, scale, factor)

    return Switch(init, update, extra_args=("margin",), factor=lambda state: state.factor)


def _median_margin(name: str, extra_args: Mapping[str, Any]) -> jax.Array:
    """Return the median of the finite ones of `margin=`, a float32 scalar; NaN if none is."""
    if extra_args.get("margin") is None:
        raise ValueError(
            f"margin=None: {name} needs the minibatch's margins. Call"
            " update(grads, state, params, margin=logit_margin(logits, labels))."
        )
    margins = jnp.asarray(extra_args["margin"], jnp.float32)
    if not margins.size:
        raise ValueError(f"margin has shape {margins.shape}: {name} needs one margin at least.")
    return jnp.nanmedian(jnp.where(jnp.isfinite(margins), margins, jnp.nan))
