"""Compares the measured costs with their goals, on each device."""

import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.measure import epoch, images, optimizer_step
from benchmarks.report.part import Missing
from benchmarks.tools.records import newest_or_new
from examples.results import tables
from examples.results.records import Record

Key = tuple[str, int]  # The tree or model, and the batch size, 0 of a tree alone.
Runs = dict[Key, dict[str, Record]]  # By optimizer.
EPOCHS_OF_TABLE_10 = {1_000: 300, 10_000: 300, 100_000: 500, 1_000_000: 500}  # The paper's epochs.


class Device(NamedTuple):
    """Names where a goal is to be reached, and tells the records of that place."""

    name: str
    has: Callable[[Record], bool]


CPU = Device("a CPU", lambda record: record["backend"] == "cpu")
GPU = Device("a GPU", lambda record: record["backend"] == "gpu")
COMPILED = Device(
    "a GPU, compiled and not run",
    lambda record: record["backend"] == f"{optimizer_step.COMPILED}gpu",
)
HOPPER = Device(
    "an H100 or H200", lambda record: record["device"].startswith(("NVIDIA H100", "NVIDIA H200"))
)


class Goal(NamedTuple):
    """Says what was to be reached.

    Attributes:
      what: in words.
      device: where.
      reach: how much, in words.
      of: shows what some records of the device reach, None where they do not tell.
      command: what measures it.
    """

    what: str
    device: Device
    reach: str
    of: Callable[[Sequence[Record]], str | None]
    command: str

    def measured(self, found: Sequence[Record]) -> str | None:
        """Show what is reached, None where it was not measured."""
        return self.of([record for record in found if self.device.has(record)])


def index(found: Sequence[Record], *, command_buffers: bool = True) -> Runs:
    """Return the last record of each optimizer on each tree or model."""
    runs: Runs = {}
    for record in found:
        if record.get("command_buffers", True) != command_buffers:
            continue
        if record["benchmark"] in ("overhead", "training_step"):
            name = record["tree"] if record["benchmark"] == "overhead" else record["workload"]
            runs.setdefault((name, record.get("batch_size", 0)), {})[record["optimizer"]] = record
    return runs


def table(found: Sequence[Record]) -> str:
    """Return a row per goal that was measured."""
    rows = [
        (goal.what, goal.device.name, goal.reach, measured)
        for goal in GOALS
        if (measured := goal.measured(found))
    ]
    return tables.markdown(("of Adam-LAWN, constrained", "where", "to reach", "measured"), rows)


def missing(found: Sequence[Record]) -> list[Missing]:
    """Return the goals that were not measured."""
    return [
        Missing(f"{goal.what}, on {goal.device.name}", goal.reach, goal.command)
        for goal in GOALS
        if goal.measured(found) is None
    ]


Pairs = list[tuple[Record, Record]]


def _worst(
    of: Callable[[Record, Record], float],
) -> Callable[[Sequence[Record]], str | None]:
    """Show the largest ratio of Adam-LAWN's record and Adam's, over all trees."""

    def worst(found: Sequence[Record]) -> str | None:
        pairs: Pairs = [
            (run["adam_lawn"], run["adam"])
            for (_, batch_size), run in index(found).items()
            if not batch_size and {"adam_lawn", "adam"} <= run.keys()
        ]
        return f"{max(of(*pair) for pair in pairs):.2f}" if pairs else None

    return worst


def _beyond_adam(temporary: str) -> Callable[[Record, Record], float]:
    """Return the temporary memory beyond Adam's, in largest leaves of float32."""

    def beyond_adam(lawn: Record, adam: Record) -> float:
        more = (lawn[temporary] - adam[temporary]) * lawn["parameters"]
        return float(more / (4 * lawn["largest_leaf"]))

    return beyond_adam


def _time(name: str, batch_size: int = 0) -> Callable[[Sequence[Record]], str | None]:
    """Show the time to Adam's, on one tree or in one training step, with its spread."""

    def time(found: Sequence[Record]) -> str | None:
        lawn = index(found).get((name, batch_size), {}).get("adam_lawn")
        return optimizer_step.ratio(lawn) if lawn else None

    return time


def _of_copy(found: Sequence[Record]) -> str | None:
    """Show the share of a copy's bandwidth that Adam-LAWN's step reaches on the large leaf."""
    lawn = index(found).get(("block", 0), {}).get("adam_lawn")
    share = optimizer_step.share_of_copy(lawn) if lawn else None
    return None if share is None else f"{share:.0%}"


def _minutes(epochs: dict[int, int], seeds: int) -> Callable[[Sequence[Record]], str | None]:
    """Show the minutes that MovieLens-1M takes, by optimizer."""

    def minutes(found: Sequence[Record]) -> str | None:
        runs = [
            record
            for record in found
            if record["benchmark"] == "epoch-time"
            and (record["config"]["dataset"], record["config"]["seeds"]) == ("movielens-1m", seeds)
        ]
        by_optimizer = tables.group(runs, lambda run: run["config"]["optimizer"])
        taken = {name: epoch.minutes_of(epochs, runs) for name, runs in by_optimizer.items()}
        shown = [f"{name} {minutes:.2g}" for name, minutes in taken.items() if minutes is not None]
        return ", ".join(shown) or None

    return minutes


def _images(
    model: str, batch_size: int, of: Callable[[Record], str]
) -> Callable[[Sequence[Record]], str | None]:
    """Show what the last record of a whole network in bfloat16 says."""
    whole = {"model": model, "batch_size": batch_size, "width": 1.0, "dtype": "bfloat16"}

    def last(found: Sequence[Record]) -> str | None:
        runs = [
            record
            for record in found
            if record["benchmark"] == "image-speed" and whole.items() <= record.items()
        ]
        return of(runs[-1]) if runs else None

    return last


_STEP = "python -m benchmarks.measure.optimizer_step"
_TREES = "--trees block ncf vgg19 resnet50 gpt2"
_RECORDS = f"benchmarks/records/{newest_or_new('overhead').name}"
_OVERHEAD = f"{_STEP} {_TREES} --out {_RECORDS}/overhead.jsonl"
_COMPILE = (
    f"JAX_PLATFORMS=cpu {_STEP} --compile-for h200.txtpb {_TREES}"
    f" --out {_RECORDS}/compiled-h200.jsonl"
)


def _training(model: str, batch_size: int) -> str:
    return (
        f"python -m benchmarks.measure.training_step --workloads {model} --batches {batch_size}"
        f" --out {_RECORDS}/training_step.jsonl"
    )


def _epochs(epochs: dict[int, int], seeds: int) -> str:
    sizes = " ".join(map(str, epochs))
    return (
        "python -m benchmarks.measure.epoch --dataset movielens-1m --data-dir DIR"
        f" --batch-sizes {sizes} --seeds {seeds}"
    )


def _of_images(
    what: str, reach: str, model: str, batch_size: int, of: Callable[[Record], str]
) -> Goal:
    out = f"benchmarks/records/{newest_or_new('image-speed').name}/h200.jsonl"
    command = f"python -m benchmarks.measure.images --models {model} --out {out}"
    return Goal(what, HOPPER, reach, _images(model, batch_size, of), command)


_BYTES = _worst(lambda lawn, adam: lawn["bytes"] / adam["bytes"])
_WORST_BYTES = "bytes of a step to Adam's, on the worst tree"
_WORST_MEMORY = "temporary memory beyond Adam's, in largest leaves, on the worst tree"
_MEMORY = _worst(_beyond_adam("temporary"))
_IN_LOOP, _LOOP_MEMORY = f"{_WORST_MEMORY}, in a loop", _worst(_beyond_adam("temporary_in_loop"))
_ONE = {10_000: 300}

GOALS = (
    Goal(_WORST_BYTES, CPU, "2.00 or less", _BYTES, _OVERHEAD),
    Goal(_WORST_BYTES, COMPILED, "1.75 or less", _BYTES, _COMPILE),
    Goal(_WORST_MEMORY, CPU, "1.00 or less", _MEMORY, _OVERHEAD),
    Goal(_IN_LOOP, CPU, "1.00 or less", _LOOP_MEMORY, _OVERHEAD),
    Goal(_WORST_MEMORY, COMPILED, "1.00 or less", _MEMORY, _COMPILE),
    Goal(_IN_LOOP, GPU, "1.00 or less", _LOOP_MEMORY, _OVERHEAD),
    Goal("time of a step to Adam's: block", CPU, "2.50 or less", _time("block"), _OVERHEAD),
    Goal("time of a step to Adam's: block", GPU, "1.75 or less", _time("block"), _OVERHEAD),
    Goal("a step's share of copy bandwidth: block", GPU, "85% or more", _of_copy, _OVERHEAD),
    Goal(
        "time of a step to Adam's: ResNet-50's tree",
        GPU,
        "1.50 or less",
        _time("resnet50"),
        _OVERHEAD,
    ),
    *(
        Goal(
            f"time of a training step to Adam's: {title} at batch {size:,}",
            GPU,
            f"{most:.2f} or less",
            _time(name, size),
            _training(name, size),
        )
        for title, name, size, most in (
            ("ResNet-50", "resnet50", 256, 1.01),
            ("NCF", "ncf", 1_000, 1.05),
            ("ResNet-50", "resnet50", 16, 1.10),
        )
    ),
    *(
        Goal(what, HOPPER, f"{minutes:g} minutes or less", _minutes(of, seeds), _epochs(of, seeds))
        for what, of, seeds, minutes in (
            ("MovieLens-1M: 300 epochs at batch size 10,000, one seed", _ONE, 1, 0.5),
            ("MovieLens-1M: Table 10 for one optimizer, three seeds", EPOCHS_OF_TABLE_10, 3, 5),
        )
    ),
    _of_images(
        "VGG-19 at batch 4,096: share of the dense bfloat16 peak",
        "45% or more",
        *("vgg19", 4096, lambda record: images.percent(images.share_of_peak(record))),
    ),
    _of_images(
        "VGG-19 at batch 4,096: 300 epochs of CIFAR-10",
        f"{datetime.timedelta(minutes=3)} or less",
        *("vgg19", 4096, lambda record: images.clock(images.seconds_of_epochs(record))),
    ),
    _of_images(
        "VGG-19 at batch 4,096: augmentation's share of the step",
        "below 5%",
        *("vgg19", 4096, lambda record: images.spread(images.share(record, "augmentation"))),
    ),
    _of_images(
        "VGG-19 at batch 4,096: LAWN's share of the step",
        "1% or less",
        *("vgg19", 4096, lambda record: images.spread(images.share(record, "LAWN"))),
    ),
    _of_images(
        "ResNet-50 at batch 256: images a second",
        "2,500 or more",
        *("resnet50", 256, lambda record: f"{images.images_per_second(record, images.LAWN):,.0f}"),
    ),
    _of_images(
        "ResNet-50 at batch 256: LAWN's share of the step",
        "1% or less",
        *("resnet50", 256, lambda record: images.spread(images.share(record, "LAWN"))),
    ),
)
