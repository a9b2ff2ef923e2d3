"""What an epoch of item recommendation takes, and what of a step goes where.

    python -m benchmarks.epoch_time --dataset movielens-100k --data-dir DIR

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
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
import tyro
from flax import nnx

from benchmarks import folders, overhead
from examples import interactions, ncf, ranking, records, tables, training
from examples.options import Knobs, OptimizerName, make_optimizer

COLUMNS = (
    *("dataset", "batch size", "optimizer", "seeds", "s an epoch", "of CPU time", "first epoch"),
    *("ms a step", "embedding", "MLP", "optimizer's", "device"),
)
CALLS = 10  # Of a part, in a row.
TO_REACH = {  # On one GPU.
    "300 epochs of MovieLens-1M at batch size 10,000, one seed, in 30 s": "--batch-sizes 10000",
    "Table 10's batch sizes for one optimizer, three seeds, in 5 minutes": (
        "--batch-sizes 1000 10000 100000 1000000 --seeds 3"
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Times a dataset at some batch sizes with some optimizers."""

    dataset: interactions.DatasetName = "movielens-100k"
    """Who interacted with what."""
    data_dir: Path | None = None
    """Where the dataset's files are; by default they are downloaded."""
    batch_sizes: tuple[int, ...] = (10_000, 100_000)
    """Training examples in a batch."""
    optimizers: tuple[OptimizerName, ...] = ("adam", "adam_lawn", "lamb_lawn")
    """Which to time."""
    seeds: int = 1
    """How many to train side by side."""
    epochs: int = 7
    """How many to time, after the first."""
    records: Path | None = None
    """Folder to add to; by default the newest `<date>-epoch-time` of benchmarks/records."""

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")


def main(config: Config) -> None:
    """Measures, prints the table, appends the records."""
    folder = config.records or folders.newest_or_new("epoch-time")
    data_dir = str(config.data_dir) if config.data_dir else None
    data = interactions.load(config.dataset, data_dir)
    for batch_size in config.batch_sizes:
        for optimizer in config.optimizers:
            run = ncf.Config(
                dataset=config.dataset,
                batch_size=batch_size,
                optimizer=optimizer,
                free_epochs=0.0 if optimizer.endswith("lawn") else "auto",
                seeds=config.seeds,
            )
            task = ranking.make_task(data, batch_size, run.tower, None)
            record = {
                "benchmark": "epoch-time",
                "config": run.config(),
                "steps_per_epoch": task.steps_per_epoch,
                "versions": records.versions(),
                "device": machine(),
                **epoch_times(task, run, config.epochs),
                "parts_ms": parts(task, run, config.epochs),
            }
            records.append_records(folder / "epoch-time.jsonl", [record])
            print(table([record]))


def epoch_times(task: ranking.Ranking, run: ncf.Config, epochs: int) -> dict[str, Any]:
    """Seconds of the first epoch, compilation included, and of the others, of CPU time too."""
    plan, knobs = run.plan(task.steps_per_epoch), _spread(run.knobs(), run.seeds)
    state = training.init(task, plan, knobs, jnp.asarray(run.all_seeds))
    seconds, of_cpu = [], []
    for _ in tqdm.trange(epochs + 1, desc=f"{run.optimizer}, {run.batch_size:,}", leave=False):
        start, cpu_start = time.perf_counter(), time.process_time()
        state, metrics = training.train_epoch(task, plan, knobs, state)
        jax.device_get(metrics | training.evaluate(task, state.params, state.rest))
        seconds.append(time.perf_counter() - start)
        of_cpu.append(time.process_time() - cpu_start)
    return {"first_epoch_s": seconds[0], "epoch_s": seconds[1:], "epoch_cpu_s": of_cpu[1:]}


def parts(task: ranking.Ranking, run: ncf.Config, windows: int) -> dict[str, float]:
    """Milliseconds that each part of a step takes, by name."""
    users, items, labels, _ = (x[0] for x in jax.jit(task.batches)(jax.random.key(0)))
    model = nnx.jit(lambda: task.model(nnx.Rngs(0)))()
    structure, tables_, tower = nnx.split(model, _of_tables, ...)
    tables_, tower = nnx.as_pure(tables_), nnx.as_pure(tower)
    merge = lambda *states: nnx.merge(structure, *states)
    hidden = jax.jit(lambda *states: merge(*states).look_up(users, items))(tables_, tower)

    @jax.jit
    def embedding(tables_: Any, tower: Any) -> Any:
        x, pull = jax.vjp(lambda *states: merge(*states).look_up(users, items), tables_, tower)
        return pull(x)

    @jax.jit
    def mlp(tower: Any, hidden: jax.Array) -> Any:
        losses = lambda *inputs: optax.sigmoid_binary_cross_entropy(
            merge(tables_, inputs[0]).climb(inputs[1]), labels
        )
        return jax.grad(lambda *inputs: jnp.mean(losses(*inputs)), argnums=(0, 1))(tower, hidden)

    tx = make_optimizer(run.plan(task.steps_per_epoch), run.knobs())

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
    seconds = overhead.interleave(windows_of, windows, f"{run.optimizer}, parts")
    return {name: 1e3 * float(np.median(times)) for name, times in seconds.items()}


def section(found: Sequence[records.Record]) -> str:
    """The table, and what is to be reached on a GPU if that was not run."""
    parts = [table(found)] if found else []
    if not any(
        r["config"]["dataset"] == "movielens-1m" and "cpu" not in r["device"] for r in found
    ):
        command = "python -m benchmarks.epoch_time --dataset movielens-1m --data-dir DIR"
        parts += ["On a GPU, not yet run:"]
        parts += ["\n".join(f"- {aim}: `{command} {rest}`" for aim, rest in TO_REACH.items())]
    return "\n\n".join(parts)


def table(found: Sequence[records.Record]) -> str:
    """A row a record."""
    rows = []
    for record in found:
        config, epochs = record["config"], record["epoch_s"]
        on_cpu = record["device"].startswith("cpu")
        step = np.median(record["epoch_cpu_s" if on_cpu else "epoch_s"]) / record["steps_per_epoch"]
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


def machine() -> str:
    """What computed."""
    kind = jax.devices()[0].device_kind
    return f"{kind}, {os.cpu_count()} cores" if jax.default_backend() == "cpu" else kind


def _of_tables(path: Sequence[Any], _: Any) -> bool:
    return path[0] in ("users", "items")


def _spread(knobs: Knobs, runs: int) -> Knobs:
    """Arrays `(runs,)` of them."""
    return jax.tree.map(lambda x: jnp.full(runs, x, jnp.float32), knobs)


def _seconds(step: Callable[[], Any]) -> float:
    """Seconds a call, of CPU time on a CPU."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    start = clock()
    for _ in range(CALLS):
        done = step()
    jax.block_until_ready(done)
    return (clock() - start) / CALLS


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.epoch_time", description=__doc__))
