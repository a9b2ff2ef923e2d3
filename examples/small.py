"""Small problems without a download: a perceptron on digits, measurements, signs or lines of code.

python -m examples.small --noise 0.2

reads handwritten digits, a fifth of the training labels wrong: seconds per seed on 2 CPU cores.
"""

import dataclasses

from examples import training
from examples.results import records, tables
from examples.tasks import labelled, small
from examples.training import command, distributed
from examples.training.options import Options, in_order_of_use

REPORTED = {
    "accuracy, %": ("accuracy", 100, 2),
    "loss on test data": ("nll", 1, 3),
    "calibration error, %": ("ece", 100, 2),
    "training loss": ("train_loss", 1, 3),
    "median margin": ("margin_p50", 1, 2),
}


@in_order_of_use
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Trains a perceptron and reports how many other examples it tells right."""

    dataset: small.SmallName = "digits"
    """digits, breast-cancer, wine: as scikit-learn ships them; made: as it generates them.
    parity: of three of 30 signs. lines: which module of Python's standard library one is from.
    mnist1d: one-dimensional digits, from the package of that name."""
    noise: float = 0.0
    """Share of the training labels that are changed to another class, always the same ones."""
    epochs: int = 40
    """Passes over the training set."""
    warmup_epochs: float = 4.0
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    learning_rate: float = 3e-3
    """Peak of the learning rate: what to tune first."""


def main(config: Config) -> None:
    """Trains, and reports the last epoch."""
    result = training.train(load(config), config, title=config.optimizer)
    if distributed.is_first():
        report(config, result)


def load(config: Config) -> labelled.Labelled:
    """Put the examples on the device."""
    return small.load(config.dataset, config.batch_size, config.noise)


def report(config: Config, result: training.Result) -> None:
    """Print the table, and append the records unless they are there."""
    rows = []
    for title, (name, scale, digits) in REPORTED.items():
        last = scale * result.curve[name][:, -1]
        rows.append((title, tables.mean_and_error(last, digits)))
    print(tables.markdown((config.optimizer, "last epoch"), rows))
    print(f"\n{config.seeds} seed(s), {config.epochs} epochs, {result.wall_s:.0f} s")
    records.keep({"example": "small", **config.config()}, config, result)


if __name__ == "__main__":
    command.run(main, command.parser(Config, "examples.small", __doc__))
