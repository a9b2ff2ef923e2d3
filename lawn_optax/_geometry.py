"""One leaf on its sphere: inner product, norm, tangent projection, rescale.

With `<x, y> = Re sum conj(x) y` over the axes of a norm and `||w||^2 = <w, w>`,

    project(w, d)    =  d - (<w, d> / <w, w>) w                 lines 4 and 9
    rescale(w, r, c) =  c (w + r) / ||w + r||  -  w             lines 10-11

the lines being those of Algorithm 1 of arXiv 2108.05839. Sums are accumulated in float32
(float64 for float64 leaves), and results come in that precision: who stores them casts them.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

AxisName = str | Sequence[str]


def _widen(x: jax.Array) -> jax.Array:
    """Casts to at least float32 (complex64), the precision that sums are taken in."""
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


def _ratio(numerator: jax.Array, denominator: jax.Array, otherwise: float) -> jax.Array:
    """`numerator / denominator`, and `otherwise` where the denominator is 0.

    The inner select keeps the branch not taken finite, so that gradients through it are too.
    """
    nonzero = denominator > 0
    return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1), otherwise)


@dataclasses.dataclass(frozen=True)
class Sphere:
    """What a constrained leaf lives on: one sphere, or one for each slice off `axes`.

    Attributes:
      axes: the axes that a norm runs over, all of them non-negative.
      axis_name: mesh axes over which a leaf's elements are spread under `shard_map`.
    """

    axes: tuple[int, ...]
    axis_name: AxisName | None = None

    def inner(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """`<x, y> = Re sum conj(x) y`, one number a sphere."""
        x, y = _widen(x), _widen(y)
        total = jnp.sum(jnp.real(jnp.conj(x) * y), axis=self.axes)
        return total if self.axis_name is None else jax.lax.psum(total, self.axis_name)

    def norm(self, w: jax.Array) -> jax.Array:
        """`||w||`, one number a sphere; its gradient at 0 is 0."""
        ww = self.inner(w, w)
        return jnp.where(ww > 0, jnp.sqrt(jnp.where(ww > 0, ww, 1)), jnp.zeros_like(ww))

    def zero_norm(self, w: jax.Array) -> jax.Array:
        """Zeros of the shape, dtype and sharding of `norm(w)`, before there is a mesh axis."""
        return jnp.zeros_like(jnp.sum(jnp.abs(_widen(w)), axis=self.axes))

    def project(self, w: jax.Array, d: jax.Array, held: jax.Array | bool = True) -> jax.Array:
        """The part of `d` tangent to the sphere at `w`; `d` itself where not `held` or `w` is 0."""
        a = _ratio(self.inner(w, d), self.inner(w, w), otherwise=0.0)
        d = _widen(d)
        return jnp.where(self._spread(held), d - self._spread(a) * _widen(w), d)

    def rescale(
        self, w: jax.Array, r: jax.Array, c: jax.Array, held: jax.Array | bool = True
    ) -> jax.Array:
        """The update from `w` to `c (w + r) / ||w + r||`; `r` itself where not `held`.

        The norm is summed from `w + r`. The closed form `<w,w> + <r,r>` of a tangent `r` would
        save that sweep, and cancels where `r` was nearly parallel to `w` before its projection. A
        step so large that its norm overflows is not taken.
        """
        w, r = _widen(w), _widen(r)
        size = self.norm(w + r)
        s = _ratio(c, size, otherwise=0.0)
        update = self._spread(s) * r + self._spread(s - 1) * w
        update = jnp.where(self._spread(jnp.isinf(size)), 0, update)
        return jnp.where(self._spread(held), update, r)

    def resize(self, u: jax.Array, c: jax.Array, held: jax.Array | bool = True) -> jax.Array:
        """`c u / ||u||`, and 0 where `u` is; `u` itself where not `held`."""
        s = _ratio(c, self.norm(u), otherwise=0.0)
        return jnp.where(self._spread(held), self._spread(s) * _widen(u), _widen(u))

    def trust_ratio(self, w: jax.Array, u: jax.Array) -> jax.Array:
        """`||w|| / ||u||`, and 1 where either norm is 0; broadcasts against the leaf."""
        w_norm, u_norm = self.norm(w), self.norm(u)
        ratio = _ratio(w_norm, u_norm, otherwise=1.0)
        return self._spread(jnp.where(w_norm > 0, ratio, 1.0))

    def _spread(self, per_sphere: jax.Array | bool) -> jax.Array:
        """One number a sphere, shaped to broadcast against the leaf."""
        per_sphere = jnp.asarray(per_sphere)
        return per_sphere if per_sphere.ndim == 0 else jnp.expand_dims(per_sphere, self.axes)
