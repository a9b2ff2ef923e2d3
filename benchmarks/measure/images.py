"""Measures how fast image classifiers train, and where the time of a step goes.

    python -m benchmarks.measure.images --out runs/image-speed.jsonl

An epoch of `examples.training` as `examples.cifar` runs it, gradient clipping and metrics included,
on images made of noise that are in device memory. All programs take turns, an epoch of some steps
each; a figure is the median over these windows, with the smallest and the largest in brackets.

- LAWN's share: what of a step with Adam-LAWN, on its spheres, goes beyond the step with Adam.
- augmentation's share: what of a step with Adam goes beyond one that takes the images as they are.
  ImageNet's images are augmented on the host, so that no step here augments them.
- share of the peak: model FLOPs of training with Adam-LAWN (see benchmarks/tools/flops.py)
  of what the device computes at most; blank where that is not known, give it with `--peak-tflops`.
- 300 epochs: of CIFAR-10's 50,000 images with Adam-LAWN, its 10,000 test images evaluated after
  each: the compilation of training, and what epochs take by the measured times of a step and of
  evaluation. Where a window has as many steps as an epoch, that is the time of an epoch itself.
- memory: arguments, results and temporary arrays of the program, as XLA has planned it.
"""

import dataclasses
import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.tools import flops, xla
from benchmarks.tools.timing import interleave, machine
from examples import cifar, training
from examples.results import records, tables
from examples.tasks.images import ModelName, Network, classification, data
from examples.tasks.images.models import MODELS
from examples.training import command
from examples.training.limits import ABOVE_0, AT_LEAST_1, check_ranges
from examples.training.traits import OptimizerName

COLUMNS = (
    *("model", "batch size", "images a second: Adam", "Adam-LAWN", "LAWN's share"),
    *("augmentation's share", "share of the peak", "300 epochs", "memory", "compiles in"),
)
ADAM, LAWN, AS_THEY_ARE, EVALUATION = "adam", "adam_lawn", "adam, as they are", "evaluation"
EPOCHS, TRAINING_IMAGES, TEST_IMAGES = 300, 50_000, 10_000


class ImageWorkload(NamedTuple):
    """Says what a network is trained on.

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


WORKLOADS = {name: ImageWorkload(32, 10, 4096, like_cifar=True) for name in MODELS} | {
    "resnet50": ImageWorkload(224, 1000, 256, like_cifar=False)
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSpeedConfig:
    """Measures the training of each network."""

    models: tuple[ModelName, ...] = ("vgg19", "resnet50")
    """Which networks."""
    batch_size: Annotated[int | None, AT_LEAST_1] = None
    """Images in a batch; by default 256 of ImageNet's size and 4,096 of CIFAR's."""
    width: float = 1.0
    """Factor on the channels of the networks."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the computation. On CPU float32 is faster."""
    steps: Annotated[int, AT_LEAST_1] = 12
    """Steps in a window; of batches of 4,096 an epoch of CIFAR-10 has as many."""
    windows: Annotated[int, AT_LEAST_1] = 7
    """How often each program is timed, in turn with the others."""
    peak_tflops: Annotated[float | None, ABOVE_0] = None
    """What the device computes at most in that dtype, in TFLOP/s, where it is not known."""
    out: Path | None = None
    """JSONL file to append the measurements to."""

    def __post_init__(self) -> None:
        check_ranges(self)


def main(config: ImageSpeedConfig) -> None:
    """Measure, print a table per network; append the records."""
    for model in config.models:
        record = measure(model, config)
        print(f"\n{heading(record)}\n\n{table([record])}")
        if config.out:
            records.append_records(config.out, [record])


class EpochProgram:
    """Holds an epoch of training, compiled and run once."""

    def __init__(self, task: classification.Classification, run: cifar.Config):
        static = run.static_options(task.steps_per_epoch)
        hyperparameters = run.hyperparameters().per_run(1)
        self.state = training.init(task, static, hyperparameters, jnp.zeros(1, jnp.int32))
        begun = time.perf_counter()
        compiled = training.train_epoch.lower(task, static, hyperparameters, self.state).compile()
        self.compile_s = time.perf_counter() - begun
        self.memory = xla.memory(compiled)
        self._epoch = lambda state: compiled(task, hyperparameters, state)
        self._steps = task.steps_per_epoch
        self.window()

    def window(self) -> float:
        """Return the seconds of a step."""
        begun = time.perf_counter()
        self.state, metrics = self._epoch(self.state)
        jax.device_get(metrics)
        return (time.perf_counter() - begun) / self._steps


def measure(model: ModelName, config: ImageSpeedConfig) -> records.Record:
    """Return a record of one network."""
    work = WORKLOADS[model]
    batch_size = config.batch_size or work.batch_size
    task = make_task(model, batch_size, config)
    plain = dataclasses.replace(task, augmented=False)
    trained = task if work.like_cifar else plain

    def program(task: classification.Classification, optimizer: OptimizerName) -> EpochProgram:
        run = cifar.Config(
            dataset="generated", batch_size=batch_size, optimizer=optimizer, free_epochs=0.0
        )
        return EpochProgram(task, run)

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
        "multiply_adds": flops.multiply_adds(
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


def make_task(
    model: ModelName, batch_size: int, config: ImageSpeedConfig
) -> classification.Classification:
    """Make noise, as many images of it as an epoch of the steps of a window takes."""
    work, n = WORKLOADS[model], config.steps * batch_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, work.pixels, work.pixels, 3), np.uint8)
    images = data.Images(pixels, rng.integers(0, work.classes, n, np.int32))
    held_out = data.Images(*(x[:TEST_IMAGES] for x in images))
    return classification.make_task(
        data.Split(images, held_out, work.classes),
        batch_size=batch_size,
        degrees=0.0,
        network=Network(model=model, width=config.width, dtype=config.dtype),
    )


def evaluation(task: classification.Classification, trained: EpochProgram) -> Callable[[], float]:
    """Return a clock of evaluation: seconds per image."""

    def window() -> float:
        begun = time.perf_counter()
        jax.device_get(training.evaluate(task, trained.state.params, trained.state.rest))
        return (time.perf_counter() - begun) / len(task.held_out_labels)

    window()
    return window


def peak_tflops(config: ImageSpeedConfig) -> float | None:
    """Return the peak of the device, None where it is not known."""
    if config.peak_tflops or config.dtype != "bfloat16":
        return config.peak_tflops
    return flops.PEAKS.get(jax.devices()[0].device_kind)


def images_per_second(record: records.Record, run: str) -> float:
    """Return the images trained on per second."""
    return float(record["batch_size"] / np.median(record["seconds"][run]))


def share_of_peak(record: records.Record) -> float | None:
    """Return the share of the device's peak that model FLOPs are, from 0 to 1."""
    if record["peak_tflops"] is None:
        return None
    needed = flops.of_training(record["multiply_adds"]) * images_per_second(record, LAWN)
    return needed / (1e12 * float(record["peak_tflops"]))


def share(record: records.Record, part: str) -> np.ndarray | None:
    """Return what LAWN or augmentation takes of the step that has it: `(windows,)`."""
    whole, without = {"LAWN": (LAWN, ADAM), "augmentation": (ADAM, AS_THEY_ARE)}[part]
    seconds = record["seconds"]
    if without not in seconds:
        return None
    return 1 - np.array(seconds[without]) / np.array(seconds[whole])


def seconds_of_epochs(record: records.Record) -> float | None:
    """Return what 300 epochs of CIFAR-10 take, None for other networks and larger batches."""
    if EVALUATION not in record["seconds"] or record["batch_size"] > TRAINING_IMAGES:
        return None
    step, image = (np.median(record["seconds"][run]) for run in (LAWN, EVALUATION))
    epoch = TRAINING_IMAGES // record["batch_size"] * step + TEST_IMAGES * image
    return float(record["compile_s"] + EPOCHS * epoch)


def heading(record: records.Record) -> str:
    """Say what was measured, and where."""
    return (
        f"On {record['backend'].upper()}, {record['device']}: {record['windows']} windows of"
        f" {record['steps']} steps, {record['dtype']}."
    )


def table(found: Sequence[records.Record]) -> str:
    """Return a row per network."""
    rows = []
    for record in found:
        name = record["model"]
        if record["width"] != 1:
            name += f", {record['width']:g} of its channels"
        rows.append(
            (
                name,
                f"{record['batch_size']:,}",
                *(f"{images_per_second(record, run):,.0f}" for run in (ADAM, LAWN)),
                spread(share(record, "LAWN")),
                spread(share(record, "augmentation")),
                percent(share_of_peak(record)),
                clock(seconds_of_epochs(record)),
                f"{record['memory'] / 2**30:.3g} GiB",
                f"{record['compile_s']:.0f} s",
            )
        )
    return tables.markdown(COLUMNS, rows)


def spread(shares: np.ndarray | None) -> str:
    """Return a median with its spread, in percent."""
    if shares is None:
        return ""
    return f"{np.median(shares):z.1%} ({shares.min():z.1%} to {shares.max():z.1%})"


def percent(share: float | None) -> str:
    """Return a share in percent, nothing where it is not known."""
    return "" if share is None else f"{share:.1%}"


def clock(seconds: float | None) -> str:
    """Return hours, minutes and seconds."""
    return "" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))


if __name__ == "__main__":
    command.run(main, command.parser(ImageSpeedConfig, "benchmarks.measure.images", __doc__))
