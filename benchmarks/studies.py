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

from examples import interactions, ncf, records
from examples.options import WITH_DECAY, OptimizerName

TUNING_SEED = 1_000_000  # No seed serves both to tune and to report.
REPORTING_SEEDS = (0, 1, 2)
PAPER_DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
WIDE_DECAYS = (*PAPER_DECAYS, 0.3, 1.0, 3.0)
PAPER_WARMUP = 30.0
# The paper's six, and two to make them as many as there are decays.
FREE_EPOCHS = (0.1, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)

SHARED = (
    *("dataset", "batch_size", "epochs", "warmup_epochs", "loss", "gamma", "label_smoothing"),
    *("bounded_weight_norm", "tower", "negatives_seed"),
)
OWN = ("optimizer", "learning_rate", "weight_decay", "free_epochs", "first_seed")
DEFAULTS = {field.name: field.default for field in dataclasses.fields(ncf.Config)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One dataset and batch size, and what each optimizer is tuned over.

    Attributes:
      base: what all runs share.
      learning_rates: peaks to choose from, log-spaced, as many for each optimizer.
      free_epochs: to choose from for LAWN, as many as the base optimizers have weight decays.
      decays: the sets of weight decays, by name, each within the next.
    """

    base: ncf.Config
    learning_rates: Mapping[OptimizerName, Sequence[float]]
    free_epochs: Sequence[float]
    decays: Mapping[str, Sequence[float]] = dataclasses.field(
        default_factory=lambda: {"the paper's decays": PAPER_DECAYS, "the wide set": WIDE_DECAYS}
    )

    def grids(self, optimizer: OptimizerName) -> dict[str, list[ncf.Config]]:
        """What an optimizer may choose from -> the runs that decide; the last holds the others."""
        if optimizer in WITH_DECAY:
            return {
                name: self._runs(optimizer, "weight_decay", values)
                for name, values in self.decays.items()
            }
        return {"free epochs": self._runs(optimizer, "free_epochs", self.free_epochs)}

    def _runs(
        self, optimizer: OptimizerName, knob: str, values: Sequence[float]
    ) -> list[ncf.Config]:
        """One for each learning rate and value of the knob."""
        shared: Any = {"optimizer": optimizer, "first_seed": TUNING_SEED, "seeds": 1}
        points: Any = itertools.product(self.learning_rates[optimizer], values)
        return [
            dataclasses.replace(self.base, learning_rate=rate, **{knob: value}, **shared)
            for rate, value in points
        ]


def peaks(adam: Sequence[float], lamb: Sequence[float]) -> dict[OptimizerName, Sequence[float]]:
    """The paper's five optimizers; LAWN's have the peaks of what they are built on."""
    sgd = (0.1, 0.3, 1.0)
    return {"adam": adam, "adam_lawn": adam, "lamb": lamb, "lamb_lawn": lamb, "sgd": sgd}


LOW, MIDDLE = (3e-4, 1e-3, 3e-3), (1e-3, 3e-3, 1e-2)
HIGH, HIGHEST = (3e-3, 1e-2, 3e-2), (3e-2, 1e-1, 3e-1)
LAMB_MIDDLE = (1e-2, 3e-2, 1e-1)


def short(batch_size: int, epochs: int, learning_rates: Mapping[OptimizerName, Any]) -> Study:
    """MovieLens-100k with fewer epochs, for a CPU; warm-up and free epochs are cut alike."""
    return Study(
        base=ncf.Config(
            dataset="movielens-100k",
            batch_size=batch_size,
            epochs=epochs,
            warmup_epochs=epochs / 10,
        ),
        learning_rates=learning_rates,
        free_epochs=tuple(share * epochs / 400 for share in (1, 5, 10, 20, 40, 60, 100, 160)),
    )


def full(
    dataset: interactions.DatasetName,
    batch_size: int,
    epochs: int,
    learning_rates: Mapping[OptimizerName, Any],
) -> Study:
    """The paper's epochs, warm-up and free epochs, for an accelerator."""
    return Study(
        base=ncf.Config(
            dataset=dataset, batch_size=batch_size, epochs=epochs, warmup_epochs=PAPER_WARMUP
        ),
        learning_rates=learning_rates,
        free_epochs=FREE_EPOCHS,
    )


def vary(study: Study, optimizers: Sequence[OptimizerName], **changes: Any) -> Study:
    """A study with another loss or model, of some of its optimizers."""
    return dataclasses.replace(
        study,
        base=dataclasses.replace(study.base, **changes),
        learning_rates={name: study.learning_rates[name] for name in optimizers},
    )


def instead_of_decay(study: Study, **changes: Any) -> Study:
    """What Adam may do in place of weight decay, and beside it."""
    decays = {"no decay": (0.0,), "the wide set": WIDE_DECAYS}
    return dataclasses.replace(vary(study, ["adam"], **changes), decays=decays)


STUDIES = {
    "movielens-100k-1k": short(1_000, 40, peaks(LOW, HIGH)),
    "movielens-100k-10k": short(10_000, 40, peaks(MIDDLE, LAMB_MIDDLE)),
    "movielens-100k-100k": short(100_000, 100, peaks(HIGH, HIGHEST)),
    "movielens-100k-400k": short(400_000, 100, peaks(HIGH, HIGHEST)),
    "movielens-100k-1k-full": full("movielens-100k", 1_000, 300, peaks(LOW, HIGH)),
    "movielens-100k-10k-full": full("movielens-100k", 10_000, 300, peaks(MIDDLE, LAMB_MIDDLE)),
    "movielens-100k-100k-full": full("movielens-100k", 100_000, 500, peaks(HIGH, HIGHEST)),
    "movielens-100k-400k-full": full("movielens-100k", 400_000, 500, peaks(HIGH, HIGHEST)),
    "movielens-1m-1k": full("movielens-1m", 1_000, 300, peaks((1e-4, 3e-4, 1e-3), LOW)),
    "movielens-1m-10k": full("movielens-1m", 10_000, 300, peaks(LOW, HIGH)),
    "movielens-1m-100k": full("movielens-1m", 100_000, 500, peaks(MIDDLE, LAMB_MIDDLE)),
    "movielens-1m-1m": full("movielens-1m", 1_000_000, 500, peaks(HIGH, HIGHEST)),
    "pinterest-20-1k": full("pinterest-20", 1_000, 300, peaks((1e-4, 3e-4, 1e-3), LOW)),
    "pinterest-20-10k": full("pinterest-20", 10_000, 300, peaks(LOW, HIGH)),
    "pinterest-20-100k": full("pinterest-20", 100_000, 500, peaks(MIDDLE, LAMB_MIDDLE)),
    "pinterest-20-1m": full("pinterest-20", 1_000_000, 500, peaks(HIGH, HIGHEST)),
}
for _batch in ("10k", "100k"):  # Table 2
    _study = STUDIES[f"movielens-1m-{_batch}"]
    STUDIES[f"movielens-1m-{_batch}-smoothed"] = instead_of_decay(_study, label_smoothing=0.05)
    STUDIES[f"movielens-1m-{_batch}-bounded"] = instead_of_decay(_study, bounded_weight_norm=True)
for _batch, _gamma in itertools.product(("100k", "1m"), (0.5, 2.0, 5.0)):  # Table 5
    STUDIES[f"movielens-1m-{_batch}-focal-{_gamma:g}"] = vary(
        STUDIES[f"movielens-1m-{_batch}"], ["adam", "adam_lawn"], loss="focal", gamma=_gamma
    )


def choose(runs: Sequence[ncf.Config], found: Mapping[str, records.Record]) -> ncf.Config | None:
    """The best of the runs, the first of equals; None where a run is missing."""
    tried = [found.get(identity(run.config())) for run in runs]
    scores = [(score(r), r["final"]["ndcg_at_10"]) for r in tried if r]
    return runs[scores.index(max(scores))] if len(scores) == len(runs) else None


def report_with(chosen: ncf.Config) -> list[ncf.Config]:
    """The runs by which a setting is reported."""
    return [dataclasses.replace(chosen, first_seed=seed) for seed in REPORTING_SEEDS]


def index(found: Sequence[records.Record]) -> dict[str, records.Record]:
    """Records by what they are of, the first of each."""
    return {identity(record["config"]): record for record in reversed(found)}


def identity(config: Mapping[str, Any]) -> str:
    """What tells one run from another."""
    return _select(config, (*SHARED, *OWN))


def shared(config: Mapping[str, Any]) -> str:
    """What tells one study's runs from another's."""
    return _select(config, SHARED)


def score(record: records.Record) -> float:
    """What settings are chosen by."""
    return record["final"]["hr_at_10"]


def _select(config: Mapping[str, Any], names: Sequence[str]) -> str:
    # An option that a record is too old to have was its default.
    return json.dumps({name: config.get(name, DEFAULTS[name]) for name in names})
