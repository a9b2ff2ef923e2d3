r"""Learning-rate schedules of the papers: a warm-up to a peak, then a decay to the end.

.. math::
  \eta(t) = \begin{cases}
    \eta_0 + (\eta_{peak} - \eta_0) (t / t_{warmup})^{p_{warmup}} & t < t_{warmup} \\
    \eta_{end} + (\eta_{peak} - \eta_{end}) f((t - t_{warmup}) / t_{decay}) & \text{afterwards}
  \end{cases}

The decay is a power, :math:`f(s) = (1 - s)^p`, or a cosine, :math:`f(s) = (1 + \cos \pi s) / 2`.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lawn_optax._checks import check_positive, check_rate


def warmup_linear_decay(
    peak_value: ArrayLike,
    warmup_steps: int,
    total_steps: int,
    *,
    init_value: ArrayLike = 0.0,
    end_value: ArrayLike = 0.0,
) -> optax.Schedule:
    """Warm up linearly, then decay linearly: the paper's schedule for every optimizer.

    Args:
      peak_value: the learning rate reached at step `warmup_steps`, if that is not the last.
      warmup_steps: length of the warm-up, at least 0; 0 starts at the peak.
      total_steps: step at which `end_value` is reached, at least `warmup_steps`.
      init_value: the learning rate at step 0, where there is a warm-up.
      end_value: the learning rate from step `total_steps` on.

    Returns:
      A schedule, from the step, counted from 0, to the learning rate.

    Raises:
      ValueError: if the steps are negative, `total_steps` is below `warmup_steps`, or a rate is
        not finite.

    Examples:
      >>> import lawn_optax
      >>> schedule = lawn_optax.schedules.warmup_linear_decay(1.0, 2, 6)
      >>> [float(schedule(step)) for step in range(8)]
      [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    References:
      Section 3 of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    return warmup_polynomial_decay(
        peak_value,
        warmup_steps,
        total_steps,
        power=1.0,
        init_value=init_value,
        end_value=end_value,
    )


def warmup_polynomial_decay(
    peak_value: ArrayLike,
    warmup_steps: int,
    total_steps: int,
    *,
    power: float = 2.0,
    warmup_power: float = 1.0,
    init_value: ArrayLike = 0.0,
    end_value: ArrayLike = 0.0,
) -> optax.Schedule:
    """Warm up and decay by powers: Nado et al.'s schedule at large batches.

    Args:
      peak_value: the learning rate reached at step `warmup_steps`, if that is not the last.
      warmup_steps: length of the warm-up, at least 0; 0 starts at the peak.
      total_steps: step at which `end_value` is reached, at least `warmup_steps`.
      power: exponent of the decay, positive; 2 in most of their pipelines.
      warmup_power: exponent of the warm-up, positive; 1 is linear.
      init_value: the learning rate at step 0, where there is a warm-up.
      end_value: the learning rate from step `total_steps` on.

    Returns:
      A schedule, from the step, counted from 0, to the learning rate.

    Raises:
      ValueError: if the steps are negative, `total_steps` is below `warmup_steps`, a power is not
        positive, or a rate not finite.

    Examples:
      >>> import lawn_optax
      >>> schedule = lawn_optax.schedules.warmup_polynomial_decay(1.0, 2, 6, warmup_power=2.0)
      >>> [float(schedule(step)) for step in range(7)]
      [0.0, 0.25, 1.0, 0.5625, 0.25, 0.0625, 0.0]

    References:
      Appendices B and D of `A Large Batch Optimizer Reality Check
      <https://arxiv.org/abs/2102.06356>`_.
    """
    check_positive("power", power, "1.0, which is linear")
    decay = lambda steps: optax.polynomial_schedule(peak_value, end_value, power, steps)
    return _warm_up(
        decay, peak_value, warmup_steps, total_steps, warmup_power, init_value, end_value
    )


def warmup_cosine_decay(
    peak_value: ArrayLike,
    warmup_steps: int,
    total_steps: int,
    *,
    warmup_power: float = 1.0,
    init_value: ArrayLike = 0.0,
    end_value: ArrayLike = 0.0,
) -> optax.Schedule:
    """Warm up by a power and decay by half a cosine: Nado et al.'s schedule of 6,000 steps.

    Unlike `optax.warmup_cosine_decay_schedule` it takes a traced peak, for a grid in one program.

    Args:
      peak_value: the learning rate reached at step `warmup_steps`, if that is not the last.
      warmup_steps: length of the warm-up, at least 0; 0 starts at the peak.
      total_steps: step at which `end_value` is reached, at least `warmup_steps`.
      warmup_power: exponent of the warm-up, positive; 1 is linear.
      init_value: the learning rate at step 0, where there is a warm-up.
      end_value: the learning rate from step `total_steps` on.

    Returns:
      A schedule, from the step, counted from 0, to the learning rate.

    Raises:
      ValueError: if the steps are negative, `total_steps` is below `warmup_steps`, the power is not
        positive, or a rate not finite.

    Examples:
      >>> import lawn_optax
      >>> schedule = lawn_optax.schedules.warmup_cosine_decay(1.0, 2, 6)
      >>> [round(float(schedule(step)), 4) for step in range(7)]
      [0.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 0.0]

    References:
      Appendix E.3 of `A Large Batch Optimizer Reality Check <https://arxiv.org/abs/2102.06356>`_.
    """

    def decay(steps: int) -> optax.Schedule:
        share = optax.cosine_decay_schedule(1.0, steps)
        return lambda step: end_value + jnp.subtract(peak_value, end_value) * share(step)

    return _warm_up(
        decay, peak_value, warmup_steps, total_steps, warmup_power, init_value, end_value
    )


def _warm_up(
    decay: Callable[[int], optax.Schedule],
    peak_value: ArrayLike,
    warmup_steps: int,
    total_steps: int,
    warmup_power: float,
    init_value: ArrayLike,
    end_value: ArrayLike,
) -> optax.Schedule:
    """Put a warm-up before a decay, which is made from how many steps it has."""
    for name, value in (
        ("peak_value", peak_value),
        ("init_value", init_value),
        ("end_value", end_value),
    ):
        check_rate(name, value)
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} and total_steps={total_steps}: the warm-up must be at"
            " least 0 steps long and end within the total."
        )
    warmup_power = check_positive("warmup_power", warmup_power, "1.0, which is linear")
    falling = optax.constant_schedule(end_value)
    if total_steps > warmup_steps:
        falling = decay(total_steps - warmup_steps)
    if warmup_steps == 0:
        return falling
    # Optax's polynomial runs as (1 - t/T)^p: read backwards it is the warm-up.
    rising = optax.polynomial_schedule(peak_value, init_value, warmup_power, warmup_steps)
    return optax.join_schedules([lambda step: rising(warmup_steps - step), falling], [warmup_steps])
