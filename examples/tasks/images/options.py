"""The options that all image classifiers share."""

import dataclasses
import math
from typing import Any, Literal

from examples.tasks.images.layers import check_virtual_batch_size
from examples.tasks.images.models import RESNETS, ModelName, check_width
from examples.training.options import Options


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """Which network, which loss, and how its batches are normalised."""

    seeds: int = 1
    """How many seeds to train, one after the other in one program."""
    clip_norm: float | None = 1.0
    """Largest norm of the gradient as a whole; a larger one is scaled down to it."""
    model: ModelName
    """Which network."""
    width: float = 1.0
    """Factor on the channels of the network: 0.25 makes it sixteen times cheaper."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What is computed in; weights and statistics are float32. On CPU float32 is faster."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Cross-entropy, or the focal loss, which turns from what is classified well."""
    gamma: float = 2.0
    """How far the focal loss turns from it."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes; the paper tries 0.05."""
    init_scale: float = 1.0
    """Factor on all initial weights, those of batch normalisation too."""
    bounded_weight_norm: bool = False
    """Fix the initial norms by reparametrization, as Hoffer et al. do, whatever the optimizer."""
    virtual_batch_size: int | None = None
    """Images that batch normalisation takes its statistics over, by default the whole batch.
    Give a divisor of the batch size; no more than a device has need no exchange for them."""
    bn_momentum: float = 0.9
    """How much of the running averages batch normalisation keeps in a train step."""
    bn_epsilon: float = 1e-5
    """What batch normalisation adds to variances."""
    last_bn_scale: float = 0.0
    """What the scale of the last normalisation of each block of a ResNet starts with.
    At 0 each block starts as its shortcut."""

    @property
    def images_in_step(self) -> int:
        """How many images go through the network at once."""
        return self.batch_size

    def __post_init__(self) -> None:
        super().__post_init__()
        check_width(self.width)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} must be at least 0 and below 1."
            )
        if not 0 < self.init_scale < math.inf:
            raise ValueError(f"init_scale={self.init_scale} must be above 0, and finite.")
        if not self.gamma > 0:
            raise ValueError(f"gamma={self.gamma} must be above 0: at 0 it is cross-entropy.")
        if not 0 <= self.bn_momentum < 1:
            raise ValueError(f"bn_momentum={self.bn_momentum} must be at least 0 and below 1.")
        if not self.bn_epsilon > 0:
            raise ValueError(f"bn_epsilon={self.bn_epsilon} must be above 0.")
        if self.last_bn_scale and self.model not in RESNETS:
            raise ValueError(
                f"last_bn_scale={self.last_bn_scale} with model={self.model!r}: leave it 0, or take"
                f" one of {RESNETS}."
            )
        if self.virtual_batch_size is not None:
            check_virtual_batch_size(self.virtual_batch_size, self.images_in_step)

    def network(self) -> dict[str, Any]:
        """Return what of these options an image task is made from."""
        return {
            "model": self.model,
            "width": self.width,
            "dtype": self.dtype,
            "gamma": self.gamma if self.loss == "focal" else 0.0,
            "label_smoothing": self.label_smoothing,
            "init_scale": self.init_scale,
            "bounded_weight_norm": self.bounded_weight_norm,
            "virtual_batch_size": self.virtual_batch_size,
            "bn_momentum": self.bn_momentum,
            "bn_epsilon": self.bn_epsilon,
            "last_bn_scale": self.last_bn_scale,
        }
