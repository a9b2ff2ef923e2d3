"""How an optimizer is made from the options: which links, on which leaves, at which rate."""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax

import lawn_optax
from examples.training.hyperparameters import Hyperparameters, StaticOptions
from examples.training.learning_rate import make_schedule, watch
from examples.training.switching import make_switch
from examples.training.task import Layout

LARS_COEFFICIENT = 0.001  # You et al. (2017), section 5.
NORMS_MEASURED = 40  # Times per run, to find the inflection that CPR waits for.
NOTHING_STACKED = Layout()


def make_optimizer(
    static: StaticOptions, hyperparameters: Hyperparameters, layout: Layout = NOTHING_STACKED
) -> optax.GradientTransformationExtraArgs:
    """Make the optimizer that the options name.

    Args:
      static: from `Options.static_options`.
      hyperparameters: from `Options.hyperparameters`, or with traced scalars in their place.
      layout: from the task, so that norms and trust ratios are those of single layers.

    Returns:
      An optimizer whose `update` takes `margin=` and `value=`, whether it needs them or not.
    """
    tx = _of_weights(static, hyperparameters, layout)
    if static.bias_optimizer is not None:
        groups = {True: tx, False: _of_biases(static, hyperparameters)}
        tx = optax.partition(groups, _kernels(layout))
    tx = watch(tx, static)
    if static.clip_norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(static.clip_norm), tx)
    tx = optax.with_extra_args_support(tx)
    if static.accumulate > 1:
        # Around all else: clipping, schedules and LAWN see mean gradients and count updates.
        steps = optax.MultiSteps(tx, static.accumulate)
        tx = optax.GradientTransformationExtraArgs(steps.init, steps.update)
    return tx


def _of_weights(
    static: StaticOptions, hyperparameters: Hyperparameters, layout: Layout
) -> optax.GradientTransformation:
    """Return what trains the weights, and all else where nothing else does."""
    weight_decay = hyperparameters.weight_decay
    switch = make_switch(static, hyperparameters)
    of_rest = hyperparameters.rest_learning_rate
    peak = hyperparameters.learning_rate
    rate, rest = (make_schedule(static, x) for x in (peak, peak if of_rest is None else of_rest))
    stacked = layout.stacked or None
    decays = None if static.decay_vectors else _kernels(layout)
    decay = optax.add_decayed_weights(weight_decay, decays)
    scale = 1.0 if hyperparameters.norms_scale is None else hyperparameters.norms_scale
    lawn: dict[str, Any] = {"stacked": stacked, "target_scale": scale, "project": static.project}
    betas: dict[str, Any] = {"b1": static.b1, "b2": static.b2}
    match static.optimizer:
        case "sgd" | "nesterov" | "adam" | "adamw":
            direction = _direction(static.optimizer, static)
            links = (decay, direction) if static.decay_form == "l2" else (direction, decay)
            return optax.chain(*links, optax.scale_by_learning_rate(rate))
        case "lars":
            # As `optax.lars`, with a trust ratio for each layer of a leaf: ||w|| / ||g + decay w||,
            # where You et al. (2017) add up the two norms below the line.
            return optax.chain(
                decay,
                _trust_ratio(LARS_COEFFICIENT, layout),
                optax.scale_by_learning_rate(rate),
                optax.trace(static.momentum),
            )
        case "lamb" if stacked:  # Optax's has one trust ratio for all layers of a leaf.
            return lawn_optax.lamb_plus(
                rate,
                weight_decay=weight_decay,
                max_ratio=math.inf,
                mask=decays,
                stacked=stacked,
                **betas,
            )
        case "lamb":
            return optax.lamb(rate, eps=1e-6, weight_decay=weight_decay, mask=decays, **betas)
        case "lamb_plus":
            return lawn_optax.lamb_plus(
                rate, weight_decay=weight_decay, mask=decays, stacked=stacked, **betas
            )
        case "muon":
            return optax.contrib.muon(
                rate,
                weight_decay=weight_decay,
                muon_weight_dimension_numbers=_matrices(layout),
                consistent_rms=0.2,  # So that one learning rate serves matrices and the rest.
            )
        case "adam_lawn":
            return lawn_optax.adam_lawn(rate, switch, **betas, **lawn)
        case "lamb_lawn":
            return lawn_optax.lamb_lawn(rate, switch, **betas, **lawn)
        case "sgd_lawn":
            return lawn_optax.sgd_lawn(rate, switch, momentum=static.momentum, **lawn)
        case "hyperball":
            adam = optax.scale_by_adam(eps=1e-6, **betas)
            return lawn_optax.hyperball(adam, rate, stacked=stacked)
        case "adam_h":
            return lawn_optax.adam_h(rate, rest, labels=_ends(layout), stacked=stacked)
        case "muon_h":
            return lawn_optax.muon_h(
                rate,
                rest,
                weight_dimension_numbers=_matrices(layout),
                labels=_ends(layout),
                stacked=stacked,
            )
        case "adamp":
            adamp = lawn_optax.baselines.adamp(
                rate, weight_decay=weight_decay, axes=_neurons(layout), stacked=stacked, **betas
            )
            if decays is None:
                return adamp
            return optax.partition({True: adamp, False: optax.adam(rate, **betas)}, decays)
        case "cpr":
            measure_every = max(1, static.total_steps // NORMS_MEASURED)
            return optax.chain(
                optax.scale_by_adam(**betas),
                optax.scale_by_learning_rate(rate),
                lawn_optax.baselines.cpr(measure_every=measure_every, stacked=stacked),
            )


def _of_biases(
    static: StaticOptions, hyperparameters: Hyperparameters
) -> optax.GradientTransformation:
    """Return what trains biases and normalisation, without decay and trust ratio."""
    rate = make_schedule(static, hyperparameters.learning_rate)
    direction = _direction(static.bias_optimizer, static)
    return optax.chain(direction, optax.scale_by_learning_rate(rate))


def _direction(name: str | None, static: StaticOptions) -> optax.GradientTransformation:
    """Return what turns gradients into a step of length one."""
    if name in ("adam", "adamw"):
        return optax.scale_by_adam(static.b1, static.b2, static.adam_eps)
    return optax.trace(static.momentum, nesterov=name == "nesterov")


def _trust_ratio(coefficient: float, layout: Layout) -> optax.GradientTransformation:
    """Return `optax.scale_by_trust_ratio` with a ratio for each layer; it is 1 where a norm is 0.

    The norms are those of the weights times the coefficient, so that the 1 is not multiplied by it.
    """
    tx = lawn_optax.scale_by_capped_trust_ratio(math.inf, stacked=layout.stacked or None)
    small = lambda params: jax.tree.map(lambda w: coefficient * w, params)
    return optax.GradientTransformation(
        tx.init, lambda updates, state, params: tx.update(updates, state, small(params))
    )


def _kernels(layout: Layout) -> Callable[[optax.Params], optax.Params]:
    """Return a mask of the leaves with two axes or more per layer: kernels and embeddings."""
    return lambda params: jax.tree.map_with_path(
        lambda path, w: _rank(path, w, layout) >= 2, params
    )


def _matrices(layout: Layout) -> Callable[[optax.Params], optax.Params]:
    """Return what tells Muon its matrices: kernels from all inputs to outputs, not the ends."""

    def of_leaf(path: tuple, w: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        rank = _rank(path, w, layout)
        if rank < 2 or any(name in layout.ends for name in _components(path)):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(-rank, -1)), -1)

    return lambda params: jax.tree.map_with_path(of_leaf, params)


def _neurons(layout: Layout) -> Callable[[optax.Params], optax.Params]:
    """Return the axes of one neuron's weights: all but the last of a kernel, a row of a table."""

    def of_leaf(path: tuple, w: jax.Array) -> tuple[int, ...]:
        rank = _rank(path, w, layout)
        return (-1,) if _components(path)[-1] == "embedding" else tuple(range(-rank, -1))

    return lambda params: jax.tree.map_with_path(of_leaf, params)


def _ends(layout: Layout) -> dict[str, str]:
    """Return the group of the ends where hidden matrices are on spheres."""
    return dict.fromkeys(layout.ends, "other")


def _rank(path: tuple, w: jax.Array, layout: Layout) -> int:
    """Return how many axes a leaf has in a single layer."""
    return w.ndim - any(name in layout.stacked for name in _components(path))


def _components(path: tuple) -> list[str]:
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")
