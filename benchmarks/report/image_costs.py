"""What the records of benchmarks.measure.images show: the goals, and a table for each device.

How each figure is measured, `python -m benchmarks.measure.images --help` says.
"""

import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.tools import folders, model_flops
from benchmarks.tools.folders import NOT_YET_RUN
from examples.results import records, tables
from examples.tasks.images import ModelName

COLUMNS = (
    *("model", "batch size", "images a second: Adam", "Adam-LAWN", "LAWN's share"),
    *("augmentation's share", "share of the peak", "300 epochs", "memory", "compiles in"),
)
ADAM, LAWN, AS_THEY_ARE, EVALUATION = "adam", "adam_lawn", "adam, as they are", "evaluation"
EPOCHS, TRAINING_IMAGES, TEST_IMAGES = 300, 50_000, 10_000


def images_per_second(record: records.Record, run: str) -> float:
    """Images trained on."""
    return float(record["batch_size"] / np.median(record["seconds"][run]))


def share_of_peak(record: records.Record) -> float | None:
    """Model FLOPs a second of those of the device, from 0 to 1."""
    if record["peak_tflops"] is None:
        return None
    flops = model_flops.of_training(record["multiply_adds"]) * images_per_second(record, LAWN)
    return flops / (1e12 * float(record["peak_tflops"]))


def share(record: records.Record, part: str) -> np.ndarray | None:
    """In each window, what LAWN or augmentation takes of the step that has it: `(windows,)`."""
    whole, without = {"LAWN": (LAWN, ADAM), "augmentation": (ADAM, AS_THEY_ARE)}[part]
    seconds = record["seconds"]
    if without not in seconds:
        return None
    return 1 - np.array(seconds[without]) / np.array(seconds[whole])


def seconds_of_epochs(record: records.Record) -> float | None:
    """What 300 epochs of CIFAR-10 take, None for a network or a batch that is not for it."""
    if EVALUATION not in record["seconds"] or record["batch_size"] > TRAINING_IMAGES:
        return None
    step, image = (np.median(record["seconds"][run]) for run in (LAWN, EVALUATION))
    epoch = TRAINING_IMAGES // record["batch_size"] * step + TEST_IMAGES * image
    return float(record["compile_s"] + EPOCHS * epoch)


class Goal(NamedTuple):
    """What is to be reached on one H200, by a whole network in bfloat16, with Adam-LAWN.

    Attributes:
      what: in words.
      model: which network.
      batch_size: images in a batch.
      reached: how much it is to be.
      of: what a record shows of it.
    """

    what: str
    model: ModelName
    batch_size: int
    reached: str
    of: Callable[[records.Record], str]


def section(found: Sequence[records.Record]) -> str:
    """The goals, then a table for each device."""
    parts = [goals(found)]
    for title, rows in tables.group(found, heading).items():
        parts += [title, table(rows)]
    return "\n\n".join(parts)


def goals(found: Sequence[records.Record]) -> str:
    """What is reached, and the command for what was not yet run."""
    out = f"benchmarks/records/{folders.newest_or_new('image-speed').name}/h200.jsonl"
    rows = []
    for goal in GOALS:
        runs = [record for record in found if _counts(record, goal)]
        command = f"`python -m benchmarks.measure.images --models {goal.model} --out {out}`"
        measured = (goal.of(runs[-1]), "") if runs else (NOT_YET_RUN, command)
        rows.append((goal.what, goal.reached, *measured))
    return tables.markdown(("on one H200", "to reach", "measured", "what fills it"), rows)


def heading(record: records.Record) -> str:
    """What was measured, and where."""
    return (
        f"On {record['backend'].upper()}, {record['device']}: {record['windows']} windows of"
        f" {record['steps']} steps, {record['dtype']}."
    )


def table(found: Sequence[records.Record]) -> str:
    """A row a network."""
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
                _spread(share(record, "LAWN")),
                _spread(share(record, "augmentation")),
                _percent(share_of_peak(record)),
                _clock(seconds_of_epochs(record)),
                f"{record['memory'] / 2**30:.3g} GiB",
                f"{record['compile_s']:.0f} s",
            )
        )
    return tables.markdown(COLUMNS, rows)


def _counts(record: records.Record, goal: Goal) -> bool:
    """Whether a record is of what a goal is for."""
    whole = {
        "model": goal.model,
        "batch_size": goal.batch_size,
        "width": 1.0,
        "dtype": "bfloat16",
    }
    return "H200" in record["device"] and all(record[k] == v for k, v in whole.items())


def _spread(shares: np.ndarray | None) -> str:
    if shares is None:
        return ""
    return f"{np.median(shares):z.1%} ({shares.min():z.1%} to {shares.max():z.1%})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _clock(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    return "" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))


GOALS = (
    Goal(
        "VGG-19 at batch 4,096: share of the dense bfloat16 peak",
        "vgg19",
        4096,
        "45% or more",
        lambda record: _percent(share_of_peak(record)),
    ),
    Goal(
        "VGG-19 at batch 4,096: 300 epochs of CIFAR-10",
        "vgg19",
        4096,
        "0:03:00 or less",
        lambda record: _clock(seconds_of_epochs(record)),
    ),
    Goal(
        "VGG-19 at batch 4,096: augmentation's share of the step",
        "vgg19",
        4096,
        "below 5%",
        lambda record: _spread(share(record, "augmentation")),
    ),
    Goal(
        "ResNet-50 at batch 256: images a second",
        "resnet50",
        256,
        "2,500 or more",
        lambda record: f"{images_per_second(record, LAWN):,.0f}",
    ),
    Goal(
        "ResNet-50 at batch 256: LAWN's share of the step",
        "resnet50",
        256,
        "1% or less",
        lambda record: _spread(share(record, "LAWN")),
    ),
)
