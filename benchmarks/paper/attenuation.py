"""Attenuates logits, the LAWN paper's Figure 1: smaller logits, with free and with fixed norms.

    python -m benchmarks.paper.attenuation --data-dir DIR

Adam without weight decay trains to the onset of loss flattening. With the weights and moments that
it has there, training goes on in each of these ways, on the same batches:

    loss(logits)         and   loss(0.2 * logits)         every norm free
    loss(logits)         and   loss(0.2 * logits)         every layer's norm fixed as it is

As in the paper (section 1), the factor stays on the logits for the rest of the training. So at the
onset no weight changes and no ranking does, and a step still turns each layer as far as before.
Scaled weights would not be an exact factor on the logits, because biases are not homogeneous with
kernels, and would turn further under the same step.

The paper's onset is epoch 115 of, presumably, its 300; here it is the same share of the epochs. A
free run is one of Adam-LAWN that never switches, so both kinds have the same `eps`, 1e-6. Stop it
and give the command again: a seed that is in the records is not run again.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.paper import stages
from benchmarks.tools.records import newest_or_new
from examples import ncf, training
from examples.results import records
from examples.tasks import recommendation
from examples.tasks.recommendation import ranking
from examples.training import command

EXPERIMENT = ("dataset", "batch_size", "epochs", "onset")
IDENTITY = (*EXPERIMENT, "learning_rate", "first_seed")
FACTOR = 0.2


class Branch(NamedTuple):
    """Says how training goes on: a factor on the logits, and whether the norms are fixed."""

    factor: float
    fixed: bool


BRANCHES = {
    "Adam": Branch(1.0, False),
    "logits times 0.2": Branch(FACTOR, False),
    "logits times 0.2, norms fixed": Branch(FACTOR, True),
    "norms fixed": Branch(1.0, True),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttenuationConfig:
    """Runs what is missing of Figure 1."""

    data_dir: Path | None = None
    """Where the dataset's files are; by default they are downloaded."""
    dataset: recommendation.DatasetName = "movielens-100k"
    """Who interacted with what."""
    batch_size: int = 10_000
    """Training examples in a batch."""
    epochs: int = 100
    """Passes over the training set; a tenth of them warms the learning rate up."""
    onset: int = 38
    """Epochs before the branches part; by default the paper's 115 of 300."""
    learning_rates: tuple[float, ...] = (3e-3, 1e-2)
    """Peaks, each an experiment of its own."""
    seeds: int = 3
    """How many, from 0 on."""
    records: Path | None = None
    """Folder to add to; by default the newest `<date>-attenuation` of benchmarks/records."""

    def __post_init__(self) -> None:
        if not 0 < self.onset < self.epochs:
            raise ValueError(f"onset={self.onset} must lie between 0 and epochs={self.epochs}.")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attenuated(ranking.Ranking):
    """Makes a task whose loss and margins are of the logits times a factor: no ranking changes.

    Attributes:
      factor: of the logits, above 0.
    """

    factor: float = dataclasses.field(default=FACTOR, metadata={"static": True})

    def loss(self, model: Any, batch: ranking.Batch) -> tuple[jax.Array, jax.Array]:
        """Return losses and margins of the logits times the factor, `(batch,)` each."""
        attenuated: Any = lambda users, items: self.factor * model(users, items)
        return super().loss(attenuated, batch)


def of_defaults(found: Sequence[records.Record]) -> list[records.Record]:
    """Return the runs of the experiment that the defaults are, which the picture shows."""
    wanted = {name: getattr(AttenuationConfig(), name) for name in EXPERIMENT}
    return [run for run in found if wanted.items() <= run["config"].items()]


def attenuate(task: ranking.Ranking, factor: float) -> Attenuated:
    """Put a factor on the logits of a task."""
    return Attenuated(**vars(task), factor=factor)


def main(config: AttenuationConfig) -> None:
    """Run each learning rate and seed that the records lack."""
    data = recommendation.load(config.dataset, config.data_dir, negatives_seed=0)
    out = (config.records or newest_or_new("attenuation")) / "attenuation.jsonl"
    for run in runs(config):
        about = {"benchmark": "attenuation", "onset": config.onset, **run.config()}
        identity = {name: about[name] for name in IDENTITY}
        done = records.read_records(out)
        if any(identity.items() <= record["config"].items() for record in done):
            continue
        task = ranking.make_task(data, run.batch_size, run.tower, None)
        found = []
        for name, result in experiment(task, run, config.onset).items():
            branch = {"branch": name, **BRANCHES[name]._asdict()}
            found += records.make_records(about | branch, run.all_seeds, result)
        records.append_records(out, found)


def runs(config: AttenuationConfig) -> list[ncf.Config]:
    """Return how experiments start: Adam without weight decay, an Adam-LAWN that is free."""
    base = ncf.Config(
        dataset=config.dataset,
        batch_size=config.batch_size,
        epochs=config.epochs,
        warmup_epochs=config.epochs / 10,
        optimizer="adam_lawn",
        free_epochs=config.epochs,
    )
    return [
        dataclasses.replace(base, learning_rate=learning_rate, first_seed=seed)
        for learning_rate in config.learning_rates
        for seed in range(config.seeds)
    ]


def experiment(task: ranking.Ranking, run: ncf.Config, onset: int) -> dict[str, training.Result]:
    """Train all the epochs of each branch; those before the onset are the same."""
    title = f"peak {run.learning_rate:g}, seed {run.first_seed}"
    trunk = stages.begin(task, run, onset, f"{title}, Adam")
    results = {}
    for name, branch in BRANCHES.items():
        constrained = dataclasses.replace(run, free_epochs=onset) if branch.fixed else run
        attenuated = attenuate(task, branch.factor)
        results[name] = stages.branch(attenuated, constrained, trunk, f"{title}, {name}")
    return results


if __name__ == "__main__":
    command.run(main, command.parser(AttenuationConfig, "benchmarks.paper.attenuation", __doc__))
