"""Makes measurements and their data so small that each takes seconds on a CPU: to try a command."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.measure import epoch, images, optimizer_step, training_step
from benchmarks.paper.studies import Search, Study
from examples import ncf

What = TypeVar("What")

FLOAT32_VGG5 = {"model": "vgg5", "width": 1 / 16, "dtype": "float32"}
TEXT = {
    **{"width": 8, "heads": 2, "depth": 1, "length": 16, "dtype": "float32"},
    **{"batch_size": 4, "epochs": 1, "warmup_epochs": 0.5, "epoch_tokens": 128},
}


@functools.singledispatch
def shrink(what: Any) -> Any:
    """Return a configuration, a study or a search with less of everything."""
    raise TypeError(f"{type(what).__name__} has no small form: register one.")


@shrink.register
def _(config: optimizer_step.OptimizerStepConfig) -> optimizer_step.OptimizerStepConfig:
    return dataclasses.replace(
        config, trees=("ncf",), optimizers=("adam_lawn",), windows=1, steps=1, torch=False
    )


@shrink.register
def _(config: training_step.TrainingStepConfig) -> training_step.TrainingStepConfig:
    return dataclasses.replace(config, workloads=("ncf",), batches=(8,), windows=1, steps=1)


@shrink.register
def _(config: images.ImageSpeedConfig) -> images.ImageSpeedConfig:
    small: Any = {"models": ("vgg5",), "width": 1 / 16, "dtype": "float32"}
    return dataclasses.replace(config, **small, batch_size=8, steps=1, windows=1)


@shrink.register
def _(config: epoch.EpochConfig) -> epoch.EpochConfig:
    return dataclasses.replace(config, batch_sizes=(64,), epochs=1)


@shrink.register
def _(study: Study) -> Study:
    """Return a study of one setting for each optimizer."""
    network = {"tower": (8, 4)} if isinstance(study.base, ncf.Config) else FLOAT32_VGG5
    run: Any = {**network, "batch_size": 64, "epochs": 1, "warmup_epochs": 0.0}
    return dataclasses.replace(
        study,
        base=dataclasses.replace(study.base, **run),
        learning_rates={name: rates[:1] for name, rates in study.learning_rates.items()},
        free_epochs=(0.5,),
        decays={name: values[:1] for name, values in study.decays.items()},
        sgd_decays=None,
        tuning={},
    )


@shrink.register
def _(search: Search) -> Search:
    """Return one trial of the last setting of a search of language models."""
    run: Any = TEXT
    space, (setting, ranges) = list(search.spaces.items())[-1]
    return dataclasses.replace(
        search,
        base=dataclasses.replace(search.base, **run),
        spaces={space: (dataclasses.replace(setting, **run), ranges)},
        trials=1,
    )


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
