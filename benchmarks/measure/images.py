"""How fast image classifiers train: images a second, the share of the peak, what goes where.

    python -m benchmarks.measure.images --out runs/image-speed.jsonl

An epoch of `examples.training` as `examples.cifar` runs it, gradient clipping and metrics included,
on images made of noise that are in device memory. All programs take turns, an epoch of some steps
each; a figure is the median over these windows, with the smallest and the largest in brackets.

- LAWN's share: what of a step with Adam-LAWN, on its spheres, goes beyond the step with Adam.
- augmentation's share: what of a step with Adam goes beyond one that takes the images as they are.
  ImageNet's images are augmented on the host, so that no step here augments them.
- share of the peak: model FLOPs of training with Adam-LAWN (see benchmarks/tools/model_flops.py)
  of what the device computes at most; blank where that is not known, give it with `--peak-tflops`.
- 300 epochs: of CIFAR-10's 50,000 images with Adam-LAWN, its 10,000 test images evaluated after
  each: the compilation of training, and what epochs take by the measured times of a step and of
  evaluation. Where a window has as many steps as an epoch, that is the time of an epoch itself.
- memory: arguments, results and temporary arrays of the program, as XLA has planned it.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.report import image_costs
from benchmarks.report.image_costs import ADAM, AS_THEY_ARE, EVALUATION, LAWN
from benchmarks.tools import model_flops, xla
from benchmarks.tools.timing import interleave, machine
from examples import cifar, training
from examples.results import records
from examples.tasks.images import ModelName, classification, data
from examples.tasks.images.models import MODELS
from examples.training import command
from examples.training.options import OptimizerName


class Workload(NamedTuple):
    """What a network is trained on.

    Attributes:
      pixels: rows and columns of an image.
      classes: how many to tell apart.
      batch_size: what is measured by default.
      like_cifar: whether images are augmented on the device, and epochs are those of CIFAR-10.
    """

    pixels: int
    classes: int
    batch_size: int
    like_cifar: bool


WORKLOADS = {name: Workload(32, 10, 4096, like_cifar=True) for name in MODELS} | {
    "resnet50": Workload(224, 1000, 256, like_cifar=False)
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Measures the training of each network."""

    models: tuple[ModelName, ...] = ("vgg19", "resnet50")
    """Which networks."""
    batch_size: int | None = None
    """Images in a batch; by default 256 of ImageNet's size and 4,096 of CIFAR's."""
    width: float = 1.0
    """Factor on the channels of the networks."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the computation. On CPU float32 is faster."""
    steps: int = 12
    """Steps in a window; of batches of 4,096 an epoch of CIFAR-10 has as many."""
    windows: int = 7
    """How often each program is timed, in turn with the others."""
    peak_tflops: float | None = None
    """What the device computes at most in that dtype, in TFLOP/s, where it is not known."""
    out: Path | None = None
    """JSONL file to append the measurements to."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "windows", "peak_tflops"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be above 0.")


def main(config: Config) -> None:
    """Measures, prints a table a network, appends the records."""
    for model in config.models:
        record = measure(model, config)
        print(f"\n{image_costs.heading(record)}\n\n{image_costs.table([record])}")
        if config.out:
            records.append_records(config.out, [record])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AsTheyAre(classification.Classification):
    """The same task without augmentation."""

    def pixels(self, batch: classification.Batch) -> jax.Array:
        """The images of a batch: `(batch, size, size, 3)` uint8."""
        return self.images[batch.images]


class Program:
    """An epoch of training, compiled and run once."""

    def __init__(self, task: classification.Classification, run: cifar.Config):
        static = run.static_options(task.steps_per_epoch)
        hyperparameters = jax.tree.map(lambda x: jnp.full(1, x, jnp.float32), run.hyperparameters())
        self.state = training.init(task, static, hyperparameters, jnp.zeros(1, jnp.int32))
        begun = time.perf_counter()
        compiled = training.train_epoch.lower(task, static, hyperparameters, self.state).compile()
        self.compile_s = time.perf_counter() - begun
        self.memory = xla.memory(compiled)
        self._epoch = lambda state: compiled(task, hyperparameters, state)
        self._steps = task.steps_per_epoch
        self.window()

    def window(self) -> float:
        """Seconds a step."""
        begun = time.perf_counter()
        self.state, metrics = self._epoch(self.state)
        jax.device_get(metrics)
        return (time.perf_counter() - begun) / self._steps


def measure(model: ModelName, config: Config) -> records.Record:
    """A record of one network."""
    work = WORKLOADS[model]
    batch_size = config.batch_size or work.batch_size
    task = make_task(model, batch_size, config)
    plain = as_they_are(task)
    trained = task if work.like_cifar else plain

    def program(task: classification.Classification, optimizer: OptimizerName) -> Program:
        run = cifar.Config(
            dataset="generated", batch_size=batch_size, optimizer=optimizer, free_epochs=0.0
        )
        return Program(task, run)

    programs = {ADAM: program(trained, "adam"), LAWN: program(trained, "adam_lawn")}
    windows: dict[str, Callable[[], float]] = {n: p.window for n, p in programs.items()}
    if work.like_cifar:
        windows[AS_THEY_ARE] = program(plain, "adam").window
        windows[EVALUATION] = evaluation(task, programs[ADAM])
    seconds = interleave(windows, config.windows, f"{model}, batch {batch_size:,}")
    return {
        "benchmark": "image-speed",
        "model": model,
        "width": config.width,
        "dtype": config.dtype,
        "batch_size": batch_size,
        "pixels": work.pixels,
        "parameters": sum(w.size for w in jax.tree.leaves(programs[ADAM].state.params)),
        "multiply_adds": model_flops.multiply_adds(
            lambda: task.model(nnx.Rngs(0)), task.images.shape[1:]
        ),
        "peak_tflops": peak_tflops(config),
        "steps": config.steps,
        "windows": config.windows,
        "seconds": {name: times.tolist() for name, times in seconds.items()},
        "compile_s": programs[LAWN].compile_s,
        "memory": programs[LAWN].memory,
        "versions": records.versions(),
        "backend": jax.default_backend(),
        "device": machine(),
    }


def make_task(model: ModelName, batch_size: int, config: Config) -> classification.Classification:
    """Noise, as many images of it as an epoch of the steps of a window takes."""
    work, n = WORKLOADS[model], config.steps * batch_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, work.pixels, work.pixels, 3), np.uint8)
    images = data.Images(pixels, rng.integers(0, work.classes, n, np.int32))
    held_out = data.Images(*(x[: image_costs.TEST_IMAGES] for x in images))
    return classification.make_task(
        data.Split(images, held_out, work.classes),
        batch_size=batch_size,
        degrees=0.0,
        model=model,
        width=config.width,
        dtype=config.dtype,
        gamma=0.0,
        label_smoothing=0.0,
        bounded_weight_norm=False,
    )


def as_they_are(task: classification.Classification) -> AsTheyAre:
    """The same images without augmentation."""
    return AsTheyAre(**{f.name: getattr(task, f.name) for f in dataclasses.fields(task)})


def evaluation(task: classification.Classification, trained: Program) -> Callable[[], float]:
    """Seconds an image, once it is compiled."""

    def window() -> float:
        begun = time.perf_counter()
        jax.device_get(training.evaluate(task, trained.state.params, trained.state.rest))
        return (time.perf_counter() - begun) / len(task.held_out_labels)

    window()
    return window


def peak_tflops(config: Config) -> float | None:
    """Of the device, None where it is not known."""
    if config.peak_tflops or config.dtype != "bfloat16":
        return config.peak_tflops
    return model_flops.PEAKS.get(jax.devices()[0].device_kind)


if __name__ == "__main__":
    command.run(main, command.parser(Config, "benchmarks.measure.images", __doc__))
