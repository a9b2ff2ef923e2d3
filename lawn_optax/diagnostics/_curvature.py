"""Measures how sharp a minimum is, and how easily SGD leaves it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from lawn_optax._checks import check_steps
from lawn_optax._geometry import safe_divide
from lawn_optax._kernels import upcast


def escape_value(
    loss: Callable[[optax.Params, Any], jax.Array],
    params: optax.Params,
    examples: Any,
    *,
    learning_rate: float,
    batch_size: int,
    key: jax.Array,
    iterations: int = 30,
) -> jax.Array:
    r"""Return the left side of the paper's escape condition (4): above 1, SGD leaves this minimum.

    .. math::
      \lambda_{max}\left\{ (I - \eta H)^2 + \frac{\eta^2 (m - B)}{B (m - 1)} \Sigma \right\}

    with the Hessian H of the mean loss and the covariance :math:`\Sigma` of the gradients of single
    examples, both applied without being formed. Power iteration, from below.

    Args:
      loss: `loss(params, example) -> scalar`, of one example.
      params: where to look, in float32 at least; the condition is meant at a minimum.
      examples: a pytree of arrays with the `m >= 2` training examples along the first axis.
      learning_rate: the step size :math:`\eta` of SGD.
      batch_size: B, from 1 to m.
      key: for the starting vector.
      iterations: of the power method, at least 1.

    Returns:
      A scalar, the Rayleigh quotient of the last iterate.

    Raises:
      ValueError: if `batch_size` is not between 1 and `m`, `m` is below 2, or `iterations` below 1.

    Examples:
      A quadratic of curvature 1: with single examples SGD leaves the minimum at a learning rate at
      which the whole batch does not.

      >>> import jax, jax.numpy as jnp, lawn_optax
      >>> loss = lambda w, example: jnp.sum((w - example) ** 2) / 2
      >>> w, examples = jnp.zeros(1), jnp.array([[-1.], [1.]])
      >>> for batch_size in (1, 2):
      ...   value = lawn_optax.diagnostics.escape_value(
      ...       loss, w, examples, learning_rate=1.5, batch_size=batch_size, key=jax.random.key(0))
      ...   print(f"{value:.2f}")
      2.50
      0.25

    References:
      Equation (4) in appendix C of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    m = jax.tree.leaves(examples)[0].shape[0]
    if not 1 <= batch_size <= m or m < 2:
        raise ValueError(
            f"batch_size={batch_size} must be between 1 and the number of examples, {m}, which must"
            " be at least 2."
        )
    check_steps("iterations", iterations, least=1)
    w, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(upcast, params))
    losses = jax.vmap(lambda w, example: loss(unravel(w), example), in_axes=(None, 0))
    mean_gradient = jax.grad(lambda w: jnp.mean(losses(w, examples)))
    noise = learning_rate**2 * (m - batch_size) / (batch_size * (m - 1))

    def i_minus_eta_h(v: jax.Array) -> jax.Array:
        return v - learning_rate * jax.jvp(mean_gradient, (w,), (v,))[1]

    def covariance(v: jax.Array) -> jax.Array:
        # Sigma v = mean_i (g_i - mean g) <g_i - mean g, v>: a Jacobian and its transpose.
        along = jax.jvp(lambda w: losses(w, examples), (w,), (v,))[1]
        _, pull_back = jax.vjp(lambda w: losses(w, examples), w)
        return pull_back((along - jnp.mean(along)) / m)[0]

    def apply(v: jax.Array) -> jax.Array:
        return i_minus_eta_h(i_minus_eta_h(v)) + noise * covariance(v)

    def iterate(v: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        image = apply(v)
        return safe_divide(image, jnp.linalg.norm(image)), jnp.vdot(v, image)

    start = jax.random.normal(key, w.shape, w.dtype)
    _, quotients = jax.lax.scan(iterate, start / jnp.linalg.norm(start), length=iterations)
    return quotients[-1]


def sharpness(
    loss: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    *,
    key: jax.Array,
    count: int = 1,
    iterations: int = 30,
) -> jax.Array:
    """Return the largest eigenvalues of the Hessian of a loss, by Lanczos's method.

    Where the vectors so far span an invariant space, as they soon do for a Hessian of low rank, the
    method goes on from a random vector that is orthogonal to them. Of a scale-invariant measure,
    give weights of given norms: `scale_to_norms` before.

    Args:
      loss: `loss(params) -> scalar`.
      params: where to look, in float32 at least.
      key: for the starting vectors.
      count: how many eigenvalues, from 1 to the number of weights.
      iterations: Hessian-vector products, at least `count`; all their vectors are kept.

    Returns:
      `(count,)`, the largest first.

    Raises:
      ValueError: if `iterations` is below `count`, or `count` out of its range.

    Examples:
      >>> import jax, jax.numpy as jnp, lawn_optax
      >>> loss = lambda w: jnp.sum(jnp.array([1., 2., 5.]) * w**2) / 2
      >>> eigenvalues = lawn_optax.diagnostics.sharpness(
      ...     loss, jnp.ones(3), key=jax.random.key(0), count=2, iterations=3)
      >>> [f"{x:.3f}" for x in eigenvalues]
      ['5.000', '2.000']
    """
    if not 1 <= count <= iterations:
        raise ValueError(
            f"count={count} must be at least 1, and iterations={iterations} at least that."
        )
    w, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(upcast, params))
    if count > w.size:
        raise ValueError(f"count={count} must be at most the number of weights, {w.size}.")
    gradient = jax.grad(lambda w: loss(unravel(w)))
    iterations = min(iterations, w.size)
    noise = 100 * jnp.finfo(w.dtype).eps  # Of the largest image: what rounding may leave of none.

    def orthogonal(v: jax.Array, basis: jax.Array) -> jax.Array:
        for _ in range(2):  # Once leaves what rounding has left over.
            v = v - basis.T @ (basis @ v)
        return v

    def random(i: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, i), w.shape, w.dtype)

    def iterate(
        carry: tuple[jax.Array, jax.Array], i: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        basis, largest = carry
        image = jax.jvp(gradient, (w,), (basis[i],))[1]
        diagonal = jnp.vdot(basis[i], image)
        largest = jnp.maximum(largest, jnp.linalg.norm(image))
        following = orthogonal(image, basis)
        size = jnp.linalg.norm(following)
        ends = size <= noise * largest  # The vectors so far span an invariant space.
        following = jax.lax.cond(ends, lambda: orthogonal(random(i + 1), basis), lambda: following)
        basis = basis.at[i + 1].set(safe_divide(following, jnp.linalg.norm(following)))
        return (basis, largest), (diagonal, jnp.where(ends, 0, size))

    first = random(jnp.int32(0))
    basis = jnp.zeros((iterations + 1, w.size), w.dtype).at[0].set(first / jnp.linalg.norm(first))
    _, (diagonal, beside) = jax.lax.scan(
        iterate, (basis, jnp.zeros([], w.dtype)), jnp.arange(iterations)
    )
    tridiagonal = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    return jnp.linalg.eigvalsh(tridiagonal)[::-1][:count]
