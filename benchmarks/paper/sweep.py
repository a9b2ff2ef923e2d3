"""Tunes each optimizer over its grid in `catalog.py`, then reports the best with other seeds.

A comparison, in `comparisons.py` and `variants.py`, has nothing to tune: each of its settings is
reported. A search, in `searches.py` and `rivals.py`, draws its settings, and records what each
held-out example scores.

    python -m benchmarks.paper.sweep --study movielens-100k-10k --data-dir DIR

Processes with the same `--storage`, on several machines too, divide the work. Given again after a
stop, the command skips finished runs, which it finds in `--records`, and repeats interrupted ones.
Then `python -m benchmarks.report` brings the tables up to date.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import optuna
from optuna.storages import journal

from benchmarks.paper import comparisons, rivals, searches, studies, variants
from benchmarks.paper.catalog import STUDIES
from benchmarks.paper.studies import Comparison, Experiment, Search, Study
from benchmarks.tools.records import newest_or_new, write_scores
from examples import training
from examples.results import norms, records, tables
from examples.training import command
from examples.training.checkpoints import checksum
from examples.training.hyperparameters import Hyperparameters
from examples.training.limits import AT_LEAST_1, check_ranges
from examples.training.traits import OptimizerName

EXPERIMENTS: dict[str, Experiment] = {
    **STUDIES,
    **comparisons.COMPARISONS,
    **variants.COMPARISONS,
    **searches.SEARCHES,
    searches.LAWNS_EPS.name: searches.LAWNS_EPS,
    **rivals.SEARCHES,
}
ON_ACCELERATOR = 12  # Runs side by side; half of the points of a grid, or all of a short one.


class CutShortError(BaseException):
    """Says that a run was cut short."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Runs what is missing of some studies."""

    study: tuple[str, ...]
    """Which studies, comparisons or searches; an unknown name lists them all."""
    data_dir: Path | None = None
    """Where the dataset's files are, as the example has it; by default they are downloaded."""
    optimizers: tuple[OptimizerName, ...] = ()
    """Which of a study's; by default all."""
    chunk: Annotated[int | None, AT_LEAST_1] = None
    """How many runs of one optimizer to train side by side in one compiled program: its points of
    the grid, or its seeds. By default 12 where that is faster, for recommenders on an accelerator,
    and 1 elsewhere; processes that share a storage must agree."""
    storage: Path = Path("runs/sweep.journal")
    """Optuna's journal, by which processes share the grid."""
    records: Path | None = None
    """Folder to append tuning.jsonl and reported.jsonl in. By default the newest called
    `<date>-<dataset>`, or `<date>-<comparison>`, in benchmarks/records, or a new one of today."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in self.study or [""]:
            if name not in EXPERIMENTS:
                raise ValueError(f"study={name!r} must be one of {', '.join(EXPERIMENTS)}.")
            experiment = EXPERIMENTS[name]
            known = experiment.learning_rates if isinstance(experiment, Study) else {}
            for optimizer in self.optimizers:
                if optimizer not in known:
                    raise ValueError(
                        f"optimizers holds {optimizer!r}: {name} has {', '.join(known) or 'none'}."
                    )


def main(config: SweepConfig) -> None:
    """Do the experiments one after the other."""
    config.storage.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in config.study:
        match EXPERIMENTS[name]:
            case Study() as study:
                run_study(study, config)
            case Comparison() as comparison:
                run_comparison(comparison, config)
            case Search() as search:
                run_search(search, config)


def run_comparison(comparison: Comparison, config: SweepConfig) -> None:
    """Report every setting of a comparison."""
    folder = config.records or newest_or_new(comparison.name)
    for group in comparison.groups.values():
        # Of each group its own, for the network may differ from one to the next.
        task = comparison.example.load(studies.with_files(group[0], config.data_dir))
        runs = [run for s in group for run in studies.reported(s, comparison.seeds)]
        explore(config, task, comparison, runs, folder / "reported.jsonl")


def run_search(search: Search, config: SweepConfig) -> None:
    """Try every setting of a search."""
    folder = config.records or newest_or_new("searches")
    task = search.example.load(studies.with_files(search.base, config.data_dir))
    for i in range(search.searches):
        for space in search.spaces:
            explore(config, task, search, search.settings(space, i), folder / "searched.jsonl")


def run_study(study: Study, config: SweepConfig) -> None:
    """Tune, choose and report the optimizers of one study."""
    folder = config.records or newest_or_new(study.base.dataset)
    tuning, reported = folder / "tuning.jsonl", folder / "reported.jsonl"
    of_study = dataclasses.replace(study.base, data_dir=config.data_dir)
    reported_on = study.example.load(of_study)
    tried_on = study.example.load(study.tried(of_study)) if study.tuning else reported_on
    for optimizer in config.optimizers or study.learning_rates:
        for settings in study.to_try(optimizer):
            runs = [study.tried(setting) for setting in settings]
            explore(config, tried_on, study, runs, tuning)
        grids = study.grids(optimizer).values()
        choices = [study.choose(settings, read(tuning)) for settings in grids]
        for chosen in dict.fromkeys(choices):  # Two may be one.
            if chosen is not None:  # All were tried.
                explore(config, reported_on, study, studies.reported(chosen), reported)


def explore(
    config: SweepConfig,
    task: training.Task,
    experiment: Experiment,
    runs: Sequence[studies.AnyConfig],
    path: Path,
) -> None:
    """Do each of the runs, which differ in hyperparameters and seed, that nobody has done.

    Raises:
      ValueError: if the file has its runs on other data, or lacks some that the storage has done.
    """
    data = checksum(task)
    wanted, there = [studies.identity(run.config()) for run in runs], read(path)
    others = {there[run]["config"].get("data", data) for run in wanted if run in there} - {data}
    if others:
        raise ValueError(
            f"data_dir={str(config.data_dir)!r} has data with checksum {data}, but {path} has runs"
            f" of {experiment.name} on {', '.join(sorted(others))}: give the same files, or another"
            " folder as records."
        )
    many = task.vmaps_runs and jax.default_backend() != "cpu"
    size = config.chunk or (ON_ACCELERATOR if many else 1)
    chunks = [
        alike[i : i + size]
        for alike in tables.group(runs, studies.program).values()
        for i in range(0, len(alike), size)
    ]
    # Other runs or chunks are another grid; what it has in common with the old is in the records.
    grid = f"{size} of {hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]}"
    sampler = optuna.samplers.GridSampler({"chunk": list(range(len(chunks)))})
    backend = journal.JournalFileBackend(str(config.storage))
    shared = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        sampler=sampler,
        study_name=f"{experiment.name} {path.stem} {runs[0].optimizer}, {grid}",
        load_if_exists=True,
    )

    def objective(trial: optuna.Trial) -> float:
        chunk, done = chunks[trial.suggest_int("chunk", 0, len(chunks) - 1)], read(path)
        missing = [run for run in chunk if studies.identity(run.config()) not in done]
        try:
            if missing:
                train(task, experiment, data, missing, path, config.data_dir)
        except (Exception, KeyboardInterrupt) as error:
            # As failed, GridSampler would count it as done; as it is, it is given out again.
            raise CutShortError(f"{path.stem}: {describe(missing)}") from error
        return float(len(missing))

    if not sampler.is_exhausted(shared):
        shared.optimize(objective)
    done = read(path)
    if any(run not in done for run in wanted):
        raise ValueError(
            f"{path} lacks runs that {config.storage} has: processes that share the one must share"
            " the other."
        )


def train(
    task: training.Task,
    experiment: Experiment,
    data: str,
    runs: Sequence[studies.AnyConfig],
    path: Path,
    data_dir: Path | None = None,
) -> None:
    """Do runs side by side, and append those that no other process has done meanwhile."""
    hyperparameters = Hyperparameters.stack(run.hyperparameters() for run in runs)
    seeds = [run.first_seed for run in runs]
    title = f"{path.stem}: {describe(runs)}"
    task, source = experiment.example.of_run(task, studies.with_files(runs[0], data_dir))
    result = training.train(
        task,
        runs[0],
        hyperparameters=hyperparameters,
        seeds=seeds,
        title=title,
        source=source,
    )
    found, detail = [], {}
    if isinstance(experiment, Search) and experiment.example.detail:
        state = result.state
        (last,) = source.held_out(runs[0].epochs) if source else (task,)
        detail = training.evaluate(last, state.params, state.rest, "score_examples")
    with_norms = isinstance(experiment, Comparison) and experiment.norms
    kept = [
        name
        for name in result.curve
        if name in experiment.example.curves or (with_norms and name.startswith(norms.LAYER))
    ]
    for i, run in enumerate(runs):
        about = {
            "benchmark": "sweep",
            "study": experiment.name,
            "data": data,
            "side_by_side": len(runs),
        }
        about |= run.config()
        curve = {name: values[i : i + 1] for name, values in result.curve.items()}
        (record,) = records.make_records(about, [run.first_seed], result._replace(curve=curve))
        record |= {part: {name: record[part][name] for name in kept} for part in ("curve", "final")}
        if not (isinstance(experiment, Study) or with_norms):
            del record["curve"]  # Of which nothing is drawn: the last epoch is reported.
        found.append(record | {name: write_scores(np.asarray(x[i])) for name, x in detail.items()})
    # At the end of a grid two processes may run the same.
    done = read(path)
    records.append_records(path, [r for r in found if studies.identity(r["config"]) not in done])


def describe(runs: Sequence[studies.AnyConfig]) -> str:
    """Name the first run, and say how many follow it."""
    run, others = runs[0], len(runs) - 1
    shown = (
        *(run.optimizer, run.learning_rate, run.weight_decay, run.free_epochs),
        *(run.norms_of, run.norms_scale, run.first_seed),
    )
    return " ".join(str(x) for x in shown if x is not None) + (
        f" and {others} more" if others else ""
    )


def read(path: Path) -> dict[str, records.Record]:
    """Return the runs of a file, none where there is no file."""
    return studies.index(records.read_records(path))


if __name__ == "__main__":
    dataset = lambda name: getattr(EXPERIMENTS[name].base, "dataset", "text")
    by_dataset = tables.group(EXPERIMENTS, dataset)
    listed = "\n\n".join(f"{data}: {', '.join(names)}" for data, names in by_dataset.items())
    about = f"{__doc__}\nThe studies:\n\n{listed}"
    command.run(main, command.parser(SweepConfig, "benchmarks.paper.sweep", about))
