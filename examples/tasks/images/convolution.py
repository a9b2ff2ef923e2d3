"""A convolution whose gradients are fast on CPU inside a loop too.

There XLA has a fast kernel for images `NHWC` and kernels `HWIO` alone, and brings convolutions into
that form outside of loops only. In one, such as the scan over an epoch, the gradients that JAX
makes take some twenty times as long (https://github.com/jax-ml/jax/issues/12868); here they are
convolutions of that form themselves.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

FORM = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`(batch, h, w, inputs)` and `(k, k, inputs, outputs)` -> `(batch, h', w', outputs)`."""
    pads = 2 * [(padding, padding)]
    return lax.conv_general_dilated(x, kernel, 2 * (stride,), pads, dimension_numbers=FORM)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: int, kept: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradients towards the image and the kernel, convolutions both."""
    x, kernel = kept
    size = kernel.shape[0]
    # Rows and columns at the end that no kernel reaches, where the stride does not come out even.
    spans = zip(x.shape[1:3], g.shape[1:3], strict=True)
    unused = [n + 2 * padding - size - stride * (m - 1) for n, m in spans]
    low = size - 1 - padding
    to_x = lax.conv_general_dilated(
        g,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        (1, 1),
        [(low, low + rest) for rest in unused],
        lhs_dilation=2 * (stride,),
        dimension_numbers=FORM,
    )
    high = [padding - rest for rest in unused]
    crop = [(0, 0, 0), *((0, min(pad, 0), 0) for pad in high), (0, 0, 0)]
    to_kernel = lax.conv_general_dilated(
        lax.pad(x, jnp.zeros((), x.dtype), crop).transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        (1, 1),
        [(padding, max(pad, 0)) for pad in high],
        rhs_dilation=2 * (stride,),
        dimension_numbers=FORM,
    )
    return to_x, to_kernel.transpose(1, 2, 0, 3)


conv.defvjp(_forward, _backward)


def conv_general_dilated(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **others: Any,
) -> jax.Array:
    """What `nnx.Conv` calls, with the same stride and padding everywhere and no dilation."""
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, strides, padding, **others)
    return conv(x, kernel, strides[0], padding[0][0])
