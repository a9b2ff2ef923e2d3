"""What LAWN is compared with, where Optax does not have it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from lawn_optax._selection import AxesOrFn, MaskOrFn, select_spheres
from lawn_optax._transforms import capture, resize, zero_norms


class Reparametrization(NamedTuple):
    """Weights as a function of free parameters.

    Attributes:
      init: `init(params) -> norms`, the constants of the function.
      apply: `apply(params, norms) -> weights`, to be called inside the loss and differentiated.
    """

    init: Callable[[optax.Params], Any]
    apply: Callable[[optax.Params, Any], optax.Params]


def bounded_weight_norm(*, mask: MaskOrFn = None, axes: AxesOrFn = None) -> Reparametrization:
    r"""Hoffer et al.'s bounded weight norm: weights on spheres by reparametrization.

    .. math::
      w = c \frac{v}{\lVert v \rVert}, \qquad c = \lVert v_0 \rVert

    The norm is fixed from the start and automatic differentiation goes through the quotient: what
    the paper sets against LAWN in Table 2, and rejects as an implementation of it for its cost.

    Args:
      mask: which leaves; see `lawn`.
      axes: which axes a norm runs over; see `lawn`.

    Returns:
      A `Reparametrization`.

    Raises:
      TypeError, ValueError: on use, for a mask or axes that do not fit; see `lawn`.

    Examples:
      Where the free parameters go, the weights stay on their sphere:

      >>> import jax, jax.numpy as jnp, lawn_optax
      >>> init, apply = lawn_optax.baselines.bounded_weight_norm()
      >>> norms = init({'w': jnp.array([[3., 4.]])})
      >>> apply({'w': jnp.array([[0., 70.]])}, norms)
      {'w': Array([[0., 5.]], dtype=float32)}

    References:
      `Norm matters <https://arxiv.org/abs/1803.01814>`_, section 4; Table 2 of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """

    def init(params: optax.Params) -> Any:
        spheres = select_spheres(params, mask, axes, None)
        return capture(spheres, params, zero_norms(spheres, params), when=True)

    def apply(params: optax.Params, norms: Any) -> optax.Params:
        spheres = select_spheres(params, mask, axes, None)
        held = jax.tree.map(lambda c: c > 0, norms)
        return optax.tree.cast_like(resize(spheres, params, norms, held), params)

    return Reparametrization(init, apply)
