"""How the learning rate falls after its warm-up: at given updates, or by what training shows.

The schedules that `How to decay your learning rate <https://arxiv.org/abs/2103.12682>`_ compares
with its own, ABEL.
"""

from typing import Literal, NamedTuple

import optax
from jax.typing import ArrayLike

from lawn_optax import baselines, schedules

ScheduleName = Literal["linear", "cosine", "step-wise", "simple", "plateau", "abel"]
WATCHING: tuple[ScheduleName, ...] = ("plateau", "abel")  # They decide as training goes.
# PyTorch decays when more than 10 epochs in a row were no better, Optax when as many were.
PATIENCE = 10 + 1


class Decay(NamedTuple):
    """How a learning rate falls, all of it fixed when a program is compiled.

    Attributes:
      schedule: its name.
      factor: what a decay multiplies the rate by; linear and cosine have none.
      steps: the updates from which one more decay holds: of step-wise all, of simple the one, of
        abel the last.
      average_epochs: epochs whose norms abel averages.
    """

    schedule: ScheduleName = "linear"
    factor: float = 0.1
    steps: tuple[int, ...] = ()
    average_epochs: int = 1


def make_schedule(
    decay: Decay, peak: ArrayLike, warmup_steps: int, total_steps: int
) -> optax.Schedule:
    """Return a linear warm-up to the peak, and what follows it.

    Args:
      decay: what follows; of what watches training the peak itself.
      peak: the highest learning rate, a float or a float32 scalar, which may be traced.
      warmup_steps: updates until then.
      total_steps: updates until linear and cosine are at 0.
    """
    after: optax.Schedule
    match decay.schedule:
        case "linear":
            return schedules.warmup_linear_decay(peak, warmup_steps, total_steps)
        case "cosine":
            after = optax.cosine_decay_schedule(peak, max(total_steps - warmup_steps, 1))
        case "step-wise" | "simple":
            # The updates of what is joined to a warm-up count from its end.
            after = optax.piecewise_constant_schedule(
                peak, {step - warmup_steps: decay.factor for step in decay.steps}
            )
        case "plateau" | "abel":
            after = optax.constant_schedule(peak)
    if warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def watch(
    tx: optax.GradientTransformation, decay: Decay, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Return the optimizer with a rate that also falls by what training shows, if it is to.

    Args:
      tx: an optimizer whose norms are free.
      decay: when its rate falls. With plateau `update` takes `value=`, the loss of the batch, and
        judges an epoch by the mean: PyTorch's `ReduceLROnPlateau` with its defaults, but for its
        least difference of 1e-8 between two rates.
      steps_per_epoch: updates in an epoch.
    """
    match decay.schedule:
        case "plateau":
            return optax.chain(
                tx,
                optax.contrib.reduce_on_plateau(
                    decay.factor, PATIENCE, rtol=1e-4, accumulation_size=steps_per_epoch
                ),
            )
        case "abel":
            return baselines.abel(
                tx,
                steps_per_epoch,
                decay_factor=decay.factor,
                last_decay_step=decay.steps[-1],
                average_epochs=decay.average_epochs,
            )
        case _:
            return tx
