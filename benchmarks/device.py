"""Measures on an accelerator, in one command, as much as fits the given minutes.

    python -m benchmarks.device --minutes 12 --data-dir DIR --out DIR

Measurements stand in order of worth. One is started if what is left is enough by its estimate, or,
where it keeps what it has when it is cut short, if a minute is left. Each record is on disk as soon
as it exists; what fails is told and does not end the others. JAX's compilations are kept in OUT
too, and `--resume` leaves out what is done.

DIR holds MovieLens as it is published, and CIFAR-10's `cifar-10-batches-bin`. Copy OUT's records
into benchmarks/records/<date>-<what>/ and run `python -m benchmarks.report`.
"""

import dataclasses
import functools
import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

from benchmarks import tiny
from benchmarks.measure import epoch, images, optimizer_step, training_step
from benchmarks.paper import catalog, searches, studies, sweep
from benchmarks.paper.studies import Search, Study
from benchmarks.tools import optimizers
from examples import ncf
from examples.results import records, tables
from examples.tasks.images import classification, data
from examples.training import checkpoints, command
from examples.training.limits import ABOVE_0, check_ranges
from examples.training.traits import OptimizerName

Names = tuple[OptimizerName, ...]
LAWN: Names = ("adam_lawn",)
BOTH: Names = ("adam", *LAWN)
OTHERS: Names = ("lamb", "lamb_lawn", "sgd")
# Of `optimizer_step`: what claims rest on, and all that has no matrix products of its own.
MAIN = ("adam", "adam_lawn", "adam_lawn, free", "adam_lawn, no care", "lamb", "lamb_lawn")
ALL = tuple(name for name in optimizers.OPTIMIZERS if not name.startswith("muon"))
WORTH_STARTING_S = 60  # Of what can be cut short.
# For the estimates, as an H200 had it: float32 products, launches of a step, compilation.
FLOPS_PER_S, STEP_S, COMPILE_S = 5e13, 3e-4, 10
FLOPS_PER_EXAMPLE = 6 * (256 * 128 + 128 * 64 + 64)  # Of `examples.ncf`'s network.
EXAMPLES = {"movielens-100k": 5 * 99_057, "movielens-1m": 5 * 994_169}  # Of an epoch.


class OutOfTimeError(Exception):
    """Says that the minutes are over."""


class Paths(NamedTuple):
    """Says where a measurement finds its data and leaves its records."""

    data_dir: Path | None
    out: Path


class Measurement(NamedTuple):
    """Names a measurement.

    Attributes:
      name: as `--only` takes it.
      seconds: an estimate.
      what: a configuration, a study or a search, of which there is a small form.
      run: makes the records of it.
      can_be_cut: whether it keeps what it has, and goes on from there.
    """

    name: str
    seconds: float
    what: Any
    run: Callable[[Any, Paths], None]
    can_be_cut: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Measures what fits."""

    minutes: Annotated[float, ABOVE_0] = 12.0
    """How long, the start of the process not counted in."""
    data_dir: Path | None = None
    """Folder of the data."""
    folder: Annotated[Path, tyro.conf.arg(name="out")] = Path("runs/device")
    """Folder of the records."""
    show: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print the measurements with their estimates, and measure nothing."""
    only: tuple[str, ...] = ()
    """Which; by default all."""
    resume: bool = False
    """Leave out what the records say is done."""
    scale: Literal["full", "tiny"] = "full"
    """tiny: made-up data and one small step of each, to try the command on a CPU."""

    def __post_init__(self) -> None:
        check_ranges(self)
        known = [m.name for m in MEASUREMENTS]
        for name in self.only:
            if name not in known:
                raise ValueError(f"only={name!r} must be one of {', '.join(known)}.")


def main(config: DeviceConfig) -> None:
    """List, or measure and print what came of it."""
    chosen = [m for m in MEASUREMENTS if not config.only or m.name in config.only]
    if config.show:
        cells = [(m.name, f"{m.seconds:,.0f}", "yes" if m.can_be_cut else "") for m in chosen]
        print(tables.markdown(("measurement", "estimate in s", "can be cut short"), cells))
        return
    deadline = time.monotonic() + 60 * config.minutes
    config.folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(config.folder / "compilations"))
    paths = Paths(config.data_dir, config.folder)
    if config.scale == "tiny":
        paths = paths._replace(data_dir=tiny.make_up(config.folder / "data"))
        chosen = [m._replace(seconds=1.0, what=tiny.shrink(m.what)) for m in chosen]
    log = config.folder / "device.jsonl"
    done = _done(log) if config.resume else set()
    rows = []
    for m in chosen:
        outcome = "done before" if m.name in done else attempt(m, paths, deadline)
        rows.append((m.name, outcome))
        print(f"{m.name}: {outcome}", flush=True)
        records.append_records(log, [{"item": m.name, "outcome": outcome}])
    print(tables.markdown(("measurement", "outcome"), rows))


def attempt(measurement: Measurement, paths: Paths, deadline: float) -> str:
    """Run a measurement if it fits; say what came of it."""
    begun = time.monotonic()
    left, needed = deadline - begun, measurement.seconds
    if left < (min(needed, WORTH_STARTING_S) if measurement.can_be_cut else needed):
        return f"left out: {needed:,.0f} s do not fit in {max(left, 0):,.0f}"
    try:
        with _alarm(left):
            measurement.run(measurement.what, paths)
    except (Exception, sweep.CutShortError) as error:
        took = f"after {time.monotonic() - begun:.0f} s"
        cause = error.__cause__ if isinstance(error, sweep.CutShortError) else error
        if isinstance(cause, OutOfTimeError):
            return f"cut short {took}"
        (paths.out / f"{measurement.name}.error.txt").write_text(traceback.format_exc())
        return f"failed {took}: {' '.join(str(cause).split())[:200]}"
    return f"done in {time.monotonic() - begun:.0f} s"


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` within, once the seconds are over."""

    def ring(*_: Any) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _done(log: Path) -> set[str]:
    """Return what a log says is done."""
    entries = records.read_records(log)
    return {entry["item"] for entry in entries if entry["outcome"].startswith("done")}


def step(config: optimizer_step.OptimizerStepConfig, paths: Paths) -> None:
    """Measure the optimizer step."""
    optimizer_step.main(dataclasses.replace(config, out=paths.out / "overhead.jsonl"))


def whole_step(config: training_step.TrainingStepConfig, paths: Paths) -> None:
    """Measure the training step."""
    training_step.main(dataclasses.replace(config, out=paths.out / "training_step.jsonl"))


def image_speed(config: images.ImageSpeedConfig, paths: Paths) -> None:
    """Measure the share of the peak."""
    images.main(dataclasses.replace(config, out=paths.out / "image-speed.jsonl"))


def epochs(config: epoch.EpochConfig, paths: Paths) -> None:
    """Measure an epoch of item recommendation."""
    epoch.main(dataclasses.replace(config, data_dir=paths.data_dir, records=paths.out))


def tuned(study: Study, paths: Paths, optimizers: Sequence[OptimizerName]) -> None:
    """Tune and report a study, side by side."""
    sweep.run_study(
        study,
        sweep.SweepConfig(
            study=(study.name,),
            data_dir=paths.data_dir,
            optimizers=tuple(optimizers),
            storage=paths.out / "sweep.journal",
            records=paths.out / study.base.dataset,
        ),
    )


def searched(search: Search, paths: Paths) -> None:
    """Try what a search of language models draws."""
    sweep.run_search(
        search,
        sweep.SweepConfig(
            study=(search.name,),
            storage=paths.out / "sweep.journal",
            records=paths.out / "searches",
        ),
    )


def untuned(study: Study, paths: Paths, optimizers: Sequence[OptimizerName], seeds: int) -> None:
    """Train the setting in the middle of each optimizer's grid."""
    task = load(dataclasses.replace(study.base, data_dir=paths.data_dir))
    for optimizer in optimizers:
        settings = next(iter(study.grids(optimizer).values()))
        runs = studies.reported(settings[len(settings) // 2])[:seeds]
        path = paths.out / f"{study.name}-untuned.jsonl"
        missing = [run for run in runs if studies.identity(run.config()) not in sweep.read(path)]
        if missing:
            sweep.train(task, study, checkpoints.checksum(task), missing, path)


def load(run: Any) -> Any:
    """Load the task of a run, CIFAR-10 from its published binaries."""
    if isinstance(run, ncf.Config):
        return ncf.load(run)
    split = read_cifar10(run.data_dir or Path())
    return classification.make_task(
        split, batch_size=run.batch_size, degrees=run.degrees, **run.of_task()
    )


def read_cifar10(data_dir: Path) -> data.Split:
    """Read `cifar-10-batches-bin`: a byte of label, then the planes of red, green and blue."""
    folder = data_dir / "cifar-10-batches-bin"
    parts = {"train": sorted(folder.glob("data_batch_*.bin")), "test": [folder / "test_batch.bin"]}

    def read(files: Sequence[Path]) -> data.Images:
        rows = np.concatenate([np.fromfile(f, np.uint8).reshape(-1, 1 + 3 * 32**2) for f in files])
        planes = rows[:, 1:].reshape(-1, 3, 32, 32)
        pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        return data.Images(pixels, rows[:, 0].astype(np.int32))

    if not parts["train"] or not parts["test"][0].exists():
        raise FileNotFoundError(f"{folder} lacks data_batch_*.bin or test_batch.bin: unpack them.")
    return data.Split(read(parts["train"]), read(parts["test"]), classes=10)


def estimate(study: Study, optimizers: Sequence[OptimizerName]) -> float:
    """Estimate the seconds of a tuned study of item recommendation by counting."""
    runs = sum(sum(map(len, study.to_try(o))) + 3 * len(study.grids(o)) for o in optimizers)
    base, examples = study.base, EXAMPLES[study.base.dataset]
    steps = math.ceil(examples / base.batch_size)
    of_epoch = examples * FLOPS_PER_EXAMPLE / FLOPS_PER_S + steps * STEP_S / sweep.ON_ACCELERATOR
    return len(optimizers) * 2 * COMPILE_S + runs * base.epochs * of_epoch


def _step(tree: str, seconds: float, optimizers: tuple[str, ...], **others: Any) -> Measurement:
    config = optimizer_step.OptimizerStepConfig(
        trees=(tree,), optimizers=optimizers, steps=50, **others
    )
    return Measurement(f"optimizer-step-{tree}", seconds, config, step)


def _launches(tree: str, seconds: float) -> Measurement:
    """Return the step without command buffers, to count the kernels that are launched."""
    measurement = _step(tree, seconds, BOTH, command_buffers=False, profile=True, torch=False)
    return measurement._replace(name=f"launches-{tree}")


def _whole_step(model: str, seconds: float, batches: tuple[int, ...]) -> Measurement:
    config = training_step.TrainingStepConfig(workloads=(model,), batches=batches, optimizers=BOTH)
    return Measurement(f"training-step-{model}", seconds, config, whole_step)


def _image_speed(model: Any, seconds: float) -> Measurement:
    return Measurement(
        f"image-speed-{model}", seconds, images.ImageSpeedConfig(models=(model,)), image_speed
    )


def _epochs(
    name: str, seconds: float, batches: tuple[int, ...], seeds: int, optimizers: Names = LAWN
) -> Measurement:
    """Return an epoch of MovieLens-1M, some seeds side by side."""
    config = epoch.EpochConfig(
        dataset="movielens-1m", batch_sizes=batches, optimizers=optimizers, epochs=3, seeds=seeds
    )
    return Measurement(f"movielens-1m-{name}", seconds, config, epochs)


def _tuned(study: Study, optimizers: Sequence[OptimizerName], suffix: str = "") -> Measurement:
    run = functools.partial(tuned, optimizers=optimizers)
    seconds = estimate(study, optimizers)
    return Measurement(f"{study.name}{suffix}", seconds, study, run, can_be_cut=True)


def _middle(
    study: Study, optimizers: Sequence[OptimizerName], seconds: float, seeds: int
) -> Measurement:
    run = functools.partial(untuned, optimizers=optimizers, seeds=seeds)
    return Measurement(f"{study.name}-untuned", seconds, study, run, can_be_cut=True)


ONE_K, *LARGER = catalog.MOVIELENS_1M
TEN_K, HUNDRED_K, ONE_M = LARGER
SIZES = tuple(study.base.batch_size for study in catalog.MOVIELENS_1M)
MEASUREMENTS = (
    _step("block", 60, ALL),
    _epochs("epoch", 40, (10_000,), 1, BOTH),
    _step("resnet50", 90, MAIN, torch=False),
    _step("vgg19", 60, MAIN),
    _step("ncf", 40, ALL),
    _step("gpt2", 40, MAIN, torch=False),
    _launches("block", 10),
    _launches("vgg19", 20),
    _launches("resnet50", 40),
    _whole_step("ncf", 30, (1_000, 10_000)),
    _epochs("8-side-by-side", 30, (10_000,), 8),
    _epochs("24-side-by-side", 40, (10_000,), 24),
    _epochs("3-seeds", 80, SIZES, 3),
    _middle(TEN_K, LAWN, 60, seeds=1),
    *(_tuned(study, BOTH) for study in catalog.MOVIELENS_1M_SHORT),
    _image_speed("vgg19", 80),
    _image_speed("resnet50", 120),
    _whole_step("vgg19", 90, (16, 256, 4096)),
    _whole_step("resnet50", 150, (16, 256)),
    Measurement(searches.LM_AS_HARD.name, 600, searches.LM_AS_HARD, searched, can_be_cut=True),
    *(_middle(study, ("adam_lawn", "adam", "sgd"), 400, seeds=1) for study in catalog.CIFAR10[1:]),
    *(_middle(study, BOTH, 120, seeds=3) for study in (HUNDRED_K, ONE_M)),
    *(_tuned(study, BOTH) for study in LARGER),
    *(_tuned(study, [*BOTH, *OTHERS]) for study in catalog.MOVIELENS_100K_FULL),
    *(_tuned(study, OTHERS, "-others") for study in LARGER),
    _tuned(ONE_K, [*BOTH, *OTHERS]),
)


if __name__ == "__main__":
    command.run(main, command.parser(DeviceConfig, "benchmarks.device", __doc__))
