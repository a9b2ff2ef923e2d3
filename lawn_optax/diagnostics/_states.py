"""Reads an optimizer state: whether training is constrained, and at which norms."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lawn_optax._hyperball import HyperballState
from lawn_optax._lawn import LawnState
from lawn_optax._transforms import RescaleToNormsState


def is_constrained(state: Any) -> jax.Array:
    """Tell whether the switch has happened.

    Args:
      state: an optimizer state that holds one of `lawn`, however wrapped.

    Returns:
      A bool scalar; of several such states, whether all have switched.

    Raises:
      ValueError: if there is no such state in `state`.
    """
    return jnp.all(jnp.stack([as_array(s.constrained_steps) > 0 for s in _lawn_states(state)]))


def free_steps(state: Any) -> jax.Array:
    """Return the number of free updates so far; after the switch, the update at which it came.

    Args:
      state: an optimizer state that holds one of `lawn`, however wrapped.

    Returns:
      An int32 scalar; `(runs,)` for runs side by side under `jax.vmap`; of several such states,
      that of the one that was free longest.

    Raises:
      ValueError: if there is no such state in `state`.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> tx = lawn_optax.adam_lawn(0.1, switch=2)
      >>> params = {'kernel': jnp.eye(2)}
      >>> state = tx.init(params)
      >>> for step in range(5):
      ...   _, state = tx.update(params, state, params)
      ...   print(lawn_optax.diagnostics.free_steps(state), end=' ')
      1 2 2 2 2
    """
    states = _lawn_states(state)
    free = [as_array(s.steps) - as_array(s.constrained_steps) for s in states]
    return jnp.max(jnp.stack(free), axis=0)


def captured_norms(state: Any) -> dict[str, jax.Array]:
    """Return the norms captured so far, or marked by a switch such as `at_flattening`.

    Those of a switch that adjusts them, `hold_median_margin`, are as adjusted so far.

    Args:
      state: a concrete optimizer state that holds one of `lawn`, `hyperball` or
        `rescale_to_norms`.

    Returns:
      A dict from paths to norms; empty until norms are captured or marked.

    Raises:
      ValueError: if there is no such state in `state`.
    """
    return {path: found.norms for path, found in norms_by_path(state).items() if found.known}


class NormsOfLeaf(NamedTuple):
    """What a state holds of one parameter.

    Attributes:
      norms: its norms; zeros until they are known.
      known: whether they are captured, or marked by a switch.
      constrained: whether an update has been constrained to them.
    """

    norms: jax.Array
    known: bool
    constrained: bool


def norms_by_path(state: Any) -> dict[str, NormsOfLeaf]:
    """Return what a concrete state holds of each constrained parameter, by the parameter's path."""
    leaves: dict[str, NormsOfLeaf] = {}
    for found in states_with_norms(state):
        norms = {path: as_array(c) for path, c in norms_of(found).items()}
        constrained = has_switched(found)
        known = constrained or any(jnp.any(c > 0) for c in norms.values())
        leaves |= {path: NormsOfLeaf(c, known, constrained) for path, c in norms.items()}
    return leaves


def has_switched(state: Any) -> bool:
    """Tell whether updates have been constrained, rather than norms only marked."""
    count = state.constrained_steps if isinstance(state, LawnState) else state.steps
    return bool(jnp.all(as_array(count) > 0))


def states_with_norms(state: Any) -> list:
    """Return the states of `find_states` that constrain something, or refuse if none does."""
    found = [x for x in find_states(state) if norms_of(x)]
    if not found:
        raise ValueError(
            "state holds no norms: give the state of an optimizer made by lawn, hyperball or"
            " rescale_to_norms."
        )
    return found


def norms_of(state: Any) -> Mapping[str, Any]:
    """Return the norms in a state by path; none in that of an optimizer without parameters."""
    return state.norms if isinstance(state.norms, Mapping) else {}


def find_states(state: Any) -> list:
    """Return every state of `lawn`, `hyperball` and `rescale_to_norms`, wherever it is."""
    holds_norms = lambda x: isinstance(x, (LawnState, HyperballState, RescaleToNormsState))
    found = [x for x in jax.tree.leaves(state, is_leaf=holds_norms) if holds_norms(x)]
    return found + [s for x in found if hasattr(x, "inner") for s in find_states(x.inner)]


def _lawn_states(state: Any) -> list[LawnState]:
    """Return the states of `lawn` among those of `find_states`, or refuse if there is none."""
    found = [x for x in find_states(state) if isinstance(x, LawnState)]
    if not found:
        raise ValueError("state holds no LawnState: give the state of an optimizer made by lawn.")
    return found


def as_array(x: Any) -> jax.Array:
    """Return an array out of whatever box a training framework puts it in."""
    return jnp.asarray(jax.tree.leaves(x)[0])
