"""Item recommendation: neural collaborative filtering on MovieLens and Pinterest.

python -m examples.ncf --dataset movielens-100k --free-epochs 4

About a minute on 2 idle CPU cores. What HR@10 to expect, with its spread and the settings that were
tuned, stands in benchmarks/RESULTS.md, made from the records.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from examples import training
from examples.results import reports
from examples.results.reports import ReportedMetric
from examples.tasks import recommendation
from examples.tasks.recommendation import ranking
from examples.training import command, distributed
from examples.training.limits import AT_LEAST_0, AT_LEAST_1, Only
from examples.training.options import Options, in_order_of_use


@in_order_of_use
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Trains a recommender and reports how high it ranks the items held out."""

    dataset: recommendation.DatasetName
    """Interactions of users with items: viewers with films, or users of Pinterest with pins."""
    data_dir: Path | None = None
    """Folder with u.data, ratings.dat, GroupLens's archive or the split of NCF's authors.
    Files may be plain, .xz, .gz or .bz2, with or without column names. By default: downloaded."""
    epochs: int = 100
    """Passes over the training set; the paper has 300, or 500 for its two largest batches."""
    warmup_epochs: float = 10.0
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    learning_rate: float = 3e-3
    """Peak of the learning rate: what to tune first."""
    batch_size: int = 10_000
    """Training examples per update of the weights: positives with four sampled negatives each."""
    seeds: int = 1
    """How many seeds to train, in one program; the table shows their mean and standard error."""
    loss: Literal["bce", "focal"] = "bce"
    """Binary cross-entropy, or the focal loss, which gives less weight to those classified well."""
    gamma: Annotated[float, AT_LEAST_0, Only(("focal",), ("loss",))] = 2.0
    """Focusing parameter of the focal loss; 0 is cross-entropy."""
    label_smoothing: Annotated[float, Only(("bce",), ("loss",))] = 0.0
    """Share of each label that goes to the other class; the paper compares 0.05."""
    bounded_weight_norm: bool = False
    """Fix the initial norms by a reparametrization (Hoffer et al.), whatever the optimizer."""
    tower: Annotated[tuple[int, ...], AT_LEAST_1] = (256, 128, 64)
    """Widths of the MLP: both embeddings concatenated, then its hidden layers."""
    negatives_seed: int = 0
    """Seed of the 99 negatives to rank each held-out item among, where none are published."""
    validate: bool = False
    """Hold out one more interaction per user, the one before the latest, for validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} must be at least 0 and below 0.5."
            )


def main(config: Config) -> None:
    """Train, and report the last epoch and the best."""
    task = load(config)
    result = training.train(task, config, title=config.optimizer)
    if distributed.is_first():
        report(config, result)


def report(config: Config, result: training.Result) -> None:
    """Print the table, and append the records unless they are there."""
    shown = {"HR@10": ReportedMetric("hr_at_10", 100), "NDCG@10": ReportedMetric("ndcg_at_10", 100)}
    if config.validate:
        shown |= {
            f"validation {name}": of._replace(curve=f"{ranking.VALIDATION}{of.curve}")
            for name, of in shown.items()
        }
    reports.report({"example": "ncf"}, config, result, shown, best=True)


def load(config: Config) -> ranking.Ranking:
    """Put what to train on, and how it is evaluated, on the device.

    Raises:
      ValueError: if a batch would be larger than the training set.
    """
    data = recommendation.load(
        config.dataset,
        config.data_dir,
        negatives_seed=config.negatives_seed,
        validate=config.validate,
    )
    examples = (1 + ranking.NEGATIVES) * len(data.train)
    if config.batch_size > examples:
        raise ValueError(
            f"batch_size={config.batch_size} must be at most the {examples} training examples of"
            f" {config.dataset}, {ranking.NEGATIVES} negatives per positive included: give fewer."
        )
    return ranking.make_task(
        data,
        config.batch_size,
        config.tower,
        config.gamma if config.loss == "focal" else None,
        config.label_smoothing,
        config.bounded_weight_norm,
    )


if __name__ == "__main__":
    command.run(main, command.parser(Config, "examples.ncf", __doc__))
