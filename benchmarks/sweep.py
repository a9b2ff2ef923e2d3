"""Tunes each optimizer over its grid in `studies.py`, then reports the best with other seeds.

    python -m benchmarks.sweep --study movielens-100k-10k --data-dir DIR

Stop it and give the command again, in several processes too: they share the grid through
`--storage`, a finished run is found in `--records`, and one that was cut short is run again.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import tyro
from optuna.storages import journal

from benchmarks import studies
from examples import interactions, ncf, ranking, records, training
from examples.options import OptimizerName

CURVES = ("hr_at_10", "ndcg_at_10", "train_loss", "margin_p50")


class StoppedError(BaseException):
    """A run was cut short."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Runs what is missing of a study."""

    study: str
    """Which of `studies.STUDIES`."""
    data_dir: Path | None = None
    """Where the dataset's files are; by default they are downloaded."""
    optimizers: tuple[OptimizerName, ...] = ()
    """Which of the study's; by default all."""
    storage: Path = Path("runs/sweep.journal")
    """Optuna's journal, by which processes share the grid."""
    records: Path = Path("benchmarks/records/2026-11-22-movielens-100k")
    """Folder to append tuning.jsonl and reported.jsonl in."""

    def __post_init__(self) -> None:
        if self.study not in studies.STUDIES:
            raise ValueError(f"study={self.study!r} must be one of {', '.join(studies.STUDIES)}.")


def main(config: Config) -> None:
    """Tunes, chooses and reports one optimizer after the other."""
    study = studies.STUDIES[config.study]
    base, data_dir = study.base, str(config.data_dir) if config.data_dir else None
    data = interactions.load(base.dataset, data_dir, negatives_seed=base.negatives_seed)
    task = ranking.make_task(data, base.batch_size, base.tower, None)
    config.storage.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for optimizer in config.optimizers or study.learning_rates:
        space = study.space(optimizer, studies.WIDE_DECAYS)
        explore(config, task, "tuning", study, optimizer, space, [studies.TUNING_SEED])
        found = read(config.records / "tuning.jsonl")
        choices = [studies.choose(runs, found) for runs in studies.grids(study, optimizer).values()]
        for chosen in dict.fromkeys(choices):  # Both may be one.
            if chosen is None:
                raise ValueError(
                    f"{config.records / 'tuning.jsonl'} lacks runs that {config.storage} has:"
                    " processes that share the one must share the other."
                )
            point = {name: [getattr(chosen, name)] for name in space}
            explore(config, task, "reported", study, optimizer, point, studies.REPORTING_SEEDS)


def explore(
    config: Config,
    task: ranking.Ranking,
    file: str,
    study: studies.Study,
    optimizer: OptimizerName,
    space: studies.Space,
    seeds: Sequence[int],
) -> None:
    """Runs each point of a space with each seed, those left that nobody has run."""
    grid = {name: list(values) for name, values in {**space, "first_seed": seeds}.items()}
    sampler = optuna.samplers.GridSampler(grid)
    backend = journal.JournalFileBackend(str(config.storage))
    shared = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        sampler=sampler,
        # A changed grid is another; what it has in common with the old is in the records.
        study_name=f"{config.study} {file} {optimizer} {json.dumps(grid)}",
        direction="maximize",
        load_if_exists=True,
    )
    path = config.records / f"{file}.jsonl"

    def objective(trial: optuna.Trial) -> float:
        point: dict[str, Any] = {k: trial.suggest_categorical(k, v) for k, v in grid.items()}
        run = dataclasses.replace(study.base, optimizer=optimizer, **point)
        try:
            return studies.score(
                read(path).get(studies.identity(run.config())) or train(config, task, run, path)
            )
        except (Exception, KeyboardInterrupt) as error:
            # As failed, GridSampler would count it as done; as it is, it is given out again.
            raise StoppedError(f"{file} of {studies.identity(run.config())}") from error

    if not sampler.is_exhausted(shared):
        shared.optimize(objective)


def train(config: Config, task: ranking.Ranking, run: ncf.Config, path: Path) -> records.Record:
    """One run, appended to a file unless another process has done so meanwhile."""
    knobs = {n: getattr(run, n) for n in ("learning_rate", "weight_decay", "free_epochs")}
    title = " ".join([path.stem, run.optimizer, *map(str, knobs.values()), str(run.first_seed)])
    result = training.train(task, run, title=title)
    result = result._replace(curve={name: result.curve[name] for name in CURVES})
    about = {"benchmark": "sweep", "study": config.study, **run.config()}
    (record,) = records.make_records(about, [run.first_seed], result)
    # At the end of a grid two processes may run the same.
    if studies.identity(run.config()) not in read(path):
        records.append_records(path, [record])
    return record


def read(path: Path) -> dict[str, records.Record]:
    """The runs of a file, none where there is none."""
    return studies.index(records.read_records(path) if path.exists() else [])


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.sweep"))
