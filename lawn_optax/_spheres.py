"""The spheres of a tree of parameters: their inner products in one sweep, and moves on them.

Sums are taken in float32, or float64 for float64 leaves, whatever the leaves are stored in.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lawn_optax import _kernels as kernels
from lawn_optax._checks import check_norms, check_shapes
from lawn_optax._exchange import together
from lawn_optax._geometry import safe_sqrt
from lawn_optax._kernels import Rule, map_norms, upcast
from lawn_optax._paths import leaves_by_path, replace_leaves

Products = Mapping[str, Any]  # By path, one number per norm.
Norms = Any  # The same; a single zero where there are no parameters, see `zero_norms`.


@dataclasses.dataclass(frozen=True)
class Sphere:
    """Where a constrained leaf lives: one sphere, or one for each slice off `axes`.

    Attributes:
      axes: the axes that a norm runs over, none of them negative.
      axis_name: the mesh axes over which a leaf's elements are spread under `shard_map`.
      stacked: how many leading axes count layers.
    """

    axes: tuple[int, ...]
    axis_name: tuple[str, ...] = ()
    stacked: int = 0

    def zero_norm(self, w: jax.Array) -> jax.Array:
        """Return zeros of the shape, dtype and sharding of `norm(w)`.

        They are summed over the mesh axes where these are bound: only so does JAX know that the
        zeros, like the norms, are the same on every device.
        """
        zeros = jnp.zeros_like(jnp.sum(jnp.abs(upcast(w)), axis=self.axes))
        if not self.axis_name:
            return zeros
        try:
            return jax.lax.psum(zeros, self.axis_name)
        except NameError:  # `init` outside of shard_map
            return zeros

    def size(self, w: jax.Array) -> int:
        """Return the number of elements per norm, on all devices together."""
        here = math.prod(jnp.shape(w)[axis] for axis in self.axes)
        return jax.lax.psum(here, self.axis_name) if self.axis_name else here


class Spheres(dict[str, Sphere]):
    """The sphere of each constrained parameter, by the parameter's path.

    A leaf that is missing from the updates is left out of what is done.
    """

    def inner_products(self, *pairs: tuple[optax.Params, optax.Updates]) -> list[Products]:
        """Return `<x, y>` on every sphere for each pair of trees.

        One sweep over memory yields all of them, and one exchange completes them on a mesh.
        """
        trees = [(leaves_by_path(x), leaves_by_path(y)) for x, y in pairs]
        alike = collections.defaultdict(list)
        for path, sphere in self.items():
            present = tuple(i for i, (_, y) in enumerate(trees) if path in y)
            for i in present:
                check_shapes(path, trees[i][0][path], trees[i][1][path])
            types = (jax.typeof(tree[path]) for i in present for tree in trees[i])
            alike[sphere.axes, present, *types].append(path)
        sums: dict[tuple[int, str], jax.Array] = {}
        for (axes, present, *_), paths in alike.items():
            leaves = tuple(tuple((trees[i][0][p], trees[i][1][p]) for i in present) for p in paths)
            for path, products in zip(paths, kernels.inner_products(leaves, axes), strict=True):
                sums |= {(i, path): x for i, x in zip(present, products, strict=True)}
        sums = self._complete(sums)
        return [{p: sums[i, p] for p in self if (i, p) in sums} for i in range(len(pairs))]

    def _complete(self, sums: dict[tuple[int, str], jax.Array]) -> dict[tuple[int, str], jax.Array]:
        """Return the sums over all devices, exchanged at once."""
        for axis_name in dict.fromkeys(s.axis_name for s in self.values() if s.axis_name):
            spread = {k: x for k, x in sums.items() if self[k[1]].axis_name == axis_name}
            sums = sums | map_norms(functools.partial(kernels.psum, axis_name), spread)
        scalars = {key: x for key, x in sums.items() if x.ndim == 0}
        return sums | dict(zip(scalars, together(list(scalars.values())), strict=True))

    def move(
        self,
        rule: Rule,
        w: optax.Params,
        r: optax.Updates,
        *products: Products,
        where: Products | None = None,
    ) -> optax.Updates:
        """Return `a r + b w` with `(a, b) = rule(*products)`, in the dtype of `r`.

        Leaves that are not constrained, and spheres where `where` is False, keep `r` itself.
        """
        w_leaves, r_leaves = leaves_by_path(w), leaves_by_path(r)
        if where is not None:
            rule, products = kernels.where(rule), (where, *products)
        coefficients = map_norms(functools.partial(kernels.evaluate, rule), *products)
        moved = {
            path: kernels.move(self[path].axes, w_leaves[path], r_leaves[path], ab)
            for path, ab in coefficients.items()
        }
        return replace_leaves(r, moved)

    def add(self, w: optax.Params, r: optax.Updates) -> dict[str, jax.Array]:
        """Return `w + r` of each constrained parameter, in the precision of the sums."""
        w_leaves, r_leaves = leaves_by_path(w), leaves_by_path(r)
        return {p: upcast(w_leaves[p]) + upcast(r_leaves[p]) for p in self if p in r_leaves}

    def norms(self, w: optax.Params) -> Norms:
        """Return `||w||` per sphere."""
        (ww,) = self.inner_products((w, w))
        return {path: safe_sqrt(x) for path, x in ww.items()}

    def by_layer(self, products: Products) -> Products:
        """Return the sums over the spheres of each layer: a number, or one per stacked layer."""
        sum_of = lambda path, x: jnp.sum(x, axis=tuple(range(self[path].stacked, x.ndim)))
        return {path: sum_of(path, x) for path, x in products.items()}

    def sizes(self, w: optax.Params) -> dict[str, int]:
        """Return the number of elements per norm, by path."""
        leaves = leaves_by_path(w)
        return {path: sphere.size(leaves[path]) for path, sphere in self.items()}

    def zero_norms(self, w: optax.Params) -> Norms:
        """Return what `capture` fills: a zero per norm."""
        leaves = leaves_by_path(w)
        if not leaves:
            # optax.tree.map_params initialises with a placeholder: one leaf stands for all norms.
            return jnp.zeros([])
        return {path: sphere.zero_norm(leaves[path]) for path, sphere in self.items()}


def capture(
    ww: Products, norms: Norms, captured: jax.Array | bool, wanted: jax.Array | bool
) -> Norms:
    """Return the norms to remember: `c = ||w||` of the first update that wants them, equation (1).

    Args:
      ww: `<w, w>` per sphere.
      norms: those remembered so far.
      captured: whether there are such.
      wanted: whether norms are wanted from now on; zeros are returned where they are not.
    """
    if not ww:
        return norms
    check_norms(norms, ww)
    found = map_norms(functools.partial(kernels.evaluate, safe_sqrt), ww)
    # Beside the roots, for then a GPU writes all of them in one kernel.
    kept = {path: jnp.where(captured, norms[path], x) for path, x in found.items()}
    return {path: jnp.where(wanted, c, 0) for path, c in kept.items()}


def scale_norms(norms: Norms, target_scale: optax.ScalarOrSchedule, count: jax.Array) -> Norms:
    """Return `target_scale * norms`, with a schedule evaluated at `count`."""
    if isinstance(target_scale, float) and target_scale == 1.0:
        return norms
    scale = target_scale(count) if callable(target_scale) else target_scale
    return jax.tree.map(lambda c: (scale * c).astype(c.dtype), norms)
