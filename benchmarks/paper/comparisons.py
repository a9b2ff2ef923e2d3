"""Lists the comparisons: which norms to hold, what makes norms bounce, what moves the best rate."""

import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.paper.catalog import short
from benchmarks.paper.searches import LANGUAGE_MODEL, SMALL_LANGUAGE_MODEL
from benchmarks.paper.studies import Comparison
from examples import cifar, lm, ncf
from examples.training.traits import OptimizerName, ScheduleName


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
    name: str,
    base: lm.Config,
    widths: Sequence[int],
    batch_sizes: Sequence[int],
    rates: Mapping[OptimizerName, Sequence[float]],
    seeds: Sequence[int],
) -> Comparison:
    """Return how the best learning rate moves with the width, of heads as wide, and the batch."""
    head = base.width // base.heads

    def settings(width: int, batch_size: int, optimizer: OptimizerName) -> list[lm.Config]:
        at = dataclasses.replace(
            base, width=width, heads=width // head, batch_size=batch_size, optimizer=optimizer
        )
        return [dataclasses.replace(at, learning_rate=rate) for rate in rates[optimizer]]

    return Comparison(
        name=name,
        base=base,
        seeds=seeds,
        groups={
            f"width {width}, batch size {batch_size}, {optimizer}": settings(
                width, batch_size, optimizer
            )
            for width in widths
            for batch_size in batch_sizes
            for optimizer in rates
        },
    )


_RATES: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
TRANSFERS = (
    transfer(
        "lm-transfer",
        dataclasses.replace(LANGUAGE_MODEL, epochs=2),
        widths=(64, 128, 256, 512),
        batch_sizes=(32, 128),
        rates={
            **dict.fromkeys(("adamw", "adam_lawn"), _RATES[:5]),
            **dict.fromkeys(("adam_h", "muon_h"), _RATES[1:6]),
        },
        seeds=(0, 1, 2),
    ),
    # For a CPU: of few tokens, which are as many at every width and batch size.
    transfer(
        "lm-transfer-small",
        dataclasses.replace(
            SMALL_LANGUAGE_MODEL, epoch_tokens=100_000, warmup_epochs=0.2, held_out_share=0.005
        ),
        widths=(16, 32, 64, 128),
        batch_sizes=(8, 32),
        rates={
            **dict.fromkeys(("adamw", "adam_lawn"), _RATES[1:6]),
            **dict.fromkeys(("adam_h", "muon_h"), _RATES[2:]),
        },
        seeds=(0, 1),
    ),
)

COMPARISONS = {comparison.name: comparison for comparison in (HELD_NORMS, *BOUNCING, *TRANSFERS)}
