"""What several test files do: train a few steps, and look at norms in float64."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def train(
    tx: optax.GradientTransformation,
    params: Any,
    gradient: Callable[[int, Any], Any],
    steps: int,
    *,
    jit: bool = True,
    **extra_args: Any,
) -> tuple[list[Any], Any]:
    """The parameters after each of `steps` updates, and the last state."""

    def step(grads, state, params):
        updates, state = tx.update(grads, state, params, **extra_args)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    state, history = tx.init(params), []
    for t in range(steps):
        grads = jax.tree.map(lambda g, p: jnp.asarray(g, p.dtype), gradient(t, params), params)
        params, state = step(grads, state, params)
        history.append(params)
    return history, state


def pull(t: Any, params: Any) -> Any:
    """Gradients that pull every weight towards a number that falls with each step."""
    return jax.tree.map(lambda w: (w - 1.7 + 0.1 * t).astype(w.dtype), params)


def stepper(tx: optax.GradientTransformation) -> Callable[..., tuple[Any, Any]]:
    """One compiled step of training: `(grads, state, params, **extra_args)`."""

    @jax.jit
    def step(grads, state, params, **extra_args):
        updates, state = tx.update(grads, state, params, **extra_args)
        return optax.apply_updates(params, updates), state

    return step


def norm(w: Any, axes: int | Sequence[int] | None = None) -> np.ndarray:
    """`||w||` in double precision, by NumPy."""
    dtype = np.complex128 if np.iscomplexobj(w) else np.float64
    axes = tuple(axes) if isinstance(axes, list) else axes
    return np.sqrt(np.sum(np.abs(np.asarray(w).astype(dtype)) ** 2, axis=axes))


def inner(x: Any, y: Any) -> float:
    """`Re sum conj(x) y` in double precision, by NumPy."""
    return float(np.real(np.vdot(np.asarray(x, np.complex128), np.asarray(y, np.complex128))))


def max_difference(a: Any, b: Any) -> float:
    """The largest absolute difference between the leaves of two trees."""
    differences = jax.tree.map(
        lambda x, y: float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0.0)), a, b
    )
    return max(jax.tree.leaves(differences))


def constant_direction(r: Any) -> optax.GradientTransformation:
    """An inner optimizer that answers `r` to every gradient."""
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(), lambda g, s, p=None: (r, s)
    )


def free_port() -> int:
    """One that nobody listens at, for processes to find each other by."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
