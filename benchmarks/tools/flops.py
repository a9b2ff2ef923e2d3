"""Counts model FLOPs: what a network has to compute, and the most that a device can.

    model FLOPs of a training step = 3 x 2 x multiply-adds of the forward pass

The backward pass has twice the multiply-adds of the forward pass, for the gradients towards the
inputs and towards the weights. Multiply-adds are those of convolutions and matrix products, by
their shapes, padding included: as in the published counts, and no matter what a program computes
twice. Normalisation, activations, augmentation and the optimizer count for nothing.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

# Dense bfloat16 with float32 sums, in TFLOP/s, by JAX's name of the device.
PEAKS = {
    # NVIDIA's H100 architecture whitepaper, SXM5; its H200 data sheet gives twice that, sparse.
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H200": 989.4,
    # NVIDIA's A100 data sheet.
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
}


def of_training(multiply_adds: float) -> float:
    """Return the model FLOPs of a training step, from the multiply-adds of its forward pass."""
    return 3 * 2 * multiply_adds


def multiply_adds(make: Callable[[], nnx.Module], shape: tuple[int, ...]) -> int:
    """Count the multiply-adds of the forward pass of a network on one input.

    Args:
      make: makes the network; no array of it is.
      shape: of the input.
    """
    structure, state = nnx.split(nnx.eval_shape(make))
    x = jax.ShapeDtypeStruct((1, *shape), "float32")
    program = jax.make_jaxpr(lambda state, x: nnx.merge(structure, state)(x))
    return sum(map(_multiply_adds, _equations(program(nnx.as_pure(state), x).jaxpr)))


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Yield those of inner programs too, of which none may be a loop: it would count once."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("scan", "while", "cond"):
            raise ValueError(f"the network has a {equation.primitive.name}: no count knows of it.")
        yield equation
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr):
                yield from _equations(value.jaxpr)
            elif isinstance(value, Jaxpr):
                yield from _equations(value)


def _multiply_adds(equation: JaxprEqn) -> int:
    """Return as many for each output as there are weights that lead to it."""
    if equation.primitive.name not in ("conv_general_dilated", "dot_general"):
        return 0
    left, right, out = (_shape(x) for x in (*equation.invars, *equation.outvars))
    dimensions = equation.params["dimension_numbers"]
    if equation.primitive.name == "conv_general_dilated":
        weights = math.prod(right) // right[dimensions.rhs_spec[0]]
    else:
        (contracted, _), _ = dimensions
        weights = math.prod(left[axis] for axis in contracted)
    return math.prod(out) * weights


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)
