"""Decays the learning rate when the weight norm bounces (Lewkowycz, 2021)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lawn_optax._checks import check_number, check_steps, check_update
from lawn_optax._kernels import upcast

ROUNDING = 1e-6  # Relative, of a sum of squares in float32: what has changed by less has not.


class AbelState(NamedTuple):
    """State of `abel`.

    Attributes:
      steps: int32 scalar; the updates made so far.
      factor: float32 scalar; what updates are multiplied by now.
      total: float32 scalar; the sum of the squared weight norms that the next average is of.
      norms: float32 `(2,)`; the averages compared last, older first, 0 where there is none yet.
      reached_minimum: bool scalar; whether the norm has turned since the last decay.
    """

    steps: jax.Array
    factor: jax.Array
    total: jax.Array
    norms: jax.Array
    reached_minimum: jax.Array


def abel(
    steps_per_epoch: int,
    *,
    decay_factor: float = 0.1,
    last_decay_step: int | None = None,
    average_epochs: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Decay the learning rate when the weight norm bounces: ABEL.

    The squared norm of all parameters is measured once per epoch, and turns when it changes from
    falling to rising or back. The first turn after a decay counts as the bounce; at the second the
    learning rate decays, because the norm has reached its equilibrium at this learning rate. The
    link follows the optimizer in a chain and multiplies its updates.

    Put it inside `lawn`, as in `lawn(optax.chain(optax.sgd(0.1), abel(100)), switch)`. After
    `lawn`, or another optimizer that fixes norms, a scaled step would leave the spheres, which this
    link cannot notice. From the switch on, only the free leaves change the sum, and so decide;
    changes of a millionth or less are rounding and are ignored.

    Args:
      steps_per_epoch: updates between measurements, at least 1.
      decay_factor: factor on the learning rate at each decay, between 0 and 1; the paper has
        0.1 for ImageNet and SVHN, 0.2 for CIFAR.
      last_decay_step: update at which the learning rate decays once more, in the paper at 85% of
        training; None for no such decay.
      average_epochs: number of measurements that are averaged before they are compared, at least
        1; take several if the norm is noisy, as the paper's 5 for a PyramidNet.

    Returns:
      An `optax.GradientTransformationExtraArgs` with an `AbelState`; updates keep their dtypes.

    Raises:
      ValueError: for an argument out of its range; on `update`, without `params`.

    Examples:
      A norm that falls, then rises, then falls again: one decay.

      >>> import jax.numpy as jnp, lawn_optax
      >>> tx = lawn_optax.baselines.abel(steps_per_epoch=1, decay_factor=0.1)
      >>> state = tx.init(jnp.float32(0.))
      >>> for norm in (5., 4., 3., 4., 5., 4., 3.):
      ...   update, state = tx.update(jnp.float32(1.), state, jnp.float32(norm))
      ...   print(f"{update:.1f}", end=" ")
      1.0 1.0 1.0 1.0 1.0 0.1 0.1

    References:
      `How to decay your learning rate <https://arxiv.org/abs/2103.12682>`_, section 3; appendix A
      for the averages.
    """
    check_steps("steps_per_epoch", steps_per_epoch, least=1)
    check_steps("average_epochs", average_epochs, least=1)
    decay_factor = check_number("decay_factor", decay_factor)
    if not 0 < decay_factor < 1:
        raise ValueError(f"decay_factor={decay_factor} must be between 0 and 1, such as 0.1.")
    if last_decay_step is not None:
        check_steps("last_decay_step", last_decay_step)

    def init(params: optax.Params) -> AbelState:
        del params
        return AbelState(
            steps=jnp.zeros([], jnp.int32),
            factor=jnp.ones([], jnp.float32),
            total=jnp.zeros([], jnp.float32),
            norms=jnp.zeros(2, jnp.float32),
            reached_minimum=jnp.zeros([], bool),
        )

    def measure(state: AbelState, params: optax.Params) -> AbelState:
        squares = optax.tree.norm(jax.tree.map(upcast, params), squared=True)
        total = state.total + squares.astype(jnp.float32)
        averaged = (state.steps // steps_per_epoch + 1) % average_epochs == 0
        average = total / average_epochs
        older, old = state.norms
        changed = averaged & (jnp.abs(average - old) > ROUNDING * old)
        turned = changed & (older > 0) & ((average > old) != (old > older))
        decays = turned & state.reached_minimum
        return state._replace(
            factor=jnp.where(decays, decay_factor * state.factor, state.factor),
            total=jnp.where(averaged, 0, total),
            norms=jnp.where(changed, jnp.stack([old, average]), state.norms),
            reached_minimum=turned ^ state.reached_minimum,
        )

    def update(updates, state, params, **extra_args):
        del extra_args
        # Scalars alone come out of the branch, so that no buffer is copied.
        due = state.steps % steps_per_epoch == 0
        state = jax.lax.cond(due, measure, lambda state, _: state, state, params)
        factor = state.factor
        if last_decay_step is not None:
            factor = jnp.where(state.steps >= last_decay_step, decay_factor * factor, factor)
        updates = jax.tree.map(lambda u: (factor * u).astype(jnp.result_type(u)), updates)
        return updates, state._replace(steps=optax.safe_increment(state.steps))

    return optax.GradientTransformationExtraArgs(
        init, check_update("abel", update, AbelState, init)
    )
