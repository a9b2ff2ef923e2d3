"""The operations of `Sphere` on trees, what the captured norms are, and who holds them now."""

import collections
import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lawn_optax._geometry import Sphere, radial_part, retraction, root, widen
from lawn_optax._selection import leaves_by_path, replace_leaves

Spheres = dict[str, Sphere]
Products = dict[str, jax.Array]  # By path: one number a norm.
Norms = Any  # A dict from paths to one number a norm; see `zero_norms` for the exception.

# The operations of `Sphere` on the constrained leaves of a tree. `held` says of each norm whether
# it is constrained now. A leaf that is missing from the updates is left out of what is done.


def inner_products(spheres: Spheres, *pairs: tuple[optax.Params, optax.Updates]) -> list[Products]:
    """`<x, y>` on every sphere, for each pair of trees."""
    sums: dict[Any, jax.Array] = {}
    leaves = [(leaves_by_path(x), leaves_by_path(y)) for x, y in pairs]
    for path, sphere in spheres.items():
        there = {i: (x[path], y[path]) for i, (x, y) in enumerate(leaves) if path in y}
        for x, y in there.values():
            _check_shape(path, x, y)
        found = sphere.inner_products(*there.values())
        sums |= {(i, path): product for i, product in zip(there, found, strict=True)}
    for axis_name in dict.fromkeys(s.axis_name for s in spheres.values() if s.axis_name):
        spread = {(i, p): x for (i, p), x in sums.items() if spheres[p].axis_name == axis_name}
        sums |= side_by_side(lambda x, name=axis_name: jax.lax.psum(x, name), spread)
    # All that is made of the sums starts from one array of them. Otherwise XLA may take each leaf's
    # by itself: in a kernel of its own on a GPU, in an exchange of its own on a mesh.
    sums = side_by_side(jax.lax.optimization_barrier, sums)
    return [{p: sums[i, p] for p in spheres if (i, p) in sums} for i in range(len(pairs))]


def side_by_side(function: Callable[..., Any], *numbers: dict[Any, jax.Array]) -> dict[Any, Any]:
    """`function` of the numbers of each norm, elementwise on one array of all leaves' of one type.

    So the devices of a mesh exchange the sums of all leaves at once, where XLA would do so leaf by
    leaf, and many small leaves do not mean as many small kernels. Leaves with a norm for each slice
    stay by themselves: their norms may be spread over devices, each leaf's in its own way.
    """
    alike = collections.defaultdict(list)
    results: dict[Any, Any] = {}
    for key in numbers[-1]:
        if jnp.ndim(numbers[-1][key]) == 0:
            alike[tuple(jax.typeof(of[key]) for of in numbers)].append(key)
        else:
            results[key] = function(*(of[key] for of in numbers))
    for keys in alike.values():
        result = function(*(jnp.stack([of[key] for key in keys]) for of in numbers))
        results |= {key: jax.tree.map(lambda x, i=i: x[i], result) for i, key in enumerate(keys)}
    return results


def _check_shape(path: str, w: jax.Array, d: jax.Array) -> None:
    if jnp.shape(w) != jnp.shape(d):
        raise ValueError(
            f"parameter {path!r} has shape {jnp.shape(w)} and its update {jnp.shape(d)}: give"
            " update(grads, state, params) gradients of the shapes of the parameters."
        )


def tangent(
    spheres: Spheres,
    w: optax.Params,
    d: optax.Updates,
    ww: Products,
    wd: Products,
    held: Norms | None = None,
) -> optax.Updates:
    """`d - (<w, d> / <w, w>) w` on every sphere."""
    w, of_d = leaves_by_path(w), leaves_by_path(d)
    a = side_by_side(radial_part, ww, wd)
    return replace_leaves(
        d,
        {p: spheres[p].tangent(w[p], of_d[p], a[p], True if held is None else held[p]) for p in a},
    )


def project(
    spheres: Spheres, w: optax.Params, d: optax.Updates, held: Norms | None = None
) -> optax.Updates:
    """`tangent`, with the inner products that it needs."""
    ww, wd = inner_products(spheres, (w, w), (w, d))
    return tangent(spheres, w, d, ww, wd, held)


def retract(
    spheres: Spheres,
    w: optax.Params,
    r: optax.Updates,
    c: Norms,
    ww: Products,
    held: Norms,
) -> optax.Updates:
    """`c (w + r_p) / ||w + r_p|| - w` on every sphere, `r_p` being the tangent part of `r`."""
    wr, rr = inner_products(spheres, (w, r), (r, r))
    w, of_r = leaves_by_path(w), leaves_by_path(r)
    parts = side_by_side(retraction, c, ww, wr, rr)
    return replace_leaves(
        r, {p: spheres[p].retract(w[p], of_r[p], parts[p], held[p]) for p in parts}
    )


def rescale(
    spheres: Spheres, w: optax.Params, r: optax.Updates, c: Norms, held: Norms
) -> optax.Updates:
    """`c (w + r) / ||w + r|| - w` on every sphere, whatever the direction of `r`."""
    of_w, of_r = leaves_by_path(w), leaves_by_path(r)
    end = {p: widen(of_w[p]) + widen(of_r[p]) for p in spheres if p in of_r}
    (xx,) = inner_products({p: spheres[p] for p in end}, (end, end))
    return replace_leaves(
        r,
        {p: spheres[p].rescale(of_w[p], of_r[p], c[p], root(xx[p]), held[p]) for p in end},
    )


def resize(spheres: Spheres, u: optax.Updates, c: Norms, held: Norms) -> optax.Updates:
    """`c u / ||u||` on every sphere."""
    (uu,) = inner_products(spheres, (u, u))
    of_u = leaves_by_path(u)
    return replace_leaves(
        u, {p: spheres[p].resize(of_u[p], c[p], root(uu[p]), held[p]) for p in uu}
    )


def zero_norms(spheres: Spheres, w: optax.Params) -> Norms:
    """What `capture` fills: a zero a norm."""
    leaves = leaves_by_path(w)
    if not leaves:
        # optax.tree.map_params initialises with a placeholder: one leaf stands for all norms.
        return jnp.zeros([])
    return {path: s.zero_norm(leaves[path]) for path, s in spheres.items()}


def capture(ww: Products, norms: Norms, when: jax.Array | bool) -> Norms:
    """`||w||` on every sphere where `when` is true, and `norms` where it is not."""
    if not ww:
        return norms
    return {path: jnp.where(when, root(ww[path]), norms[path]) for path in ww}


def scale_norms(norms: Any, target_scale: optax.ScalarOrSchedule, count: jax.Array) -> Any:
    """`target_scale * norms`, a schedule being evaluated at `count`."""
    scale = target_scale(count) if callable(target_scale) else target_scale
    return jax.tree.map(lambda c: (scale * c).astype(c.dtype), norms)


def check_state(name: str, state: Any, kind: type, spheres: Spheres, params: optax.Params) -> None:
    """Refuses a state that is not one of these parameters."""
    norms_of_state = getattr(state, "norms", None)
    if not isinstance(state, kind):
        raise TypeError(
            f"state is a {type(state).__name__}, and {name} needs its own {kind.__name__}: call"
            " update(grads, state, params)."
        )
    needed, found = (
        jax.tree.map(jnp.shape, norms)
        for norms in (jax.eval_shape(lambda: zero_norms(spheres, params)), norms_of_state)
    )
    if needed != found:
        raise ValueError(
            f"{name} needs norms of shapes {needed} for these params, and its state holds {found}:"
            " they must be the parameters, mask and axes of init; call init anew for others."
        )


@contextlib.contextmanager
def state_explained(name: str, state: Any, init: Callable[[], Any]) -> Iterator[None]:
    """Says of an error within that the state `name` is another's, where it is."""
    try:
        yield
    except Exception as error:
        needed, found = (
            str(jax.tree.structure(jax.eval_shape(init))),
            str(jax.tree.structure(state)),
        )
        if needed == found:
            raise
        raise ValueError(
            f"the state of lawn's {name} is {found}, and this {name} needs {needed}: a state goes"
            " with the optimizer whose init made it."
        ) from error


def check_target_scale(target_scale: optax.ScalarOrSchedule) -> None:
    """Refuses a constant that is not a positive finite number."""
    if callable(target_scale) or isinstance(target_scale, jax.core.Tracer):
        return
    try:
        positive = 0 < float(target_scale) < math.inf
    except (TypeError, ValueError):
        positive = False
    if not positive:
        raise ValueError(
            f"target_scale={target_scale!r} must be positive and finite: it multiplies the captured"
            " norms. 1.0 keeps them."
        )


# What `lawn` says to the links of its inner optimizer while that makes an update: whether the
# switch has happened, and of each norm whether it is constrained. No extra argument, because
# optimizers such as optax.contrib.sam and optax.lbfgs refuse those that they do not know.
_LAWN: contextvars.ContextVar[tuple[jax.Array, Norms] | None] = contextvars.ContextVar(
    "lawn", default=None
)


@contextlib.contextmanager
def inside_lawn(constrained: jax.Array, held: Norms) -> Iterator[None]:
    """Tells the links used within what `lawn` is about to do."""
    token = _LAWN.set((constrained, held))
    try:
        yield
    finally:
        _LAWN.reset(token)


def held_by_lawn(spheres: Spheres, params: optax.Params) -> Norms | None:
    """Which norms are constrained now: what the `lawn` around says, None (all) without one."""
    around = _LAWN.get()
    if around is None:
        return None
    constrained, held = around
    norms = jax.eval_shape(lambda: zero_norms(spheres, params))
    return {
        path: held[path] if jnp.shape(held.get(path)) == norms[path].shape else constrained
        for path in spheres
    }
