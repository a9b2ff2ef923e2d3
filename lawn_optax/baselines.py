"""Baselines that LAWN is compared with and that Optax does not have."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lawn_optax._checks import (
    check_adam,
    check_not_negative,
    check_positive,
    check_update,
    number,
    plain,
    steps,
)
from lawn_optax._geometry import decay, project, resize, safe_divide, safe_sqrt, shrink
from lawn_optax._paths import leaves_by_path, replace_leaves
from lawn_optax._selection import (
    AxesOrFn,
    AxisNameOrFn,
    MaskOrFn,
    StackedOrFn,
    select_and_warn,
    select_spheres,
)
from lawn_optax._spheres import Norms, Products, Sphere, Spheres, upcast

ROUNDING = 1e-6  # Relative, of a sum of squares in float32: what has changed by less has not.


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
      TypeError, ValueError: on use, for a mask or axes that do not fit; see `lawn`.

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

    def init(params: optax.Params) -> Any:
        spheres = select_and_warn(params, mask, axes=axes, stacked=stacked)
        return spheres.norms(params)

    def apply(params: optax.Params, norms: Any) -> optax.Params:
        spheres = select_spheres(params, mask, axes, stacked=stacked)
        (vv,) = spheres.inner_products((params, params))
        on_sphere = {path: norms[path] > 0 for path in spheres}
        return spheres.move(resize, params, params, norms, vv, where=on_sphere)

    return Reparametrization(init, apply)


class AbelState(NamedTuple):
    """State of `abel`.

    Attributes:
      steps: int32 scalar; the updates made so far.
      factor: float32 scalar; what updates are multiplied by now.
      total: float32 scalar; the sum of the squared weight norms that the next average is of.
      norms: float32 `(2,)`; the averages compared last, older first, 0 where there is none yet.
      reached_minimum: bool scalar; whether the norm has turned since the last decay.
    """

    steps: jax.Array
    factor: jax.Array
    total: jax.Array
    norms: jax.Array
    reached_minimum: jax.Array


def abel(
    steps_per_epoch: int,
    *,
    decay_factor: float = 0.1,
    last_decay_step: int | None = None,
    average_epochs: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Decay the learning rate when the weight norm bounces: ABEL.

    The squared norm of all parameters is measured once per epoch, and turns when it changes from
    falling to rising or back. The first turn after a decay counts as the bounce; at the second the
    learning rate decays, because the norm has reached its equilibrium at this learning rate. The
    link follows the optimizer in a chain and multiplies its updates.

    Put it inside `lawn`, as in `lawn(optax.chain(optax.sgd(0.1), abel(100)), switch)`. After
    `lawn`, or another optimizer that fixes norms, a scaled step would leave the spheres, which this
    link cannot notice. From the switch on, only the free leaves change the sum, and so decide;
    changes of a millionth or less are rounding and are ignored.

    Args:
      steps_per_epoch: updates between measurements, at least 1.
      decay_factor: factor on the learning rate at each decay, between 0 and 1; the paper has
        0.1 for ImageNet and SVHN, 0.2 for CIFAR.
      last_decay_step: update at which the learning rate decays once more, in the paper at 85% of
        training; None for no such decay.
      average_epochs: number of measurements that are averaged before they are compared, at least
        1; take several if the norm is noisy, as the paper's 5 for a PyramidNet.

    Returns:
      An `optax.GradientTransformationExtraArgs` with an `AbelState`; updates keep their dtypes.

    Raises:
      ValueError: for an argument out of its range; on `update`, without `params`.

    Examples:
      A norm that falls, then rises, then falls again: one decay.

      >>> import jax.numpy as jnp, lawn_optax
      >>> tx = lawn_optax.baselines.abel(steps_per_epoch=1, decay_factor=0.1)
      >>> state = tx.init(jnp.float32(0.))
      >>> for norm in (5., 4., 3., 4., 5., 4., 3.):
      ...   update, state = tx.update(jnp.float32(1.), state, jnp.float32(norm))
      ...   print(f"{update:.1f}", end=" ")
      1.0 1.0 1.0 1.0 1.0 0.1 0.1

    References:
      `How to decay your learning rate <https://arxiv.org/abs/2103.12682>`_, section 3; appendix A
      for the averages.
    """
    steps("steps_per_epoch", steps_per_epoch, least=1)
    steps("average_epochs", average_epochs, least=1)
    if not 0 < number("decay_factor", decay_factor) < 1:
        raise ValueError(f"decay_factor={decay_factor} must be between 0 and 1, such as 0.1.")
    if last_decay_step is not None:
        steps("last_decay_step", last_decay_step)

    def init(params: optax.Params) -> AbelState:
        del params
        return AbelState(
            steps=jnp.zeros([], jnp.int32),
            factor=jnp.ones([], jnp.float32),
            total=jnp.zeros([], jnp.float32),
            norms=jnp.zeros(2, jnp.float32),
            reached_minimum=jnp.zeros([], bool),
        )

    def measure(state: AbelState, params: optax.Params) -> AbelState:
        squares = optax.tree.norm(jax.tree.map(upcast, params), squared=True)
        total = state.total + squares.astype(jnp.float32)
        averaged = (state.steps // steps_per_epoch + 1) % average_epochs == 0
        now = total / average_epochs
        older, old = state.norms
        changed = averaged & (jnp.abs(now - old) > ROUNDING * old)
        turned = changed & (older > 0) & ((now > old) != (old > older))
        decays = turned & state.reached_minimum
        return state._replace(
            factor=jnp.where(decays, decay_factor * state.factor, state.factor),
            total=jnp.where(averaged, 0, total),
            norms=jnp.where(changed, jnp.stack([old, now]), state.norms),
            reached_minimum=turned ^ state.reached_minimum,
        )

    def update(updates, state, params, **extra_args):
        del extra_args
        # Scalars alone come out of the branch, so that no buffer is copied.
        due = state.steps % steps_per_epoch == 0
        state = jax.lax.cond(due, measure, lambda state, _: state, state, params)
        factor = state.factor
        if last_decay_step is not None:
            factor = jnp.where(state.steps >= last_decay_step, decay_factor * factor, factor)
        updates = jax.tree.map(lambda u: (factor * u).astype(jnp.result_type(u)), updates)
        return updates, state._replace(steps=optax.safe_increment(state.steps))

    return optax.GradientTransformationExtraArgs(
        init, check_update("abel", update, AbelState, init)
    )


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
    b1, b2, eps = map(plain, (b1, b2, eps))
    check_adam(learning_rate, b1, b2, eps)
    constants = {"weight_decay": weight_decay, "delta": delta, "wd_ratio": wd_ratio}
    for name, constant in constants.items():
        check_not_negative(name, constant, 0.1)
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    where = {"mask": mask, "stacked": stacked, "axis_name": axis_name}

    def ignores_norm(spheres: Spheres, w: optax.Params, g: optax.Updates) -> Products:
        """Return whether the cosine of `w` and `g` is below the threshold, per norm."""
        ww, wg, gg = spheres.inner_products((w, w), (w, g), (g, g))
        n = spheres.sizes(w)
        cosine = lambda p: safe_divide(jnp.abs(wg[p]), safe_sqrt(ww[p]) * safe_sqrt(gg[p]))
        return {path: cosine(path) < delta / math.sqrt(max(n[path], 1)) for path in ww}

    def init(params: optax.Params) -> Any:
        select_and_warn(params, axes=axes, **where)
        return adam.init(params)

    def update(updates, state, params, **extra_args):
        del extra_args
        g, w = updates, params
        u, state = adam.update(g, state, w)
        layers, neurons = select_spheres(w, **where), select_spheres(w, axes=axes, **where)
        layer = ignores_norm(layers, w, g)
        neuron = ignores_norm(neurons, w, g)
        all_neurons = {
            p: _all_of_layer(x, layer[p], layers[p], neurons[p]) for p, x in neuron.items()
        }
        every_neuron = {p: _of_each(all_neurons[p], x) for p, x in neuron.items()}
        u = _tangent(neurons, w, u, every_neuron)
        u = _tangent(layers, w, u, {p: x & ~all_neurons[p] for p, x in layer.items()})
        ratio = {p: jnp.where(x | all_neurons[p], wd_ratio, 1.0) for p, x in layer.items()}
        u = layers.move(decay, w, u, {p: weight_decay * x for p, x in ratio.items()})
        return _decay_others(layers, w, u, weight_decay), state

    checked = check_update("adamp", update)
    return optax.chain(
        optax.GradientTransformationExtraArgs(init, checked),
        optax.scale_by_learning_rate(plain(learning_rate)),
    )


def _all_of_layer(neurons: jax.Array, layer: jax.Array, whole: Sphere, one: Sphere) -> jax.Array:
    """Return whether all neurons of each layer do, from a bool of each on this device.

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


def _decay_others(spheres: Spheres, w: optax.Params, u: optax.Updates, strength: ArrayLike) -> Any:
    """Return `u + strength w` of the leaves that are on no sphere, the others as they are."""
    weights = leaves_by_path(w)
    free = {path: x for path, x in leaves_by_path(u).items() if path not in spheres}
    decayed = {p: (x + strength * weights[p]).astype(x.dtype) for p, x in free.items()}
    return replace_leaves(u, decayed)


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
        steps("start", start)
    steps("measure_every", measure_every, least=1)
    check_positive("factor", factor)
    check_positive("update_rate", update_rate)
    where = {"mask": mask, "axes": axes, "stacked": stacked, "axis_name": axis_name}

    def init(params: optax.Params) -> CprState:
        zeros = select_and_warn(params, **where).zero_norms(params)
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

    def set_all(now: jax.Array, state: CprState, squares: Products) -> CprState:
        """Set all bounds where `now` is true."""
        bounds = jax.tree.map(lambda k, x: jnp.where(now, factor * x, k), state.bounds, squares)
        return state._replace(bounds=bounds)

    def update(updates, state, params, **extra_args):
        del extra_args
        spheres = select_spheres(params, **where)
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
