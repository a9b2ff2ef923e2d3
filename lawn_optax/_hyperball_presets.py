"""Hyperball for a whole model: AdamH and MuonH.

Leaves are sorted as in practice: hidden matrices on spheres; embeddings, heads, biases and
normalisation scales by Adam.
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from lawn_optax._checks import (
    check_adam,
    check_decay_rate,
    check_flag,
    check_inner,
    check_not_negative,
    check_rate,
    check_steps,
    check_update,
)
from lawn_optax._groups import EMBEDDING, HEAD, MATRIX, OTHER, LabelsOrFn, label_leaves
from lawn_optax._hyperball import hyperball
from lawn_optax._orthogonalize import dimension_numbers, orthogonalize
from lawn_optax._paths import listed, parameters
from lawn_optax._selection import AxesOrFn, AxisNameOrFn, StackedOrFn

Optimizers = Mapping[str, optax.GradientTransformation]  # By label.
NewtonSchulz = tuple[float, float, float] | tuple[tuple[float, float, float], ...]
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def adam_h(
    learning_rate: optax.ScalarOrSchedule,
    adam_learning_rate: optax.ScalarOrSchedule,
    *,
    embedding_learning_rate: optax.ScalarOrSchedule | None = None,
    head_learning_rate: optax.ScalarOrSchedule | None = None,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.95,
    eps: ArrayLike = 1e-8,
    labels: LabelsOrFn = None,
    groups: Optimizers | None = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: optax.ScalarOrSchedule = 1.0,
    radius: ArrayLike | None = None,
    rms: ArrayLike | None = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Make AdamH for a whole model: matrices with fixed norms, the rest by Adam.

    An `optax.partition` of four groups. Of the leaves that `lawn` constrains by default, those
    that are called an embedding or a head, or whose module is (`embed`, `tok_embeddings`, `wte`;
    `lm_head`, `logits`, `unembed`), are `"embedding"` and `"head"`. All others are `"matrix"`,
    also the heads of attention (`multi_head`, `attention/head`). Biases, normalisation scales and
    everything else of one dimension are `"other"`. Names are matched by whole path components.
    `describe_groups` shows which leaf is in which group, and why. A last layer that is not called
    a head counts as a matrix: name it in `labels`.

    Args:
      learning_rate: of the matrices, a float or a schedule: the size of a step, relative to the
        norm.
      adam_learning_rate: of everything else. The two are not comparable: tune both.
      embedding_learning_rate: of embeddings, by default `adam_learning_rate`.
      head_learning_rate: of heads, by default `adam_learning_rate`.
      b1: decay of the first moment.
      b2: decay of the second moment; 0.95 is what AdamH is run with.
      eps: added to the root of the second moment; in float16 give 1e-6 or more.
      labels: the groups of leaves that are to go elsewhere: a dict from names, matched as by
        `only_paths`, to labels, such as `{"router": "other", "out": "head"}`, of which the match
        with most components counts, an exact one before a wildcard; a tree of labels; or a callable
        from parameters to either.
      groups: optimizers of further labels, or in place of those above, such as
        `{"router": optax.adam(1e-4)}`.
      axes: which axes a matrix's norm runs over; see `lawn`.
      stacked: which subtrees hold layers or experts stacked along leading axes; see `lawn`. One
        norm per expert is `{"blocks": 1, "blocks/experts": 2}`; one over all experts of a layer is
        `{"blocks": 1}`.
      target_scale: factor on the norms; see `lawn`.
      radius: the norm of every matrix, in place of the initial one; see `hyperball`.
      rms: the same as a root mean square per element; see `hyperball`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`.

    Returns:
      An `optax.GradientTransformationExtraArgs` with an `optax.transforms.PartitionState`.

    Warns:
      UserWarning: on `init`, if no parameter is a matrix.

    Raises:
      ValueError: for a constant outside its range; on `init`, for a label without an optimizer.
      TypeError, ValueError: on `init`, for labels, axes or stacked that do not fit, or a matrix of
        integers; on `update`, as `hyperball`.

    Examples:
      A matrix turns by its learning rate and keeps its norm; a bias moves by its own:

      >>> import jax, jax.numpy as jnp, lawn_optax
      >>> params = {'dense': {'kernel': 3 * jnp.eye(2), 'bias': jnp.zeros(2)}}
      >>> tx = lawn_optax.adam_h(0.1, adam_learning_rate=1e-3)
      >>> step, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
      >>> print(jnp.linalg.norm(params['dense']['kernel'] + step['dense']['kernel']).round(4))
      4.2426
      >>> print(step['dense']['bias'])
      [-0.001 -0.001]

    References:
      `Hyperball Optimization <https://arxiv.org/abs/2606.16899>`_. The groups and their rates are
      those of Marin's `AdamH <https://github.com/marin-community/marin>`_ (one rate beside that of
      the matrices) and of `modded-nanogpt <https://github.com/KellerJordan/modded-nanogpt>`_, track
      3 (one each for embeddings, head and the rest).
    """
    learning_rate, b1, b2, eps = check_adam(learning_rate, b1, b2, eps)
    return _partition(
        "adam_h",
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        functools.partial(optax.adam, b1=b1, b2=b2, eps=eps),
        (learning_rate, adam_learning_rate, embedding_learning_rate, head_learning_rate),
        labels,
        groups,
        axes=axes,
        stacked=stacked,
        target_scale=target_scale,
        radius=radius,
        rms=rms,
        axis_name=axis_name,
    )


def muon_h(
    learning_rate: optax.ScalarOrSchedule,
    adam_learning_rate: optax.ScalarOrSchedule,
    *,
    embedding_learning_rate: optax.ScalarOrSchedule | None = None,
    head_learning_rate: optax.ScalarOrSchedule | None = None,
    beta: ArrayLike = 0.95,
    nesterov: bool = True,
    ns_coeffs: NewtonSchulz = NEWTON_SCHULZ,
    ns_steps: int = 5,
    ns_eps: ArrayLike = 1e-8,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.95,
    eps: ArrayLike = 1e-8,
    weight_dimension_numbers: Any = None,
    labels: LabelsOrFn = None,
    groups: Optimizers | None = None,
    axes: AxesOrFn = None,
    stacked: StackedOrFn = None,
    target_scale: optax.ScalarOrSchedule = 1.0,
    radius: ArrayLike | None = None,
    rms: ArrayLike | None = None,
    axis_name: AxisNameOrFn = None,
) -> optax.GradientTransformationExtraArgs:
    """Make MuonH for a whole model: matrices on spheres by Muon's direction, the rest by Adam.

    The direction is the momentum `m <- g + beta m`, or with Nesterov's look-ahead `g + beta m`,
    orthogonalised by Newton-Schulz iterations. (`optax.contrib.muon` corrects the bias of the two
    terms apart, which changes their proportion in the first updates.) The leaves are sorted as by
    `adam_h`.

    Args:
      learning_rate: of the matrices, a float or a schedule: the size of a step, relative to the
        norm.
      adam_learning_rate: of all else, by Adam.
      embedding_learning_rate: of embeddings, by default `adam_learning_rate`.
      head_learning_rate: of heads, by default `adam_learning_rate`. Marin runs the head by AdamH:
        `groups={"head": hyperball(optax.scale_by_adam(b2=0.95), learning_rate)}`.
      beta: decay of the momentum.
      nesterov: whether to look ahead.
      ns_coeffs: coefficients of the Newton-Schulz iteration: three, or three for each of its steps.
      ns_steps: the number of its steps; of coefficients for each step, the last so many.
      ns_eps: added to the norm that the momentum is divided by before them; in float16 give 1e-6
        or more.
      b1: decay of Adam's first moment.
      b2: decay of Adam's second moment.
      eps: added to the root of Adam's second moment.
      weight_dimension_numbers: which axes of a leaf are a matrix's rows and columns, where it has
        not two per layer: an `optax.contrib.MuonDimensionNumbers` for all, or a dict from names,
        matched as by `only_paths`, to them; see `optax.contrib.scale_by_muon`. Stacked axes are not
        counted; an axis in neither is one of several matrices.
      labels: the groups of leaves that are to go elsewhere; see `adam_h`.
      groups: optimizers of further labels, or in place of those of `adam_h`.
      axes: which axes a matrix's norm runs over; see `lawn`. The direction is per matrix all the
        same: 0 is a norm and a step per column of it.
      stacked: which subtrees hold layers or experts stacked along leading axes; see `lawn`. Each is
        a matrix of its own. One norm over all experts of a layer is `{"blocks": 1}` together with
        `weight_dimension_numbers={"experts": MuonDimensionNumbers(1, 2)}`; one per expert is
        `{"blocks": 1, "blocks/experts": 2}`.
      target_scale: factor on the norms; see `lawn`.
      radius: the norm of every matrix, in place of the initial one; see `hyperball`.
      rms: the same as a root mean square per element; see `hyperball`.
      axis_name: mesh axes that leaves are spread over under `shard_map`; see `lawn`. Split whole
        layers or experts alone, for a device orthogonalises the piece of a matrix that it has.

    Returns:
      An `optax.GradientTransformationExtraArgs` with an `optax.transforms.PartitionState`.

    Warns:
      UserWarning: on `init`, if no parameter is a matrix.

    Raises:
      ValueError: for a constant outside its range; on `init`, for a label without an optimizer, or
        a leaf that has not two axes per layer and no dimension numbers.
      TypeError, ValueError: on `init`, for labels, axes or stacked that do not fit, or a matrix of
        integers; on `update`, as `hyperball`.

    Examples:
      >>> import jax, jax.numpy as jnp, lawn_optax
      >>> params = {'dense': {'kernel': 3 * jnp.eye(2), 'bias': jnp.zeros(2)}}
      >>> tx = lawn_optax.muon_h(0.1, adam_learning_rate=1e-3)
      >>> step, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
      >>> print(jnp.linalg.norm(params['dense']['kernel'] + step['dense']['kernel']).round(4))
      4.2426

    References:
      `Hyperball Optimization <https://arxiv.org/abs/2606.16899>`_;
      `Muon <https://kellerjordan.github.io/posts/muon/>`_.
    """
    learning_rate, b1, b2, eps = check_adam(learning_rate, b1, b2, eps)
    beta = check_decay_rate("beta", beta, 0.95)
    ns_eps = check_not_negative("ns_eps", ns_eps, 1e-8)
    check_steps("ns_steps", ns_steps, least=1)
    check_flag("nesterov", nesterov)
    direction = optax.chain(
        optax.trace(beta, nesterov=nesterov),
        orthogonalize(
            functools.partial(dimension_numbers, given=weight_dimension_numbers, stacked=stacked),
            ns_coeffs=ns_coeffs,
            ns_steps=ns_steps,
            eps=ns_eps,
        ),
    )
    return _partition(
        "muon_h",
        direction,
        functools.partial(optax.adam, b1=b1, b2=b2, eps=eps),
        (learning_rate, adam_learning_rate, embedding_learning_rate, head_learning_rate),
        labels,
        groups,
        axes=axes,
        stacked=stacked,
        target_scale=target_scale,
        radius=radius,
        rms=rms,
        axis_name=axis_name,
    )


def _partition(
    name: str,
    direction: optax.GradientTransformation,
    adam: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation],
    rates: tuple[Any, Any, Any, Any],
    labels: LabelsOrFn,
    groups: Optimizers | None,
    *,
    stacked: StackedOrFn,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Make the partition: matrices by Hyperball around `direction`, the rest by `adam`."""
    rate, adam_rate, embedding_rate, head_rate = rates
    adam_rate = check_rate("adam_learning_rate", adam_rate)
    or_adams = lambda rate_of, rate: adam_rate if rate is None else check_rate(rate_of, rate)
    embedding_rate = or_adams("embedding_learning_rate", embedding_rate)
    head_rate = or_adams("head_learning_rate", head_rate)
    if not isinstance(groups, Mapping | None):
        raise TypeError(
            f"groups={groups!r} must be a dict from labels to optimizers, such as"
            " {'router': optax.adam(1e-4)}."
        )
    others = {
        label: check_inner(tx, name=f"groups[{label!r}]") for label, tx in (groups or {}).items()
    }
    transforms = {
        MATRIX: hyperball(direction, rate, mask=True, stacked=stacked, **options),
        EMBEDDING: adam(embedding_rate),
        HEAD: adam(head_rate),
        OTHER: adam(adam_rate),
        **others,
    }
    label = functools.partial(label_leaves, labels=labels, stacked=stacked, known=transforms)
    tx = optax.partition(transforms, label)

    def init(params: optax.Params) -> optax.OptState:
        found = set(jax.tree.leaves(label(params)))
        if labels is None and (unused := (groups or {}).keys() - {MATRIX, EMBEDDING, HEAD, OTHER}):
            raise ValueError(
                f"groups has {listed(sorted(unused))}, and labels=None gives it no parameter: name"
                f" those it trains, such as labels={{'router': {min(unused)!r}}}."
            )
        if labels is None and parameters(params) and MATRIX not in found:
            warnings.warn(
                f"No leaf is on a sphere: {name} finds no matrix by rank and name, see"
                " describe_groups. Name them in labels=.",
                stacklevel=2,
            )
        return tx.init(params)

    return optax.GradientTransformationExtraArgs(
        init, check_update(name, tx.update, optax.transforms.PartitionState, init)
    )
