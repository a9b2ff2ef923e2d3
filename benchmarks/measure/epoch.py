"""Measures an epoch of item recommendation, and where the time of a step goes.

    python -m benchmarks.measure.epoch --dataset movielens-100k --data-dir DIR

An epoch is all that `examples.ncf` does in one, after the first has compiled: negatives, shuffle,
training, evaluation. The parts of a step are compiled on their own and timed in turn, so what XLA
saves by fusing them is not in them:

    embedding   looking users and items up, the first layer's kernel included, with its gradient:
                a batch larger than the tables takes each row through that kernel once
    MLP         the rest of the network and the loss, with their gradient
    optimizer   its update and its step; LAWN's on the spheres from the first step on

Each figure is a median, with the smallest and largest of an epoch's beside it. CPU time is what the
process used of all cores, so that other processes on the machine count less; on a CPU the parts are
of it too, and so is the step, for their sum to be compared with.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.tools.records import newest_or_new
from benchmarks.tools.timing import interleave, machine
from examples import ncf, training
from examples.results import records, tables
from examples.tasks import recommendation
from examples.tasks.recommendation import ranking
from examples.training import command
from examples.training.limits import AT_LEAST_1, check_ranges
from examples.training.optimizers import make_optimizer
from examples.training.traits import WITH_SWITCH, OptimizerName

COLUMNS = (
    *("dataset", "batch size", "optimizer", "seeds", "s an epoch", "of CPU time", "first epoch"),
    *("ms a step", "embedding", "MLP", "optimizer's", "device"),
)
CALLS = 10  # Of a part, in a row.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochConfig:
    """Times a dataset at some batch sizes with some optimizers."""

    dataset: recommendation.DatasetName = "movielens-100k"
    """Who interacted with what."""
    data_dir: Path | None = None
    """Where the dataset's files are; by default they are downloaded."""
    batch_sizes: tuple[int, ...] = (10_000, 100_000)
    """Training examples in a batch."""
    optimizers: tuple[OptimizerName, ...] = ("adam", "adam_lawn", "lamb_lawn")
    """Which to time."""
    seeds: Annotated[int, AT_LEAST_1] = 1
    """How many to train side by side."""
    epochs: Annotated[int, AT_LEAST_1] = 7
    """How many to time, after the first."""
    records: Path | None = None
    """Folder to add to; by default the newest `<date>-epoch-time` of benchmarks/records."""

    def __post_init__(self) -> None:
        check_ranges(self)


def main(config: EpochConfig) -> None:
    """Measure, print the table; append the records."""
    folder = config.records or newest_or_new("epoch-time")
    data = recommendation.load(config.dataset, config.data_dir)
    for batch_size in config.batch_sizes:
        task = ranking.make_task(data, batch_size, ncf.Config.tower, None)
        runs = {
            optimizer: ncf.Config(
                dataset=config.dataset,
                batch_size=batch_size,
                optimizer=optimizer,
                free_epochs=0.0 if optimizer in WITH_SWITCH else "auto",
                seeds=config.seeds,
            )
            for optimizer in config.optimizers
        }
        epochs = {optimizer: Epochs(task, run) for optimizer, run in runs.items()}
        title = f"epochs of batch size {batch_size:,}"
        seconds = interleave({o: e.window for o, e in epochs.items()}, config.epochs, title)
        for optimizer, run in runs.items():
            record = {
                "benchmark": "epoch-time",
                "config": run.config(),
                "steps_per_epoch": task.steps_per_epoch,
                "versions": records.versions(),
                "backend": jax.default_backend(),
                "device": machine(),
                "first_epoch_s": epochs[optimizer].first_s,
                "epoch_s": seconds[optimizer].tolist(),
                "epoch_cpu_s": epochs[optimizer].of_cpu_s,
                "parts_ms": parts(task, run, config.epochs),
            }
            records.append_records(folder / "epoch-time.jsonl", [record])
            print(table([record]))


class Epochs:
    """Runs epochs of one optimizer, one after the other.

    Attributes:
      first_s: seconds of the first, compilation included.
      of_cpu_s: seconds of CPU time of each of the others.
    """

    def __init__(self, task: ranking.Ranking, run: ncf.Config):
        static = run.static_options(task.steps_per_epoch)
        hyperparameters = run.hyperparameters().per_run(run.seeds)
        self._train = lambda state: training.train_epoch(task, static, hyperparameters, state)
        self._evaluate = lambda state: training.evaluate(task, state.params, state.rest)
        self._state = training.init(task, static, hyperparameters, jnp.asarray(run.all_seeds))
        self.of_cpu_s: list[float] = []
        self.first_s = self.window()
        self.of_cpu_s.clear()

    def window(self) -> float:
        """Return the seconds of the next."""
        start, cpu_start = time.perf_counter(), time.process_time()
        self._state, metrics = self._train(self._state)
        jax.device_get(metrics | self._evaluate(self._state))
        self.of_cpu_s.append(time.process_time() - cpu_start)
        return time.perf_counter() - start


def parts(task: ranking.Ranking, run: ncf.Config, windows: int) -> dict[str, float]:
    """Return the milliseconds that each part of a step takes, by name."""
    users, items, labels, _ = (x[0] for x in jax.jit(task.batches)(jax.random.key(0)))
    model = nnx.jit(lambda: task.model(nnx.Rngs(0)))()
    structure, tables_, tower = nnx.split(model, _of_tables, ...)
    tables_, tower = nnx.as_pure(tables_), nnx.as_pure(tower)
    merge = lambda *states: nnx.merge(structure, *states)
    hidden = jax.jit(lambda *states: merge(*states).embed(users, items))(tables_, tower)

    @jax.jit
    def embedding(tables_: Any, tower: Any) -> Any:
        x, pull = jax.vjp(lambda *states: merge(*states).embed(users, items), tables_, tower)
        return pull(x)

    @jax.jit
    def mlp(tower: Any, hidden: jax.Array) -> Any:
        losses = lambda *inputs: optax.sigmoid_binary_cross_entropy(
            merge(tables_, inputs[0]).predict_from_hidden(inputs[1]), labels
        )
        return jax.grad(lambda *inputs: jnp.mean(losses(*inputs)), argnums=(0, 1))(tower, hidden)

    tx = make_optimizer(run.static_options(task.steps_per_epoch), run.hyperparameters())

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any) -> Any:
        grads = jax.tree.map(lambda w: 0.1 * w[::-1], params)
        updates, state = tx.update(grads, state, params, margin=0.0)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.copy, {"tables": tables_, "tower": tower})
    carry = params, tx.init(params)

    def optimizer() -> Any:
        nonlocal carry
        carry = update(*carry)
        return carry

    steps: dict[str, Callable[[], Any]] = {
        "embedding": lambda: embedding(tables_, tower),
        "mlp": lambda: mlp(tower, hidden),
        "optimizer": optimizer,
    }
    windows_of: dict[str, Callable[[], float]] = {
        name: functools.partial(_seconds, step) for name, step in steps.items()
    }
    for step in steps.values():
        jax.block_until_ready(step())
    seconds = interleave(windows_of, windows, f"{run.optimizer}, parts")
    return {name: 1e3 * float(np.median(times)) for name, times in seconds.items()}


def minutes_of(epochs: Mapping[int, int], runs: Sequence[records.Record]) -> float | None:
    """Return the minutes of some epochs by batch size, None where a batch size was not run."""
    by_size = {run["config"]["batch_size"]: run for run in runs}
    if not epochs.keys() <= by_size.keys():
        return None
    seconds = [
        by_size[size]["first_epoch_s"] + (count - 1) * float(np.median(by_size[size]["epoch_s"]))
        for size, count in epochs.items()
    ]
    return sum(seconds) / 60


def table(found: Sequence[records.Record]) -> str:
    """Return a row per record."""
    rows = []
    for record in found:
        config, epochs = record["config"], record["epoch_s"]
        clock = "epoch_cpu_s" if record["backend"] == "cpu" else "epoch_s"
        step = np.median(record[clock]) / record["steps_per_epoch"]
        rows.append(
            (
                config["dataset"],
                f"{config['batch_size']:,}",
                config["optimizer"],
                str(config["seeds"]),
                f"{np.median(epochs):.3g} ({min(epochs):.3g} to {max(epochs):.3g})",
                f"{np.median(record['epoch_cpu_s']):.3g}",
                f"{record['first_epoch_s']:.3g}",
                f"{1e3 * step:.3g}",
                *(f"{record['parts_ms'][part]:.3g}" for part in ("embedding", "mlp", "optimizer")),
                record["device"],
            )
        )
    return tables.markdown(COLUMNS, rows)


def _of_tables(path: Sequence[Any], _: Any) -> bool:
    return path[0] in ("users", "items")


def _seconds(step: Callable[[], Any]) -> float:
    """Return the seconds per call, of CPU time on a CPU."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    start = clock()
    for _ in range(CALLS):
        done = step()
    jax.block_until_ready(done)
    return (clock() - start) / CALLS


if __name__ == "__main__":
    command.run(main, command.parser(EpochConfig, "benchmarks.measure.epoch", __doc__))
