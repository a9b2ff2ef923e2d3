"""Adam without the radial part of steps where the loss is scale-invariant (Heo et al., 2021)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lawn_optax._checks import check_adam, check_not_negative, check_update
from lawn_optax._geometry import decay, project, safe_divide, safe_sqrt
from lawn_optax._masks import MaskOrFn
from lawn_optax._selection import AxesOrFn, AxisNameOrFn, Selection, StackedOrFn
from lawn_optax._spheres import Products, Sphere, Spheres


def adamp(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.0,
    delta: ArrayLike = 0.1,
    wd_ratio: ArrayLike = 0.1,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Make AdamP: Adam without the radial part of steps where the loss is scale-invariant.

    .. math::
      u \leftarrow u - \frac{\langle w, u\rangle}{\langle w, w\rangle} w
      \quad\text{if}\quad
      \frac{|\langle w, g\rangle|}{\lVert w\rVert \lVert g\rVert} < \frac{\delta}{\sqrt{n}}

    with `n` the number of elements of a norm. If `axes` says what a neuron is, the condition is
    first tested for the neurons of a layer: if all satisfy it, each neuron is projected. Otherwise
    it is tested for the layer as a whole. The steps that remain still make norms grow.

    Args:
      learning_rate: a float or a schedule of the update, from 0.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: strength of the decoupled weight decay.
      delta: the threshold on the cosine, before it is divided by the root of `n`.
      wd_ratio: factor on the weight decay of a layer that is projected.
      mask: which leaves may be projected; see `lawn`.
      axes: which axes a neuron's weights run over, 0 for a Flax kernel; see `lawn`. By default the
        condition is tested only for the layer as a whole.
      stacked: which subtrees hold layers stacked along leading axes; see `lawn`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs`.

    Raises:
      ValueError: for a constant outside its range; on `update`, without `params`.
      TypeError, ValueError: on `init`, for a mask or axes that do not fit; see `lawn`.

    Examples:
      The gradient is orthogonal to the weights, as for weights in front of batch normalisation.
      Adam's step is not orthogonal, AdamP's is:

      >>> import jax.numpy as jnp, optax, lawn_optax
      >>> w, g = jnp.array([[3., 4.]]), jnp.array([[-4., 3.]])
      >>> for tx in (optax.adam(0.1), lawn_optax.baselines.adamp(0.1)):
      ...   print(f"{jnp.vdot(w, tx.update(g, tx.init(w), w)[0]):.3f}")
      -0.100
      0.000

    References:
      Algorithm 2 and section 3 of `AdamP <https://arxiv.org/abs/2006.08217>`_.
    """
    learning_rate, b1, b2, eps = check_adam(learning_rate, b1, b2, eps)
    weight_decay = check_not_negative("weight_decay", weight_decay, 0.1)
    delta = check_not_negative("delta", delta, 0.1)
    wd_ratio = check_not_negative("wd_ratio", wd_ratio, 0.1)
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    of_layers = Selection(mask, None, stacked, axis_name)
    of_neurons = of_layers._replace(axes=axes)

    def ignores_norm(spheres: Spheres, w: optax.Params, g: optax.Updates) -> Products:
        """Return whether the cosine of `w` and `g` is below the threshold, per norm."""
        ww, wg, gg = spheres.inner_products((w, w), (w, g), (g, g))
        n = spheres.sizes(w)
        cosine = lambda p: safe_divide(jnp.abs(wg[p]), safe_sqrt(ww[p]) * safe_sqrt(gg[p]))
        return {path: cosine(path) < delta / math.sqrt(max(n[path], 1)) for path in ww}

    def init(params: optax.Params) -> Any:
        of_neurons.spheres_or_warn(params)
        return adam.init(params)

    def update(updates, state, params, **extra_args):
        del extra_args
        g, w = updates, params
        u, state = adam.update(g, state, w)
        layers, neurons = of_layers.spheres(w), of_neurons.spheres(w)
        layer = ignores_norm(layers, w, g)
        neuron = ignores_norm(neurons, w, g)
        all_neurons = {
            p: _all_of_layer(x, layer[p], layers[p], neurons[p]) for p, x in neuron.items()
        }
        every_neuron = {p: _of_each(all_neurons[p], x) for p, x in neuron.items()}
        u = _tangent(neurons, w, u, every_neuron)
        u = _tangent(layers, w, u, {p: x & ~all_neurons[p] for p, x in layer.items()})
        ratio = {p: jnp.where(x | all_neurons[p], wd_ratio, 1.0) for p, x in layer.items()}
        all_leaves = of_layers.whole_leaves(w)
        strength = {p: jnp.asarray(weight_decay * ratio.get(p, 1.0)) for p in all_leaves}
        return all_leaves.move(decay, w, u, strength), state

    checked = check_update("adamp", update)
    return optax.chain(
        optax.GradientTransformationExtraArgs(init, checked),
        optax.scale_by_learning_rate(learning_rate),
    )


def _all_of_layer(neurons: jax.Array, layer: jax.Array, whole: Sphere, one: Sphere) -> jax.Array:
    """Return whether the condition holds for all neurons of a layer, from a bool of each here.

    Under `shard_map` they may lie on several: along the mesh axes of the layer that are not also
    those of each neuron, whose bools are the same there.
    """
    here = jnp.all(neurons, axis=tuple(range(layer.ndim, neurons.ndim)))
    elsewhere = tuple(name for name in whole.axis_name if name not in one.axis_name)
    return jax.lax.pmin(here.astype(jnp.int32), elsewhere) > 0 if elsewhere else here


def _of_each(layer: jax.Array, neurons: jax.Array) -> jax.Array:
    """Return a layer's bool for each of its neurons."""
    return jnp.broadcast_to(
        jnp.expand_dims(layer, tuple(range(layer.ndim, neurons.ndim))), neurons.shape
    )


def _tangent(spheres: Spheres, w: optax.Params, u: optax.Updates, where: Products) -> Any:
    """Return `u` without its radial part on the spheres where `where` is true."""
    ww, wu = spheres.inner_products((w, w), (w, u))
    return spheres.move(project, w, u, ww, wu, where=where)
