"""VGG with batch normalisation and one fully connected layer (Simonyan and Zisserman, 2015)."""

import jax
from flax import nnx

from examples.tasks.images.layers import (
    DType,
    batch_norm,
    classifier,
    conv,
    global_avg_pool,
    max_pool_2x2,
)

# Convolutions in each stage, which max pooling ends.
STAGES = {"vgg5": (1, 1, 1, 1), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


class ConvNormReLU(nnx.Module):
    """A convolution of 3 by 3, with a bias as in the original, normalised."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DType, rngs: nnx.Rngs):
        self.conv = conv(inputs, outputs, 3, bias=True, dtype=dtype, rngs=rngs)
        self.bn = batch_norm(outputs, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, h, w, inputs)` -> `(batch, h, w, outputs)`."""
        return nnx.relu(self.bn(self.conv(x)))


class VGG(nnx.Module):
    """Stages of convolutions, each of which ends in half the image.

    VGG-16 and VGG-19 count the three fully connected layers of the original, of which one is left;
    VGG-5 has four convolutions and that one.
    """

    def __init__(
        self, stages: tuple[int, ...], classes: int, *, width: float, dtype: DType, rngs: nnx.Rngs
    ):
        self.stages = nnx.List()
        inputs = 3
        for count, channels in zip(stages, CHANNELS, strict=False):
            stage = nnx.List()
            for _ in range(count):
                outputs = round(width * channels)
                stage.append(ConvNormReLU(inputs, outputs, dtype=dtype, rngs=rngs))
                inputs = outputs
            self.stages.append(stage)
        self.fc = classifier(inputs, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, h, w, 3)` -> `(batch, classes)` logits."""
        for stage in self.stages:
            for layer in stage:
                x = layer(x)
            x = max_pool_2x2(x)
        return self.fc(global_avg_pool(x))
