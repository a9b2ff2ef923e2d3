"""How the learning rate rises and falls: at given updates, or by what training shows.

Beside a power and a cosine there are the schedules that `How to decay your learning rate
<https://arxiv.org/abs/2103.12682>`_ compares with its own, ABEL.
"""

import collections
from typing import Any

import optax

from examples.training.hyperparameters import Scalar, StaticOptions
from lawn_optax import baselines, schedules

# PyTorch decays when more than 10 epochs in a row were no better, Optax when as many were.
PATIENCE = 10 + 1


def make_schedule(static: StaticOptions, peak: Scalar) -> optax.Schedule:
    """Make the learning rate, from the update, counted from 0.

    Args:
      static: from `Options.static_options`; how plateau and abel decay is left to `watch`.
      peak: the highest learning rate, which may be traced.
    """
    steps = static.warmup_steps, static.total_steps
    warmup: dict[str, Any] = {
        "warmup_power": static.warmup_power,
        "init_value": static.initial_rate,
    }
    kept = schedules.warmup_polynomial_decay(
        peak, static.warmup_steps, static.warmup_steps, end_value=peak, **warmup
    )
    match static.schedule:
        case "polynomial":
            return schedules.warmup_polynomial_decay(
                peak, *steps, power=static.decay_power, end_value=static.final_rate, **warmup
            )
        case "cosine":
            return schedules.warmup_cosine_decay(
                peak, *steps, end_value=static.final_rate, **warmup
            )
        case "step-wise" | "simple":
            # In a short run several may be due at one update.
            times = collections.Counter(static.decay_steps)
            at = {step: static.decay_factor**n for step, n in times.items()}
            decays = optax.piecewise_constant_schedule(1.0, at)
            return lambda step: kept(step) * decays(step)
        case "plateau" | "abel":
            return kept


def watch(tx: optax.GradientTransformation, static: StaticOptions) -> optax.GradientTransformation:
    """Return an optimizer whose rate also falls by what training shows, if it is to.

    Args:
      tx: an optimizer whose norms are free.
      static: from `Options.static_options`. With plateau `update` takes `value=`, the loss of the
        batch, and judges an epoch by the mean: PyTorch's `ReduceLROnPlateau` with its defaults, but
        for its least difference of 1e-8 between two rates.
    """
    match static.schedule:
        case "plateau":
            link = optax.contrib.reduce_on_plateau(
                static.decay_factor, PATIENCE, rtol=1e-4, accumulation_size=static.steps_per_epoch
            )
        case "abel":
            link = baselines.abel(
                static.steps_per_epoch,
                decay_factor=static.decay_factor,
                last_decay_step=static.decay_steps[-1],
                average_epochs=static.average_over,
            )
        case _:
            return tx
    return optax.chain(tx, link)
