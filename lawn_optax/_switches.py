"""When to constrain, and which norms to hold: the conditions that end the free phase.

`lawn` asks its `Switch` at the start of every update, with the number of updates made before. Once
the switch has said yes, training stays constrained, and later answers do not matter. A switch may
also mark an earlier update, whose norms are then held, and it may scale the norms after the switch.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lawn_optax._checks import check_number, check_steps


class Switch(NamedTuple):
    """A condition on the course of training, for `lawn(inner, switch)`.

    Attributes:
      init: `init() -> state`, a pytree of arrays.
      update: `update(count, state, extra_args) -> (constrain, state)`, with `count` an int32
        scalar, the updates made before this one; `extra_args` the keyword arguments of the
        optimizer's `update`; `constrain` a bool scalar.
      extra_args: names of those arguments that only the switch takes: they are not passed on to the
        inner optimizer. A switch that names `gradient_norm` is given the norm of the gradient over
        the constrained leaves, which `lawn` computes, and as `loss_slope` the largest `-<w, g>` of
        a constrained layer.
      marked: `marked(state) -> bool scalar`, whether the norms of an earlier update are to be held.
        They are those of the update at which it became true; if it becomes false before the switch,
        they are forgotten. By default never: the norms are those of the first constrained update.
      factor: `factor(state) -> float scalar`; each update multiplies the norms that are remembered
        by it, so let it be 1 until it constrains.
    """

    init: Callable[[], Any]
    update: Callable[[jax.Array, Any, Mapping[str, Any]], tuple[jax.Array, Any]]
    extra_args: tuple[str, ...] = ()
    marked: Callable[[Any], jax.Array] = lambda state: jnp.bool_(False)
    factor: Callable[[Any], jax.Array | float] = lambda state: 1.0


def at_step(n: int | jax.Array, *, norms_of: "Switch | int | jax.Array | None" = None) -> Switch:
    """Constrain from update number `n` on, counting from 0.

    Args:
      n: number of free updates, at least 0; 0 constrains from the initial weights. It may be a
        traced int32 scalar, so that `jax.vmap` runs a whole grid of free phases at once.
      norms_of: hold the norms of this earlier update. If it is another switch: those of the update
        that it marks, or at which it would constrain. By default those of update `n`.

    Returns:
      A `Switch`; stateless without `norms_of`, else with a `NormsOfState`.

    Raises:
      TypeError: if `n` or `norms_of` is not an integer (nor, the latter, a switch).
      ValueError: if `n` is negative or not a scalar, or `norms_of` a later update.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> switch = lawn_optax.at_step(2)
      >>> [bool(switch.update(jnp.int32(t), switch.init(), {})[0]) for t in range(4)]
      [False, False, True, True]
    """
    return _at_step("n", n, norms_of)


def at_epoch(
    epochs: float | jax.Array,
    steps_per_epoch: int,
    *,
    norms_of: "Switch | float | jax.Array | None" = None,
) -> Switch:
    """Constrain after `epochs` of free training: the paper's `E_free`.

    Args:
      epochs: length of the free phase, a fraction allowed, at least 0; rounded to the nearest
        step, halves to even. It may be a traced scalar.
      steps_per_epoch: updates per epoch, at least 1.
      norms_of: hold the norms of this earlier epoch, or of a switch; see `at_step`.

    Returns:
      A `Switch`, as `at_step`.

    Raises:
      TypeError: if `steps_per_epoch` is not an integer or `epochs` not a number.
      ValueError: if `epochs` is negative or not finite, `steps_per_epoch` below 1, or `norms_of`
        a later epoch.

    Examples:
      Weights that are free for two epochs, then held at the norm of the end of the first:

      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> tx = lawn_optax.sgd_lawn(-1.0, lawn_optax.at_epoch(2, 3, norms_of=1), momentum=None)
      >>> w = jnp.array([[1., 0.]])
      >>> state = tx.init(w)
      >>> for step in range(8):   # each gradient makes the free weights longer by 1
      ...   updates, state = tx.update(jnp.array([[1., 0.]]), state, w)
      ...   w = optax.apply_updates(w, updates)
      ...   print(jnp.linalg.norm(w), end=' ')
      2.0 3.0 4.0 5.0 6.0 7.0 4.0 4.0

    References:
      Section 3 of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    per_epoch = check_steps("steps_per_epoch", steps_per_epoch, least=1)
    if norms_of is not None and not isinstance(norms_of, Switch):
        norms_of = _to_steps("norms_of", norms_of, per_epoch)
    return _at_step("epochs", _to_steps("epochs", epochs, per_epoch), norms_of)


def _to_steps(name: str, epochs: Any, per_epoch: int | jax.Array) -> int | jax.Array:
    """Return a number of epochs as the nearest number of steps."""
    if isinstance(epochs, jax.core.Tracer) or isinstance(per_epoch, jax.core.Tracer):
        return jnp.round(epochs * per_epoch).astype(jnp.int32)
    epochs = check_number(name, epochs)
    if not 0 <= epochs < math.inf:
        raise ValueError(
            f"{name}={epochs} must be finite and at least 0; 0 constrains from the initial weights."
        )
    return round(epochs * int(per_epoch))


class NormsOfState(NamedTuple):
    """State of a switch with `norms_of`.

    Attributes:
      marked: bool scalar; whether the norms have been marked.
      sure: bool scalar; whether the switch that marks them would have constrained: then they stay.
      norms_of: the state of that switch.
    """

    marked: jax.Array
    sure: jax.Array
    norms_of: Any


def _at_step(name: str, n: Any, norms_of: Any = None) -> Switch:
    """Constrain from update `n` on; `name` is what messages call it."""
    free_steps = _check_free_steps(name, n)
    if norms_of is None:
        return Switch(lambda: (), lambda count, state, extra_args: (count >= free_steps, state))
    marker = as_switch(norms_of, "norms_of")
    if not isinstance(norms_of, Switch):
        _check_order(name, free_steps, _check_free_steps("norms_of", norms_of))

    def update(
        count: jax.Array, state: NormsOfState, extra_args: Mapping[str, Any]
    ) -> tuple[jax.Array, NormsOfState]:
        constrain, marker_state = marker.update(count, state.norms_of, extra_args)
        sure = state.sure | constrain
        marked = sure | marker.marked(marker_state)
        return count >= free_steps, NormsOfState(marked, sure, marker_state)

    return Switch(
        init=lambda: NormsOfState(jnp.zeros([], bool), jnp.zeros([], bool), marker.init()),
        update=update,
        extra_args=marker.extra_args,
        marked=lambda state: state.marked,
    )


def _check_free_steps(name: str, n: Any) -> int | jax.Array:
    """Return a number of updates, or refuse what is none."""
    remedy = ", a number of steps; at_epoch(epochs, steps_per_epoch) takes fractions of an epoch"
    return check_steps(name, n, remedy=remedy)


def _check_order(name: str, free_steps: int | jax.Array, norms_of: int | jax.Array) -> None:
    """Refuse norms of an update after the switch, where both are known."""
    known = all(isinstance(n, int) for n in (free_steps, norms_of))
    if known and norms_of > free_steps:
        raise ValueError(
            f"norms_of={norms_of} updates comes after {name}, {free_steps} updates: give the norms"
            " of an earlier one."
        )


def running_average(
    average: jax.Array, x: jax.Array, weight: jax.Array | float, seen: jax.Array
) -> jax.Array:
    """Return the average moved towards `x` by the share `weight`, as it was if `x` is not seen."""
    return average + weight * jnp.where(seen, x - average, 0)


def as_switch(switch: Switch | int | jax.Array, name: str = "switch") -> Switch:
    """Return a `Switch` as it is, an integer as `at_step` of it."""
    if isinstance(switch, Switch):
        return switch
    if callable(switch) or isinstance(switch, (str, float, tuple)) or switch is None:
        of_ours = getattr(switch, "__module__", "").startswith(__package__)
        called = f" Call it: {getattr(switch, '__name__', '')}(...)." if of_ours else ""
        raise TypeError(
            f"{name}={switch!r} must be a number of free updates, at_step(n), at_epoch(epochs,"
            " steps_per_epoch), at_flattening(), at_gradient_rise(), at_median_margin() or"
            f" hold_median_margin().{called}"
        )
    return _at_step(name, switch)
