"""Compares optimizers on a language model: tuned as hard as each other, and over widths.

A transformer of five million weights on ten million bytes of Python's standard library, for a GPU:
seconds per run there, and half an hour on two CPU cores.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.paper.studies import Comparison, Range, Search
from examples import lm
from examples.training.options import OptimizerName

BASE = lm.Config(
    width=256,
    depth=6,
    heads=8,
    length=256,
    batch_size=64,
    dtype="bfloat16",
    epochs=5,
    epoch_tokens=2_000_000,
)
ADAM, DECAY = Range(3e-4, 3e-2), Range(1e-2, 3)
RELATIVE = Range(1e-3, 1e-1)  # Of steps that are shares of the norms.
FREE = Range(0.1, 2.5)  # To half of the epochs.


def space(optimizer: OptimizerName, learning_rate: Range, **ranges: Range) -> tuple:
    """Return a setting, and what of it is drawn from where."""
    setting = dataclasses.replace(BASE, optimizer=optimizer)
    return setting, {"learning_rate": learning_rate, **ranges}


AS_HARD = Search(
    name="lm-as-hard",
    what="Python's standard library, byte by byte, 10 million tokens, 5 million weights",
    base=BASE,
    spaces={
        "AdamW": space("adamw", ADAM, weight_decay=DECAY),
        "Muon": space("muon", ADAM, weight_decay=DECAY),
        "Adam-LAWN": space("adam_lawn", ADAM, free_epochs=FREE),
        "Adam-LAWN, automatic": space("adam_lawn", ADAM),  # At the rise of the gradient.
        "LAMB-LAWN": space("lamb_lawn", RELATIVE, free_epochs=FREE),
        "AdamH": space("adam_h", RELATIVE, rest_learning_rate=ADAM),
        "MuonH": space("muon_h", RELATIVE, rest_learning_rate=ADAM),
    },
    trials=8,
    searches=1,
)


def transfer(
    widths: Sequence[int],
    batch_sizes: Sequence[int],
    rates: Mapping[OptimizerName, Sequence[float]],
) -> Comparison:
    """Return how the best learning rate moves with the width and with the batch."""
    base = dataclasses.replace(BASE, epochs=2)
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

COMPARISONS, SEARCHES = {TRANSFER.name: TRANSFER}, {AS_HARD.name: AS_HARD}
