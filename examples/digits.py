"""Handwritten digits: a perceptron on the 1,797 images that ship with scikit-learn.

python -m examples.digits --noise 0.2

Seconds per seed on 2 CPU cores, and no download.
"""

import dataclasses

from examples import training
from examples.results import records, tables
from examples.tasks import digits
from examples.training import command, distributed
from examples.training.options import Options, in_order_of_use

REPORTED = {"accuracy, %": ("accuracy", 100), "calibration error, %": ("ece", 100)}


@in_order_of_use
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Trains a perceptron on 1,000 digits and reports how many of 397 others it reads."""

    noise: float = 0.0
    """Share of the training labels that are changed to another class, always the same ones."""
    epochs: int = 40
    """Passes over the training set."""
    warmup_epochs: float = 4.0
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    learning_rate: float = 3e-3
    """Peak of the learning rate: what to tune first."""


def main(config: Config) -> None:
    """Trains, and reports the last epoch and the best."""
    result = training.train(load(config), config, title=config.optimizer)
    if distributed.is_first():
        report(config, result)


def load(config: Config) -> digits.Digits:
    """Put the digits on the device."""
    return digits.load(config.noise, config.batch_size)


def report(config: Config, result: training.Result) -> None:
    """Print the table, and append the records unless they are there."""
    rows = []
    for title, (name, scale) in REPORTED.items():
        last = scale * result.curve[name][:, -1]
        rows.append((title, tables.mean_and_error(last, digits=2)))
    print(tables.markdown((config.optimizer, "last epoch"), rows))
    print(f"\n{config.seeds} seed(s), {config.epochs} epochs, {result.wall_s:.0f} s")
    records.keep({"example": "digits", **config.config()}, config, result)


if __name__ == "__main__":
    command.run(main, command.parser(Config, "examples.digits", __doc__))
