r"""Image classification: VGG, ResNet-18 and WRN-28-10 on CIFAR-10 and CIFAR-100.

python -m examples.cifar --dataset cifar10 --optimizer adam_lawn --free-epochs 5

That is the paper's VGG-19 for 300 epochs and needs an accelerator; its accuracy here is not yet
measured. A small network on a tenth of the images, a few minutes on 2 idle CPU cores:

python -m examples.cifar --dataset cifar10 --train-images 5000 --model vgg5 --width 0.25 \
    --dtype float32 --batch-size 500 --epochs 10 --warmup-epochs 1 --free-epochs 2
"""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from examples import processes, records, tables, training
from examples.images import ModelName, classification, data
from examples.images.layers import check_virtual_batch_size
from examples.options import Options

REPORTED = {
    "accuracy, %": ("accuracy", 100, 2),
    "ECE, 15 bins": ("ece", 1, 4),
    "NLL": ("nll", 1, 3),
    "median margin": ("held_out_margin_p50", 1, 2),
    "training images in the flat zone, %": ("flat_share", 100, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Trains an image classifier and reports how well and how surely it tells images apart."""

    dataset: data.DatasetName
    """Which images; generated ones need no data."""
    data_dir: Path | None = None
    """Where TensorFlow Datasets has prepared them; by default where it looks by itself."""
    train_images: int | None = None
    """How many images to train on; by default all that are not held out."""
    validation_images: int = 0
    """Training images to hold out and judge by, to choose a setting; 0: the test set judges."""
    epochs: int = 300
    """Passes over the training set."""
    warmup_epochs: float = 30.0
    """Epochs in which the learning rate rises from 0 to its peak; then it falls linearly to 0."""
    batch_size: int = 4096
    """Training images in a batch."""
    seeds: int = 1
    """How many seeds to train, one after the other in one jit."""
    clip_norm: float | None = 1.0
    """Norm that the gradient as a whole is clipped to; None: not clipped."""
    model: ModelName = "vgg19"
    """Which network."""
    width: float = 1.0
    """Factor on its channels."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the computation; weights and statistics are float32. On CPU float32 is faster."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Which loss."""
    gamma: float = 2.0
    """How much the focal loss turns from the images that are classified well."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes; the paper tries 0.05."""
    bounded_weight_norm: bool = False
    """Fix the initial norms by reparametrization, as Hoffer et al. do, whatever the optimizer."""
    virtual_batch_size: int | None = None
    """Images that batch normalisation takes its statistics over, a divisor of the batch size; by
    default all of the batch, on all devices. As many as a device has need no exchange for them."""
    rotation: float | None = None
    """Largest angle in degrees that images are rotated by; by default 15 for CIFAR-100, else 0."""

    @property
    def degrees(self) -> float:
        """The largest angle, whether given or by default."""
        if self.rotation is None:
            return 15.0 if self.dataset == "cifar100" else 0.0
        return self.rotation

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} must be at least 0 and below 1."
            )
        if not self.gamma > 0:
            raise ValueError(f"gamma={self.gamma} must be above 0: at 0 it is cross-entropy.")
        if self.virtual_batch_size is not None:
            check_virtual_batch_size(self.virtual_batch_size, self.batch_size)


def main(config: Config) -> None:
    """Trains, and reports the last epoch."""
    result = training.train(make_task(config), config, title=config.optimizer)
    if processes.is_first():
        report(config, result)


def report(config: Config, result: training.Result) -> None:
    """Prints the table, and appends the records unless they are there."""
    rows = [
        (title, tables.mean_and_error(scale * result.curve[name][:, -1], digits))
        for title, (name, scale, digits) in REPORTED.items()
    ]
    print(tables.markdown((config.optimizer, "last epoch"), rows))
    print(f"\n{config.seeds} seed(s), {config.epochs} epochs, {result.wall_s:.0f} s")
    if config.out:
        about = {"example": "cifar", **config.config(), "rotation": config.degrees}
        found = records.make_records(about, config.all_seeds, result)
        finished = result.resumed_from == config.epochs
        new = records.missing(config.out, found) if finished else found
        records.append_records(config.out, new)


def make_task(config: Config) -> classification.Classification:
    """The images on the device, and how they are trained on."""
    images = data.load(
        config.dataset,
        config.data_dir,
        train_images=config.train_images,
        validation_images=config.validation_images,
    )
    return classification.make_task(
        images,
        batch_size=config.batch_size,
        degrees=config.degrees,
        model=config.model,
        width=config.width,
        dtype=config.dtype,
        gamma=config.gamma if config.loss == "focal" else 0.0,
        label_smoothing=config.label_smoothing,
        bounded_weight_norm=config.bounded_weight_norm,
        virtual_batch_size=config.virtual_batch_size,
    )


if __name__ == "__main__":
    processes.run(main, tyro.cli(Config, prog="python -m examples.cifar"))
