"""Training: the one loop of all examples, in one program for every seed and setting of a run.

task.batches(key) -> scan of train steps -> task.evaluate(model) -> one row of the curve

A task that is too large for the device comes in chunks from a `DataSource`, each of which is a task
whose `batches` are some steps of the epoch; of any other the one chunk is the task itself.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from flax import nnx

from examples.training import cpu, distributed, sharding, switching
from examples.training.autosave import Autosave
from examples.training.checkpoints import Progress
from examples.training.hyperparameters import Hyperparameters, StaticOptions
from examples.training.metrics import EpochMetrics
from examples.training.optimizers import make_optimizer
from examples.training.options import Options
from examples.training.task import DataSource, Layout, OnDevice, Task
from examples.training.tensorboard import TensorBoardWriter
from lawn_optax import diagnostics, losses


class State(NamedTuple):
    """All that training changes, so all that a checkpoint needs; each leaf with an axis of runs.

    Attributes:
      params: the weights.
      rest: what else the model holds, such as batch statistics and the state of dropout.
      opt_state: the optimizer's state.
      key: for the batches of the epochs to come.
    """

    params: nnx.State
    rest: nnx.State
    opt_state: optax.OptState
    key: jax.Array


class Result(NamedTuple):
    """What `train` returns.

    Attributes:
      state: the last state.
      curve: name -> `(runs, epochs)` float array. `train_loss`, `margin_p50` (medians of the
        batches) and `flat_share` (of margins of 2.5 or more) are means over an epoch's steps,
        `norm/<path>`, of stacked layers `norm/<path>/<layer>`, and what `task.evaluate` gives are
        taken at its end; `constrained_epochs` counts up from LAWN's switch.
      wall_s: seconds for all the runs together, compilation included.
      resumed_from: the epoch of the checkpoint that training went on from, 0 if it began.
      chunk_s: seconds from each chunk of an epoch to the next, but for the first and last.
    """

    state: State
    curve: dict[str, np.ndarray]
    wall_s: float
    resumed_from: int = 0
    chunk_s: tuple[float, ...] = ()


def init(
    task: Task, static: StaticOptions, hyperparameters: Hyperparameters, seeds: jax.Array
) -> State:
    """Return the state before the first step; the last two arguments have an axis of runs."""
    params, rest, key = _init_model(task, seeds)
    opt_state = _init_optimizer(static, task.layout, hyperparameters, params)
    return State(params, rest, opt_state, key)


@functools.partial(jax.jit, static_argnames="static", donate_argnames="state")
def train_epoch(
    task: Task, static: StaticOptions, hyperparameters: Hyperparameters, state: State
) -> tuple[State, dict[str, jax.Array]]:
    """Train every run on an epoch, or a chunk of one; returns `(runs,)` metrics by name, too."""
    structure = model_structure(task)

    def one(hyperparameters: Hyperparameters, state: State) -> tuple[State, dict[str, jax.Array]]:
        tx = make_optimizer(static, hyperparameters, task.layout)

        def loss(params: nnx.State, state: State, batch: Any) -> tuple[jax.Array, Any]:
            model = nnx.merge(structure, params, state.rest)
            model.train()
            of_examples, margins = task.loss(model, batch)
            mean = jnp.mean(of_examples)
            rest = nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))
            minimised = losses.flooding(mean, static.flood_level) if static.flood_level else mean
            return minimised, (mean, margins, rest)

        def step(state: State, batch: Any) -> tuple[State, dict[str, jax.Array]]:
            grads, (mean, margins, rest) = jax.grad(loss, has_aux=True)(state.params, state, batch)
            margin = cpu.median(margins)
            seen = {"margin": margin, "value": mean}
            if static.clip_norm is not None:  # A switch sees the gradient as it was.
                seen["gradient_norm"] = optax.tree.norm(grads)
            updates, opt_state = tx.update(grads, state.opt_state, state.params, **seen)
            params = optax.apply_updates(state.params, updates)
            flat = diagnostics.flat_zone_share(margins)
            metrics = {"train_loss": mean, "margin_p50": margin, "flat_share": flat}
            return state._replace(params=params, rest=rest, opt_state=opt_state), metrics

        key, epoch_key = jax.random.split(state.key)
        state, metrics = jax.lax.scan(
            step, state._replace(key=key), sharding.split_batches(task.batches(epoch_key))
        )
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics |= _norms(state.params, task.layout)
        constrained = optax.tree.get(state.opt_state, "constrained_steps")
        if constrained is not None:
            metrics["constrained_epochs"] = constrained / static.steps_per_epoch
        return state, metrics

    state, metrics = _over_runs(task, one)(hyperparameters, state)
    return sharding.split_state(state), sharding.copy(metrics)


@functools.partial(jax.jit, static_argnames="method")
def evaluate(task: Task, params: nnx.State, rest: nnx.State, method: str = "evaluate") -> Any:
    """Return what a method of the task makes of the model of every run, leaves `(runs, ...)`."""
    structure, task = model_structure(task), sharding.split_rows(task)

    def one(params: nnx.State, rest: nnx.State) -> Any:
        model = nnx.merge(structure, params, rest)
        model.eval()
        return getattr(task, method)(model)

    return sharding.copy(_over_runs(task, one)(params, rest))


def train(
    task: Task,
    options: Options,
    *,
    hyperparameters: Hyperparameters | None = None,
    seeds: Sequence[int] | None = None,
    every_epoch: bool = True,
    title: str | None = None,
    source: DataSource | None = None,
) -> Result:
    """Train all the runs in one program, with a progress bar.

    Where `options.checkpoint_dir` holds a checkpoint, training goes on from it. With such a folder
    SIGTERM saves after the current epoch, or chunk of one, and stops.

    Args:
      task: the data, the model and how it is evaluated.
      options: how to train.
      hyperparameters: arrays `(runs,)` in place of the options' own.
      seeds: one per run, in place of the options' own.
      every_epoch: whether to evaluate after every epoch, or only after the last.
      title: what the progress bar is called; None for no bar.
      source: where the data come from chunk by chunk, if they are not in the task; closed at the
        end.

    Raises:
      StoppedError: if SIGTERM came before the end of the last epoch.
    """
    start = time.perf_counter()
    seeds = options.all_seeds if seeds is None else seeds
    static = options.static_options(task.steps_per_epoch)
    hyperparameters = (hyperparameters or options.hyperparameters()).per_run(len(seeds))
    with ExitStack() as stack:
        stack.enter_context(options.mesh.use())
        switching.warn_before(options, hyperparameters)
        task, hyperparameters, of_runs = sharding.put((task, hyperparameters, jnp.asarray(seeds)))
        source = stack.enter_context(closing(source or OnDevice(task)))
        run = _describe(source, options, hyperparameters, seeds)
        autosave = stack.enter_context(Autosave(options, run))
        begin = Progress(0, init(task, static, hyperparameters, of_runs), {}, 0.0)
        done = autosave.latest(begin)
        state, curve, metrics = done.state, done.curve, EpochMetrics(done.chunks, done.sums)
        loggers = _loggers(options, seeds, done.epoch, stack)
        elapsed = lambda: done.wall_s + time.perf_counter() - start
        seconds: list[float] = []
        bar = stack.enter_context(_progress_bar(title, done.epoch, options.epochs))

        def after_chunk(epoch: int, state: State, metrics: EpochMetrics) -> None:
            bar.set_postfix_str(f"chunk {metrics.done} of {source.chunks_per_epoch}")
            within = (metrics.done, metrics.sums)
            autosave.save_if_due(Progress(epoch - 1, state, curve, elapsed(), *within))

        for epoch in bar:
            chunks = source.chunks(epoch, metrics.done)
            trained = _train_chunks(chunks, static, hyperparameters, state)
            evaluated = every_epoch or epoch == options.epochs
            state, row = _run_epoch(source, epoch, trained, metrics, evaluated, after_chunk)
            seconds += metrics.seconds_per_chunk()
            metrics = EpochMetrics()
            for name, values in sorted(row.items()):
                curve.setdefault(name, []).append(values)
            _show(bar, task, row)
            for logger in loggers:
                logger.write(epoch, row)
            autosave.save_if_due(Progress(epoch, state, curve, elapsed()))
    curves = {name: np.stack(rows, axis=1) for name, rows in curve.items()}
    switching.warn_after(options, curves)
    return Result(state, curves, elapsed(), done.epoch, tuple(seconds))


def _loggers(
    options: Options, seeds: Sequence[int], epoch: int, stack: ExitStack
) -> list[TensorBoardWriter]:
    """Return what a row of the curve is written to after each epoch."""
    if not (options.tensorboard and distributed.is_first()):
        return []
    return [stack.enter_context(closing(TensorBoardWriter(options.tensorboard, seeds, epoch)))]


def _progress_bar(title: str | None, done: int, epochs: int) -> "tqdm.tqdm[int]":
    """Return a bar over the epochs that are left, shown by the first process if it has a title."""
    hidden = title is None or not distributed.is_first()
    left = range(done + 1, epochs + 1)
    return tqdm.tqdm(left, title, initial=done, total=epochs, disable=hidden, leave=False)


def _show(bar: "tqdm.tqdm[int]", task: Task, row: dict[str, np.ndarray]) -> None:
    """Show beside the bar what a person wants to see of an epoch, averaged over the runs."""
    shown = {"loss": "train_loss", task.score: task.score, "margin": "margin_p50"}
    of_epoch = {k: f"{row[n].mean():.3f}" for k, n in shown.items() if n in row}
    bar.set_postfix(of_epoch, refresh=False)  # Shown when the bar is: epochs may be short.


def _train_chunks(
    chunks: Iterable[Task], static: StaticOptions, hyperparameters: Hyperparameters, state: State
) -> Iterator[tuple[State, dict[str, jax.Array]]]:
    """Yield the state after each chunk, and its metrics, both of which may still be computed."""
    chunks = iter(chunks)
    chunk = next(chunks, None)
    while chunk is not None:
        state, metrics = train_epoch(chunk, static, hyperparameters, state)
        # The host sees to the next one while the devices train, and to no more of them.
        chunk = next(chunks, None)
        yield state, metrics


def _run_epoch(
    source: DataSource,
    epoch: int,
    trained: Iterable[tuple[State, dict[str, jax.Array]]],
    metrics: EpochMetrics,
    evaluated: bool,
    after_chunk: Callable[[int, State, EpochMetrics], None],
) -> tuple[State, dict[str, np.ndarray]]:
    """Train on the chunks of an epoch and evaluate; return the state and a row of the curve.

    `trained` is from `_train_chunks`; `after_chunk` is called after each chunk but the last.
    """
    for state, of_chunk in trained:
        # The last is read with the scores, so that the device need not wait.
        if metrics.done + 1 < source.chunks_per_epoch:
            metrics.add(jax.device_get(of_chunk))
            after_chunk(epoch, state, metrics)
    scores = _evaluate(source, epoch, state) if evaluated else {}
    of_chunk, scores = jax.device_get((of_chunk, scores))
    metrics.add(of_chunk)
    return state, metrics.row() | scores


def _evaluate(source: DataSource, epoch: int, state: State) -> dict[str, jax.Array]:
    """Return the scores of every run after an epoch."""
    evaluated: list[Any] = []
    for chunk in source.held_out(epoch):
        evaluated.append(evaluate(chunk, state.params, state.rest))
        # So that no more than two chunks are in the memory of the device.
        jax.block_until_ready(evaluated[-2:-1])
    return source.aggregate(evaluated)


def _describe(
    source: DataSource, options: Options, hyperparameters: Hyperparameters, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return all that decides what a run computes."""
    if not options.checkpoint_dir:
        return {}
    # Text, for a float32 then has as few digits as tell it apart.
    tuned = {
        k: " ".join(map(str, v))
        for k, v in jax.device_get(hyperparameters)._asdict().items()
        if v is not None
    }
    return options.config() | tuned | {"seeds": list(seeds)} | dict(source.identity)


@jax.jit
def _init_model(task: Task, seeds: jax.Array) -> tuple[nnx.State, nnx.State, jax.Array]:
    """Return `(params, rest, key)` of every seed."""

    def one(seed: jax.Array) -> tuple[nnx.State, nnx.State, jax.Array]:
        key, init_key = jax.random.split(jax.random.key(seed))
        _, params, rest = nnx.split(task.model(nnx.Rngs(init_key)), nnx.Param, ...)
        return nnx.as_pure(params), nnx.as_pure(rest), key

    # A map, because XLA takes seconds longer to compile initialisers that are vmapped.
    return sharding.split_state(jax.lax.map(one, seeds))


@functools.partial(jax.jit, static_argnames=("static", "layout"))
def _init_optimizer(
    static: StaticOptions, layout: Layout, hyperparameters: Hyperparameters, params: nnx.State
) -> optax.OptState:
    """Return the optimizer's state of every run."""

    def init_one(hyperparameters: Hyperparameters, params: nnx.State) -> optax.OptState:
        return make_optimizer(static, hyperparameters, layout).init(params)

    return sharding.split_state(jax.vmap(init_one)(hyperparameters, params))


def _norms(params: nnx.State, layout: Layout) -> dict[str, jax.Array]:
    """Return the norm of every kernel and embedding by name, of stacked ones layer by layer."""
    metrics: dict[str, jax.Array] = {}
    for path, norm in diagnostics.weight_norms(params, stacked=layout.stacked or None).items():
        if norm.ndim:
            metrics |= {f"norm/{path}/{i}": of_layer for i, of_layer in enumerate(norm.ravel())}
        else:
            metrics[f"norm/{path}"] = norm
    return metrics


def _over_runs(task: Task, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function mapped over the axis of runs of all its arguments."""
    if jax.default_backend() == "cpu" or not task.vmaps_runs:
        # Batched kernels are slower there: vmapped, three runs of a recommender took 20% longer.
        return lambda *args: jax.lax.map(lambda run: function(*run), args)
    return jax.vmap(function)


def model_structure(task: Task) -> nnx.GraphDef:
    """Return the model without its arrays, made without computing them."""
    return nnx.graphdef(nnx.eval_shape(lambda: task.model(nnx.Rngs(jax.random.key(0)))))
