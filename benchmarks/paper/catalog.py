"""The studies by name, with the grids that they are tuned over.

Those that `coarse`, `short` and `small` make are cut to what a CPU does; the others are the paper's
size and are for an accelerator. What the paper lists is in its Appendix B; it lists no learning
rates.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from benchmarks.paper.studies import Study
from examples import cifar, ncf
from examples.tasks import recommendation
from examples.tasks.images import data
from examples.training.options import OptimizerName

Peaks = dict[OptimizerName, Sequence[float]]

PAPER, SOME, WIDE = "the paper's decays", "some of the paper's decays", "the wide set"


def decays(paper: Sequence[float], wider: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """What the paper lists, and that with larger ones: its convention may be another."""
    return {PAPER: tuple(paper), WIDE: (*paper, *wider)}


def peaks(adam: Sequence[float], lamb: Sequence[float], sgd: Sequence[float]) -> Peaks:
    """The paper's five optimizers; LAWN's have the peaks of what they are built on."""
    return {"adam": adam, "adam_lawn": adam, "lamb": lamb, "lamb_lawn": lamb, "sgd": sgd}


def vary(study: Study, optimizers: Sequence[OptimizerName], **changes: Any) -> Study:
    """A study with another loss or model, of some of its optimizers."""
    return dataclasses.replace(
        study,
        base=dataclasses.replace(study.base, **changes),
        learning_rates={name: study.learning_rates[name] for name in optimizers},
    )


def instead_of_decay(study: Study, **changes: Any) -> Study:
    """What Adam may do in place of weight decay, and beside it."""
    beside = tuple(dict.fromkeys((0.0, *study.decays[WIDE])))
    return dataclasses.replace(
        vary(study, ["adam"], **changes), decays={"no decay": (0.0,), WIDE: beside}
    )


# Item recommendation. Of the free epochs the paper lists six, and two more make them as many as
# there are decays.
FREE_EPOCHS = (0.1, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
DECAYS = decays((0.0, 1e-4, 1e-3, 1e-2, 1e-1), (0.3, 1.0, 3.0))
SGD = (0.1, 0.3, 1.0)
LOWEST = peaks((1e-4, 3e-4, 1e-3), (3e-4, 1e-3, 3e-3), SGD)
LOW = peaks((3e-4, 1e-3, 3e-3), (3e-3, 1e-2, 3e-2), SGD)
MIDDLE = peaks((1e-3, 3e-3, 1e-2), (1e-2, 3e-2, 1e-1), SGD)
HIGH = peaks((3e-3, 1e-2, 3e-2), (1e-2, 3e-2, 1e-1), (0.3, 1.0, 3.0))


def short(batch_size: int, epochs: int) -> ncf.Config:
    """MovieLens-100k with fewer epochs than the paper, and a warm-up cut alike."""
    return ncf.Config(
        dataset="movielens-100k", batch_size=batch_size, epochs=epochs, warmup_epochs=epochs / 10
    )


def coarse(
    batch_size: int,
    learning_rates: Peaks,
    free_epochs: Sequence[float],
    some: Sequence[float] = (0.0, 0.1),
    larger: Sequence[float] = (1.0, 3.0),
) -> Study:
    """A hundred epochs and twelve settings: the paper's grid would take a CPU days.

    All updates together, decay shrinks weights by some exp(-updates * peak / 2 * decay), so that
    small batches, of which an epoch has more, take smaller decays. SGD has smaller ones still: with
    0.01 or more all its runs of 40 epochs ended in a constant answer but one, far behind.
    """
    return Study(
        base=short(batch_size, 100),
        learning_rates=learning_rates,
        free_epochs=free_epochs,
        decays={SOME: some, WIDE: (*some, *larger)},
        sgd_decays={SOME: (0.0, 1e-4, 1e-3, 1e-2)},
    )


def full(
    dataset: recommendation.DatasetName, batch_size: int, epochs: int, learning_rates: Peaks
) -> Study:
    """The paper's epochs, warm-up and free epochs."""
    return Study(
        base=ncf.Config(dataset=dataset, batch_size=batch_size, epochs=epochs, warmup_epochs=30.0),
        learning_rates=learning_rates,
        free_epochs=FREE_EPOCHS,
        decays=DECAYS,
    )


STUDIES = {
    "movielens-100k-1k": coarse(1_000, LOW, (2.0, 5.0, 10.0, 20.0), (0.0, 0.01, 0.1), (0.3,)),
    "movielens-100k-10k": coarse(10_000, MIDDLE | {"sgd": HIGH["sgd"]}, (2.0, 5.0, 10.0, 20.0)),
    "movielens-100k-100k": coarse(100_000, HIGH, (5.0, 15.0, 25.0, 40.0)),
    "movielens-100k-400k": coarse(400_000, HIGH, (5.0, 15.0, 25.0, 40.0)),
    "movielens-100k-10k-40": Study(
        base=short(10_000, 40),
        learning_rates=MIDDLE,
        free_epochs=(0.1, 0.5, 1.0, 2.0, 4.0, 6.0, 10.0, 16.0),
        decays=DECAYS,
    ),
    "movielens-100k-1k-full": full("movielens-100k", 1_000, 300, LOW),
    "movielens-100k-10k-full": full("movielens-100k", 10_000, 300, MIDDLE),
    "movielens-100k-100k-full": full("movielens-100k", 100_000, 500, HIGH),
    "movielens-100k-400k-full": full("movielens-100k", 400_000, 500, HIGH),
    "movielens-1m-1k": full("movielens-1m", 1_000, 300, LOWEST),
    "movielens-1m-10k": full("movielens-1m", 10_000, 300, LOW),
    "movielens-1m-100k": full("movielens-1m", 100_000, 500, MIDDLE),
    "movielens-1m-1m": full("movielens-1m", 1_000_000, 500, HIGH),
    "pinterest-20-1k": full("pinterest-20", 1_000, 300, LOWEST),
    "pinterest-20-10k": full("pinterest-20", 10_000, 300, LOW),
    "pinterest-20-100k": full("pinterest-20", 100_000, 500, MIDDLE),
    "pinterest-20-1m": full("pinterest-20", 1_000_000, 500, HIGH),
}

# Images. The paper sweeps decays and free epochs over the first ones here, and warm-up over 5 to
# 60 epochs; that is 30 here, for no optimizer has a knob more than another.
IMAGE_DECAYS = decays((1e-5, 1e-4, 1e-3), (1e-2, 1e-1, 1.0))
IMAGE_FREE_EPOCHS = (1.0, 5.0, 20.0, 40.0, 10.0, 80.0)
IMAGE_PEAKS = {
    "256": peaks((1e-4, 3e-4, 1e-3), (1e-3, 3e-3, 1e-2), (0.01, 0.03, 0.1)),
    "4k": peaks((3e-4, 1e-3, 3e-3), (3e-3, 1e-2, 3e-2), (0.03, 0.1, 0.3)),
    "10k": peaks((1e-3, 3e-3, 1e-2), (1e-2, 3e-2, 1e-1), (0.1, 0.3, 1.0)),
}
IMAGE_BATCHES = {"256": 256, "4k": 4096, "10k": 10_000}


def images(dataset: data.DatasetName, size: str) -> Study:
    """VGG-19, the paper's epochs; tuned with a fifth of them, on the last 5,000 training images."""
    return Study(
        base=cifar.Config(dataset=dataset, batch_size=IMAGE_BATCHES[size]),
        learning_rates=IMAGE_PEAKS[size],
        free_epochs=IMAGE_FREE_EPOCHS,
        decays=IMAGE_DECAYS,
        tuning={"epochs": 60, "validation_images": 5000},
    )


def small(batch_size: int) -> Study:
    """A narrow VGG-5 on 2,500 images of CIFAR-10, half the epochs to tune."""
    return Study(
        base=cifar.Config(
            dataset="cifar10",
            train_images=2500,
            batch_size=batch_size,
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
    )


STUDIES |= {
    "cifar10-small": small(250),
    **{f"cifar10-{size}": images("cifar10", size) for size in IMAGE_BATCHES},
    **{f"cifar100-{size}": images("cifar100", size) for size in IMAGE_BATCHES},
}

# Tables 2 and 5: at two batch sizes of each dataset.
FOCAL_GAMMAS = (0.5, 2.0, 5.0)
SMOOTHED = ("movielens-1m-10k", "movielens-1m-100k")
FOCAL = ("movielens-1m-100k", "movielens-1m-1m")
OF_IMAGES = ("cifar10-4k", "cifar10-10k", "cifar100-4k", "cifar100-10k")
for _name in SMOOTHED + OF_IMAGES:
    STUDIES[f"{_name}-smoothed"] = instead_of_decay(STUDIES[_name], label_smoothing=0.05)
    STUDIES[f"{_name}-bounded"] = instead_of_decay(STUDIES[_name], bounded_weight_norm=True)
for _name, _gamma in itertools.product(FOCAL + OF_IMAGES, FOCAL_GAMMAS):
    STUDIES[f"{_name}-focal-{_gamma:g}"] = vary(
        STUDIES[_name], ["adam", "adam_lawn"], loss="focal", gamma=_gamma
    )
