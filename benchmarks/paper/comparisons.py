"""Lists the comparisons: which norms to hold, what makes norms bounce, what moves the best rate."""

import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.paper.catalog import short
from benchmarks.paper.searches import LANGUAGE_MODEL
from benchmarks.paper.studies import Comparison
from examples import cifar, ncf
from examples.training.options import OptimizerName, ScheduleName


def held_norms(
    base: ncf.Config, epochs: Sequence[float], crossing: float, flattened: float
) -> dict[str, list[ncf.Config]]:
    """Return which norms are held, and from when on.

    Args:
      base: Adam-LAWN.
      epochs: at which norms are taken, and from which on they are held.
      crossing: about when the median margin passes 2.5 for good.
      flattened: by when the loss has flattened.
    """
    never = dataclasses.replace(base, free_epochs=float(base.epochs))
    automatic = dataclasses.replace(base, free_epochs="flattening")
    later = [(taken, held) for taken in epochs for held in epochs if taken <= held]

    def scaled(epoch: float, factors: Sequence[float]) -> list[ncf.Config]:
        at = dataclasses.replace(base, free_epochs=float(epoch))
        return [dataclasses.replace(at, norms_scale=x) for x in factors]

    return {
        "never": [never],
        "automatic": [automatic],
        "plane": [dataclasses.replace(base, free_epochs=h, norms_of=t) for t, h in later],
        "scale": scaled(crossing, (0.25, 0.5, 0.7, 1.4, 2.0, 4.0)),
        "rescue": scaled(flattened, (0.25, 0.4, 0.6, 0.8)),
    }


CROSSING, FLATTENED = 5, 40
HELD = dataclasses.replace(short("10k", 100), optimizer="adam_lawn", learning_rate=0.01)
HELD_NORMS = Comparison(
    name="held-norms",
    base=HELD,
    groups=held_norms(
        HELD,
        epochs=(3.0, 5.0, 10.0, 20.0, 40.0),
        crossing=CROSSING,
        flattened=FLATTENED,
    ),
)

# Norms that bounce, as in "How to decay your learning rate" (arXiv 2103.12682): Table S2 and Figure
# S5, S6 and S7, with a narrow VGG-5 on a fiftieth of CIFAR-10, judged on training images held out.
# Its Figure S6 has the same weight decay, which in 40 epochs of 10 updates has the time to bounce.
_BOUNCING = cifar.Config(
    dataset="cifar10",
    train_images=1000,
    validation_images=1000,
    batch_size=100,
    model="vgg5",
    width=0.125,
    dtype="float32",
    epochs=40,
    warmup_epochs=0.0,
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=5e-3,
    clip_norm=5.0,
    schedule="simple",
)


def bouncing(name: str, groups: Mapping[str, Sequence[cifar.Config]]) -> Comparison:
    """Return a comparison whose norms are recorded, of what makes them bounce or not."""
    return Comparison(name=f"bounce-{name}", base=_BOUNCING, groups=groups, norms=True)


def with_rates(
    schedule: ScheduleName, rates: Sequence[float], longer: int = 1
) -> list[cifar.Config]:
    """Return peaks with a schedule, for some times as long."""
    epochs = longer * _BOUNCING.epochs
    base = dataclasses.replace(_BOUNCING, schedule=schedule, epochs=epochs)
    return [dataclasses.replace(base, learning_rate=rate) for rate in rates]


BOUNCING = (
    bouncing(
        "rate",
        {
            "simple": with_rates("simple", (0.1, 0.01)),
            "cosine": with_rates("cosine", (0.1, 0.01)),
            "simple, longer": with_rates("simple", (0.01,), longer=5),
            "cosine, longer": with_rates("cosine", (0.01,), longer=5),
        },
    ),
    bouncing(
        "time",
        {
            **{
                f"simple at {share}": [dataclasses.replace(_BOUNCING, last_decay_at=share)]
                for share in (0.1, 0.25, 0.5, 0.7, 0.9)
            },
            "abel": [dataclasses.replace(_BOUNCING, schedule="abel")],
        },
    ),
    bouncing(
        "init",
        {
            f"initial weights x {scale}": [
                dataclasses.replace(_BOUNCING, schedule="cosine", init_scale=scale)
            ]
            for scale in (1.0, 0.5, 0.25, 0.0625)
        },
    ),
)


def transfer(
    widths: Sequence[int],
    batch_sizes: Sequence[int],
    rates: Mapping[OptimizerName, Sequence[float]],
) -> Comparison:
    """Return how the best learning rate moves with the width and with the batch."""
    base = dataclasses.replace(LANGUAGE_MODEL, epochs=2)
    return Comparison(
        name="lm-transfer",
        base=base,
        groups={
            f"width {width}, batch size {batch_size}, {optimizer}": [
                dataclasses.replace(
                    base,
                    width=width,
                    heads=width // 32,
                    batch_size=batch_size,
                    optimizer=optimizer,
                    learning_rate=rate,
                )
                for rate in rates[optimizer]
            ]
            for width in widths
            for batch_size in batch_sizes
            for optimizer in rates
        },
    )


_ADAM, _RELATIVE = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TRANSFER = transfer(
    widths=(64, 128, 256, 512),
    batch_sizes=(32, 128),
    rates={"adamw": _ADAM, "adam_lawn": _ADAM, "adam_h": _RELATIVE, "muon_h": _RELATIVE},
)

COMPARISONS = {comparison.name: comparison for comparison in (HELD_NORMS, *BOUNCING, TRANSFER)}
