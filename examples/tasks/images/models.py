"""The networks by name, all made in one way."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from examples.tasks.images import resnet, vgg, wide_resnet

ModelName = Literal["vgg5", "vgg16", "vgg19", "resnet18", "wrn16-8", "wrn28-10", "resnet50"]

RESNETS: tuple[ModelName, ...] = ("resnet18", "resnet50")
MODELS: Mapping[str, Callable[..., nnx.Module]] = {
    **{name: functools.partial(vgg.VGG, stages) for name, stages in vgg.STAGES.items()},
    "resnet18": resnet.resnet18,
    "wrn16-8": wide_resnet.wrn16_8,
    "wrn28-10": wide_resnet.wrn28_10,
    "resnet50": resnet.resnet50,
}


def make_model(
    name: ModelName,
    classes: int,
    dtype: Any,
    rngs: nnx.Rngs,
    *,
    width: float = 1.0,
    virtual_batch_size: int | None = None,
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-5,
    last_bn_scale: float = 0.0,
) -> nnx.Module:
    """Make a network from `(batch, height, width, 3)` images to `(batch, classes)` logits.

    Args:
      name: which one. All but ResNet-50 are for the 32 by 32 pixels of CIFAR; ResNet-50 is v1.5.
      classes: how many to tell apart.
      dtype: of the computation; weights, statistics and logits are float32.
      rngs: for the initial weights.
      width: factor on the channels of the published network, to try one that is cheaper.
      virtual_batch_size: images that are normalised together, see `layers.BatchNorm`.
      bn_momentum: how much of its running averages batch normalisation keeps per train step.
      bn_epsilon: what it adds to variances.
      last_bn_scale: with which the last of each block of a ResNet starts; see `resnet`.

    Raises:
      ValueError: for a name that is not known, or a width that leaves no channel.
    """
    if name not in MODELS:
        raise ValueError(f"model={name!r} must be one of {', '.join(MODELS)}.")
    check_width(width)
    # JAX's own generator takes XLA seconds a kernel to compile on CPU, a tenth of it with this one.
    rngs = nnx.Rngs(jax.random.key(jax.random.bits(rngs.params()), impl="rbg"))
    of_blocks = {"last_bn_scale": last_bn_scale} if name in RESNETS else {}
    model = MODELS[name](classes, width=width, dtype=jnp.dtype(dtype), rngs=rngs, **of_blocks)
    model.set_attributes(
        virtual_batch_size=virtual_batch_size, momentum=bn_momentum, epsilon=bn_epsilon
    )
    return model


def check_width(width: float) -> None:
    """Refuse a factor that leaves no channel.

    Raises:
      ValueError: for a width below 1/16, or one that is no number.
    """
    if not 1 / 16 <= width < float("inf"):
        raise ValueError(f"width={width} must be at least 1/16: 4 of the 64 first channels.")
