r"""Image classification: VGG, ResNet-18, WRN-16-8 and WRN-28-10 on CIFAR-10 and CIFAR-100.

python -m examples.cifar --dataset cifar10 --optimizer adam_lawn --free-epochs 5

That is the paper's VGG-19 for 300 epochs and needs an accelerator; its accuracy here is not yet
measured. A small network on a tenth of the images, a few minutes on 2 idle CPU cores:

python -m examples.cifar --dataset cifar10 --train-images 5000 --model vgg5 --width 0.25 \
    --dtype float32 --batch-size 500 --epochs 10 --warmup-epochs 1 --free-epochs 2

One minute: with SGD the weight norm falls and, from about the eleventh epoch, grows again. The
schedule ABEL lowers the learning rate after that. `python -m examples.page runs/abel.jsonl` draws
the norms:

python -m examples.cifar --dataset cifar10 --train-images 1000 --validation-images 1000 \
    --model vgg5 --width 0.125 --dtype float32 --batch-size 100 --epochs 40 --warmup-epochs 0 \
    --optimizer sgd --learning-rate 0.1 --weight-decay 5e-3 --clip-norm 5 --schedule abel \
    --out runs/abel.jsonl
"""

import dataclasses
from pathlib import Path

from examples import training
from examples.results.reports import report
from examples.tasks.images import ModelName, classification, data
from examples.tasks.images.options import ImageOptions
from examples.tasks.images.task import REPORTED
from examples.training import command, distributed
from examples.training.options import in_order_of_use


@in_order_of_use
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageOptions):
    """Trains an image classifier and reports its accuracy and calibration."""

    dataset: data.DatasetName
    """Which images. generated: made-up ones, to test the installation and the speed."""
    data_dir: Path | None = None
    """Folder where TensorFlow Datasets has prepared them, by default ~/tensorflow_datasets."""
    train_images: int | None = None
    """How many images to train on; by default all that are not held out."""
    validation_images: int = 0
    """Hold out this many training images and evaluate on them, not on the test set: to tune."""
    epochs: int = 300
    """Passes over the training set."""
    warmup_epochs: float = 30.0
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    decay_factor: float = 0.2
    """Schedules step-wise, simple, plateau and abel: factor on the learning rate at each decay."""
    decays_at: tuple[float, ...] = (0.3, 0.6, 0.8)
    """Schedule step-wise: when it decays, as shares of all epochs; by default those of WRNs."""
    batch_size: int = 4096
    """Training images per update of the weights."""
    model: ModelName = "vgg19"
    """Which network."""
    rotation: float | None = None
    """Largest angle in degrees that images are rotated by; by default 15 for CIFAR-100, else 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotation is not None and not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation={self.rotation} must lie between 0 and 180 degrees.")

    @property
    def degrees(self) -> float:
        """The largest angle, whether given or by default."""
        if self.rotation is None:
            return 15.0 if self.dataset == "cifar100" else 0.0
        return self.rotation


def main(config: Config) -> None:
    """Train, and report the last epoch."""
    result = training.train(make_task(config), config, title=config.optimizer)
    if distributed.is_first():
        about = {"example": "cifar", "rotation": config.degrees}
        report(about, config, result, REPORTED)


def make_task(config: Config) -> classification.Classification:
    """Put the images on the device, and say how they are trained on."""
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
        **config.of_task(),
    )


if __name__ == "__main__":
    command.run(main, command.parser(Config, "examples.cifar", __doc__))
