"""Bounds weight norms by an augmented Lagrangian (Franke et al., 2024)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lawn_optax._checks import check_positive, check_steps, check_update
from lawn_optax._geometry import shrink
from lawn_optax._masks import MaskOrFn
from lawn_optax._selection import AxesOrFn, AxisNameOrFn, Selection, StackedOrFn
from lawn_optax._spheres import Norms, Products


class CprState(NamedTuple):
    """State of `cpr`, numbers by the path of their parameter, in the shape that `axes` leave.

    Attributes:
      steps: int32 scalar; the updates made so far.
      bounds: the bound on `||w||^2`; infinite until it is set.
      multipliers: the multiplier of the bound, 0 where it has never been passed.
      squares: `||w||^2` at the last measurement.
      growth: by how much it had changed since the one before.
    """

    steps: jax.Array
    bounds: Norms
    multipliers: Norms
    squares: Norms
    growth: Norms


def cpr(
    start: int | None = None,
    *,
    factor: ArrayLike = 1.0,
    update_rate: ArrayLike = 1.0,
    measure_every: int = 200,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Bound weight norms by an augmented Lagrangian: constrained parameter regularization.

    .. math::
      w' &= w + r \\
      \lambda &\leftarrow
        \max\left(\lambda + \tfrac{\mu}{n} (\lVert w'\rVert^2 - \kappa),\ 0\right) \\
      w &\leftarrow w' - 2 \lambda w'

    with `n` the number of elements of a norm. The bound :math:`\kappa` is the value of
    :math:`\lVert w\rVert^2` after update `start`, or at the inflection of its growth. Make this the
    last link of a chain, after the learning rate.

    Args:
      start: number of updates before the bound is set, such as a multiple of the warm-up's; 0
        takes the norm of the initial weights. By default the bound of each norm is set at the
        inflection: at the first measurement, from the fourth on, that finds its growth slower.
      factor: factor on the bound.
      update_rate: the rate :math:`\mu` of the multiplier.
      measure_every: updates between measurements, where there is no `start`.
      mask: which leaves; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs` with a `CprState`; updates keep their dtypes.

    Raises:
      ValueError: for an argument out of its range; on `update`, without `params`.
      TypeError, ValueError: on `init`, for a mask or axes that do not fit; see `lawn`.

    Examples:
      Steps outwards, with a bound at the initial norm of 0.5:

      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> w = jnp.array([[0.3, 0.4]])
      >>> tx = lawn_optax.baselines.cpr(start=0)
      >>> state = tx.init(w)
      >>> for _ in range(500):
      ...   step, state = tx.update(0.01 * w, state, w)
      ...   w = w + step
      >>> print(f"{jnp.linalg.norm(w):.1f}")
      0.5

    References:
      Algorithm 1 of `CPR <https://arxiv.org/abs/2311.09058>`_, with the square of the norm and
      :math:`\mu / n` as its authors' `code <https://github.com/automl/CPR>`_ has them.
    """
    if start is not None:
        check_steps("start", start)
    check_steps("measure_every", measure_every, least=1)
    factor = check_positive("factor", factor)
    update_rate = check_positive("update_rate", update_rate)
    selection = Selection(mask, axes, stacked, axis_name)

    def init(params: optax.Params) -> CprState:
        zeros = selection.spheres_or_warn(params).zero_norms(params)
        return CprState(
            steps=jnp.zeros([], jnp.int32),
            bounds=jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), zeros),
            multipliers=jax.tree.map(jnp.zeros_like, zeros),
            squares=jax.tree.map(jnp.zeros_like, zeros),
            growth=jax.tree.map(jnp.zeros_like, zeros),
        )

    def measure(state: CprState, count: jax.Array, squares: Products) -> CprState:
        """Set the bounds of norms whose growth is less than at the measurement before."""
        due = count % measure_every == 0
        growth = jax.tree.map(jnp.subtract, squares, state.squares)
        slower = jax.tree.map(jnp.less, growth, state.growth)
        known = count >= 4 * measure_every  # as the authors' code has it
        return state._replace(
            bounds=jax.tree.map(
                lambda k, x, s: jnp.where(due & known & s & jnp.isinf(k), factor * x, k),
                state.bounds,
                squares,
                slower,
            ),
            squares=jax.tree.map(lambda new, old: jnp.where(due, new, old), squares, state.squares),
            growth=jax.tree.map(lambda new, old: jnp.where(due, new, old), growth, state.growth),
        )

    def set_all(where: jax.Array, state: CprState, squares: Products) -> CprState:
        """Set all bounds where `where` is true."""
        bounds = jax.tree.map(lambda k, x: jnp.where(where, factor * x, k), state.bounds, squares)
        return state._replace(bounds=bounds)

    def update(updates, state, params, **extra_args):
        del extra_args
        spheres = selection.spheres(params)
        if not spheres:
            return updates, state._replace(steps=optax.safe_increment(state.steps))
        moved = spheres.add(params, updates)
        ww, xx = spheres.inner_products((params, params), (moved, moved))
        if start is not None:  # As for 0, of which no update comes before.
            state = set_all((state.steps == 0) & (start == 0), state, ww)
        n = spheres.sizes(params)
        more = {p: update_rate / max(n[p], 1) * (xx[p] - state.bounds[p]) for p in spheres}
        multipliers = {
            p: jnp.where(jnp.isinf(state.bounds[p]), k, jnp.maximum(k + more[p], 0))
            for p, k in state.multipliers.items()
        }
        updates = spheres.move(shrink, params, updates, multipliers)
        count = optax.safe_increment(state.steps)
        state = state._replace(steps=count, multipliers=multipliers)
        state = measure(state, count, xx) if start is None else set_all(count == start, state, xx)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, check_update("cpr", update, CprState, init))
