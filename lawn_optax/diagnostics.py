"""Diagnostics of training with constrained norms: norms, drift, angles, flatness, escape.

Results about layers are flat dicts from a leaf's path, such as `"dense/kernel"`, to an array with
one number per norm: ready for a log.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from lawn_optax._geometry import project, safe_divide, safe_sqrt
from lawn_optax._lawn import LawnState
from lawn_optax._selection import AxesOrFn, MaskOrFn, Selection, StackedOrFn
from lawn_optax._spheres import upcast
from lawn_optax._transforms import RescaleToNormsState


def is_constrained(state: Any) -> jax.Array:
    """Tell whether the switch has happened.

    Args:
      state: an optimizer state that holds one of `lawn`, however wrapped.

    Returns:
      A bool scalar; of several such states, whether all have switched.

    Raises:
      ValueError: if there is no such state in `state`.
    """
    counts = [_array(s.constrained_steps) for s in _states(state) if isinstance(s, LawnState)]
    if not counts:
        raise ValueError("state holds no LawnState: give the state of an optimizer made by lawn.")
    return jnp.all(jnp.stack([count > 0 for count in counts]))


def captured_norms(state: Any) -> dict[str, jax.Array]:
    """Return the norms captured so far, or marked by a switch such as `at_flattening`.

    Args:
      state: a concrete optimizer state that holds one of `lawn` or `rescale_to_norms`.

    Returns:
      A dict from paths to norms; empty until norms are captured or marked.

    Raises:
      ValueError: if there is no such state in `state`.
    """
    return {path: c for path, (c, captured) in norms_by_path(state).items() if captured}


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
      ValueError: if no state in `state` holds norms.

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
    switched = [found for found in _states_with_norms(state) if _has_switched(found)]
    captured = {path: _array(c) for found in switched for path, c in found.norms.items()}
    return {
        path: jnp.where(c == 0, 0.0, norms[path] / jnp.where(c == 0, 1, target_scale * c) - 1)
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
    """
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

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> w, update = jnp.array([[1., 0.]]), jnp.array([[-1., 1.]])
      >>> angle = lawn_optax.diagnostics.angular_step({'w': w}, {'w': update})['w']
      >>> print(f"{jnp.degrees(angle):.1f}")
      90.0
    """
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
      state: the optimizer's new state, for the norms that are held.
      margins: of the minibatch's examples, of any shape.
      mask: as given to the optimizer.
      axes: as given to the optimizer.
      stacked: as given to the optimizer.

    Returns:
      A flat dict. Each constrained leaf has one number per norm in `norm/PATH`, `share/PATH` (of
      the sum of all squared norms), `held/PATH` (with a state; 0 until norms are captured or
      marked), `cos_wg/PATH`, `angle/PATH` in radians, `relative_step/PATH`, and the terms of the
      squared norm's change,
      :math:`\lVert w + u\rVert^2 - \lVert w\rVert^2 = 2 \langle w, u\rangle + \lVert u\rVert^2`,
      `radial/PATH` and `squared_step/PATH`. Of the whole: `gradient_norm`, over all leaves; with
      margins `margin_p10`, `margin_p50`, `margin_p90` and `flat_share`.

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
    selection = Selection(mask, axes, stacked)
    u = jax.tree.map(upcast, updates)
    spheres = selection.spheres(params)
    ww, wu, uu = spheres.inner_products((params, params), (params, u), (u, u))
    total = sum(jnp.sum(x) for x in ww.values())
    per_leaf = {
        "norm": {path: safe_sqrt(x) for path, x in ww.items()},
        "share": {path: x / total for path, x in ww.items()},
        "cos_wg": gradient_cosine(params, grads, mask=mask, axes=axes, stacked=stacked),
        "angle": angular_step(params, updates, mask=mask, axes=axes, stacked=stacked),
        "relative_step": {
            path: safe_divide(safe_sqrt(uu[path]), safe_sqrt(x)) for path, x in ww.items()
        },
        "radial": {path: 2 * x for path, x in wu.items()},
        "squared_step": uu,
    }
    if state is not None:
        captured = {path: c for found in _states(state) for path, c in found.norms.items()}
        per_leaf["held"] = {path: _array(c) for path, c in captured.items()}
    report = {f"{name}/{path}": x for name, xs in per_leaf.items() for path, x in xs.items()}
    report["gradient_norm"] = optax.tree.norm(grads)
    if margins is not None:
        quantiles = jnp.quantile(jnp.asarray(margins, jnp.float32), jnp.array([0.1, 0.5, 0.9]))
        report |= dict(zip(("margin_p10", "margin_p50", "margin_p90"), quantiles, strict=True))
        report["flat_share"] = flat_zone_share(margins)
    return report


def flat_zone_share(margins: jax.Array, *, threshold: float = 2.5) -> jax.Array:
    """Return the share of examples whose loss is flat: with a margin of at least `threshold`.

    Args:
      margins: `(examples,)`, from `metrics.logit_margin`.
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
    return jnp.mean(jnp.asarray(margins) >= threshold)


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
      params: where to look; the condition is meant at a minimum.
      examples: a pytree of arrays with the `m >= 2` training examples along the first axis.
      learning_rate: the step size :math:`\eta` of SGD.
      batch_size: B, from 1 to m.
      key: for the starting vector.
      iterations: of the power method, at least 1.

    Returns:
      A scalar, the Rayleigh quotient of the last iterate.

    Raises:
      ValueError: if `batch_size` is not between 1 and `m`, or `m` is below 2.

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
    w, unravel = jax.flatten_util.ravel_pytree(params)
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
        return image / jnp.linalg.norm(image), jnp.vdot(v, image)

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

    Of a scale-invariant measure, give weights of given norms: `scale_to_norms` before.

    Args:
      loss: `loss(params) -> scalar`.
      params: where to look.
      key: for the starting vector.
      count: how many eigenvalues, at least 1.
      iterations: Hessian-vector products, at least `count`; all their vectors are kept.

    Returns:
      `(count,)`, the largest first.

    Raises:
      ValueError: if `iterations` is below `count`, or either below 1.

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
    w, unravel = jax.flatten_util.ravel_pytree(params)
    gradient = jax.grad(lambda w: loss(unravel(w)))
    iterations = min(iterations, w.size)

    def iterate(basis: jax.Array, i: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        v = basis[i]
        image = jax.jvp(gradient, (w,), (v,))[1]
        diagonal = jnp.vdot(v, image)
        # Orthogonal to all before it, twice: once leaves what rounding has left over.
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        size = jnp.linalg.norm(image)
        basis = basis.at[i + 1].set(safe_divide(image, size))
        return basis, (diagonal, size)

    start = jax.random.normal(key, w.shape, w.dtype)
    basis = jnp.zeros((iterations + 1, w.size), w.dtype)
    basis = basis.at[0].set(start / jnp.linalg.norm(start))
    _, (diagonal, beside) = jax.lax.scan(iterate, basis, jnp.arange(iterations))
    tridiagonal = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    return jnp.linalg.eigvalsh(tridiagonal)[::-1][:count]


def norms_by_path(state: Any) -> dict[str, tuple[jax.Array, bool]]:
    """Return the norms that a state holds, and whether they are captured yet.

    Args:
      state: a concrete optimizer state that holds one of `lawn` or `rescale_to_norms`.

    Returns:
      A dict from the path of each constrained parameter to its norms, zeros until they are
      captured or marked, and whether they are.

    Raises:
      ValueError: if there is no such state in `state`.
    """
    norms: dict[str, tuple[jax.Array, bool]] = {}
    for found in _states_with_norms(state):
        taken = _has_switched(found) or any(jnp.any(_array(c) > 0) for c in found.norms.values())
        norms |= {path: (_array(c), taken) for path, c in found.norms.items()}
    return norms


def _has_switched(state: LawnState | RescaleToNormsState) -> bool:
    """Tell whether updates have been constrained, rather than norms only marked."""
    count = state.constrained_steps if isinstance(state, LawnState) else state.steps
    return bool(_array(count) > 0)


def _states_with_norms(state: Any) -> list:
    """Return every state that holds norms, or refuse `state` if none does."""
    found = [x for x in _states(state) if x.norms]
    if not found:
        raise ValueError(
            "state holds no norms: give the state of an optimizer made by lawn or rescale_to_norms."
        )
    return found


def _states(state: Any) -> list:
    """Return every state that holds norms, wherever it is."""
    holds_norms = lambda x: isinstance(x, (LawnState, RescaleToNormsState))
    found = [x for x in jax.tree.leaves(state, is_leaf=holds_norms) if holds_norms(x)]
    return found + [s for x in found if isinstance(x, LawnState) for s in _states(x.inner)]


def _array(x: Any) -> jax.Array:
    """Return a scalar out of whatever box a training framework puts it in."""
    return jnp.asarray(jax.tree.leaves(x)[0])
