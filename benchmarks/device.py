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

from benchmarks.measure import epoch, images, optimizer_step, training_step
from benchmarks.paper import catalog, searches, studies, sweep
from benchmarks.paper.studies import Search, Study
from benchmarks.tools import optimizers
from examples import ncf
from examples.results import records, tables
from examples.tasks.images import classification, data
from examples.training import checkpoints, command
from examples.training.options import OptimizerName

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


class Place(NamedTuple):
    """Says where a measurement finds its data and leaves its records, and how small it is."""

    data_dir: Path | None
    out: Path
    tiny: bool


class Item(NamedTuple):
    """Names a measurement.

    Attributes:
      name: as `--only` takes it.
      seconds: an estimate.
      run: makes the records.
      can_be_cut: whether it keeps what it has, and goes on from there.
    """

    name: str
    seconds: float
    run: Callable[[Place], None]
    can_be_cut: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Measures what fits."""

    minutes: float = 12.0
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
        known = [item.name for item in ITEMS]
        for name in self.only:
            if name not in known:
                raise ValueError(f"only={name!r} must be one of {', '.join(known)}.")
        if not self.minutes > 0:
            raise ValueError(f"minutes={self.minutes} must be above 0.")


def main(config: DeviceConfig) -> None:
    """List, or measure and print what came of it."""
    chosen = [item for item in ITEMS if not config.only or item.name in config.only]
    if config.show:
        cells = [(i.name, f"{i.seconds:,.0f}", "yes" if i.can_be_cut else "") for i in chosen]
        print(tables.markdown(("measurement", "estimate in s", "can be cut short"), cells))
        return
    deadline = time.monotonic() + 60 * config.minutes
    config.folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(config.folder / "compilations"))
    tiny = config.scale == "tiny"
    place = Place(make_up(config.folder / "data") if tiny else config.data_dir, config.folder, tiny)
    log = config.folder / "device.jsonl"
    done = _done(log) if config.resume else set()
    rows = []
    for item in chosen:
        outcome = "done before" if item.name in done else attempt(item, place, deadline)
        rows.append((item.name, outcome))
        print(f"{item.name}: {outcome}", flush=True)
        records.append_records(log, [{"item": item.name, "outcome": outcome}])
    print(tables.markdown(("measurement", "outcome"), rows))


def attempt(item: Item, place: Place, deadline: float) -> str:
    """Run an item if it fits; say what came of it."""
    begun = time.monotonic()
    left = deadline - begun
    estimate = item.seconds if not place.tiny else 1.0
    if left < (min(estimate, WORTH_STARTING_S) if item.can_be_cut else estimate):
        return f"left out: {estimate:,.0f} s do not fit in {max(left, 0):,.0f}"
    try:
        with _alarm(left):
            item.run(place)
    except (Exception, sweep.CutShortError) as error:
        took = f"after {time.monotonic() - begun:.0f} s"
        cause = error.__cause__ if isinstance(error, sweep.CutShortError) else error
        if isinstance(cause, OutOfTimeError):
            return f"cut short {took}"
        (place.out / f"{item.name}.error.txt").write_text(traceback.format_exc())
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
    entries = records.read_records(log) if log.exists() else []
    return {entry["item"] for entry in entries if entry["outcome"].startswith("done")}


def step(place: Place, tree: str, optimizers: tuple[str, ...], **changes: Any) -> None:
    """Measure the optimizer step on a tree, PyTorch's beside it where it is installed."""
    given: Any = {"trees": (tree,), "optimizers": optimizers, "steps": 50} | changes
    if place.tiny:
        given |= {"trees": ("ncf",), "optimizers": ("adam_lawn",), "windows": 1, "steps": 1}
        given |= {"torch": False}
    config = optimizer_step.OptimizerStepConfig(**given, out=place.out / "overhead.jsonl")
    optimizer_step.main(config)


def launches(place: Place, tree: str) -> None:
    """Measure it without command buffers, and count the kernels that are launched."""
    step(place, tree, BOTH, command_buffers=False, profile=True, torch=False)


def whole_step(place: Place, model: str, batches: tuple[int, ...]) -> None:
    """Measure the training step."""
    tiny = {"workloads": ("ncf",), "batches": (8,), "windows": 1, "steps": 1}
    given: Any = {"workloads": (model,), "batches": batches, "optimizers": BOTH}
    out = place.out / "training_step.jsonl"
    training_step.main(
        training_step.TrainingStepConfig(**(given | (tiny if place.tiny else {})), out=out)
    )


def image_speed(place: Place, model: Any) -> None:
    """Measure the share of the peak."""
    tiny: Any = {"models": ("vgg5",), "width": 1 / 16, "batch_size": 8, "steps": 1, "windows": 1}
    given: Any = tiny | {"dtype": "float32"} if place.tiny else {"models": (model,)}
    images.main(images.ImageSpeedConfig(**given, out=place.out / "image-speed.jsonl"))


def epochs(place: Place, batches: tuple[int, ...], seeds: int, optimizers: Names = BOTH) -> None:
    """Measure an epoch of MovieLens-1M, some seeds side by side."""
    given: Any = {"batch_sizes": batches, "optimizers": optimizers, "epochs": 3}
    given |= {"batch_sizes": (64,), "epochs": 1} if place.tiny else {}
    epoch.main(
        epoch.EpochConfig(
            dataset="movielens-1m",
            data_dir=place.data_dir,
            records=place.out,
            seeds=seeds,
            **given,
        )
    )


def small(study: Study) -> Study:
    """Return a study of one setting for each optimizer, which trains in seconds."""
    changes: dict[str, Any] = {"batch_size": 64, "epochs": 1, "warmup_epochs": 0.0}
    if isinstance(study.base, ncf.Config):
        changes |= {"tower": (8, 4)}
    else:
        changes |= {"model": "vgg5", "width": 1 / 16, "dtype": "float32"}
    return dataclasses.replace(
        study,
        base=dataclasses.replace(study.base, **changes),
        learning_rates={name: rates[:1] for name, rates in study.learning_rates.items()},
        free_epochs=(0.5,),
        decays={name: values[:1] for name, values in study.decays.items()},
        sgd_decays=None,
        tuning={},
    )


def tuned(place: Place, study: Study, optimizers: Sequence[OptimizerName]) -> None:
    """Tune and report a study, side by side."""
    sweep.run_study(
        small(study) if place.tiny else study,
        sweep.SweepConfig(
            study=(study.name,),
            data_dir=place.data_dir,
            optimizers=tuple(optimizers),
            storage=place.out / "sweep.journal",
            records=place.out / study.base.dataset,
        ),
    )


def searched(place: Place, search: Search) -> None:
    """Try what a search of language models draws."""
    if place.tiny:
        tiny: Any = {"width": 8, "heads": 2, "depth": 1, "length": 16, "batch_size": 4}
        tiny |= {"epochs": 1, "warmup_epochs": 0.5, "epoch_tokens": 128, "dtype": "float32"}
        spaces = {
            space: (dataclasses.replace(setting, **tiny), ranges)
            for space, (setting, ranges) in list(search.spaces.items())[-1:]
        }
        base = dataclasses.replace(search.base, **tiny)
        search = dataclasses.replace(search, base=base, spaces=spaces, trials=1)
    sweep.run_search(
        search,
        sweep.SweepConfig(
            study=(search.name,),
            storage=place.out / "sweep.journal",
            records=place.out / "searches",
        ),
    )


def untuned(
    place: Place, study: Study, optimizers: Sequence[OptimizerName], seeds: int = 1
) -> None:
    """Train the setting in the middle of each optimizer's grid."""
    study = small(study) if place.tiny else study
    task = load(dataclasses.replace(study.base, data_dir=place.data_dir))
    for optimizer in optimizers:
        settings = next(iter(study.grids(optimizer).values()))
        runs = studies.reported(settings[len(settings) // 2])[:seeds]
        path = place.out / f"{study.name}-untuned.jsonl"
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


def make_up(folder: Path) -> Path:
    """Write small files of all datasets, as those published, into a folder; return it."""
    rng = np.random.default_rng(0)
    (folder / "cifar-10-batches-bin").mkdir(parents=True, exist_ok=True)
    items = lambda: 1 + rng.choice(200, 24, replace=False)
    lines = [(user, item, 5, t) for user in range(1, 21) for t, item in enumerate(items())]
    for name, apart in (("u.data", "\t"), ("ratings.dat", "::")):
        text = "\n".join(apart.join(map(str, line)) for line in lines)
        (folder / name).write_text(f"{text}\n")
    for name in ("data_batch_1", "test_batch"):
        rows = rng.integers(0, 256, (128, 1 + 3 * 32**2), np.uint8)
        rows[:, 0] %= 10
        rows.tofile(folder / "cifar-10-batches-bin" / f"{name}.bin")
    return folder


def estimate(study: Study, optimizers: Sequence[OptimizerName]) -> float:
    """Estimate the seconds of a tuned study of item recommendation by counting."""
    runs = sum(sum(map(len, study.to_try(o))) + 3 * len(study.grids(o)) for o in optimizers)
    base, examples = study.base, EXAMPLES[study.base.dataset]
    steps = math.ceil(examples / base.batch_size)
    of_epoch = examples * FLOPS_PER_EXAMPLE / FLOPS_PER_S + steps * STEP_S / sweep.ON_ACCELERATOR
    return len(optimizers) * 2 * COMPILE_S + runs * base.epochs * of_epoch


def _tuned(study: Study, optimizers: Sequence[OptimizerName], suffix: str) -> Item:
    run = lambda place: tuned(place, study, optimizers)
    return Item(f"{study.name}{suffix}", estimate(study, optimizers), run, can_be_cut=True)


def _middle(study: Study, optimizers: Sequence[OptimizerName], seconds: float, seeds: int) -> Item:
    run = lambda place: untuned(place, study, optimizers, seeds)
    return Item(f"{study.name}-untuned", seconds, run, can_be_cut=True)


ONE_K, *LARGER = catalog.MOVIELENS_1M
TEN_K, HUNDRED_K, ONE_M = LARGER
SIZES = tuple(study.base.batch_size for study in catalog.MOVIELENS_1M)
ITEMS = (
    Item("optimizer-step-block", 60, lambda place: step(place, "block", ALL)),
    Item("movielens-1m-epoch", 40, lambda place: epochs(place, (10_000,), 1)),
    Item("optimizer-step-resnet50", 90, lambda place: step(place, "resnet50", MAIN, torch=False)),
    Item("optimizer-step-vgg19", 60, lambda place: step(place, "vgg19", MAIN)),
    Item("optimizer-step-ncf", 40, lambda place: step(place, "ncf", ALL)),
    Item("optimizer-step-gpt2", 40, lambda place: step(place, "gpt2", MAIN, torch=False)),
    Item("launches-block", 10, lambda place: launches(place, "block")),
    Item("launches-vgg19", 20, lambda place: launches(place, "vgg19")),
    Item("launches-resnet50", 40, lambda place: launches(place, "resnet50")),
    Item("training-step-ncf", 30, lambda place: whole_step(place, "ncf", (1_000, 10_000))),
    Item("movielens-1m-8-side-by-side", 30, lambda place: epochs(place, (10_000,), 8, LAWN)),
    Item("movielens-1m-24-side-by-side", 40, lambda place: epochs(place, (10_000,), 24, LAWN)),
    Item("movielens-1m-3-seeds", 80, lambda place: epochs(place, SIZES, 3, LAWN)),
    _middle(TEN_K, LAWN, 60, seeds=1),
    *(_tuned(study, BOTH, "") for study in catalog.MOVIELENS_1M_SHORT),
    Item("image-speed-vgg19", 80, lambda place: image_speed(place, "vgg19")),
    Item("image-speed-resnet50", 120, lambda place: image_speed(place, "resnet50")),
    Item("training-step-vgg19", 90, lambda place: whole_step(place, "vgg19", (16, 256, 4096))),
    Item("training-step-resnet50", 150, lambda place: whole_step(place, "resnet50", (16, 256))),
    Item(
        searches.LM_AS_HARD.name,
        600,
        lambda place: searched(place, searches.LM_AS_HARD),
        can_be_cut=True,
    ),
    *(_middle(study, ("adam_lawn", "adam", "sgd"), 400, seeds=1) for study in catalog.CIFAR10[1:]),
    *(_middle(study, BOTH, 120, seeds=3) for study in (HUNDRED_K, ONE_M)),
    *(_tuned(study, BOTH, "") for study in LARGER),
    *(_tuned(study, [*BOTH, *OTHERS], "") for study in catalog.MOVIELENS_100K_FULL),
    *(_tuned(study, OTHERS, "-others") for study in LARGER),
    _tuned(ONE_K, [*BOTH, *OTHERS], ""),
)


if __name__ == "__main__":
    command.run(main, command.parser(DeviceConfig, "benchmarks.device", __doc__))
