"""Residual networks (He et al., 2016): ResNet-18 for CIFAR and ResNet-50 v1.5 for ImageNet.

The scale of the last normalisation of each block starts at 0, so that each block starts as its
shortcut (Goyal et al., 2017), or as stated, which Nado et al. (2021) call gamma_0.
"""

import functools
from typing import Any

import jax
from flax import nnx

from examples.tasks.images.layers import DType, batch_norm, classifier, conv, global_avg_pool

CHANNELS = (64, 128, 256, 512)


class Shortcut(nnx.Module):
    """A convolution of 1 by 1, where a block changes the shape."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, dtype: DType, rngs: nnx.Rngs):
        self.conv = conv(inputs, outputs, 1, stride=stride, dtype=dtype, rngs=rngs)
        self.bn = batch_norm(outputs, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, h, w, inputs)` -> `(batch, h / stride, w / stride, outputs)`."""
        return self.bn(self.conv(x))


class BasicBlock(nnx.Module):
    """Two convolutions of 3 by 3."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        channels: int,
        stride: int,
        *,
        last_bn_scale: float,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        make: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv1 = conv(inputs, channels, 3, stride=stride, **make)
        self.bn1 = batch_norm(channels, **make)
        self.conv2 = conv(channels, channels, 3, **make)
        self.bn2 = batch_norm(channels, **make, scale=last_bn_scale)
        self.downsample = nnx.data(None)
        if stride > 1 or inputs != channels:
            self.downsample = Shortcut(inputs, channels, stride, **make)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, h, w, inputs)` -> `(batch, h / stride, w / stride, channels)`."""
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(y + (self.downsample(x) if self.downsample else x))


class Bottleneck(nnx.Module):
    """Convolutions of 1 by 1, 3 by 3 and 1 by 1; v1.5 has the stride in the second."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        channels: int,
        stride: int,
        *,
        last_bn_scale: float,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        make: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        outputs = self.expansion * channels
        self.conv1 = conv(inputs, channels, 1, **make)
        self.bn1 = batch_norm(channels, **make)
        self.conv2 = conv(channels, channels, 3, stride=stride, **make)
        self.bn2 = batch_norm(channels, **make)
        self.conv3 = conv(channels, outputs, 1, **make)
        self.bn3 = batch_norm(outputs, **make, scale=last_bn_scale)
        self.downsample = nnx.data(None)
        if stride > 1 or inputs != outputs:
            self.downsample = Shortcut(inputs, outputs, stride, **make)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, h, w, inputs)` -> `(batch, h / stride, w / stride, 4 channels)`."""
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nnx.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nnx.Module):
    """A stem, four stages of blocks, the last three of which halve the image, and a classifier.

    For small images the stem is a convolution of 3 by 3; for those of ImageNet it is one of 7 by 7
    and a max pooling, which quarter the image.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, ...],
        classes: int,
        *,
        small_images: bool,
        width: float,
        last_bn_scale: float = 0.0,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        make: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        first, *_ = widths = [round(width * channels) for channels in CHANNELS]
        size, stride = (3, 1) if small_images else (7, 2)
        self.small_images = small_images
        self.conv1 = conv(3, first, size, stride=stride, **make)
        self.bn1 = batch_norm(first, **make)
        self.stages = nnx.List()
        inputs = first
        for i, (count, channels) in enumerate(zip(blocks, widths, strict=True)):
            stage = nnx.List()
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(block(inputs, channels, stride, last_bn_scale=last_bn_scale, **make))
                inputs = block.expansion * channels
            self.stages.append(stage)
        self.fc = classifier(inputs, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(batch, h, w, 3)` -> `(batch, classes)` logits."""
        x = nnx.relu(self.bn1(self.conv1(x)))
        if not self.small_images:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.fc(global_avg_pool(x))


resnet18 = functools.partial(ResNet, BasicBlock, (2, 2, 2, 2), small_images=True)
resnet50 = functools.partial(ResNet, Bottleneck, (3, 4, 6, 3), small_images=False)
