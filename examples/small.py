"""Small problems without a download: a perceptron on digits, measurements, signs or lines of code.

python -m examples.small --noise 0.2

That trains on handwritten digits with 20% of the training labels wrong: seconds per seed on 2 CPU
cores.
"""

import dataclasses

from examples import training
from examples.results.reports import ReportedMetric, report
from examples.tasks import labelled, small
from examples.training import command, distributed
from examples.training.options import Options, in_order_of_use

REPORTED = {
    "accuracy, %": ReportedMetric("accuracy", 100),
    "loss on test data": ReportedMetric("nll", digits=3),
    "calibration error, %": ReportedMetric("ece", 100),
    "training loss": ReportedMetric("train_loss", digits=3),
    "median margin": ReportedMetric("margin_p50"),
}


@in_order_of_use
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Trains a perceptron and reports its accuracy on test data."""

    dataset: small.SmallName = "digits"
    """digits, breast-cancer, wine: as scikit-learn ships them.
    made, friedman, moons: as it generates them.
    teacher: which output of a random network is the largest.
    parity: of three of 30 signs. addition: of two numbers, modulo 31.
    lines: which module of Python's standard library one is from.
    mnist1d: one-dimensional digits, from the package of that name.
    spirals, checkerboard, rings: patterns in the plane."""
    noise: float = 0.0
    """Share of the training labels that are changed to another class, always the same ones."""
    epochs: int = 40
    """Passes over the training set."""
    warmup_epochs: float = 4.0
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    learning_rate: float = 3e-3
    """Peak of the learning rate: what to tune first."""


def main(config: Config) -> None:
    """Train, and report the last epoch."""
    result = training.train(load(config), config, title=config.optimizer)
    if distributed.is_first():
        report({"example": "small"}, config, result, REPORTED)


def load(config: Config) -> labelled.Labelled:
    """Put the examples on the device."""
    return small.load(config.dataset, config.batch_size, config.noise)


if __name__ == "__main__":
    command.run(main, command.parser(Config, "examples.small", __doc__))
