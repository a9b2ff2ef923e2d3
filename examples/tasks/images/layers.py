"""The layers that the networks share: what is computed in which precision, how it is initialised.

Weights, statistics and logits are float32; what lies between has the dtype of the computation, so
that in bfloat16 a layer rounds its result and nothing else. Convolutions start as He et al.'s
normal noise of variance `2 / fan_out`, the classifier as normal noise of standard deviation 0.01,
normalisation as the identity: so the first loss is near `log(classes)`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from examples.training.cpu import conv_general_dilated

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
    """Return a square convolution, padded by half its size on every side."""
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


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation by the whole batch, or by virtual batches of a stated size.

    A virtual batch is `virtual_batch_size` images of the batch that follow each other, which are
    normalised by their own mean and variance in training, so by as noisy ones as in a batch of that
    size (Hoffer et al., 2017; Nado et al., 2021). Under `jit` with a sharded batch the statistics
    of the whole batch are summed across devices, and each layer waits for them; those of virtual
    batches that lie on one device each are not, but for the running averages.

    The running averages move once a step, towards the mean over the virtual batches of their means
    and of their variances: that is the mean of the whole batch, and the variance that training
    divides by. The variance of the whole batch would be larger, by that of the means. To move once
    a virtual batch would forget all but the last few of them.

    Attributes:
      virtual_batch_size: images in a virtual batch; None for all of the batch.
    """

    virtual_batch_size: int | None = None

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        """`(batch, ..., features)` of any dtype -> the same, of the dtype of the layer."""
        if self.use_running_average or self.virtual_batch_size is None:
            return super().__call__(x, *args, **kwargs)
        check_virtual_batch_size(self.virtual_batch_size, len(x))
        groups = x.astype(jnp.float32).reshape(-1, self.virtual_batch_size, *x.shape[1:])
        over = tuple(range(1, groups.ndim - 1))
        mean = jnp.mean(groups, over, keepdims=True)
        var = jnp.mean(jnp.square(groups), over, keepdims=True) - jnp.square(mean)
        var = jnp.maximum(var, 0)  # Below 0 by rounding, where a channel is constant.
        for average, of_groups in ((self.mean, mean), (self.var, var)):
            new = jnp.mean(of_groups.reshape(-1, x.shape[-1]), axis=0)
            average[...] = self.momentum * average[...] + (1 - self.momentum) * new
        y = (groups - mean) * (jax.lax.rsqrt(var + self.epsilon) * self.scale[...])
        return (y + self.bias[...]).reshape(x.shape).astype(self.dtype)


def check_virtual_batch_size(virtual_batch_size: int, batch_size: int) -> None:
    """Refuse virtual batches that a batch cannot be cut into.

    Raises:
      ValueError: unless the first divides the second.
    """
    if virtual_batch_size < 1 or batch_size % virtual_batch_size:
        raise ValueError(
            f"virtual_batch_size={virtual_batch_size} must divide batch_size={batch_size}: give a"
            " divisor, or None for the statistics of the whole batch."
        )


def batch_norm(features: int, *, dtype: DType, rngs: nnx.Rngs, scale: float = 1.0) -> BatchNorm:
    """Return batch normalisation; `Network.make` sets other constants, where these are options."""
    return BatchNorm(
        features,
        momentum=0.9,
        scale_init=nnx.initializers.constant(scale),
        dtype=dtype,
        # By default it rounds the running averages and its parameters to `dtype` first.
        promote_dtype=lambda arrays, dtype: arrays,
        rngs=rngs,
    )


def classifier(features: int, classes: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Return the one fully connected layer at the end, in float32."""
    small = nnx.initializers.normal(0.01)
    return nnx.Linear(features, classes, kernel_init=small, dtype=jnp.float32, rngs=rngs)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Max pooling, two by two: `(batch, 2 h, 2 w, channels)` -> `(batch, h, w, channels)`.

    Its gradient is a mask, where `nnx.max_pool` has a scatter.
    """
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Average over the image, in float32: `(batch, h, w, channels)` -> `(batch, channels)`."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
