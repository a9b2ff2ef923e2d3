"""The search spaces of Nado et al. (2021), Tables 6 to 23, by the number of the table.

All but Tables 6 and 8 are of Nesterov momentum on ImageNet with batches of 32,768: how its authors
went from guesses to Table 5. Table 6 is of Adam and BERT, either phase by itself; here of the first
one, and of an encoder that is small. Each search has the power of two of trials that is nearest to
theirs. Ranges of updates are of epochs of 39 updates here. Decay is decoupled in Tables 6 and 9 to
18, where it is not said whether the learning rate multiplies it, as it does here; in Table 8 it is
that of the recipe, and from Table 20 on L2.

Left out, because the scan that these are from does not show some number beyond doubt:

Table 8       the last ranges of Nesterov and of LARS with momentum; the first ones of LARS alone,
              and of LAMB with Adam, where it is the epsilon
Tables 12-15  exponents of the ends of the final rate, of momentum or of weight decay
Tables 16-17  which powers of ten the peaks and the weight decays run over
Table 19      the exponents of the final rate and of the epsilon
Table 22      the exponents of weight decay and of the final rate
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.paper.searches import LANGUAGE_MODEL
from benchmarks.paper.spaces import Choice, Linear, Range, Space
from benchmarks.paper.studies import AnyConfig, Search
from examples import imagenet
from examples.tasks.images import large_batch
from examples.tasks.images.large_batch import RECIPES, UPDATES_PER_EPOCH, schedule
from examples.tasks.images.recipes import Recipe


def updates(low: int, high: int) -> Linear:
    """Return a range of updates, in epochs."""
    return Linear(low / UPDATES_PER_EPOCH, high / UPDATES_PER_EPOCH)


def logspace(low: float, high: float, values: int) -> Choice:
    """Return NumPy's `logspace`, to four digits."""
    step = (high - low) / (values - 1)
    return Choice(tuple(float(f"{10 ** (low + i * step):.4g}") for i in range(values)))


def setting(**options: Any) -> imagenet.Config:
    """Return what is not drawn, where it is no point of Table 5."""
    begun = {**large_batch.PIPELINE, "optimizer": "nesterov", "decay_form": "decoupled"}
    return imagenet.Config(**{**begun, **options})


def of_recipe(recipe: Recipe, **options: Any) -> imagenet.Config:
    """Return a recipe with other options."""
    return imagenet.Config(**{**recipe.options, **options})


MOMENTUM, DECAYED = "1 - momentum", "final_rate / learning_rate"

# Linear decay from the first update on; decay of all variables.
TABLE_9: Space = {
    "learning_rate": Range(1e-3, 50.0),
    DECAYED: Choice((1e-4, 1e-3, 1e-2, 1e-1)),
    MOMENTUM: Range(1e-3, 1.0),
    "weight_decay": Range(1e-5, 1e-1),
    "label_smoothing": Linear(1e-2, 2e-1),
}
# The same that ends before the last update; decay of weights alone from here on.
TABLE_11: Space = {
    "learning_rate": Range(1e-1, 20.0),
    DECAYED: Choice((1e-5, 1e-4, 1e-3)),
    "decay_epochs": updates(2392, 2658),
    MOMENTUM: Range(1e-2, 1.0),
    "weight_decay": Range(1e-5, 2e-1),
    "label_smoothing": Linear(1e-2, 2e-1),
}
# At the best point of Table 15.
TABLE_18: Space = {
    "bn_momentum": Choice((0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.995, 0.999)),
    "bn_epsilon": Choice((1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)),
}
TABLE_20: Space = {
    "warmup_epochs": updates(300, 800),
    "warmup_power": Linear(0.7, 2.0),
    "initial_rate": Range(0.1, 1.0),
    "learning_rate": Range(5.0, 9.0),
    "final_rate": Range(1e-5, 5e-5),
    "last_bn_scale": Linear(0.0, 0.6),
}
TABLE_21: Space = {
    "warmup_power": Linear(1.5, 3.0),
    "decay_power": Linear(1.5, 2.5),
    "final_rate": Range(1e-6, 5e-4),
    "weight_decay": Range(5e-5, 1e-3),
    "last_bn_scale": Linear(0.4, 1.0),
}
TABLE_23: Space = {**TABLE_21, "weight_decay": Linear(5e-5, 6e-5)}
TABLE_6: Space = {
    "power": Choice((1.0, 2.0)),
    "learning_rate": Range(1e-5, 1.0),
    "1 - b1": Range(1e-2, 0.5),
    "1 - b2": Range(1e-2, 0.5),
    "weight_decay": Range(1e-3, 10.0),
}


def rate_and_decay(learning_rate: Range | Choice, weight_decay: Range | Choice) -> Space:
    """Return a row of Table 8."""
    return {"learning_rate": learning_rate, "weight_decay": weight_decay}


# By the recipe whose two hyperparameters they are of.
TABLE_8_INITIAL: Mapping[str, Space] = {
    "nesterov-32k-6000": rate_and_decay(logspace(-0.5, 0.5, 10), logspace(-4, -3, 10)),
    "lars-momentum-32k-6000": rate_and_decay(logspace(0, 2, 10), logspace(-5, -2, 10)),
    "adam-1e-8-32k-6000": rate_and_decay(Range(1e-3, 1.0), Range(1e-2, 4.0)),
    "adam-1e-6-32k-6000": rate_and_decay(logspace(-3, 0, 10), logspace(-2, 0.5, 6)),
    "lamb-32k-6000": rate_and_decay(logspace(-4, 0, 30), logspace(-5, -2, 4)),
}
TABLE_8_FINAL: Mapping[str, Space] = {
    "lars-32k-6000": rate_and_decay(Range(10.0, 30.0), Range(5e-5, 5e-4)),
    "adam-1e-8-32k-6000": rate_and_decay(Range(4e-3, 2e-2), Range(2e-1, 1.0)),
    "adam-1e-6-32k-6000": rate_and_decay(Range(3e-3, 1e-2), Range(0.5, 2.0)),
    "lamb-32k-6000": rate_and_decay(Range(4e-3, 5e-2), Range(1e-2, 1e-1)),
    "lamb-adam-1e-8-32k-6000": rate_and_decay(Range(1e-2, 8e-2), Range(1.0, 8.0)),
    "lamb-adam-1e-6-32k-6000": rate_and_decay(Range(1e-2, 8e-2), Range(1.0, 8.0)),
}


def search(table: str, of: str, base: AnyConfig, space: Space, trials: int) -> Search:
    """Return the search of a table."""
    return Search(
        name=f"nado-{table}", base=base, spaces={of: (base, space)}, trials=trials, searches=1
    )


def rows(table: str, spaces: Mapping[str, Space], trials: int) -> Search:
    """Return the searches of a column of Table 8."""
    each = {name: (of_recipe(RECIPES[name]), space) for name, space in spaces.items()}
    base, _ = next(iter(each.values()))
    return Search(name=f"nado-{table}", base=base, spaces=each, trials=trials, searches=1)


FIRST_GUESS = {"virtual_batch_size": 128, "decay_vectors": True}
BEST_OF_TABLE_15: dict[str, Any] = {
    **schedule(2815, warmup_steps=500),
    "decay_epochs": 2250 / UPDATES_PER_EPOCH,
    "learning_rate": 4.118,
    "final_rate": 4.118 * 8.144e-5,
    "decay_power": 2.0,
    "momentum": 1 - 0.02397,
    "weight_decay": 0.009992,
    "label_smoothing": 0.07786,
}
CONFIGURATION_A = RECIPES["nesterov-32k-a"]
BERT = dataclasses.replace(
    LANGUAGE_MODEL,
    objective="masked",
    warmup_epochs=1.1,  # As large a share as in the first phase of Table 7.
    optimizer="adam",
    adam_eps=1e-11,
)
SEARCHES = {
    search.name: search
    for search in (
        search("table-6", "Adam", BERT, TABLE_6, 32),
        rows("table-8-initial", TABLE_8_INITIAL, 64),
        rows("table-8-final", TABLE_8_FINAL, 32),
        search("table-9", "Nesterov", setting(**schedule(2815), **FIRST_GUESS), TABLE_9, 256),
        search("table-10", "Nesterov", setting(**schedule(2658), **FIRST_GUESS), TABLE_9, 64),
        search(
            *("table-11", "Nesterov"),
            setting(**schedule(2658), virtual_batch_size=128),
            *(TABLE_11, 64),
        ),
        search("table-18", "Nesterov", setting(**BEST_OF_TABLE_15), TABLE_18, 64),
        search(
            *("table-20", "Nesterov"),
            of_recipe(CONFIGURATION_A, decay_power=1.8, weight_decay=5e-5),
            *(TABLE_20, 256),
        ),
        search("table-21", "Nesterov", of_recipe(CONFIGURATION_A), TABLE_21, 16),
        search("table-23", "Nesterov", of_recipe(CONFIGURATION_A), TABLE_23, 32),
    )
}
