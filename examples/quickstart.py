"""Adam, AdamW and Adam-LAWN, tuned on short runs and trained for longer with the same settings.

python -m examples.quickstart                    three minutes on 2 CPU cores

The task: which identifiers a module of Python's standard library uses. Settings are chosen at 15
epochs and kept for 60. Expect HR@10 of 55, 56 and 58 % at 15 epochs and of 50, 55 and 61 at 60, all
+- 1 (5 seeds, Python 3.11: the library of another Python is another dataset).
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from examples import training
from examples.results import plots, records, tables
from examples.tasks import identifiers
from examples.training import command, distributed
from examples.training.hyperparameters import Hyperparameters
from examples.training.limits import AT_LEAST_0, AT_LEAST_1
from examples.training.options import Options, RunOptions, in_order_of_use

GRID = ("epochs", "learning_rates", "weight_decays", "free_epochs", "tuning_seeds")
TUNING_SEED = 1_000_000  # No seed serves both to tune and to report.
SPLIT_SEED = 2  # The search for this example looked at what seeds 0 and 1 hold out.
COLUMNS = ("epochs", "optimizer", "HR@10", "at its best epoch", "median margin", "training loss")
PANELS = {
    "hr_at_10": "HR@10 on what is held out",
    "train_loss": "training loss",
    "margin_p50": "median training margin",
    "norm/items/embedding": "norm of the embedding",
}


@in_order_of_use
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """Chooses each optimizer's settings on a short run and keeps them for longer ones."""

    epochs: int = 15
    """Passes over the training set while settings are chosen."""
    longer: tuple[int, ...] = (60,)
    """Passes of the longer runs, one such run per number."""
    warmup_epochs: float = 2.0
    """Epochs in which the learning rate rises from 0 to its peak; then it falls linearly to 0."""
    batch_size: int = 2000
    """Training examples per update of the weights."""
    learning_rates: Annotated[tuple[float, ...], AT_LEAST_0] = (1e-2, 3e-2)
    """Peaks to choose from, for every optimizer."""
    weight_decays: Annotated[tuple[float, ...], AT_LEAST_0] = (0.0, 0.1, 0.2, 0.4, 0.8)
    """Decays that AdamW chooses from, times the learning rate; Adam takes the 0."""
    free_epochs: Annotated[tuple[float, ...], AT_LEAST_0] = (0.5, 1.0, 2.0, 4.0, 8.0)
    """Free phases that Adam-LAWN chooses from."""
    tuning_seeds: Annotated[int, AT_LEAST_1] = 2
    """How many seeds to choose a setting by; none of them is reported."""
    picture: Path | None = Path("runs/quickstart.png")
    """File to draw the curves to; its ending says the format."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 not in self.weight_decays:
            raise ValueError(f"weight_decays={self.weight_decays} must hold 0: that is Adam.")
        if short := [epochs for epochs in self.longer if epochs <= self.epochs]:
            raise ValueError(f"longer={short} must be more than epochs={self.epochs}.")


class Trial(NamedTuple):
    """A setting, and how it did on the validation set; ties in HR@10 go to the higher NDCG@10."""

    options: Options
    hit_ratio: float
    ndcg: float


def main(config: Config) -> None:
    """Tune, train, print the table, draw the picture."""
    start = time.perf_counter()
    task = identifiers.load(config.batch_size, split_seed=SPLIT_SEED)
    about = {"example": "quickstart", "grid": {name: getattr(config, name) for name in GRID}}
    found: list[records.Record] = []
    for method, chosen in tune(task, config).items():
        for epochs in (config.epochs, *config.longer):
            options = dataclasses.replace(chosen, epochs=epochs)
            result = training.train(task, options, title=f"{method}, {epochs} epochs")
            run = about | {"method": method} | options.config()
            found += records.make_records(run, options.all_seeds, result)
    if not distributed.is_first():
        return
    print(table(found))
    if config.out:
        records.append_new(config.out, found)
    if config.picture:
        draw(config.picture, found)
        print(f"Curves: {config.picture}")
    print(f"{time.perf_counter() - start:.0f} s")


def tune(task: identifiers.Identifiers, config: Config) -> dict[str, Options]:
    """Return the best setting of each optimizer."""
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(RunOptions)}
    adam = [
        Options(optimizer="adam", learning_rate=rate, weight_decay=decay, **shared)
        for rate, decay in itertools.product(config.learning_rates, config.weight_decays)
    ]
    lawn = [
        Options(optimizer="adam_lawn", learning_rate=rate, free_epochs=free, **shared)
        for rate, free in itertools.product(config.learning_rates, config.free_epochs)
    ]
    automatic = [
        Options(optimizer="adam_lawn", learning_rate=rate, free_epochs="flattening", **shared)
        for rate in config.learning_rates
    ]
    adam_trials, lawn_trials, automatic_trials = (
        try_out(task, config, settings) for settings in (adam, lawn, automatic)
    )
    return {
        "Adam": best([trial for trial in adam_trials if trial.options.weight_decay == 0]),
        "AdamW": best(adam_trials),
        "Adam-LAWN": best(lawn_trials),
        "Adam-LAWN, automatic": best(automatic_trials),
    }


def try_out(
    task: identifiers.Identifiers, config: Config, settings: Sequence[Options]
) -> list[Trial]:
    """Train every setting of one optimizer with the tuning seeds."""
    seeds = range(TUNING_SEED, TUNING_SEED + config.tuning_seeds)
    runs = list(itertools.product(settings, seeds))
    names = ("validation_hr_at_10", "validation_ndcg_at_10")
    scores = []
    # As many at once as there are seeds to report, so that both share one compiled program.
    for done in range(0, len(runs), config.seeds):
        options, of_runs = zip(*runs[done : done + config.seeds], strict=True)
        hyperparameters = Hyperparameters.stack(option.hyperparameters() for option in options)
        title = f"tuning {options[0].optimizer}, {done} of {len(runs)} runs done"
        result = training.train(
            task,
            options[0],
            hyperparameters=hyperparameters,
            seeds=of_runs,
            every_epoch=False,
            title=title,
        )
        scores.append([result.curve[name][:, -1] for name in names])
    means = np.hstack(scores).reshape(len(names), len(settings), len(seeds)).mean(axis=2)
    return [Trial(o, *mean) for o, mean in zip(settings, means.T.tolist(), strict=True)]


def best(trials: Sequence[Trial]) -> Options:
    """Return the setting that did best; a score that is not a number never does."""
    return max(trials, key=lambda trial: np.nan_to_num(trial[1:], nan=-1).tolist()).options


def table(found: Sequence[records.Record]) -> str:
    """Return what `main` found, from the last epoch of each seed, and how settings were chosen."""
    grid = found[0]["config"]["grid"]
    chosen = {method: _chosen(runs[0]) for method, runs in tables.group(found, _method).items()}
    return "\n".join(
        [
            score_table(found),
            "",
            f"{spread(found)} Chosen on the validation set at {grid['epochs']} epochs, with"
            f" {grid['tuning_seeds']} seeds of its own, and then kept:",
            "",
            *(f"- {method}: {setting}" for method, setting in chosen.items()),
            "",
            f"from peak learning rates {grid['learning_rates']} for every optimizer, times weight"
            f" decays {grid['weight_decays']} for AdamW or free epochs {grid['free_epochs']} for"
            " Adam-LAWN; its automatic switch leaves the peak alone.",
        ]
    )


def spread(found: Sequence[records.Record]) -> str:
    """Return what the scores are, and of how many seeds."""
    seeds = found[0]["config"]["seeds"]
    return f"HR@10 in percent after the last epoch: mean ± standard error of {seeds} seeds."


def score_table(found: Sequence[records.Record]) -> str:
    """Return the table alone, with a note below it on runs whose switch never came."""
    by_epochs = sorted(found, key=lambda record: record["config"]["epochs"])
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for (epochs, method), runs in tables.group(by_epochs, _row).items():
        percent = 100 * np.array([run["curve"]["hr_at_10"] for run in runs])
        cells = (
            tables.mean_and_error(percent[:, -1]),
            f"{percent.max(axis=1).mean():.1f}",
            f"{tables.final(runs, 'margin_p50').mean():.1f}",
            f"{tables.final(runs, 'train_loss').mean():.2f}",
        )
        free = sum(run.get("switched_at_epoch", 0) is None for run in runs)
        if free:
            notes.append(f"{method} at {epochs} epochs, {free} of {len(runs)} runs")
        rows.append((str(epochs), f"{method} †" if free else method, *cells))
    table = tables.markdown(COLUMNS, rows)
    note = "† LAWN never began, and what was trained is plain Adam: "
    return f"{table}\n\n{note}{'; '.join(notes)}." if notes else table


def longest(found: Sequence[records.Record]) -> list[records.Record]:
    """Return the records of the longest runs."""
    epochs = max(record["config"]["epochs"] for record in found)
    return [record for record in found if record["config"]["epochs"] == epochs]


def draw(path: Path, found: Sequence[records.Record]) -> None:
    """Draw the longest runs."""
    runs = longest(found)
    config = runs[0]["config"]
    title = f"{config['epochs']} epochs,\nas chosen at {config['grid']['epochs']}"
    plots.draw(path, {title: tables.group(runs, _method)}, PANELS)


def _row(record: records.Record) -> tuple[int, str]:
    return record["config"]["epochs"], record["config"]["method"]


def _method(record: records.Record) -> str:
    return record["config"]["method"]


def _chosen(record: records.Record) -> str:
    config = record["config"]
    other = f"weight decay {config['weight_decay']:g}"
    if config["optimizer"] == "adam_lawn":
        free = config["free_epochs"]
        other = "nothing else to choose" if isinstance(free, str) else f"{free:g} free epochs"
    return f"peak {config['learning_rate']:g}, {other}"


if __name__ == "__main__":
    command.run(main, command.parser(Config, "examples.quickstart", __doc__))
