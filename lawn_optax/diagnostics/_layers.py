"""Measures norms, angles and steps of each layer, and how flat the loss is."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lawn_optax._checks import check_given_norms, check_tree_of
from lawn_optax._geometry import project, safe_divide, safe_sqrt
from lawn_optax._kernels import upcast
from lawn_optax._masks import MaskOrFn
from lawn_optax._selection import AxesOrFn, Selection, StackedOrFn
from lawn_optax.diagnostics._states import (
    as_array,
    find_states,
    has_switched,
    norms_of,
    states_with_norms,
)


def weight_norms(
    params: optax.Params,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
) -> dict[str, jax.Array]:
    """Return `||w||` of each constrained leaf.

    Args:
      params: the parameters.
      mask: as given to the optimizer.
      axes: as given to the optimizer.
      stacked: as given to the optimizer.

    Returns:
      A dict from paths to norms.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> lawn_optax.diagnostics.weight_norms({'kernel': jnp.array([[3., 4.]])})
      {'kernel': Array(5., dtype=float32)}
    """
    return Selection(mask, axes, stacked).spheres(params).norms(params)


def norm_drift(
    params: optax.Params,
    state: Any,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: float = 1.0,
) -> dict[str, jax.Array]:
    """Return `||w|| / (target_scale c) - 1` of each leaf after its switch; 0 where `c` is 0.

    Args:
      params: the parameters after a constrained update.
      state: the optimizer's state, concrete.
      mask: as given to the optimizer.
      axes: as given to the optimizer.
      stacked: as given to the optimizer.
      target_scale: as given to the optimizer, a schedule's value.

    Returns:
      A dict from paths to relative errors; empty before the switch, even if norms are marked.

    Raises:
      ValueError: if no state in `state` holds norms, or these are of other parameters, mask, axes
        or stacked.

    Examples:
      A constrained step keeps the norm; twice the weights have twice the norm:

      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> w = {'kernel': jnp.array([[3., 4.]])}
      >>> tx = lawn_optax.adam_lawn(0.1, switch=0)
      >>> update, state = tx.update({'kernel': jnp.array([[1., 1.]])}, tx.init(w), w)
      >>> w = optax.apply_updates(w, update)
      >>> for params in (w, {'kernel': 2 * w['kernel']}):
      ...   drift = lawn_optax.diagnostics.norm_drift(params, state)['kernel']
      ...   print(f"{abs(drift):.5f}")
      0.00000
      1.00000
    """
    norms = weight_norms(params, mask=mask, axes=axes, stacked=stacked)
    switched = [found for found in states_with_norms(state) if has_switched(found)]
    captured = {path: as_array(c) for found in switched for path, c in found.norms.items()}
    check_given_norms(captured, norms)
    return {
        path: safe_divide(norms[path], target_scale * c, otherwise=1.0) - 1
        for path, c in captured.items()
    }


def gradient_cosine(
    params: optax.Params,
    grads: optax.Updates,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
) -> dict[str, jax.Array]:
    """Return `cos(w, g)` of each constrained leaf: the share of a gradient that line 4 takes away.

    At a minimum on the spheres the gradient vanishes or this is -1 or 1 (appendix D of the paper).

    Args:
      params: the parameters.
      grads: a tree like `params`.
      mask: as given to the optimizer.
      axes: as given to the optimizer.
      stacked: as given to the optimizer.

    Returns:
      A dict from paths to cosines; 0 where either is 0.

    Raises:
      ValueError: if `grads` is not a tree like `params`.
    """
    check_tree_of("grads", grads, params)
    spheres = Selection(mask, axes, stacked).spheres(params)
    ww, wg, gg = spheres.inner_products((params, params), (params, grads), (grads, grads))
    return {
        path: safe_divide(wg[path], safe_sqrt(ww[path]) * safe_sqrt(gg[path])) for path in spheres
    }


def angular_step(
    params: optax.Params,
    updates: optax.Updates,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
) -> dict[str, jax.Array]:
    """Return the angle in radians by which an update turns each constrained leaf.

    Args:
      params: the parameters before the update.
      updates: what the optimizer returned, a tree like `params`.
      mask: as given to the optimizer.
      axes: as given to the optimizer.
      stacked: as given to the optimizer.

    Returns:
      A dict from paths to angles from 0 to pi.

    Raises:
      ValueError: if `updates` is not a tree like `params`.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> w, update = jnp.array([[1., 0.]]), jnp.array([[-1., 1.]])
      >>> angle = lawn_optax.diagnostics.angular_step({'w': w}, {'w': update})['w']
      >>> print(f"{jnp.degrees(angle):.1f}")
      90.0
    """
    check_tree_of("updates", updates, params)
    spheres = Selection(mask, axes, stacked).spheres(params)
    u = jax.tree.map(upcast, updates)
    ww, wu = spheres.inner_products((params, params), (params, u))
    tangent = spheres.norms(spheres.move(project, params, u, ww, wu))
    # Between w and w + u; atan2 keeps small angles, where the cosine would lose them.
    return {
        path: jnp.atan2(tangent[path] * safe_sqrt(ww[path]), ww[path] + wu[path])
        for path in spheres
    }


def step_report(
    params: optax.Params,
    grads: optax.Updates,
    updates: optax.Updates,
    state: Any = None,
    margins: jax.Array | None = None,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
) -> dict[str, jax.Array]:
    r"""Return what to log about one update, as one flat dict; may be jitted.

    Args:
      params: the parameters before the update.
      grads: the gradient there, a tree like `params`.
      updates: what the optimizer returned for it.
      state: the optimizer's new state, for the captured norms.
      margins: of the minibatch's examples, of any shape; those that are NaN do not count.
      mask: as given to the optimizer.
      axes: as given to the optimizer.
      stacked: as given to the optimizer.

    Returns:
      A flat dict. Each constrained leaf has one number per norm in `norm/PATH`, `share/PATH` (of
      the sum of all squared norms), `captured/PATH` (with a state; 0 until norms are captured or
      marked), `cos_wg/PATH`, `angle/PATH` in radians, `relative_step/PATH`, and the terms of the
      squared norm's change,
      :math:`\lVert w + u\rVert^2 - \lVert w\rVert^2 = 2 \langle w, u\rangle + \lVert u\rVert^2`,
      `radial/PATH` and `squared_step/PATH`. Of the whole: `gradient_norm`, over all leaves; with
      margins `margin_p10`, `margin_p50`, `margin_p90` and `flat_share`.

    Raises:
      ValueError: if `grads` or `updates` is not a tree like `params`.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> w = {'kernel': jnp.array([[3., 4.]])}
      >>> update = {'kernel': jnp.array([[-4., 3.]])}   # tangent
      >>> report = lawn_optax.diagnostics.step_report(w, w, update)
      >>> [f"{float(report[name]):.1f}" for name in
      ...  ('norm/kernel', 'cos_wg/kernel', 'relative_step/kernel', 'radial/kernel')]
      ['5.0', '1.0', '1.0', '0.0']

    References:
      (S2) in the supplement of `How to decay your learning rate <https://arxiv.org/abs/2103.12682>`_.
    """
    check_tree_of("grads", grads, params)
    check_tree_of("updates", updates, params)
    u = jax.tree.map(upcast, updates)
    spheres = Selection(mask, axes, stacked).spheres(params)
    ww, wu, uu = spheres.inner_products((params, params), (params, u), (u, u))
    total = sum((jnp.sum(x) for x in ww.values()), start=jnp.zeros([]))
    per_leaf = {
        "norm": {path: safe_sqrt(x) for path, x in ww.items()},
        "share": {path: safe_divide(x, total) for path, x in ww.items()},
        "cos_wg": gradient_cosine(params, grads, mask=mask, axes=axes, stacked=stacked),
        "angle": angular_step(params, updates, mask=mask, axes=axes, stacked=stacked),
        "relative_step": {
            path: safe_divide(safe_sqrt(uu[path]), safe_sqrt(x)) for path, x in ww.items()
        },
        "radial": {path: 2 * x for path, x in wu.items()},
        "squared_step": uu,
    }
    if state is not None:
        per_leaf["captured"] = {
            path: as_array(c) for found in find_states(state) for path, c in norms_of(found).items()
        }
    report = {f"{name}/{path}": x for name, xs in per_leaf.items() for path, x in xs.items()}
    report["gradient_norm"] = optax.tree.norm(jax.tree.map(upcast, grads))
    if margins is not None:
        quantiles = jnp.nanquantile(jnp.asarray(margins, jnp.float32), jnp.array([0.1, 0.5, 0.9]))
        report |= dict(zip(("margin_p10", "margin_p50", "margin_p90"), quantiles, strict=True))
        report["flat_share"] = flat_zone_share(margins)
    return report


def flat_zone_share(margins: jax.Array, *, threshold: float = 2.5) -> jax.Array:
    """Return the share of examples whose loss is flat: with a margin of at least `threshold`.

    Args:
      margins: `(examples,)`, from `metrics.logit_margin`; those that are NaN do not count.
      threshold: where the zone begins, in logits.

    Returns:
      A scalar between 0 and 1.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> print(lawn_optax.diagnostics.flat_zone_share(jnp.array([-1., 2., 3., 4.])))
      0.5

    References:
      Appendix A of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    margins = jnp.asarray(margins)
    return jnp.mean(margins >= threshold, where=~jnp.isnan(margins))
