"""The layers that the networks share: what is computed in which precision, how it is initialised.

Weights, statistics and logits are float32; what lies between has the dtype of the computation, so
that in bfloat16 a layer rounds its result and nothing else. Convolutions start as He et al.'s
normal noise of variance `2 / fan_out`, the classifier as normal noise of standard deviation 0.01,
normalisation as the identity: so the first loss is near `log(classes)`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from examples.images.convolution import conv_general_dilated

DType = jnp.dtype


def conv(
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    bias: bool = False,
    dtype: DType,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution, padded by half its size on every side."""
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=bias,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        conv_general_dilated=conv_general_dilated,
        dtype=dtype,
        rngs=rngs,
    )


def batch_norm(
    features: int, *, dtype: DType, rngs: nnx.Rngs, zero_scale: bool = False
) -> nnx.BatchNorm:
    """Batch normalisation, whose running averages move by a tenth a step.

    Under `jit` with a sharded batch its statistics are those of the whole batch.
    """
    return nnx.BatchNorm(
        features,
        momentum=0.9,
        scale_init=nnx.initializers.zeros if zero_scale else nnx.initializers.ones,
        dtype=dtype,
        # By default it rounds the running averages and its parameters to `dtype` first.
        promote_dtype=lambda arrays, dtype: arrays,
        rngs=rngs,
    )


def classifier(features: int, classes: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """The one fully connected layer at the end, in float32."""
    small = nnx.initializers.normal(0.01)
    return nnx.Linear(features, classes, kernel_init=small, dtype=jnp.float32, rngs=rngs)


def halved(x: jax.Array) -> jax.Array:
    """Max pooling, two by two: `(batch, 2 h, 2 w, channels)` -> `(batch, h, w, channels)`.

    Its gradient is a mask, where `nnx.max_pool` has a scatter.
    """
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def pooled(x: jax.Array) -> jax.Array:
    """The mean over the image, in float32: `(batch, h, w, channels)` -> `(batch, channels)`."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
