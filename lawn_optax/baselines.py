"""What LAWN is compared with, where Optax does not have it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lawn_optax._checks import check_update, number, steps
from lawn_optax._geometry import resize
from lawn_optax._selection import AxesOrFn, MaskOrFn, StackedOrFn, select_and_warn, select_spheres


class Reparametrization(NamedTuple):
    """Weights as a function of free parameters.

    Attributes:
      init: `init(params) -> norms`, the constants of the function.
      apply: `apply(params, norms) -> weights`, to be called inside the loss and differentiated.
    """

    init: Callable[[optax.Params], Any]
    apply: Callable[[optax.Params, Any], optax.Params]


def bounded_weight_norm(
    *, mask: MaskOrFn = None, axes: AxesOrFn = None, stacked: StackedOrFn = None
) -> Reparametrization:
    r"""Bound weight norms as Hoffer et al. do: weights on spheres by reparametrization.

    .. math::
      w = c \frac{v}{\lVert v \rVert}, \qquad c = \lVert v_0 \rVert

    The norm is fixed from the start and automatic differentiation goes through the quotient: what
    the paper sets against LAWN in Table 2, and rejects as an implementation of it for its cost.

    Args:
      mask: which leaves; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.

    Returns:
      A `Reparametrization`.

    Raises:
      TypeError, ValueError: on use, for a mask or axes that do not fit; see `lawn`.

    Examples:
      Where the free parameters go, the weights stay on their sphere:

      >>> import jax, jax.numpy as jnp, lawn_optax
      >>> init, apply = lawn_optax.baselines.bounded_weight_norm()
      >>> norms = init({'w': jnp.array([[3., 4.]])})
      >>> apply({'w': jnp.array([[0., 70.]])}, norms)
      {'w': Array([[0., 5.]], dtype=float32)}

    References:
      `Norm matters <https://arxiv.org/abs/1803.01814>`_, section 4; Table 2 of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """

    def init(params: optax.Params) -> Any:
        spheres = select_and_warn(params, mask, axes=axes, stacked=stacked)
        return spheres.norms(params)

    def apply(params: optax.Params, norms: Any) -> optax.Params:
        spheres = select_spheres(params, mask, axes, stacked=stacked)
        (vv,) = spheres.inner_products((params, params))
        on_sphere = {path: norms[path] > 0 for path in spheres}
        return spheres.move(resize, params, params, norms, vv, where=on_sphere)

    return Reparametrization(init, apply)


class AbelState(NamedTuple):
    """State of `abel`.

    Attributes:
      steps: int32 scalar; the updates made so far.
      factor: float32 scalar; what updates are multiplied by now.
      norms: float32 `(2,)`; the squared weight norm at the last two measurements, older first.
      reached_minimum: bool scalar; whether the norm has turned since the last decay.
    """

    steps: jax.Array
    factor: jax.Array
    norms: jax.Array
    reached_minimum: jax.Array


def abel(
    steps_per_epoch: int, *, decay_factor: float = 0.1, last_decay_step: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Decay the learning rate when the weight norm bounces: ABEL.

    Once an epoch the squared norm of all parameters is measured. Where its change turns from
    falling to rising or back, the first turn after a decay is remembered as the bounce, and the
    second decays: the norm has come to its balance at this learning rate. The link follows the
    optimizer in a chain and multiplies its updates.

    Args:
      steps_per_epoch: updates between measurements, at least 1; several epochs' where the norm is
        noisy.
      decay_factor: what a decay multiplies the learning rate by, between 0 and 1; the paper has
        0.1 for ImageNet and SVHN, 0.2 for CIFAR.
      last_decay_step: update from which one more decay holds, the paper's at 85% of training; None
        for none.

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
      `How to decay your learning rate <https://arxiv.org/abs/2103.12682>`_, section 3.
    """
    steps("steps_per_epoch", steps_per_epoch, least=1)
    if not 0 < number("decay_factor", decay_factor) < 1:
        raise ValueError(f"decay_factor={decay_factor} must be between 0 and 1, such as 0.1.")
    if last_decay_step is not None:
        steps("last_decay_step", last_decay_step)

    def init(params: optax.Params) -> AbelState:
        del params
        return AbelState(
            steps=jnp.zeros([], jnp.int32),
            factor=jnp.ones([], jnp.float32),
            norms=jnp.zeros(2, jnp.float32),
            reached_minimum=jnp.zeros([], bool),
        )

    def measure(state: AbelState, params: optax.Params) -> AbelState:
        now = optax.tree.norm(params, squared=True).astype(jnp.float32)
        older, old = state.norms
        measured = state.steps // steps_per_epoch
        turned = (measured >= 2) & ((now - old) * (old - older) < 0)
        decays = turned & state.reached_minimum
        return state._replace(
            factor=jnp.where(decays, decay_factor * state.factor, state.factor),
            norms=jnp.stack([old, now]),
            reached_minimum=turned ^ state.reached_minimum,
        )

    def update(updates, state, params, **extra_args):
        del extra_args
        # Scalars alone come out of the branch, so that no buffer is copied.
        state = jax.lax.cond(
            state.steps % steps_per_epoch == 0, measure, lambda state, _: state, state, params
        )
        factor = state.factor
        if last_decay_step is not None:
            factor = jnp.where(state.steps >= last_decay_step, decay_factor * factor, factor)
        updates = jax.tree.map(lambda u: (factor * u).astype(u.dtype), updates)
        return updates, state._replace(steps=optax.safe_increment(state.steps))

    return optax.GradientTransformationExtraArgs(
        init, check_update("abel", update, AbelState, init)
    )
