"""What LAWN is measured against where no library has it: written with no care, and by autodiff."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lawn_optax import baselines


class Stepper(NamedTuple):
    """An optimizer as what turns weights into the next ones, for those that are no Optax update.

    Attributes:
      init: `init(params) -> state`.
      step: `step(grads, state, params) -> (params, state)`, where `grads` are those of the loss
        with respect to `params`.
    """

    init: Callable[[optax.Params], Any]
    step: Callable[[optax.Updates, Any, optax.Params], tuple[optax.Params, Any]]


def stepper(tx: optax.GradientTransformation) -> Stepper:
    """Any Optax optimizer."""

    def step(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Stepper(tx.init, step)


class ReparametrizedState(NamedTuple):
    """State of `reparametrized`: `v`, the norms `c`, the state of the optimizer that trains `v`."""

    v: optax.Params
    norms: Any
    inner: optax.OptState


def reparametrized(inner: optax.GradientTransformation) -> Stepper:
    """`w = c v / ||v||`, with `v` what is trained and `c` the norms of the initial weights.

    The paper rejects it for its cost (section 3), so all of that is in the step: the gradient is
    pulled back through the quotient, `v` takes its update, `w` is made anew for the next forward
    pass. With plain SGD of rate `lr` this is Algorithm 1 at the rate `lr c^2 / ||v||^2`.
    """
    initial_norms, weights = baselines.bounded_weight_norm()

    def init(params: Any) -> ReparametrizedState:
        return ReparametrizedState(params, initial_norms(params), inner.init(params))

    def step(grads: Any, state: ReparametrizedState, params: Any) -> tuple[Any, Any]:
        del params
        v, norms, inner_state = state
        _, pull_back = jax.vjp(lambda v: weights(v, norms), v)
        updates, inner_state = inner.update(*pull_back(grads), inner_state, v)
        v = optax.apply_updates(v, updates)
        return weights(v, norms), ReparametrizedState(v, norms, inner_state)

    return Stepper(init, step)


class StraightforwardState(NamedTuple):
    """State of `straightforward_lawn`: the updates made, the norms `c`, the inner state."""

    steps: jax.Array
    norms: Any
    inner: optax.OptState


def straightforward_lawn(
    inner: optax.GradientTransformation, switch: int
) -> optax.GradientTransformation:
    """Algorithm 1 as one writes it down at first: each line on its own, `lax.cond` around all.

    Of leaves with two dimensions or more, none of which may have norm 0.
    """

    def init(params: Any) -> StraightforwardState:
        norms = jax.tree.map(lambda w: jnp.zeros([]), params)
        return StraightforwardState(jnp.zeros([], jnp.int32), norms, inner.init(params))

    def update(g: Any, state: StraightforwardState, w: Any) -> tuple[Any, StraightforwardState]:
        first = state.steps == switch
        norms = jax.tree.map(lambda c, w: jnp.where(first, _norm(w), c), state.norms, w)

        def free() -> tuple[Any, Any]:
            return inner.update(g, state.inner, w)

        def constrained() -> tuple[Any, Any]:
            g_p = jax.tree.map(_tangent, w, g)  # line 4
            r, inner_state = inner.update(g_p, state.inner, w)  # lines 5-8
            r_p = jax.tree.map(_tangent, w, r)  # line 9
            return jax.tree.map(_on_sphere, w, r_p, norms), inner_state  # lines 10-11

        updates, inner_state = jax.lax.cond(state.steps >= switch, constrained, free)
        return updates, StraightforwardState(state.steps + 1, norms, inner_state)

    return optax.GradientTransformation(init, update)


def _norm(w: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(w**2))


def _tangent(w: jax.Array, d: jax.Array) -> jax.Array:
    return d if w.ndim < 2 else d - jnp.sum(w * d) / jnp.sum(w**2) * w


def _on_sphere(w: jax.Array, r: jax.Array, c: jax.Array) -> jax.Array:
    return r if w.ndim < 2 else c * (w + r) / _norm(w + r) - w
