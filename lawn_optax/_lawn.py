"""LAWN around any optimizer: free training, the switch, then Algorithm 1 of arXiv 2108.05839."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lawn_optax import _geometry as geometry
from lawn_optax._checks import (
    check_flag,
    check_inner,
    check_scalar,
    check_target_scale,
    check_update,
)
from lawn_optax._geometry import safe_divide
from lawn_optax._masks import MaskOrFn
from lawn_optax._selection import AxesOrFn, AxisNameOrFn, Selection, StackedOrFn
from lawn_optax._spheres import Norms, Products, Spheres, capture, scale_norms
from lawn_optax._switches import Switch, as_switch


class LawnState(NamedTuple):
    """State of `lawn`.

    Attributes:
      steps: int32 scalar; the updates emitted so far.
      constrained_steps: int32 scalar; how many of them were constrained. 0 means still free, and
        it is this number, not the norms, that says so: a restored checkpoint never recaptures.
      norms: the captured norms `c`, before `target_scale`, by the path of their parameter, such as
        `"dense/kernel"`: float32 (float64 for float64 weights), with the shape of the parameter
        without `axes`. In the free phase zeros, or the norms that a switch has marked so far; with
        a switch that adjusts norms, the norms as adjusted.
      switch: the switch's own state.
      inner: the inner optimizer's state.
    """

    steps: jax.Array
    constrained_steps: jax.Array
    norms: Any
    switch: Any
    inner: optax.OptState


def lawn(
    inner: optax.GradientTransformation,
    switch: Switch | int | jax.Array,
    *,
    mask: MaskOrFn = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: optax.ScalarOrSchedule = 1.0,
    project: bool = True,
    keep_length: bool = False,
    reset_inner: bool = False,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Put Logit Attenuating Weight Normalization around any optimizer.

    Until `switch`, the updates are `inner`'s own. At the switch the norm :math:`c = \|w\|` of each
    constrained leaf is captured, and from then on every step stays on those spheres:

    .. math::
      g_p &= g - \frac{\langle w, g\rangle}{\langle w, w\rangle} w \\
      r   &= \mathrm{inner}(g_p) \\
      r_p &= r - \frac{\langle w, r\rangle}{\langle w, w\rangle} w \\
      w_{next} &= c \, \frac{w + r_p}{\|w + r_p\|}

    A switch may also mark an earlier update: then `c` are the norms at that update, and the first
    constrained update scales the weights back to them.

    Weight decay inside `inner` has its usual effect in the free phase and on free leaves; on a
    constrained one the third line removes it. A leaf or slice whose captured norm is 0 stays free.
    In float32, a step `r` that is within 15 degrees of the weights or of their opposite, and more
    than four times as long as them, is shortened: rounding would otherwise lose the norm.

    Args:
      inner: any optimizer, learning rate included.
      switch: when to constrain: a number of free updates, `at_step`, `at_epoch`, `at_flattening`,
        `at_gradient_rise`, `at_median_margin`, or `hold_median_margin`, which adjusts the norms.
      mask: which leaves are constrained: a tree of bools, a prefix of one, or a callable from
        parameters to either; see also `only_paths` and `except_paths`. By default those with two
        dimensions or more per layer that are not named as a bias or as part of a normalisation
        layer; `describe` shows which. Trees are matched to the parameters by path.
      axes: the axes that a norm runs over. By default (None) all axes of a layer: one norm per leaf
        and layer. For a Flax kernel of shape `(in, out)`, 0 means one norm per output neuron; for
        an embedding of shape `(rows, width)`, 1 means one per row. Stacked axes are not counted,
        and nothing is guessed from a shape. Give an int or a tuple of ints for all leaves; a dict
        from names to them, such as `{"embed": 1, "head": 0}`, matched as for `stacked`, where
        leaves without a match have the default; a tree or prefix of them; or a callable from
        parameters to any of these. A dict with an entry for every parameter is taken for a prefix,
        any other for names.
      stacked: which subtrees hold several layers or experts, stacked along leading axes as
        `nnx.scan`, `nnx.vmap` and Linen's `scan` do: a name or several, such as `"blocks"`,
        matched as by `only_paths`; a dict from names to numbers of leading axes, such as
        `{"blocks": 1, "blocks/experts": 2}`, of which the longest match counts; or one number for
        all leaves. Rank, norm and trust ratio are then per layer.
      target_scale: the norms held are `target_scale * c`: a positive number, or a schedule of the
        constrained step, from 0.
      project: whether to project the gradient and the step onto the tangent space, lines 1 and 3
        above. Without, the norms are held by line 4 alone, with `r` in place of :math:`r_p`: a
        step of Adam passes 40 bytes per parameter through memory in place of 48. The part of `r`
        along the weights then makes the step on the sphere longer or shorter, so that weight decay
        in `inner` has an effect there. A step to less than a hundredth of the weights, in float32,
        leaves their direction as it is.
      keep_length: give the projected step the length of `r`:
        :math:`r_p \leftarrow r_p \, \|r\| / \|r_p\|`. A relative step, as LAMB takes, then has its
        full size. Only with `project`.
      reset_inner: re-initialise the inner state at the switch instead of carrying it over: moments,
        their bias correction and everything else, except learning-rate schedules and injected
        hyperparameters, which continue.
      axis_name: needed under `shard_map` or `pmap` if leaves are split over devices; not under
        `jit` with sharded arrays. Best give the `PartitionSpec`s that `shard_map` is given, as a
        tree or prefix: each sum is then completed over exactly the mesh axes that split it. An
        entry may also be a mesh axis, a tuple of them, or None for a leaf that each device has
        whole. A single name for all leaves is right only if it splits every constrained leaf:
        the norms of the others would be too large.

    Returns:
      An `optax.GradientTransformationExtraArgs` with a `LawnState`. Its `update` needs `params`;
      updates have the dtypes that `inner` gives them.

    Warns:
      UserWarning: on `init`, if the default rule constrains none of the parameters.

    Raises:
      TypeError: if `inner` is not a `GradientTransformation`, or `switch` neither an integer nor
        a `Switch`; on `init`, for a wrong entry of `mask`, `axes`, `stacked` or `axis_name`, or
        for an integer leaf that would be constrained; on `update`, for a state that is not a
        `LawnState`.
      ValueError: for a `target_scale` that is not positive, or `keep_length` without `project`; on
        `init`, for a `mask`, `axes`, `stacked` or `axis_name` that does not fit the parameters; on
        `update`, without `params`, with other parameters than on `init`, or with updates that are
        not a tree like them.

    Examples:
      Two free steps, then norms that stay:

      >>> import jax, jax.numpy as jnp, optax, lawn_optax
      >>> tx = lawn_optax.lawn(optax.adam(0.1), switch=2)
      >>> params = {'kernel': jnp.eye(3), 'bias': jnp.zeros(3)}
      >>> state = tx.init(params)
      >>> for step in range(5):
      ...   grads = jax.grad(lambda p: jnp.sum((p['kernel'] + p['bias'] - 1) ** 2))(params)
      ...   updates, state = tx.update(grads, state, params)
      ...   params = optax.apply_updates(params, updates)
      ...   print(f"{jnp.linalg.norm(params['kernel']):.4f}")
      1.7493
      1.6755
      1.6755
      1.6755
      1.6755

    References:
      Algorithm 1 and section 3 of
      `Logit Attenuating Weight Normalization <https://arxiv.org/abs/2108.05839>`_.
    """
    inner = optax.with_extra_args_support(check_inner(inner))
    switch = as_switch(switch)
    check_target_scale(target_scale)
    flags = {"project": project, "keep_length": keep_length, "reset_inner": reset_inner}
    for name, flag in flags.items():
        check_flag(name, flag)
    if keep_length and not project:
        raise ValueError(
            "keep_length=True with project=False: only a projected step is given another length;"
            " leave one of them out."
        )
    sees_gradient = "gradient_norm" in switch.extra_args and axis_name is None
    onto_sphere = geometry.turn if keep_length else geometry.retract
    selection = Selection(mask, axes, stacked, axis_name)

    def init(params: optax.Params) -> LawnState:
        return LawnState(
            steps=jnp.zeros([], jnp.int32),
            constrained_steps=jnp.zeros([], jnp.int32),
            norms=selection.spheres_or_warn(params).zero_norms(params),
            switch=switch.init(),
            inner=inner.init(params),
        )

    def update(updates, state, params, **extra_args):
        g, w = updates, params
        spheres = selection.spheres(w)
        if project or sees_gradient:
            of_gradient = [(g, g)] if sees_gradient else []
            ww, wg, *gg = spheres.inner_products((w, w), (w, g), *of_gradient)

        # The switch says whether to constrain, and whether to take the norms of this update.
        seen = _with_gradient(extra_args, spheres, wg, *gg) if sees_gradient else extra_args
        constrain, switch_state = switch.update(state.steps, state.switch, seen)
        was_constrained = state.constrained_steps > 0
        constrained = constrain | was_constrained
        had_norms = was_constrained | switch.marked(state.switch)
        wants_norms = constrained | switch.marked(switch_state)
        switching = constrained & ~was_constrained
        inner_state = _reset(inner, w, state.inner, when=switching) if reset_inner else state.inner
        for_inner = {k: x for k, x in extra_args.items() if k not in switch.extra_args}

        def hold(ww: Products) -> tuple[Norms, Norms, Products]:
            """Return the norms to remember, those to end on, and where: equation (1)."""
            norms = capture(ww, state.norms, had_norms, wants_norms)
            norms = scale_norms(norms, switch.factor(switch_state), state.constrained_steps)
            on_sphere = {path: constrained & (norms[path] > 0) for path in spheres}
            return norms, scale_norms(norms, target_scale, state.constrained_steps), on_sphere

        # Algorithm 1; the learning rate of line 10 is the inner optimizer's.
        if project:
            norms, c, on_sphere = hold(ww)
            g_p = spheres.move(geometry.project, w, g, ww, wg, where=on_sphere)  # line 4
            r, inner_state = inner.update(g_p, inner_state, w, **for_inner)  # lines 5-8
            wr, rr = spheres.inner_products((w, r), (r, r))
            step = spheres.move(onto_sphere, w, r, c, ww, wr, rr, where=on_sphere)  # lines 9-11
        else:
            r, inner_state = inner.update(g, inner_state, w, **for_inner)  # lines 5-8
            x = spheres.add(w, r)
            ww, xx = spheres.inner_products((w, w), (x, x))
            norms, c, on_sphere = hold(ww)
            step = spheres.move(geometry.rescale, w, r, c, ww, xx, where=on_sphere)  # lines 10-11

        return step, LawnState(
            steps=optax.safe_increment(state.steps),
            constrained_steps=jnp.where(
                constrained, optax.safe_increment(state.constrained_steps), 0
            ),
            norms=norms,
            switch=switch_state,
            inner=inner_state,
        )

    return optax.GradientTransformationExtraArgs(
        init, check_update("lawn", update, LawnState, init)
    )


def _with_gradient(
    extra_args: dict[str, Any], spheres: Spheres, wg: Products, gg: Products
) -> dict[str, Any]:
    """Add what the gradient tells a switch, unless the caller gives it.

    That is the norm over all constrained leaves, and the steepest fall of the loss along the scale
    of a layer. A norm that the caller gives is that of the gradient before it was clipped, which
    had a slope as much larger.
    """
    norm = jnp.sqrt(sum(jnp.sum(x) for x in gg.values()))
    slopes = [jnp.max(-x, initial=0.0) for x in spheres.by_layer(wg).values()]
    given = {"gradient_norm": norm} | extra_args
    check_scalar("gradient_norm", given["gradient_norm"])
    ratio = safe_divide(given["gradient_norm"], norm)
    return {"loss_slope": ratio * functools.reduce(jnp.maximum, slopes, jnp.zeros([]))} | given


def _reset(
    inner: optax.GradientTransformation,
    params: optax.Params,
    state: optax.OptState,
    when: jax.Array,
) -> optax.OptState:
    """Return `inner.init(params)` where `when` is true; schedules keep their place in any case."""

    def select(old: Any, new: Any) -> Any:
        if isinstance(old, optax.ScaleByScheduleState):
            return old
        if isinstance(old, optax.InjectStatefulHyperparamsState):
            return old._replace(inner_state=reset(old.inner_state, new.inner_state))
        return jnp.where(when, new, old)

    def reset(old: Any, new: Any) -> Any:
        return jax.tree.map(select, old, new, is_leaf=_has_schedule)

    return reset(state, inner.init(params))


def _has_schedule(x: Any) -> bool:
    """Tell whether `x` is a state that holds a schedule's place."""
    return isinstance(x, (optax.ScaleByScheduleState, optax.InjectStatefulHyperparamsState))
