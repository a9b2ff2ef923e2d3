"""Makes the optimizers that are measured, and says the least memory traffic of each.

The floor counts, in float32, what must pass between memory and the processor: each sweep over the
parameters reads its operands and writes its results once, and one sweep cannot use what is summed
in it. With `s` moments per parameter, those of Adam being two:

    plain            read w, g, s; write w, s                                    4 (3 + 2s)
    a trust ratio    read w, g, s; write s; sum (w, r) | read w, s; write w      4 (4 + 3s)
    on a sphere      sum (w, g) | then as with a trust ratio                     4 (6 + 3s)
    w = c v / ||v||  sum (v, g) | read v, g, s; write v, s | read v; write w     4 (7 + 2s)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import lawn_optax
from lawn_optax import baselines

FREE, NOW = 1_000_000_000, 0
RATE, EPS = 1e-3, 1e-6


class Stepper(NamedTuple):
    """Turns weights into the next ones, which an Optax update alone cannot always do.

    Attributes:
      init: `init(params) -> state`.
      step: `step(grads, state, params) -> (params, state)`, where `grads` are those of the loss
        with respect to `params`.
    """

    init: Callable[[optax.Params], Any]
    step: Callable[[optax.Updates, Any, optax.Params], tuple[optax.Params, Any]]


def stepper(tx: optax.GradientTransformation) -> Stepper:
    """Make a stepper of any Optax optimizer."""

    def step(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Stepper(tx.init, step)


class ReparametrizedState(NamedTuple):
    """Holds `v`, the norms `c` and the state of the optimizer that trains `v`."""

    v: optax.Params
    norms: Any
    inner: optax.OptState


def reparametrized(inner: optax.GradientTransformation) -> Stepper:
    """Train `v` of `w = c v / ||v||`, where `c` are the norms of the initial weights.

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
    """Holds the number of updates made, the norms `c` and the inner state."""

    steps: jax.Array
    norms: Any
    inner: optax.OptState


def straightforward_lawn(
    inner: optax.GradientTransformation, switch: int
) -> optax.GradientTransformation:
    """Write Algorithm 1 down without care: each line on its own, `lax.cond` around all.

    Constrained are leaves with two dimensions or more, none of which may have norm 0.
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


class Case(NamedTuple):
    """Says what is measured.

    Attributes:
      make: makes the optimizer.
      floor: bytes per parameter, float32, of a step; None where matrix products decide.
    """

    make: Callable[[], Stepper]
    floor: int | None


def plain(moments: int) -> int:
    """Return the floor of a step without any sum."""
    return 4 * (3 + 2 * moments)


def trust_ratio(moments: int) -> int:
    """Return the floor where the write waits for sums of the weights and the direction."""
    return 4 * (4 + 3 * moments)


def on_sphere(moments: int) -> int:
    """Return the floor where the moments too wait for a sum, that of line 4."""
    return 4 * (6 + 3 * moments)


def by_autodiff(moments: int) -> int:
    """Return the floor of `w = c v / ||v||`, `w` written for the forward pass."""
    return 4 * (7 + 2 * moments)


def _optax(make: Callable[[], optax.GradientTransformation], floor: int | None) -> Case:
    return Case(lambda: stepper(make()), floor)


def _both_phases(
    name: str,
    make: Callable[[int], optax.GradientTransformation],
    free: int | None,
    constrained: int | None,
) -> dict[str, Case]:
    """Return a LAWN that constrains from the first step on, and one that never does."""
    return {
        name: _optax(lambda: make(NOW), constrained),
        f"{name}, free": _optax(lambda: make(FREE), free),
    }


def _adam() -> optax.GradientTransformation:
    return optax.adam(RATE, eps=EPS)


def _links() -> optax.GradientTransformation:
    project, rescale = lawn_optax.project_to_tangent, lawn_optax.rescale_to_norms
    return optax.chain(project(), _adam(), project(), rescale())


BASELINE = "adam"
OPTIMIZERS: dict[str, Case] = {
    "adam": _optax(_adam, plain(2)),
    **_both_phases(
        "adam_lawn", lambda n: lawn_optax.adam_lawn(RATE, n, eps=EPS), plain(2), on_sphere(2)
    ),
    "adam_lawn, not projected": _optax(
        lambda: lawn_optax.adam_lawn(RATE, NOW, eps=EPS, project=False), trust_ratio(2)
    ),
    "adam_lawn, links": _optax(_links, on_sphere(2)),
    **_both_phases(
        "adam_lawn, no care",
        lambda n: straightforward_lawn(_adam(), n),
        plain(2),
        on_sphere(2),
    ),
    "adam, reparametrized": Case(lambda: reparametrized(_adam()), by_autodiff(2)),
    "adamw": _optax(lambda: optax.adamw(RATE), plain(2)),
    "lamb": _optax(lambda: optax.lamb(RATE), trust_ratio(2)),
    **_both_phases(
        "lamb_lawn", lambda n: lawn_optax.lamb_lawn(RATE, n), trust_ratio(2), on_sphere(2)
    ),
    "hyperball": _optax(lambda: lawn_optax.hyperball(optax.scale_by_adam(), RATE), trust_ratio(2)),
    "sgd": _optax(lambda: optax.sgd(RATE, momentum=0.9), plain(1)),
    **_both_phases("sgd_lawn", lambda n: lawn_optax.sgd_lawn(RATE, n), plain(1), on_sphere(1)),
    "muon": _optax(lambda: optax.contrib.muon(RATE), None),
    **_both_phases("muon_lawn", lambda n: lawn_optax.lawn(optax.contrib.muon(RATE), n), None, None),
}
