"""Hoffer et al.'s bounded weight norm around any model: a baseline of the LAWN paper."""

from typing import Any

import jax
from flax import nnx

from lawn_optax import baselines

_INIT, _APPLY = baselines.bounded_weight_norm()


class BoundedWeightNorm(nnx.Module):
    """A model that computes with weights `c v / |v|`, where `c` is the norm that `v` began with.

    Its parameters are the `v`, so any optimizer trains it, and their own norms mean nothing.
    """

    def __init__(self, model: nnx.Module):
        self.model = model
        norms = _INIT(nnx.as_pure(nnx.state(model, nnx.Param)))
        self.norms = nnx.data({path: nnx.Variable(norm) for path, norm in norms.items()})

    def __call__(self, *inputs: Any) -> Any:
        """Return what the model gives with the bounded weights."""
        structure, params, rest = nnx.split(self.model, nnx.Param, ...)
        norms = {path: norm[...] for path, norm in self.norms.items()}
        weights = _APPLY(nnx.as_pure(params), norms)
        model = nnx.merge(structure, weights, rest)
        outputs = model(*inputs)
        # What it changes of itself, as batch statistics in training.
        changed = nnx.state(model, nnx.Not(nnx.Param))
        values = (jax.tree.leaves(nnx.as_pure(state)) for state in (rest, changed))
        if any(before is not after for before, after in zip(*values, strict=True)):
            nnx.update(self.model, changed)
        return outputs
