"""The spheres of a tree of parameters: their inner products in one sweep, and moves on them.

Sums are taken in float32, or float64 for float64 leaves, whatever the leaves are stored in.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lawn_optax._checks import check_norms, check_shapes
from lawn_optax._exchange import together
from lawn_optax._geometry import Coefficients, safe_sqrt
from lawn_optax._paths import leaves_by_path, replace_leaves

Products = Mapping[str, Any]  # By path, one number per norm.
Norms = Any  # The same; see `zero_norms` for the exception.
Rule = Callable[..., Coefficients]


@dataclasses.dataclass(frozen=True)
class Sphere:
    """Where a constrained leaf lives: one sphere, or one for each slice off `axes`.

    Attributes:
      axes: the axes that a norm runs over, none of them negative.
      axis_name: the mesh axes over which a leaf's elements are spread under `shard_map`.
    """

    axes: tuple[int, ...]
    axis_name: tuple[str, ...] = ()

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
        """Return how many numbers a norm is of, on all devices together."""
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
            for path, products in zip(paths, _inner_products(leaves, axes), strict=True):
                sums |= {(i, path): x for i, x in zip(present, products, strict=True)}
        sums = self._complete(sums)
        return [{p: sums[i, p] for p in self if (i, p) in sums} for i in range(len(pairs))]

    def _complete(self, sums: dict[tuple[int, str], jax.Array]) -> dict[tuple[int, str], jax.Array]:
        """Return the sums over all devices, exchanged at once."""
        for axis_name in dict.fromkeys(s.axis_name for s in self.values() if s.axis_name):
            spread = {k: x for k, x in sums.items() if self[k[1]].axis_name == axis_name}
            sums = sums | map_norms(functools.partial(_psum, axis_name), spread)
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
        columns = products if where is None else (where, *products)
        decide = functools.partial(_apply, rule, where is not None)
        moved = {
            path: _move(self[path].axes, w_leaves[path], r_leaves[path], coefficients)
            for path, coefficients in map_norms(decide, *columns).items()
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

    def sizes(self, w: optax.Params) -> dict[str, int]:
        """Return how many numbers each sphere's norm is of."""
        leaves = leaves_by_path(w)
        return {path: sphere.size(leaves[path]) for path, sphere in self.items()}

    def zero_norms(self, w: optax.Params) -> Norms:
        """Return what `capture` fills: a zero per norm."""
        leaves = leaves_by_path(w)
        if not leaves:
            # optax.tree.map_params initialises with a placeholder: one leaf stands for all norms.
            return jnp.zeros([])
        return {path: sphere.zero_norm(leaves[path]) for path, sphere in self.items()}


def map_norms(
    function: Callable[..., Iterable[Any]], *numbers: Mapping[Any, jax.Array]
) -> dict[Any, Any]:
    """Return an elementwise function of the numbers of every norm.

    Leaves with one norm of one type are taken together: `function` has their numbers in one tuple
    per argument. A leaf with several norms stays by itself, because they may be spread over devices
    in a way of their own.
    """
    alike = collections.defaultdict(list)
    for key, last in numbers[-1].items():
        kinds = tuple(jax.typeof(xs[key]) for xs in numbers)
        alike[kinds if jnp.ndim(last) == 0 else key].append(key)
    results: dict[Any, Any] = {}
    for keys in alike.values():
        columns = (tuple(xs[key] for key in keys) for xs in numbers)
        results |= zip(keys, function(*columns), strict=True)
    return results


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
    found = map_norms(functools.partial(_apply, safe_sqrt, False), ww)
    # Beside the roots, for then a GPU writes all of them in one kernel.
    kept = {path: jnp.where(captured, norms[path], x) for path, x in found.items()}
    return {path: jnp.where(wanted, c, 0) for path, c in kept.items()}


def scale_norms(norms: Norms, target_scale: optax.ScalarOrSchedule, count: jax.Array) -> Norms:
    """Return `target_scale * norms`, with a schedule evaluated at `count`."""
    if isinstance(target_scale, float) and target_scale == 1.0:
        return norms
    scale = target_scale(count) if callable(target_scale) else target_scale
    return jax.tree.map(lambda c: (scale * c).astype(c.dtype), norms)


def upcast(x: jax.Array) -> jax.Array:
    """Cast to at least float32 (complex64), the precision that sums are taken in."""
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


# What is done per leaf is jitted: it is traced once for all leaves of a shape, and is one call
# where a user works op by op.


@functools.partial(jax.jit, static_argnums=1)
def _inner_products(
    leaves: tuple[tuple[tuple[jax.Array, jax.Array], ...], ...], axes: tuple[int, ...]
) -> tuple[tuple[jax.Array, ...], ...]:
    """Return `<x, y>` over `axes` of each pair of each leaf, the leaves being alike."""
    terms = [[jnp.real(jnp.conj(upcast(x)) * upcast(y)) for x, y in pairs] for pairs in leaves]
    return jax.lax.platform_dependent(
        terms,
        default=functools.partial(_sums, axes=axes),
        cuda=functools.partial(_sums_in_one_kernel, axes=axes),
    )


Terms = list[list[jax.Array]]  # Some of each leaf, all of one shape.


def _sums(terms: Terms, axes: tuple[int, ...]) -> tuple[tuple[jax.Array, ...], ...]:
    """Return the sums of all terms over `axes`."""
    return tuple(tuple(jnp.sum(x, axis=axes) for x in of_leaf) for of_leaf in terms)


def _sums_in_one_kernel(terms: Terms, axes: tuple[int, ...]) -> tuple[tuple[jax.Array, ...], ...]:
    """Return the same by one reduction, of pairs of a leaf's terms as complex numbers.

    XLA for GPUs starts a kernel for the first stage of each sum and one for the second, and seldom
    takes two sums of a leaf in a kernel with other results. On CPU it would write the complex terms
    out before it sums them.
    """
    pairs = [xs[i : i + 2] for xs in terms for i in range(0, len(xs), 2)]
    columns = [xs[0] if len(xs) == 1 else jax.lax.complex(*_promoted(*xs)) for xs in pairs]
    if len(columns) == 1:
        totals = [jnp.sum(columns[0], axis=axes)]
    else:
        add = lambda xs, ys: [x + y for x, y in zip(xs, ys, strict=True)]
        totals = jax.lax.reduce(columns, [jnp.zeros([], x.dtype) for x in columns], add, axes)
    sums = (
        part.astype(x.dtype)
        for total, xs in zip(totals, pairs, strict=True)
        for part, x in zip((total.real, total.imag), xs, strict=False)
    )
    return tuple(tuple(itertools.islice(sums, len(of_leaf))) for of_leaf in terms)


def _promoted(*arrays: jax.Array) -> list[jax.Array]:
    """Return arrays of one dtype."""
    return [x.astype(jnp.result_type(*arrays)) for x in arrays]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(
    rule: Rule, selective: bool, *columns: tuple[jax.Array, ...]
) -> tuple[Coefficients, ...]:
    """Return the coefficients of leaves with one norm each, or of one leaf with several.

    On an accelerator all leaves are taken at once, so that many of them do not mean many small
    kernels. On a CPU kernels are cheap to start, and those of leaves alike are compiled once.
    """
    decide = jax.jit(functools.partial(_where, rule) if selective else rule)
    return jax.lax.platform_dependent(
        *columns,
        cpu=functools.partial(_one_by_one, decide),
        default=functools.partial(_all_at_once, decide),
    )


def _where(rule: Rule, moves: jax.Array, *numbers: jax.Array) -> Coefficients:
    """Return the rule's coefficients where `moves` is true, and those of `r` itself elsewhere."""
    a, b = rule(*numbers)
    return Coefficients(
        None if a is None else jnp.where(moves, a, 1), None if b is None else jnp.where(moves, b, 0)
    )


def _one_by_one(decide: Rule, *columns: tuple[jax.Array, ...]) -> tuple[Coefficients, ...]:
    """Return the coefficients of each row of the columns."""
    return tuple(decide(*row) for row in zip(*columns, strict=True))


def _all_at_once(decide: Rule, *columns: tuple[jax.Array, ...]) -> tuple[Coefficients, ...]:
    """Return the same, computed from one array per column."""
    if len(columns[-1]) == 1:
        return _one_by_one(decide, *columns)
    coefficients = decide(*map(jnp.stack, columns))
    return _rows(jax.lax.optimization_barrier(coefficients), len(columns[-1]))


def _psum(axis_name: tuple[str, ...], numbers: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Return the sums of numbers over mesh axes, in one exchange."""
    if len(numbers) == 1:
        return (jax.lax.psum(numbers[0], axis_name),)
    return _rows(jax.lax.psum(jnp.stack(numbers), axis_name), len(numbers))


def _rows(arrays: Any, count: int) -> tuple[Any, ...]:
    """Return what is at each index of the first axis of arrays."""
    return tuple(jax.tree.map(lambda x, i=i: x[i], arrays) for i in range(count))


@functools.partial(jax.jit, static_argnums=0)
def _move(
    axes: tuple[int, ...], w: jax.Array, r: jax.Array, coefficients: Coefficients
) -> jax.Array:
    """Return `a r + b w`; a number that is 0 takes its vector out, were it infinite."""
    per_slice = lambda x: x if x.ndim == 0 else jnp.expand_dims(x, axes)
    a, b = coefficients
    moved = upcast(r)
    if a is not None:
        moved = jnp.where(per_slice(a == 0), 0, _scaled(per_slice(a), moved))
    if b is not None:
        moved = jnp.where(per_slice(b == 0), moved, moved + _scaled(per_slice(b), upcast(w)))
    return moved.astype(jnp.result_type(r))


def _scaled(a: jax.Array, x: jax.Array) -> jax.Array:
    """Return `a x` for a real `a`, without a product of infinity and the imaginary part 0."""
    return jax.lax.complex(a * x.real, a * x.imag) if jnp.iscomplexobj(x) else a * x
