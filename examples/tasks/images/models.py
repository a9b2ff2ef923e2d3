"""The networks by name, all made in one way."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from examples.tasks.bounded_weight_norm import BoundedWeightNorm
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Names a network from `(batch, height, width, 3)` images to logits, and says how it is made.

    Attributes:
      model: which one. All but ResNet-50 are for the 32 by 32 pixels of CIFAR; ResNet-50 is v1.5.
      width: factor on the channels of the published network, to try one that is cheaper.
      dtype: of the computation; weights, statistics and logits are float32.
      init_scale: factor on all initial weights.
      bounded_weight_norm: whether it is `BoundedWeightNorm`.
      virtual_batch_size: images that are normalised together, see `layers.BatchNorm`; None for the
        whole batch.
      bn_momentum: how much of its running averages batch normalisation keeps per train step.
      bn_epsilon: what batch normalisation adds to variances.
      last_bn_scale: what the last scale of each block of a ResNet starts with; see `resnet`.
    """

    model: ModelName
    width: float = 1.0
    dtype: str = "bfloat16"
    init_scale: float = 1.0
    bounded_weight_norm: bool = False
    virtual_batch_size: int | None = None
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    last_bn_scale: float = 0.0

    def make(self, classes: int, rngs: nnx.Rngs) -> nnx.Module:
        """Make the network for so many classes, with random initial weights.

        Raises:
          ValueError: for a name that is not known, or a width that leaves no channel.
        """
        if self.model not in MODELS:
            raise ValueError(f"model={self.model!r} must be one of {', '.join(MODELS)}.")
        check_width(self.width)
        # For JAX's own generator XLA takes ten times as long to compile on CPU: seconds a kernel.
        rngs = nnx.Rngs(jax.random.key(jax.random.bits(rngs.params()), impl="rbg"))
        of_blocks = {"last_bn_scale": self.last_bn_scale} if self.model in RESNETS else {}
        model = MODELS[self.model](
            classes, width=self.width, dtype=jnp.dtype(self.dtype), rngs=rngs, **of_blocks
        )
        model.set_attributes(
            virtual_batch_size=self.virtual_batch_size,
            momentum=self.bn_momentum,
            epsilon=self.bn_epsilon,
        )
        if self.init_scale != 1:
            scaled = jax.tree.map(lambda w: self.init_scale * w, nnx.state(model, nnx.Param))
            nnx.update(model, scaled)
        return BoundedWeightNorm(model) if self.bounded_weight_norm else model


def check_width(width: float) -> None:
    """Refuse a factor that leaves no channel.

    Raises:
      ValueError: for a width below 1/16, or one that is no number.
    """
    if not 1 / 16 <= width < float("inf"):
        raise ValueError(f"width={width} must be at least 1/16: 4 of the 64 first channels.")
