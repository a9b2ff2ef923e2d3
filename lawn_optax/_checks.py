"""Checks of arguments: each error names the argument, its value and what to give instead.

Mistakes that would otherwise show up far from their cause are refused where they are made, before
any work is done. Values that are traced or injected are not looked at. A check of a constant
returns it, a number of NumPy's as a Python one, which leaves the dtypes of updates alone.
"""

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lawn_optax._paths import Path, join, leaves_by_path, listed, parameters


def check_inner(
    inner: optax.GradientTransformation, example: str = "optax.adam(1e-3)", name: str = "inner"
) -> optax.GradientTransformation:
    """Return `inner`, or refuse what is not an optimizer."""
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(
            f"{name}={inner!r} must be an optax.GradientTransformation, such as {example};"
            " of an optax.MultiSteps, pass .gradient_transformation()."
        )
    return inner


def check_scalar(name: str, value: Any) -> None:
    """Refuse an array where one number is needed, such as the losses of all examples."""
    if not jax.tree_util.all_leaves([value]):
        raise ValueError(
            f"{name} is a {type(value).__name__} and must be one number, such as the mean; of what"
            " jax.value_and_grad(..., has_aux=True) returns, the loss is the first part."
        )
    if np.shape(value):
        raise ValueError(f"{name} has shape {np.shape(value)}: give one number, such as the mean.")


def check_target_scale(target_scale: optax.ScalarOrSchedule) -> None:
    """Refuse a constant that is not a positive finite number."""
    _check_constant(
        "target_scale",
        target_scale,
        lambda x: 0 < x < math.inf,
        "must be positive and finite: it multiplies the captured norms. 1.0 keeps them",
        unchecked=jax.core.Tracer,
        or_schedule=True,
    )


def check_radius(radius: Any, rms: Any) -> None:
    """Refuse norms that are given twice, or that are not positive finite numbers."""
    if radius is not None and rms is not None:
        raise ValueError(
            f"radius={radius!r} and rms={rms!r}: give one of them, the norm itself or its root mean"
            " square per element."
        )
    for name, value in (("radius", radius), ("rms", rms)):
        if value is None:
            continue
        if np.ndim(value):
            raise ValueError(f"{name}={value!r} must be one number, the same for every norm.")
        _check_constant(
            name,
            value,
            lambda x: 1e-18 <= x <= 1e18,
            "must be a number from 1e-18 to 1e18, whose square float32 holds. None holds the"
            " initial norm",
        )


def check_rate(name: str, value: optax.ScalarOrSchedule) -> optax.ScalarOrSchedule:
    """Return a learning rate, or refuse a constant one that is not finite."""
    return _check_constant(
        name, value, math.isfinite, "must be finite, such as 1e-3", or_schedule=True
    )


def check_decay_rate(name: str, value: Any, example: float = 0.9) -> Any:
    """Return the decay of a moving average, or refuse one that is not from 0 to below 1."""
    return _check_constant(
        name,
        value,
        lambda x: 0 <= x < 1,
        f"must be at least 0 and below 1, such as {example}",
    )


def check_not_negative(name: str, value: Any, example: float = 1e-6) -> Any:
    """Return a constant, or refuse one that is negative or not finite."""
    return _check_constant(
        name,
        value,
        lambda x: 0 <= x < math.inf,
        f"must be finite and at least 0, such as {example}",
    )


def check_positive(name: str, value: Any, example: str = "1.0") -> Any:
    """Return a constant, or refuse one that is not positive; infinity passes."""
    return _check_constant(name, value, lambda x: x > 0, f"must be positive, such as {example}")


def check_adam(
    learning_rate: optax.ScalarOrSchedule, b1: Any, b2: Any, eps: Any
) -> tuple[Any, Any, Any, Any]:
    """Return Adam's constants, or refuse those with which its moments or step are not defined."""
    return (
        check_rate("learning_rate", learning_rate),
        check_decay_rate("b1", b1, 0.9),
        check_decay_rate("b2", b2, 0.999),
        check_not_negative("eps", eps, 1e-6),
    )


def check_steps(name: str, value: Any, least: int = 0, remedy: str = "") -> int | jax.Array:
    """Return an integer of at least `least`, or a traced int32 scalar; refuse what is neither.

    The message about what is no integer ends with `remedy`.
    """
    if getattr(value, "ndim", 0):
        raise ValueError(f"{name} has shape {value.shape}: give a scalar; jax.vmap runs a grid.")
    if isinstance(value, jax.core.Tracer):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{name} has dtype {value.dtype}: cast it to int32.")
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r} must be an integer{remedy}.") from None
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}.")
    return min(value, jnp.iinfo(jnp.int32).max)


def check_number(name: str, value: Any) -> float:
    """Return a real number as a Python float, or refuse what is none."""
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)
    except TypeError:
        raise TypeError(f"{name}={value!r} must be a number, such as 0.5.") from None


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False, such as a word, which would count as True."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r} must be True or False.")


def check_update(
    name: str,
    update: Callable[..., Any],
    kind: type | None = None,
    init: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Wrap `update` so that it refuses what it cannot work with.

    That is a call without `params`, a state of another type, and updates of other shapes than the
    parameters. Where the update fails because the updates are not a tree of the parameters, or
    because of what the state holds, the error says so.

    Args:
      name: what the transformation is called in messages.
      update: the update itself.
      kind: what its state is, a NamedTuple or a tuple; None for a stateless transformation.
      init: makes the state of given parameters.

    Returns:
      A function of the arguments of `update`.
    """

    @functools.wraps(update)
    def checked(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError(
                f"params=None: {name} needs the current parameters. Call"
                " update(grads, state, params)."
            )
        if kind is not None and not isinstance(state, kind):
            raise TypeError(_of_another_type(name, kind, state))
        given = leaves_by_path(updates)
        for path, leaf in leaves_by_path(params).items():
            if path in given:
                check_shapes(path, leaf, given[path])
        try:
            return update(updates, state, params, **extra_args)
        except Exception as error:
            if isinstance(error, NameError) and "unbound axis" in str(error):
                raise ValueError(
                    f"axis_name: {error}. It is for leaves that are split over devices under"
                    " shard_map or pmap, which bind it; leave it out under jit."
                ) from error
            message = _differing_trees(updates, params)
            if kind is not None and init is not None:
                message = message or _differing_states(name, kind, init, params, state)
            if message:
                raise ValueError(message) from error
            if different := _differing_containers(updates, params):
                error.add_note(different)
            raise

    return checked


def check_norms(norms: Any, products: Mapping[str, jax.Array]) -> None:
    """Refuse norms in a state that are not one per inner product; `check_update` says which."""
    if jax.tree.map(jnp.shape, norms) != jax.tree.map(jnp.shape, dict(products)):
        raise ValueError("The norms in the state are those of other parameters, mask or axes.")


def check_given_norms(norms: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    """Refuse norms by path that have no place, or another shape, among the needed ones."""
    remedy = "give the mask=, axes= and stacked= that the optimizer was given, and its parameters"
    for path, c in norms.items():
        if path not in needed:
            raise ValueError(f"norms has one of {path!r}, which is not constrained: {remedy}.")
        shape = jnp.shape(needed[path])
        if jnp.shape(c) not in ((), shape):
            raise ValueError(
                f"norms of {path!r} have shape {jnp.shape(c)}, and its spheres {shape}: {remedy}."
            )


def check_tree_of(name: str, tree: Any, params: Any) -> None:
    """Refuse a tree that lacks a parameter, or has it in another shape."""
    given = leaves_by_path(tree)
    for path, leaf in leaves_by_path(params).items():
        if path not in given:
            raise ValueError(f"{name} has nothing for parameter {path!r}: give a tree like params.")
        if np.shape(given[path]) != np.shape(leaf):
            raise ValueError(
                f"{name} has shape {np.shape(given[path])} for parameter {path!r} of shape"
                f" {np.shape(leaf)}: give a tree like params."
            )


def check_array(path: str, leaf: Any) -> None:
    """Refuse a function among the parameters, such as a model's activation."""
    if callable(leaf):
        raise TypeError(
            f"parameter {path!r} is a {type(leaf).__name__} and not an array: leave out what is not"
            " trained, as eqx.filter(model, eqx.is_inexact_array) and nnx.state(model, nnx.Param)"
            " do."
        )


def check_shapes(path: str, w: jax.Array, r: jax.Array) -> None:
    """Refuse an update that does not have the shape of its parameter."""
    if np.shape(w) != np.shape(r):
        raise ValueError(
            f"parameter {path!r} has shape {np.shape(w)} and its update {np.shape(r)}: give"
            " update(grads, state, params) gradients of the shapes of the parameters."
        )


def check_inexact(path: Path, leaf: Any, remedy: str) -> None:
    """Refuse a leaf of integers where it would be kept on a sphere."""
    dtype = getattr(leaf, "dtype", type(leaf).__name__)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"parameter {join(path)!r} has dtype {dtype} and cannot be kept on a sphere: {remedy},"
            " or a floating dtype."
        )


def _check_constant(
    name: str,
    value: Any,
    valid: Callable[[float], bool],
    remedy: str,
    unchecked: type = jax.Array,  # optax.inject_hyperparams may round b2 to 1 in bfloat16.
    or_schedule: bool = False,
) -> Any:
    """Return a number, or refuse an array or what is not `valid`."""
    if callable(value) and or_schedule:
        return value
    if np.ndim(value):
        raise ValueError(
            f"{name} has shape {np.shape(value)} and must be one number; jax.vmap runs a grid."
        )
    if isinstance(value, unchecked):
        return value
    try:
        known = not isinstance(value, (bool, str)) and valid(float(value))
    except (TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{name}={value!r} {remedy}.")
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value


def _of_another_type(name: str, kind: type, state: Any) -> str:
    """Explain that `state` is not a `kind`, and how to restore one."""
    message = (
        f"state is a {type(state).__name__}, and {name} needs its own {kind.__name__}: call"
        " update(grads, state, params)"
    )
    if isinstance(state, (dict, list)):
        message += (
            ". A checkpoint restored without a template comes back as plain containers: restore it"
            " into jax.eval_shape(tx.init, params), as in"
            " ocp.StandardCheckpointer().restore(path, jax.eval_shape(tx.init, params))"
        )
    return f"{message}."


def _differing_trees(updates: Any, params: Any) -> str | None:
    """Explain which leaf updates lack, or have and no parameter is; None where all fit."""
    given, needed = ([join(path) for path, _ in parameters(tree)] for tree in (updates, params))
    call = "Call update(grads, state, params) with the gradients of these parameters"
    if missing := [path for path in needed if path not in given]:
        return (
            f"updates have nothing for parameter {missing[0]!r}: they have {listed(given)}. {call};"
            " give zeros for a layer that is frozen, or hide it from the optimizer with"
            " optax.masked."
        )
    if unknown := [path for path in given if path not in needed]:
        return (
            f"updates have an entry {unknown[0]!r}, which is not a parameter: they are"
            f" {listed(needed)}. {call}."
        )
    return None


def _differing_containers(updates: Any, params: Any) -> str | None:
    """Say that updates are in other containers than the parameters; None where they are not."""
    if str(jax.tree.structure(updates)) == str(jax.tree.structure(params)):
        return None
    return (
        f"updates, a {type(updates).__name__}, and params, a {type(params).__name__}, have the same"
        " leaves in different containers: if that is the cause, bring them into the same."
    )


def _differing_states(
    name: str, kind: Any, init: Callable[..., Any], params: Any, state: Any
) -> str | None:
    """Explain by its first field that differs why a state is not `name`'s; None if none does."""
    new = jax.eval_shape(init, params)
    for field in kind._fields:
        needed, found = _outline(getattr(new, field)), _outline(getattr(state, field))
        if needed == found:
            continue
        if field == "norms":
            return (
                f"{name} needs norms of shapes {needed} for these params, and its state holds"
                f" {found}: they must be the parameters, mask and axes of init; call init anew for"
                " others."
            )
        return _of_another_optimizer(f"the state of {name}'s {field}", found, needed)
    return None


def _of_another_optimizer(what: str, found: str, needed: str) -> str:
    return (
        f"{what} is {found}, and it needs {needed}: a state goes with the optimizer, the parameters"
        " and the version whose init made it."
    )


def _outline(tree: Any) -> str:
    """Return as text what tells apart the trees of two optimizers."""
    if isinstance(tree, dict) and all(hasattr(x, "shape") for x in tree.values()):
        return str({path: tuple(x.shape) for path, x in tree.items()})
    return str(jax.tree.structure(tree))
