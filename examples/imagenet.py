r"""Image classification: ResNet-50 v1.5 on ImageNet, by the settings of two papers.

python -m examples.imagenet adam-lawn-256 --data-dir DIR --checkpoint-dir runs/imagenet

The first word names a setting of the LAWN paper's appendix, or of Nado et al.'s for LAWN's rivals
at batch 32,768; `python -m examples.imagenet -h` lists them. Every option after it replaces a value
of it; `python -m examples.imagenet adam-lawn-256 -h` lists them. That run needs accelerators for
hours; its accuracy here is not yet measured. To time a train step with fixed norms, without the
input pipeline:

python -m examples.imagenet adam-lawn-256 --dataset generated --epochs 3 --warmup-epochs 1 \
    --free-epochs 0

The last line of every run says how many images a second. A narrow network on small images, one
minute on 2 CPU cores:

python -m examples.imagenet adam-lawn-256 --dataset generated --epochs 3 --warmup-epochs 1 \
    --train-images 512 --batch-size 32 --image-size 64 --width 0.0625 --dtype float32
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from examples import training
from examples.results.reports import report
from examples.tasks.images import ModelName, files, large_batch, recipes, stream, streamed
from examples.tasks.images.options import ImageOptions
from examples.tasks.images.task import REPORTED
from examples.training import command, distributed, sharding
from examples.training.limits import AT_LEAST_0, AT_LEAST_1, Range
from examples.training.options import in_order_of_use

GENERATED_IMAGES, GENERATED_HELD_OUT, CLASSES = 25_600, 512, 1000


@in_order_of_use
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageOptions):
    """Trains an image classifier and reports its accuracy and calibration."""

    dataset: Literal["imagenet2012", "generated"] = "imagenet2012"
    """Which images; generated ones need no data and no input pipeline, to see what a step costs."""
    data_dir: Path | None = None
    """Folder where TensorFlow Datasets has prepared them, by default ~/tensorflow_datasets."""
    train_images: int | None = None
    """How many images to train on; by default all, of generated ones 25,600."""
    image_size: Annotated[int, Range("at least 32", lambda x: x >= 32)] = 224
    """Height and width of images; to evaluate, they are resized to 8/7 of it and then cropped."""
    epochs: int = 90
    """Passes over the training set."""
    warmup_epochs: float = 5.0
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    batch_size: int = 256
    """Training images per update of the weights."""
    accumulate: int = 1
    """Gradient accumulation: train steps per update, where memory does not hold the whole batch.
    Batch statistics, median margin and flooding are per train step.
    Schedules and LAWN's epochs count updates; the switch sees the last step's margin."""
    seeds: tyro.conf.Suppress[int] = 1
    """One stream of images serves one seed."""
    momentum: float = recipes.MOMENTUM
    """Momentum of sgd, nesterov, lars and sgd_lawn."""
    model: ModelName = "resnet50"
    """Which network."""
    workers: Annotated[int, AT_LEAST_0] = 0
    """Processes that read and cut images; 0: a thread per core.
    Processes help where threads leave cores idle, and take some 20 MB of /dev/shm each."""
    steps_at_once: Annotated[int, AT_LEAST_1] = 16
    """Train steps per call of the device, at most; a divisor of those in an epoch.
    Images of two calls are on the device, and SIGTERM is noticed between calls."""

    @property
    def images_in_step(self) -> int:
        """How many images go through the network at once."""
        return self.batch_size // self.accumulate

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate={self.accumulate} must divide batch_size={self.batch_size}: each train"
                " step takes as many images."
            )
        super().__post_init__()
        if self.seeds != 1:
            raise ValueError(
                f"seeds={self.seeds} must be 1, for one stream of images serves one seed: run the"
                " others one after the other, with first_seed."
            )


def main(config: Config) -> None:
    """Train, and report the last epoch and how fast it was."""
    task, source = make_source(config)
    result = training.train(task, config, title=config.optimizer, source=source)
    if distributed.is_first():
        report({"example": "imagenet"}, config, result, REPORTED)
        if result.chunk_s:
            step = np.median(result.chunk_s) / source.plan.steps
            speed = f"{config.images_in_step / step:,.0f} images a second"
            print(f"{speed}, {1e3 * step:,.1f} ms a train step of {config.images_in_step}")


def make_source(config: Config) -> tuple[streamed.Streamed, stream.Stream | stream.Generated]:
    """Make the task, and find where its images come from.

    Raises:
      ValueError: for a batch that is larger than the set, or that the devices cannot share.
    """
    shards = sharding.shards(config.mesh.sizes(jax.device_count(), jax.process_count()))
    if config.images_in_step % shards:
        raise ValueError(
            f"batch_size={config.batch_size} in accumulate={config.accumulate} train steps has"
            f" {config.images_in_step} images in each, which {shards} devices cannot share evenly:"
            f" give a multiple of {config.accumulate * shards}."
        )
    if config.dataset == "generated":
        dataset = None
        count, held_out, classes = config.train_images, GENERATED_HELD_OUT, CLASSES
        count = GENERATED_IMAGES if count is None else count
    else:
        dataset = files.imagenet(config.data_dir, config.train_images)
        count, held_out, classes = dataset[3:]
    if count < config.batch_size:
        raise ValueError(
            f"batch_size={config.batch_size} must be at most the {count} training images."
        )
    updates = count // config.batch_size
    steps = updates * config.accumulate
    plan = files.plan_epoch(steps, config.images_in_step, config.steps_at_once, held_out)
    task = streamed.Streamed(classes=classes, steps_per_epoch=updates, **config.of_task())
    if dataset is None:
        return task, stream.Generated(task, plan, size=config.image_size)
    return task, stream.Stream(
        task,
        dataset,
        plan,
        epochs=config.epochs,
        size=config.image_size,
        seed=config.first_seed,
        workers=config.workers,
    )


def read_command_line(arguments: list[str] | None = None) -> Config:
    """Read the options, those that are not given from the setting that is named first."""
    settings = {
        name: (recipes.describe(recipe), Config(**recipe.options))
        for name, recipe in {**recipes.RECIPES, **large_batch.RECIPES}.items()
    }
    return tyro.extras.overridable_config_cli(
        settings, prog="python -m examples.imagenet", description=Config.__doc__, args=arguments
    )


if __name__ == "__main__":
    command.run(main, read_command_line)
