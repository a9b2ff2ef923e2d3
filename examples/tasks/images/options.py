"""The options that all image classifiers share."""

import dataclasses
from typing import Annotated, Any, Literal

from examples.tasks.images.layers import check_virtual_batch_size
from examples.tasks.images.models import RESNETS, ModelName, Network, check_width
from examples.training.limits import ABOVE_0, BELOW_1, Only
from examples.training.options import Options


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """Which network, which loss, and how its batches are normalised."""

    seeds: int = 1
    """How many seeds to train, one after the other in one program."""
    clip_norm: float | None = 1.0
    """Clip the global norm of the gradient to this."""
    model: ModelName
    """Which network."""
    width: float = 1.0
    """Factor on the channels of the network: 0.25 makes it sixteen times cheaper."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of computation; weights and statistics are float32. On CPU float32 is faster."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Cross-entropy, or the focal loss, which weighs well-classified examples less."""
    gamma: Annotated[float, ABOVE_0, Only(("focal",), ("loss",))] = 2.0
    """Focusing parameter of the focal loss."""
    label_smoothing: Annotated[float, BELOW_1] = 0.0
    """Share of each label that is spread over all classes; the paper tries 0.05."""
    init_scale: Annotated[float, ABOVE_0] = 1.0
    """Factor on all initial weights, those of batch normalisation too."""
    bounded_weight_norm: bool = False
    """Fix the initial norms by a reparametrization (Hoffer et al.), whatever the optimizer."""
    virtual_batch_size: int | None = None
    """Images over which batch normalisation takes its statistics, by default the whole batch.
    A divisor of --batch-size; if each group lies on one device, none waits for another."""
    bn_momentum: Annotated[float, BELOW_1] = 0.9
    """Decay rate of the running averages of batch normalisation."""
    bn_epsilon: Annotated[float, ABOVE_0] = 1e-5
    """Epsilon that batch normalisation adds to variances."""
    last_bn_scale: float = 0.0
    """ResNets: initial scale of the last normalisation of each block.
    At 0 each block starts as its shortcut."""

    @property
    def images_in_step(self) -> int:
        """How many images go through the network at once."""
        return self.batch_size

    def __post_init__(self) -> None:
        super().__post_init__()
        check_width(self.width)
        if self.last_bn_scale and self.model not in RESNETS:
            raise ValueError(
                f"last_bn_scale={self.last_bn_scale} with model={self.model!r}: leave it 0, or take"
                f" one of {RESNETS}."
            )
        if self.virtual_batch_size is not None:
            check_virtual_batch_size(self.virtual_batch_size, self.images_in_step)

    def of_task(self) -> dict[str, Any]:
        """Return what of these options an image task is made from."""
        network = {field.name: getattr(self, field.name) for field in dataclasses.fields(Network)}
        return {
            "network": Network(**network),
            "gamma": self.gamma if self.loss == "focal" else 0.0,
            "label_smoothing": self.label_smoothing,
        }
