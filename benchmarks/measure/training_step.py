"""Measures an optimizer's share of a training step: forward pass, backward pass, update.

    python -m benchmarks.measure.training_step --workloads ncf --batches 1000 --out runs/step.jsonl

Real models, generated data. A step is timed as in benchmarks.measure.optimizer_step: a scan with
its state donated, every optimizer in turn in each window, as a ratio to the same step with Adam.
What a step takes with plain SGD, `w - lr g`, counts as its forward and backward pass; the share of
an update is what the step takes beyond that.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from flax import nnx

from benchmarks.measure.optimizer_step import ratio
from benchmarks.tools.optimizers import BASELINE, OPTIMIZERS, RATE, Stepper, stepper
from benchmarks.tools.timing import Loop, compare, interleave, machine
from examples.results import records, tables
from examples.tasks.images import Network
from examples.tasks.recommendation.ranking import NCF
from examples.training import command
from examples.training.limits import AT_LEAST_1, OneOf, check_names, check_ranges

PLAIN = "plain sgd"
STEPPERS: dict[str, Callable[[], Stepper]] = {
    PLAIN: lambda: stepper(optax.sgd(RATE)),
    **{name: case.make for name, case in OPTIMIZERS.items()},
}


class ModelWorkload(NamedTuple):
    """Holds a model and what it is trained on.

    Attributes:
      model: `model(rngs)`, a Flax NNX module.
      batch: `batch(key, size)`, generated inputs and labels.
      loss: `loss(model, batch)`, a scalar.
    """

    model: Callable[[nnx.Rngs], nnx.Module]
    batch: Callable[[jax.Array, int], tuple[jax.Array, ...]]
    loss: Callable[[Any, Any], jax.Array]


def recommender(users: int, items: int, tower: tuple[int, ...]) -> ModelWorkload:
    """Make neural collaborative filtering, on pairs drawn at random."""

    def batch(key: jax.Array, size: int) -> tuple[jax.Array, ...]:
        of_users, of_items, of_labels = jax.random.split(key, 3)
        draw = lambda key, below: jax.random.randint(key, (size,), 0, below)
        return draw(of_users, users), draw(of_items, items), draw(of_labels, 2)

    def loss(model: NCF, batch: tuple[jax.Array, ...]) -> jax.Array:
        users, items, labels = batch
        return jnp.mean(optax.sigmoid_binary_cross_entropy(model(users, items), labels))

    return ModelWorkload(lambda rngs: NCF(users, items, tower, rngs), batch, loss)


def classifier(
    make: Callable[[int, nnx.Rngs], nnx.Module], shape: tuple[int, int, int], classes: int
) -> ModelWorkload:
    """Make a model of images `(batch, *shape)` and so many classes, on noise."""

    def batch(key: jax.Array, size: int) -> tuple[jax.Array, ...]:
        of_images, of_labels = jax.random.split(key)
        images = jax.random.normal(of_images, (size, *shape))
        return images, jax.random.randint(of_labels, (size,), 0, classes)

    def loss(model: Any, batch: tuple[jax.Array, ...]) -> jax.Array:
        images, labels = batch
        logits = model(images)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    return ModelWorkload(functools.partial(make, classes), batch, loss)


WORKLOADS: dict[str, ModelWorkload] = {
    "ncf": recommender(users=6040, items=3706, tower=(256, 128, 64)),  # MovieLens-1M
    "vgg19": classifier(Network(model="vgg19").make, (32, 32, 3), classes=10),
    "resnet50": classifier(Network(model="resnet50").make, (224, 224, 3), classes=1000),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStepConfig:
    """Measures a training step of each workload at each batch size with each optimizer."""

    workloads: Annotated[tuple[str, ...], OneOf(WORKLOADS)] = ("ncf",)
    """Which models."""
    batches: tuple[int, ...] = (1_000, 10_000)
    """Batch sizes."""
    optimizers: Annotated[tuple[str, ...], OneOf(OPTIMIZERS)] = (
        "adam",
        "adam_lawn",
        "adam_lawn, free",
        "adam_lawn, not projected",
        "adam_lawn, no care",
        "adam, reparametrized",
        "adamw",
        "lamb",
        "lamb_lawn",
        "hyperball",
        "sgd",
        "sgd_lawn",
    )
    """Which; adam and plain sgd are always measured, for the ratios and the shares."""
    windows: Annotated[int, AT_LEAST_1] = 7
    """How often each is timed, in turn with the others."""
    steps: Annotated[int, AT_LEAST_1] = 10
    """Steps in a window."""
    out: Path | None = None
    """JSONL file to append the measurements to."""

    def __post_init__(self) -> None:
        check_names(self)
        check_ranges(self)


def main(config: TrainingStepConfig) -> None:
    """Measure, print a table per batch size; append the records."""
    for workload in config.workloads:
        for size in config.batches:
            rows = measure(workload, size, config)
            print(f"\n{heading(rows)}\n{table(rows)}")
            if config.out:
                records.append_records(config.out, rows)


def measure(workload: str, size: int, config: TrainingStepConfig) -> list[records.Record]:
    """Return a record per optimizer."""
    work = WORKLOADS[workload]
    batch = work.batch(jax.random.key(0), size)
    structure, params, rest = nnx.split(work.model(nnx.Rngs(0)), nnx.Param, ...)
    params, rest = nnx.as_pure(params), nnx.as_pure(rest)
    title = f"{workload}, batch {size:,}"
    names = tqdm.tqdm(
        dict.fromkeys((PLAIN, BASELINE, *config.optimizers)), desc=f"{title}, compiling"
    )
    loops = {
        n: training_loop(work, structure, params, rest, batch, STEPPERS[n](), config.steps)
        for n in names
    }
    times = interleave({n: loop.window for n, loop in loops.items()}, config.windows, title)
    shared = {
        "benchmark": "training_step",
        "workload": workload,
        "batch_size": size,
        "parameters": sum(w.size for w in jax.tree.leaves(params)),
        "windows": config.windows,
        "steps": config.steps,
        "versions": records.versions(),
        "backend": jax.default_backend(),
        "device": machine(),
    }
    return [
        shared
        | {"optimizer": name, "share": float(np.median(1 - times[PLAIN] / times[name]))}
        | row
        for name, row in compare(times, BASELINE).items()
    ]


def training_loop(
    work: ModelWorkload,
    structure: Any,
    params: Any,
    rest: Any,
    batch: Any,
    optimizer: Stepper,
    steps: int,
) -> Loop:
    """Compile training on one batch again and again; `rest` is what else the model holds."""

    def loss(params: Any, rest: Any, batch: Any) -> tuple[jax.Array, Any]:
        model = nnx.merge(structure, params, rest)
        model.train()
        value = work.loss(model, batch)
        return value, nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))

    def step(batch: Any, carry: Any) -> Any:
        params, rest, state = carry
        grads, rest = jax.grad(loss, has_aux=True)(params, rest, batch)
        params, state = optimizer.step(grads, state, params)
        return params, rest, state

    return Loop(step, batch, lambda: (params, rest, optimizer.init(params)), steps)


def heading(rows: Sequence[records.Record]) -> str:
    """Say what was measured, and where."""
    row = rows[0]
    return (
        f"{row['workload']}, batch {row['batch_size']:,}: {row['parameters']:,} parameters."
        f" {row['device']}, {row['windows']} windows of {row['steps']} steps."
    )


def table(rows: Sequence[records.Record]) -> str:
    """Return a row per optimizer."""
    columns = ("optimizer", "ms a training step", "to the same with Adam", "share of the update")
    return tables.markdown(
        columns,
        [
            (row["optimizer"], f"{row['ms']:.2f}", ratio(row), f"{100 * row['share']:.0f}%")
            for row in rows
        ],
    )


if __name__ == "__main__":
    command.run(
        main, command.parser(TrainingStepConfig, "benchmarks.measure.training_step", __doc__)
    )
