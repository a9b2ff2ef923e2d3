"""Scales weights that are not an optimizer's iterates, such as averages, to given norms.

An average of iterates lies inside their spheres, and a model that was trained without LAWN may be
anywhere.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from lawn_optax._checks import check_given_norms, check_positive, check_scalar, check_steps
from lawn_optax._geometry import resize
from lawn_optax._masks import MaskOrFn
from lawn_optax._selection import AxesOrFn, Selection, StackedOrFn

LEAST_FACTOR = 1e-6  # On the norms, of `scale_to_margin`.


def scale_to_norms(
    params: optax.Params,
    norms: Mapping[str, jax.Array],
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
) -> optax.Params:
    """Scale weights to given norms, such as an average of iterates to the captured norms.

    The weights that `lawn` updates have the captured norms; averages of them have smaller ones: an
    exponential moving average, the slow weights of lookahead, and what
    `optax.contrib.schedule_free_eval_params` returns if `schedule_free` is inside `lawn`.

    Args:
      params: a tree like the parameters.
      norms: one per sphere by path, from `diagnostics.captured_norms`.
      mask: as given to the optimizer.
      axes: as given to the optimizer.
      stacked: as given to the optimizer.

    Returns:
      The weights, in their dtypes; leaves without norms and slices whose norm is 0 are unchanged.

    Raises:
      TypeError: for norms that are not a dict.
      ValueError: for a norm of a parameter that is free, or of another shape than its spheres.

    Examples:
      >>> import jax.numpy as jnp, lawn_optax
      >>> average = {'kernel': jnp.array([[0.6, 0.8]]), 'bias': jnp.ones(2)}
      >>> lawn_optax.scale_to_norms(average, {'kernel': jnp.float32(5.0)})['kernel']
      Array([[3., 4.]], dtype=float32)
    """
    spheres = Selection(mask, axes, stacked).spheres(params)
    if not isinstance(norms, Mapping):
        raise TypeError(
            f"norms is a {type(norms).__name__} and must be a dict from paths to norms, such as"
            " diagnostics.captured_norms(state)."
        )
    (ww,) = spheres.inner_products((params, params))
    check_given_norms(norms, ww)
    ww = {path: ww[path] for path in norms}
    on_sphere = {path: c > 0 for path, c in norms.items()}
    return spheres.move(resize, params, params, norms, ww, where=on_sphere)


def scale_to_margin(
    params: optax.Params,
    median_margin: Callable[[optax.Params], jax.Array],
    threshold: float = 2.5,
    *,
    iterations: int = 20,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
) -> optax.Params:
    """Shrink a model whose loss has flattened, so that its median margin is the threshold.

    All norms are multiplied by one factor from 1e-6 to 1, found by bisection of its logarithm, with
    one forward pass per iteration and two more. Training may continue with these norms, with
    `switch=0`. The proportions between layers stay as they are.

    Args:
      params: the parameters of a trained model.
      median_margin: from parameters to the median margin of some of the training data, a scalar.
      threshold: the median margin to reach, in logits; positive.
      iterations: of the bisection, at least 1.
      mask: which leaves are scaled; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.

    Returns:
      The weights, in their dtypes; unchanged if the median margin is below the threshold, and under
      `jit` if no factor brings it there.

    Raises:
      TypeError: if `median_margin` cannot be called.
      ValueError: for a threshold that is not positive, an `iterations` below 1, a `median_margin`
        that does not return one number, or one that hardly depends on the norms, as in front of
        normalisation layers.

    Examples:
      A network of two layers: to halve its norms divides the margin by 4.

      >>> import jax.numpy as jnp, lawn_optax
      >>> params = {'first': jnp.array([[2., 0.]]), 'second': jnp.array([[5., 0.]])}
      >>> margin = lambda p: jnp.vdot(p['first'], p['second'])
      >>> print(f"{margin(lawn_optax.scale_to_margin(params, margin)):.3f}")
      2.500

    References:
      Figure 1 of `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_ does
      so with a factor of 0.2, set by hand.
    """
    threshold = check_positive("threshold", threshold, "2.5")
    check_steps("iterations", iterations, least=1)
    if not callable(median_margin):
        raise TypeError(f"median_margin={median_margin!r} must be a function of the parameters.")
    check_scalar("median_margin(params)", jax.eval_shape(median_margin, params))
    norms = Selection(mask, axes, stacked).spheres(params).norms(params)

    def scaled(log_factor: jax.Array) -> optax.Params:
        smaller = {path: jnp.exp(log_factor) * c for path, c in norms.items()}
        return scale_to_norms(params, smaller, mask=mask, axes=axes, stacked=stacked)

    def exceeds(log_factor: jax.Array) -> jax.Array:
        return median_margin(scaled(log_factor)) >= threshold

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        shrink = exceeds(middle)
        return jnp.where(shrink, low, middle), jnp.where(shrink, middle, high)

    least = jnp.log(LEAST_FACTOR)
    unreachable = exceeds(least)
    if not isinstance(unreachable, jax.core.Tracer) and unreachable:
        raise ValueError(
            f"median_margin is above threshold={threshold} even at {LEAST_FACTOR:g} of the norms:"
            " it hardly depends on them, as in front of normalisation layers or where biases, which"
            " stay, make it alone; give mask= the layers that the logits grow with, or raise it."
        )
    low, high = jax.lax.fori_loop(0, iterations, halve, (least, jnp.float32(0)))
    reached = (median_margin(params) >= threshold) & ~unreachable
    return scaled(jnp.where(reached, (low + high) / 2, 0))
