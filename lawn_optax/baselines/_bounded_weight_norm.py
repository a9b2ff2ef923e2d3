"""Fixes weight norms by reparametrization (Hoffer et al., 2018)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from lawn_optax._masks import MaskOrFn
from lawn_optax._selection import AxesOrFn, Selection, StackedOrFn
from lawn_optax._weights import scale_to_norms


class Reparametrization(NamedTuple):
    """Weights as a function of free parameters.

    Attributes:
      init: `init(params) -> norms`, the constants of the function.
      apply: `apply(params, norms) -> weights`, to be called inside the loss and differentiated.
    """

    init: Callable[[optax.Params], Any]
    apply: Callable[[optax.Params, Any], optax.Params]


def bounded_weight_norm(
    *, mask: MaskOrFn = None, axes: AxesOrFn = None, stacked: StackedOrFn = None
) -> Reparametrization:
    r"""Fix weight norms by reparametrization: Hoffer et al.'s bounded weight norm.

    .. math::
      w = c \frac{v}{\lVert v \rVert}, \qquad c = \lVert v_0 \rVert

    The norm is fixed from the start, and automatic differentiation goes through the quotient. The
    LAWN paper compares with it in Table 2, and rejects it as an implementation of LAWN because of
    its cost.

    Args:
      mask: which leaves; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.

    Returns:
      A `Reparametrization`.

    Raises:
      TypeError, ValueError: on use, for a mask or axes that do not fit, see `lawn`, or norms of
        other parameters.

    Examples:
      Wherever the free parameters go, the weights keep their norm:

      >>> import jax, jax.numpy as jnp, lawn_optax
      >>> init, apply = lawn_optax.baselines.bounded_weight_norm()
      >>> norms = init({'w': jnp.array([[3., 4.]])})
      >>> apply({'w': jnp.array([[0., 70.]])}, norms)
      {'w': Array([[0., 5.]], dtype=float32)}

    References:
      `Norm matters <https://arxiv.org/abs/1803.01814>`_, section 4; Table 2 of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    selection = Selection(mask, axes, stacked)

    def init(params: optax.Params) -> Any:
        return selection.spheres_or_warn(params).norms(params)

    apply = functools.partial(scale_to_norms, mask=mask, axes=axes, stacked=stacked)
    return Reparametrization(init, apply)
