"""Lists the studies, with the grids that they are tuned over and what the paper reports.

Those that `coarse`, `short` and `small` make are cut to what a CPU does; the others are the paper's
size and are for an accelerator. What the paper lists is in its Appendix B; it lists no learning
rates.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.paper import reported
from benchmarks.paper.studies import Study
from examples import cifar, ncf
from examples.tasks import recommendation
from examples.tasks.images import data
from examples.training.traits import OptimizerName

Peaks = dict[OptimizerName, Sequence[float]]

PAPER, SOME, WIDE = "the paper's decays", "some of the paper's decays", "the wide set"


def decays(paper: Sequence[float], wider: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """Return what the paper lists, and that with larger ones: its convention may be another."""
    return {PAPER: tuple(paper), WIDE: (*paper, *wider)}


def peaks(adam: Sequence[float], lamb: Sequence[float], sgd: Sequence[float]) -> Peaks:
    """Return the paper's five optimizers; LAWN's have the peaks of what they are built on."""
    return {"adam": adam, "adam_lawn": adam, "lamb": lamb, "lamb_lawn": lamb, "sgd": sgd}


def vary(study: Study, suffix: str, paper: Mapping[OptimizerName, str], **changes: Any) -> Study:
    """Return a study with another loss or model, of the optimizers that the paper reports."""
    return dataclasses.replace(
        study,
        name=f"{study.name}-{suffix}",
        base=dataclasses.replace(study.base, **changes),
        learning_rates={name: study.learning_rates[name] for name in paper},
        paper=paper,
    )


def without_decay(study: Study) -> Study:
    """Return a study of what stands in place of weight decay, and is tried beside it too."""
    beside = tuple(dict.fromkeys((0.0, *study.decays[WIDE])))
    return dataclasses.replace(study, decays={"no decay": (0.0,), WIDE: beside})


# Item recommendation. Of the free epochs the paper lists six, and two more make them as many as
# there are decays.
BATCHES = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "400k": 400_000, "1m": 1_000_000}
FREE_EPOCHS = (0.1, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
DECAYS = decays((0.0, 1e-4, 1e-3, 1e-2, 1e-1), (0.3, 1.0, 3.0))
SGD = (0.1, 0.3, 1.0)
LOWEST = peaks((1e-4, 3e-4, 1e-3), (3e-4, 1e-3, 3e-3), SGD)
LOW = peaks((3e-4, 1e-3, 3e-3), (3e-3, 1e-2, 3e-2), SGD)
MIDDLE = peaks((1e-3, 3e-3, 1e-2), (1e-2, 3e-2, 1e-1), SGD)
HIGH = peaks((3e-3, 1e-2, 3e-2), (1e-2, 3e-2, 1e-1), (0.3, 1.0, 3.0))


def short(
    size: str, epochs: int, dataset: recommendation.DatasetName = "movielens-100k"
) -> ncf.Config:
    """Return a recommender with fewer epochs than the paper, and a warm-up cut alike."""
    return ncf.Config(
        dataset=dataset,
        batch_size=BATCHES[size],
        epochs=epochs,
        warmup_epochs=epochs / 10,
    )


def coarse(
    size: str,
    learning_rates: Peaks,
    free_epochs: Sequence[float],
    some: Sequence[float] = (0.0, 0.1),
    larger: Sequence[float] = (1.0, 3.0),
    epochs: int = 100,
) -> Study:
    """Return fewer epochs and twelve settings: the paper's grid would take a CPU days.

    All updates together, decay shrinks weights by some exp(-updates * peak / 2 * decay), so that
    small batches, of which an epoch has more, take smaller decays. SGD has smaller ones still: with
    0.01 or more all its runs of 40 epochs ended in a constant answer but one, far behind.
    """
    name = f"movielens-100k-{size}"
    return Study(
        name=name,
        base=short(size, epochs),
        learning_rates=learning_rates,
        free_epochs=free_epochs,
        decays={SOME: some, WIDE: (*some, *larger)},
        sgd_decays={SOME: (0.0, 1e-4, 1e-3, 1e-2)},
        paper=reported.TABLE_9[name],
    )


def full(
    dataset: recommendation.DatasetName,
    size: str,
    epochs: int,
    learning_rates: Peaks,
    table: reported.Figures,
) -> Study:
    """Return the paper's epochs, warm-up and free epochs."""
    name = f"{dataset}-{size}"
    return Study(
        name=name,
        base=ncf.Config(
            dataset=dataset, batch_size=BATCHES[size], epochs=epochs, warmup_epochs=30.0
        ),
        learning_rates=learning_rates,
        free_epochs=FREE_EPOCHS,
        decays=DECAYS,
        paper=table[name],
    )


def whole(
    dataset: recommendation.DatasetName, table: reported.Figures, largest: str, *by_size: Peaks
) -> tuple[Study, ...]:
    """Return four batch sizes, 300 epochs of the smaller two and 500 of the others."""
    sizes = zip(("1k", "10k", "100k", largest), (300, 300, 500, 500), by_size, strict=True)
    return tuple(full(dataset, size, epochs, rates, table) for size, epochs, rates in sizes)


MOVIELENS_100K = (
    coarse("1k", LOW, (1.0, 2.0, 4.0, 8.0), (0.0, 0.01, 0.1), (0.3,), epochs=40),
    coarse("10k", MIDDLE | {"sgd": HIGH["sgd"]}, (2.0, 5.0, 10.0, 20.0)),
    coarse("100k", HIGH, (5.0, 15.0, 25.0, 40.0)),
    coarse("400k", HIGH, (5.0, 15.0, 25.0, 40.0)),
)
MOVIELENS_100K_FINER = (
    Study(
        name="movielens-100k-10k-40",
        base=short("10k", 40),
        learning_rates=MIDDLE,
        free_epochs=(0.1, 0.5, 1.0, 2.0, 4.0, 6.0, 10.0, 16.0),
        decays=DECAYS,
        paper=reported.TABLE_9["movielens-100k-10k"],
    ),
)
MOVIELENS_100K_FULL = tuple(
    dataclasses.replace(study, name=f"{study.name}-full")
    for study in whole("movielens-100k", reported.TABLE_9, "400k", LOW, MIDDLE, HIGH, HIGH)
)
MOVIELENS_1M = whole("movielens-1m", reported.TABLE_10, "1m", LOWEST, LOW, MIDDLE, HIGH)
# What fits the minutes that a GPU is had for: a fifth to a third of the paper's epochs, and twelve
# settings, which one program trains side by side.
MOVIELENS_1M_SHORT = tuple(
    Study(
        name=f"movielens-1m-{size}-short",
        base=short(size, 100, "movielens-1m"),
        learning_rates=learning_rates,
        free_epochs=(2.0, 5.0, 10.0, 20.0),
        decays={SOME: (0.0, 0.1), WIDE: (0.0, 0.1, 1.0, 3.0)},
        paper=reported.TABLE_10[f"movielens-1m-{size}"],
    )
    for size, learning_rates in (("10k", LOW), ("100k", MIDDLE), ("1m", HIGH))
)
PINTEREST = whole("pinterest-20", reported.TABLE_11, "1m", LOWEST, LOW, MIDDLE, HIGH)

# Images. The paper sweeps decays and free epochs over the first ones here, and warm-up over 5 to
# 60 epochs; that is 30 here, because no optimizer has a hyperparameter more than another.
IMAGE_DECAYS = decays((1e-5, 1e-4, 1e-3), (1e-2, 1e-1, 1.0))
IMAGE_FREE_EPOCHS = (1.0, 5.0, 20.0, 40.0, 10.0, 80.0)
IMAGE_BATCHES = {
    "256": (256, peaks((1e-4, 3e-4, 1e-3), (1e-3, 3e-3, 1e-2), (0.01, 0.03, 0.1))),
    "4k": (4096, peaks((3e-4, 1e-3, 3e-3), (3e-3, 1e-2, 3e-2), (0.03, 0.1, 0.3))),
    "10k": (10_000, peaks((1e-3, 3e-3, 1e-2), (1e-2, 3e-2, 1e-1), (0.1, 0.3, 1.0))),
}


def images(dataset: data.DatasetName) -> tuple[Study, ...]:
    """Return VGG-19, tuned with a fifth of the paper's epochs, on the last training images."""
    return tuple(
        Study(
            name=f"{dataset}-{size}",
            base=cifar.Config(dataset=dataset, batch_size=batch_size),
            learning_rates=learning_rates,
            free_epochs=IMAGE_FREE_EPOCHS,
            decays=IMAGE_DECAYS,
            tuning={"epochs": 60, "validation_images": 5000},
            paper=reported.TABLE_7[f"{dataset}-{size}"],
        )
        for size, (batch_size, learning_rates) in IMAGE_BATCHES.items()
    )


CIFAR10_SMALL = (
    Study(
        name="cifar10-small",  # A narrow VGG-5 on 2,500 images, half the epochs to tune.
        base=cifar.Config(
            dataset="cifar10",
            train_images=2500,
            batch_size=250,
            model="vgg5",
            width=0.25,
            dtype="float32",
            epochs=30,
            warmup_epochs=3.0,
        ),
        learning_rates=peaks((3e-3, 1e-2), (1e-2, 3e-2), (0.1, 0.3)),
        free_epochs=(1.0, 2.0, 4.0, 6.0, 10.0, 16.0),
        decays=IMAGE_DECAYS,
        tuning={"epochs": 15, "validation_images": 1000},
    ),
)
CIFAR10 = images("cifar10")
CIFAR100 = images("cifar100")


class Alternatives(NamedTuple):
    """Holds what Adam may do in place of weight decay, the paper's Table 2: studies to compare."""

    smoothed: Study
    decayed: Study
    bounded: Study


def alternatives(study: Study) -> Alternatives:
    """Return a study with label smoothing, as it is, and with bounded weight norms."""
    smoothed, bounded = (table[study.name] for table in (reported.SMOOTHED, reported.BOUNDED))
    return Alternatives(
        without_decay(vary(study, "smoothed", smoothed, label_smoothing=0.05)),
        study,
        without_decay(vary(study, "bounded", bounded, bounded_weight_norm=True)),
    )


def focal(study: Study) -> tuple[Study, ...]:
    """Return a study with the focal losses of the paper's Table 5."""
    by_gamma = {gamma: f"focal-{gamma:g}" for gamma in (0.5, 2.0, 5.0)}
    return tuple(
        vary(study, suffix, reported.TABLE_5[f"{study.name}-{suffix}"], loss="focal", gamma=gamma)
        for gamma, suffix in by_gamma.items()
    )


OF_IMAGES = (*CIFAR10[1:], *CIFAR100[1:])
INSTEAD_OF_DECAY = tuple(map(alternatives, MOVIELENS_1M[1:3]))
INSTEAD_OF_DECAY_IMAGES = tuple(map(alternatives, OF_IMAGES))
FOCAL = tuple(study for base in MOVIELENS_1M[2:] for study in focal(base))
FOCAL_IMAGES = tuple(study for base in OF_IMAGES for study in focal(base))

STUDIES: dict[str, Study] = {
    study.name: study
    for group in (
        *(MOVIELENS_100K, MOVIELENS_100K_FINER, MOVIELENS_100K_FULL, MOVIELENS_1M),
        *(MOVIELENS_1M_SHORT, PINTEREST),
        *(CIFAR10_SMALL, CIFAR10, CIFAR100, *INSTEAD_OF_DECAY, *INSTEAD_OF_DECAY_IMAGES),
        *(FOCAL, FOCAL_IMAGES),
    )
    for study in group
}
