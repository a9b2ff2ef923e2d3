"""Studies: what each optimizer is tuned over, as data, and which setting it chooses.

Each has as many settings as the others. As in the paper, HR@10 on the held-out items after the last
epoch decides, so the chosen figure is a little too good, and alike for all; NDCG@10 breaks ties.
Base optimizers choose twice: over the paper's weight decays, and over a wider set that holds them.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from examples import ncf, records
from examples.options import WITH_DECAY, OptimizerName

Space = Mapping[str, Sequence[float]]

TUNING_SEED = 1_000_000  # No seed serves both to tune and to report.
REPORTING_SEEDS = (0, 1, 2)
PAPER_DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
WIDE_DECAYS = (*PAPER_DECAYS, 0.3, 1.0, 3.0)
SHARED = ("dataset", "batch_size", "epochs", "warmup_epochs", "loss", "tower", "negatives_seed")
IDENTITY = (*SHARED, "optimizer", "learning_rate", "weight_decay", "free_epochs", "first_seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One dataset and batch size, and what each optimizer is tuned over.

    Attributes:
      base: what all runs share.
      learning_rates: peaks to choose from, log-spaced, as many for each optimizer.
      free_epochs: to choose from for LAWN, as many as the base optimizers have weight decays.
    """

    base: ncf.Config
    learning_rates: Mapping[OptimizerName, Sequence[float]]
    free_epochs: Sequence[float]

    def space(self, optimizer: OptimizerName, decays: Sequence[float]) -> Space:
        """Fields of `ncf.Config` and the values to try."""
        if optimizer in WITH_DECAY:
            knob: Space = {"weight_decay": decays}
        else:
            knob = {"free_epochs": self.free_epochs}
        return {"learning_rate": self.learning_rates[optimizer], **knob}

    def runs(self, optimizer: OptimizerName, space: Space, seed: int) -> list[ncf.Config]:
        """A run for each point of a space."""
        shared: Any = {"optimizer": optimizer, "first_seed": seed}
        points: Any = (dict(zip(space, x, strict=True)) for x in itertools.product(*space.values()))
        return [dataclasses.replace(self.base, **shared, **point) for point in points]


def movielens_100k(
    batch_size: int, epochs: int, adam: Sequence[float], lamb: Sequence[float]
) -> Study:
    """The paper's 300 epochs, its 30 of warm-up and its free ones, all cut by one factor."""
    return Study(
        base=ncf.Config(
            dataset="movielens-100k",
            batch_size=batch_size,
            epochs=epochs,
            warmup_epochs=epochs / 10,
            seeds=1,
        ),
        learning_rates={
            "adam": adam,
            "adam_lawn": adam,
            "lamb": lamb,
            "lamb_lawn": lamb,
            "sgd": (0.1, 0.3, 1.0),
        },
        free_epochs=tuple(share * epochs / 400 for share in (1, 5, 10, 20, 40, 60, 100, 160)),
    )


STUDIES = {
    "movielens-100k-1k": movielens_100k(1_000, 40, (3e-4, 1e-3, 3e-3), (3e-3, 1e-2, 3e-2)),
    "movielens-100k-10k": movielens_100k(10_000, 40, (1e-3, 3e-3, 1e-2), (1e-2, 3e-2, 1e-1)),
    "movielens-100k-100k": movielens_100k(100_000, 100, (3e-3, 1e-2, 3e-2), (3e-2, 1e-1, 3e-1)),
    "movielens-100k-400k": movielens_100k(400_000, 100, (3e-3, 1e-2, 3e-2), (3e-2, 1e-1, 3e-1)),
}


def grids(study: Study, optimizer: OptimizerName) -> dict[str, list[ncf.Config]]:
    """What an optimizer may choose from -> the runs that decide."""
    sets: dict[str, Sequence[float]] = {"free epochs": WIDE_DECAYS}
    if optimizer in WITH_DECAY:
        sets = {"the paper's decays": PAPER_DECAYS, "the wide set": WIDE_DECAYS}
    return {
        name: study.runs(optimizer, study.space(optimizer, decays), TUNING_SEED)
        for name, decays in sets.items()
    }


def choose(runs: Sequence[ncf.Config], found: Mapping[str, records.Record]) -> ncf.Config | None:
    """The best of the runs, the first of equals; None where a run is missing."""
    tried = [found.get(identity(run.config())) for run in runs]
    scores = [(score(r), r["final"]["ndcg_at_10"]) for r in tried if r]
    return runs[scores.index(max(scores))] if len(scores) == len(runs) else None


def index(found: Sequence[records.Record]) -> dict[str, records.Record]:
    """Records by what they are of, the first of each."""
    return {identity(record["config"]): record for record in reversed(found)}


def identity(config: Mapping[str, Any]) -> str:
    """What tells one run from another."""
    return json.dumps({name: config[name] for name in IDENTITY})


def score(record: records.Record) -> float:
    """What settings are chosen by."""
    return record["final"]["hr_at_10"]
