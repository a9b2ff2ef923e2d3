"""Wide residual networks (Zagoruyko and Komodakis, 2016), without dropout."""

import functools
from typing import Any

import jax
from flax import nnx

from examples.tasks.images.layers import DType, batch_norm, classifier, conv, global_avg_pool

CHANNELS = (16, 32, 64)


class Block(nnx.Module):
    """Normalisation and ReLU before each of two convolutions of 3 by 3.

    Where the width changes, the shortcut is a convolution of what the first two have made.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, dtype: DType, rngs: nnx.Rngs):
        make: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.bn1 = batch_norm(inputs, **make)
        self.conv1 = conv(inputs, outputs, 3, stride=stride, **make)
        self.bn2 = batch_norm(outputs, **make)
        self.conv2 = conv(outputs, outputs, 3, **make)
        self.downsample = nnx.data(None)
        if stride > 1 or inputs != outputs:
            self.downsample = conv(inputs, outputs, 1, stride=stride, **make)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, h, w, inputs)` -> `(batch, h / stride, w / stride, outputs)`."""
        y = nnx.relu(self.bn1(x))
        shortcut = self.downsample(y) if self.downsample else x
        y = nnx.relu(self.bn2(self.conv1(y)))
        return shortcut + self.conv2(y)


class WideResNet(nnx.Module):
    """A convolution of 16 channels, three stages of blocks, the last two of which halve the image.

    Of depth 16 each stage has two blocks, of depth 28 four.
    """

    def __init__(
        self,
        depth: int,
        widening: int,
        classes: int,
        *,
        width: float,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        make: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv1 = conv(3, 16, 3, **make)
        self.stages = nnx.List()
        inputs = 16
        for i, channels in enumerate(CHANNELS):
            stage = nnx.List()
            outputs = round(width * widening * channels)
            for j in range((depth - 4) // 6):
                stage.append(Block(inputs, outputs, 2 if i > 0 and j == 0 else 1, **make))
                inputs = outputs
            self.stages.append(stage)
        self.bn = batch_norm(inputs, **make)
        self.fc = classifier(inputs, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, h, w, 3)` -> `(batch, classes)` logits."""
        x = self.conv1(x)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.fc(global_avg_pool(nnx.relu(self.bn(x))))


wrn16_8 = functools.partial(WideResNet, 16, 8)
wrn28_10 = functools.partial(WideResNet, 28, 10)
