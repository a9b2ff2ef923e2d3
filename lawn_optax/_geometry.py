r"""Moves on a sphere: rules that turn inner products into the two numbers of `a r + b w`.

Every update that keeps a norm is a combination of the weights `w` and a direction `r`:

    project    r - (<w, r> / <w, w>) w                lines 4 and 9 of Algorithm 1, arXiv 2108.05839
    rescale    c (w + r) / ||w + r||  -  w            lines 10-11
    retract    rescale(project(r))                    lines 9-11
    turn       retract of a tangent vector that points as project(r) does and is as long as r
    resize     c r / ||r||
    relative   c (w / ||w|| + k r / ||r||), brought to the norm c,  -  w
    decay      r + k w
    shrink     (1 - 2 k) (w + r)  -  w                 a gradient step on k ||w + r||^2
    capped_trust_ratio    min(||w|| / ||r||, cap) r

with `<x, y> = Re sum conj(x) y` over the axes of a norm. A rule takes numbers, one per norm, and
knows nothing of leaves, trees or dtypes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Coefficients(NamedTuple):
    """The two numbers of an update `a r + b w`, per norm; None stands for `a = 1` and `b = 0`."""

    a: Any = None
    b: Any = None


def safe_divide(x: jax.Array, y: jax.Array, otherwise: float = 0.0) -> jax.Array:
    """Return `x / y`, and `otherwise` where `y` is 0; its gradients are finite in either case."""
    nonzero = y != 0
    return jnp.where(nonzero, x / jnp.where(nonzero, y, 1), otherwise)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Return the square root, with the gradient 0 at 0."""
    nonzero = x != 0
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, x, 1)), 0)


def project(ww: jax.Array, wr: jax.Array) -> Coefficients:
    """Remove from `r` what points along `w`; leave `r` alone where `w` is 0."""
    return Coefficients(b=-safe_divide(wr, ww))


def rescale(c: jax.Array, ww: jax.Array, xx: jax.Array) -> Coefficients:
    """Move from `w` to `c x / ||x||` with `x = w + r`.

    Near the origin the direction of `x` would be rounding. Below a hundredth of `||w||` in float32,
    and 2e-11 in float64, only the norm is brought to `c`, and where `||x||` overflows, too. Half of
    `r` would end within a degree of there.
    """
    near = 1e5 * jnp.finfo(xx.dtype).eps
    lost = (xx <= near**2 * ww) | jnp.isinf(xx)
    s = safe_divide(c, safe_sqrt(jnp.where(lost, ww, xx)))
    return Coefficients(jnp.where(lost, 0, s), jnp.where(jnp.isinf(ww), 0, s - 1))


def retract(c: jax.Array, ww: jax.Array, wr: jax.Array, rr: jax.Array) -> Coefficients:
    """Move along the tangent part of `r` and back to the norm `c`, from inner products alone.

    `||w + r_p||^2 = <w, w> + ||r_p||^2` with `||r_p||^2 = <r, r> - <w, r>^2 / <w, w>`, which loses
    its digits to rounding where `r` is many times longer than `w` and nearly parallel to it. So a
    step of `||r||^2 > k ||w + r_p||^2` is shortened until it is no longer so; `k` is 14 in float32,
    where that takes less than 15 degrees between `r` and `w`, and 3e5 in float64. No step is taken
    where a sum overflows.
    """
    radial = safe_divide(wr, ww)
    pp = jnp.maximum(rr - radial * wr, 0)  # ||r_p||^2
    k = 0.005 * jnp.finfo(rr.dtype).eps ** -0.5
    # Where ||r||^2 > k ||w + r_p||^2, shorten r so that they are equal.
    excess = jnp.maximum(rr / k - pp, ww)
    shorter = jnp.sqrt(safe_divide(ww, excess, otherwise=1.0))
    s = safe_divide(c, safe_sqrt(ww + shorter**2 * pp))
    a, b = s * shorter, s * (1 - shorter * radial) - 1
    taken = ~jnp.isinf(ww + rr)
    return Coefficients(jnp.where(taken, a, 0), jnp.where(taken, b, 0))


def turn(c: jax.Array, ww: jax.Array, wr: jax.Array, rr: jax.Array) -> Coefficients:
    """Move as `retract` does, with `r` turned into the tangent space: its length is kept."""
    pp = jnp.maximum(rr - safe_divide(wr, ww) * wr, 0)
    longer = jnp.where(jnp.isinf(rr), 1, safe_sqrt(safe_divide(rr, pp, otherwise=1.0)))
    a, b = retract(c, ww, longer * wr, longer**2 * rr)
    return Coefficients(longer * a, b)


def relative(
    k: jax.Array, c: jax.Array, ww: jax.Array, wr: jax.Array, rr: jax.Array
) -> Coefficients:
    """Move along `r` by the share `k` of the norm, and to the norm `c`, wherever `w` was.

    With unit vectors `||w + k r||^2 = 1 + 2 k <w, r> + k^2`, which loses its digits to rounding
    where the step ends near the origin: there, below 0.1, half a step is taken. No step is taken
    where a sum overflows. A negative share moves against `r`.
    """
    w_norm, r_norm = safe_sqrt(ww), safe_sqrt(rr)
    cosine = safe_divide(wr, w_norm * r_norm)
    square = lambda x: jnp.where(ww != 0, 1, 0) + x * (2 * cosine + x)  # ||N(w) + x N(r)||^2
    share = jnp.where(rr != 0, k, 0)
    share = jnp.where((square(share) < 0.1) & (ww != 0), share / 2, share)
    s = safe_divide(c, safe_sqrt(square(share)))
    taken = ~jnp.isinf(ww + rr)
    a, b = s * safe_divide(share, r_norm), safe_divide(s, w_norm) - 1
    return Coefficients(jnp.where(taken, a, 0), jnp.where(taken, b, 0))


def resize(c: jax.Array, rr: jax.Array) -> Coefficients:
    """Give `r` the norm `c`; leave it 0 where it is."""
    return Coefficients(a=safe_divide(c, safe_sqrt(rr)))


def decay(k: jax.Array) -> Coefficients:
    """Add `k w` to `r`."""
    return Coefficients(b=k)


def shrink(k: jax.Array) -> Coefficients:
    """Move from `w` to `(1 - 2 k) (w + r)`: a step down the gradient of `k ||w + r||^2`."""
    return Coefficients(1 - 2 * k, -2 * k)


def capped_trust_ratio(cap: jax.Array, ww: jax.Array, rr: jax.Array) -> Coefficients:
    """Give `r` the norm of `w`, its factor at most `cap`; it is 1 where either norm is 0."""
    ratio = safe_divide(safe_sqrt(ww), safe_sqrt(rr), otherwise=1.0)
    return Coefficients(a=jnp.minimum(jnp.where(ww > 0, ratio, 1.0), cap))
