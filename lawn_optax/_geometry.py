"""One leaf on its sphere, given its inner products: tangent projection, retraction, rescale.

With `<x, y> = Re sum conj(x) y` over the axes of a norm and `||w||^2 = <w, w>`,

    tangent(w, d)    =  d - (<w, d> / <w, w>) w                 lines 4 and 9
    rescale(w, r, c) =  c (w + r) / ||w + r||  -  w             lines 10-11
    retract(w, r, c) =  rescale(w, tangent(w, r), c)            lines 9-11

the lines being those of Algorithm 1 of arXiv 2108.05839. Sums are accumulated in float32
(float64 for float64 leaves), and results come in that precision: who stores them casts them.
They are arguments, for a step needs few of them, taken in two sweeps over memory.
"""

import dataclasses

import jax
import jax.numpy as jnp

AxisName = str | tuple[str, ...]


def widen(x: jax.Array) -> jax.Array:
    """Casts to at least float32 (complex64), the precision that sums are taken in."""
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


def _terms(x: jax.Array, y: jax.Array) -> jax.Array:
    """What sums to `<x, y>`."""
    return jnp.real(jnp.conj(widen(x)) * widen(y))


def _ratio(numerator: jax.Array, denominator: jax.Array, otherwise: float) -> jax.Array:
    """`numerator / denominator`, and `otherwise` where the denominator is 0.

    The inner select keeps the branch not taken finite, so that gradients through it are too.
    """
    nonzero = denominator != 0
    return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1), otherwise)


def root(ww: jax.Array) -> jax.Array:
    """`||w||` from `<w, w>`; its gradient at 0 is 0."""
    nonzero = ww != 0
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, ww, 1)), 0)


def radial_part(ww: jax.Array, wd: jax.Array) -> jax.Array:
    """`a` such that `d - a w` is tangent; 0 where `w` is."""
    return _ratio(wd, ww, otherwise=0.0)


def retraction(
    c: jax.Array, ww: jax.Array, wr: jax.Array, rr: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Parts `of_r, of_w` such that `of_r r + of_w w` is the update of lines 9-11.

    `||r_p||^2 = <r, r> - <w, r>^2 / <w, w>` loses digits to rounding where `r` is many times longer
    than `w` and nearly parallel to it. So a step of `||r||^2 > k ||w + r_p||^2` is shortened until
    it is no longer so; `k` is 14 in float32, where that takes less than 15 degrees between `r` and
    `w`, and 3e5 in float64. Where a sum overflows, both parts are 0.
    """
    b = _ratio(wr, ww, otherwise=0.0)
    tangent = jnp.maximum(rr - b * wr, 0)
    k = 0.005 * jnp.finfo(rr.dtype).eps ** -0.5
    excess = rr - k * tangent
    too_long = (excess > k * ww) & (ww > 0)
    shorter = jnp.sqrt(jnp.where(too_long, k * ww / jnp.where(too_long, excess, 1), 1))
    s = _ratio(c, root(ww + shorter**2 * tangent), otherwise=0.0)
    taken = ~jnp.isinf(ww + rr)
    return jnp.where(taken, s * shorter, 0), jnp.where(taken, s * (1 - shorter * b) - 1, 0)


@dataclasses.dataclass(frozen=True)
class Sphere:
    """What a constrained leaf lives on: one sphere, or one for each slice off `axes`.

    Attributes:
      axes: the axes that a norm runs over, all of them non-negative.
      axis_name: mesh axes over which a leaf's elements are spread under `shard_map`, and its
        inner products have to be completed.
    """

    axes: tuple[int, ...]
    axis_name: AxisName | None = None

    def inner(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """`<x, y> = Re sum conj(x) y` of what is on this device, one number a sphere."""
        return jnp.sum(_terms(x, y), axis=self.axes)

    def inner_products(self, *pairs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        """`inner` of each pair, all of which are taken in one sweep over memory."""
        if len(pairs) != 2:
            return self.apart(*pairs)
        return jax.lax.platform_dependent(*pairs, default=self.apart, cuda=self.as_one_sum)

    def apart(self, *pairs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        """`inner` of each pair, a sum each."""
        return tuple(self.inner(*pair) for pair in pairs)

    def as_one_sum(self, *pairs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        """`inner` of two pairs, as the real and the imaginary part of one complex sum.

        XLA for GPUs runs a second stage for each sum, and seldom takes two of them in a kernel with
        other results. On CPU it would write the complex terms out before it sums them.
        """
        p, q = (_terms(*pair) for pair in pairs)
        kind = jnp.promote_types(p.dtype, q.dtype)
        total = jnp.sum(jax.lax.complex(p.astype(kind), q.astype(kind)), axis=self.axes)
        return total.real.astype(p.dtype), total.imag.astype(q.dtype)

    def norm(self, w: jax.Array) -> jax.Array:
        """`||w||` of what is on this device, one number a sphere; its gradient at 0 is 0."""
        return root(self.inner(w, w))

    def zero_norm(self, w: jax.Array) -> jax.Array:
        """Zeros of the shape, dtype and sharding of `norm(w)`, whether or not `axis_name` is bound.

        Summed over the mesh axes where these are bound: only so does JAX know that the zeros, like
        the norms, are the same on every device.
        """
        zeros = jnp.zeros_like(jnp.sum(jnp.abs(widen(w)), axis=self.axes))
        if self.axis_name is None:
            return zeros
        try:
            return jax.lax.psum(zeros, self.axis_name)
        except NameError:  # `init` outside of shard_map
            return zeros

    def tangent(
        self, w: jax.Array, d: jax.Array, a: jax.Array, held: jax.Array | bool = True
    ) -> jax.Array:
        """`d - a w`, with `a` from `radial_part`; `d` itself where not `held`."""
        d = widen(d)
        return jnp.where(self._spread(held), d - self._spread(a) * widen(w), d)

    def retract(
        self,
        w: jax.Array,
        r: jax.Array,
        parts: tuple[jax.Array, jax.Array],
        held: jax.Array | bool = True,
    ) -> jax.Array:
        """`of_r r + of_w w`, with `parts` from `retraction`; `r` itself where not `held`."""
        (of_r, of_w), w, r = parts, widen(w), widen(r)
        update = self._spread(of_r) * r + self._spread(of_w) * w
        update = jnp.where(self._spread(of_r == 0), 0, update)  # of an infinite r, too
        return jnp.where(self._spread(held), update, r)

    def rescale(
        self,
        w: jax.Array,
        r: jax.Array,
        c: jax.Array,
        size: jax.Array,
        held: jax.Array | bool = True,
    ) -> jax.Array:
        """The update from `w` to `c (w + r) / size`; `r` itself where not `held`.

        A step is not taken if its `size`, which is `||w + r||`, overflows or is 0.
        """
        w, r = widen(w), widen(r)
        s = _ratio(c, size, otherwise=0.0)
        update = self._spread(s) * r + self._spread(s - 1) * w
        update = jnp.where(self._spread(jnp.isinf(size) | (size == 0)), 0, update)
        return jnp.where(self._spread(held), update, r)

    def resize(
        self, u: jax.Array, c: jax.Array, size: jax.Array, held: jax.Array | bool = True
    ) -> jax.Array:
        """`c u / size`, and 0 where `size` is; `u` itself where not `held`."""
        s = _ratio(c, size, otherwise=0.0)
        return jnp.where(self._spread(held), self._spread(s) * widen(u), widen(u))

    def trust_ratio(self, ww: jax.Array, uu: jax.Array) -> jax.Array:
        """`||w|| / ||u||`, and 1 where either norm is 0; broadcasts against the leaf."""
        ratio = _ratio(root(ww), root(uu), otherwise=1.0)
        return self._spread(jnp.where(ww > 0, ratio, 1.0))

    def _spread(self, per_sphere: jax.Array | bool) -> jax.Array:
        """One number a sphere, shaped to broadcast against the leaf."""
        per_sphere = jnp.asarray(per_sphere)
        return per_sphere if per_sphere.ndim == 0 else jnp.expand_dims(per_sphere, self.axes)
