"""Training: the one loop of all examples, with every seed and setting of a run vmapped.

task.batches(key) -> scan of train steps -> task.evaluate(model) -> one row of the curve

A task that is too large for the device comes in parts from a `Feed`, each of which is a task whose
`batches` are some steps of the epoch; of any other the one part is the task itself.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from flax import nnx

from examples.training import distributed, sharding
from examples.training.checkpoints import Checkpoints, Progress, checksum
from examples.training.metrics import Tally
from examples.training.options import Knobs, Options, Plan, make_optimizer
from examples.training.tensorboard import Events
from lawn_optax import diagnostics, losses


class Task(Protocol):
    """What differs between examples: a pytree with the data as leaves, so no program holds it."""

    score: str
    """The name in `evaluate`'s result that the progress bar shows."""
    vmaps_runs: bool
    """Whether an accelerator runs several models at once faster than one after the other."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """The network, initialised."""

    def batches(self, key: jax.Array) -> Any:
        """One epoch, shuffled or sampled on the device: leaves `(steps_per_epoch, batch, ...)`."""

    def loss(self, model: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        """Losses and logit margins of the examples of a batch, both `(batch,)`."""

    def evaluate(self, model: Any) -> Any:
        """Scalars by name, on what is not trained on; of a part, what `Feed.judge` needs."""


class Feed(Protocol):
    """Where the parts of a task come from that the device cannot hold whole.

    Its parts are tasks of one shape, placed on the mesh. Which ones they are depends on the epoch
    and their place in it alone, so that a run that was stopped goes on to the bit.
    """

    @property
    def parts_per_epoch(self) -> int:
        """How many parts are trained on in an epoch, each of as many steps."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells the data apart, for checkpoints."""

    def parts(self, epoch: int, done: int) -> Iterable[Task]:
        """To train on in an epoch, counted from 1, but for the first `done`."""

    def held_out(self, epoch: int) -> Iterable[Task]:
        """To judge by after an epoch."""

    def judge(self, evaluated: Sequence[Any]) -> dict[str, jax.Array]:
        """Scalars of every run by name, from what all parts held out were evaluated to."""


class OnDevice(NamedTuple):
    """The feed of a task that the device holds whole: itself."""

    task: Task
    parts_per_epoch: int = 1

    @property
    def identity(self) -> Mapping[str, Any]:
        """A checksum of its arrays."""
        return {"data": checksum(self.task)}

    def parts(self, epoch: int, done: int) -> Iterable[Task]:
        """The task."""
        return (self.task,)

    def held_out(self, epoch: int) -> Iterable[Task]:
        """The task."""
        return (self.task,)

    def judge(self, evaluated: Sequence[Any]) -> dict[str, jax.Array]:
        """What it was evaluated to."""
        return evaluated[0]


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
        `norm/<path>` and what `task.evaluate` gives are taken at its end; `constrained_epochs`
        counts up from LAWN's switch.
      wall_s: seconds for all the runs together, compilation included.
      resumed_from: the epoch of the checkpoint that training went on from, 0 if it began.
      part_s: seconds from each part of an epoch to the next, but for the first and last.
    """

    state: State
    curve: dict[str, np.ndarray]
    wall_s: float
    resumed_from: int = 0
    part_s: tuple[float, ...] = ()


def init(task: Task, plan: Plan, knobs: Knobs, seeds: jax.Array) -> State:
    """The state before the first step of every run; `knobs` and `seeds` have a leading axis."""
    params, rest, key = _init_model(task, seeds)
    return State(params, rest, _init_optimizer(plan, knobs, params), key)


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="state")
def train_epoch(
    task: Task, plan: Plan, knobs: Knobs, state: State
) -> tuple[State, dict[str, jax.Array]]:
    """One epoch of every run, or a part of one: the next state, and `(runs,)` metrics by name."""
    structure = _structure(task)

    def one(knobs: Knobs, state: State) -> tuple[State, dict[str, jax.Array]]:
        tx = make_optimizer(plan, knobs)

        def loss(params: nnx.State, state: State, batch: Any) -> tuple[jax.Array, Any]:
            model = nnx.merge(structure, params, state.rest)
            model.train()
            of_examples, margins = task.loss(model, batch)
            mean = jnp.mean(of_examples)
            rest = nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))
            minimised = losses.flooding(mean, plan.flood_level) if plan.flood_level else mean
            return minimised, (mean, margins, rest)

        def step(state: State, batch: Any) -> tuple[State, dict[str, jax.Array]]:
            grads, (mean, margins, rest) = jax.grad(loss, has_aux=True)(state.params, state, batch)
            margin = _median(margins)
            updates, opt_state = tx.update(grads, state.opt_state, state.params, margin=margin)
            params = optax.apply_updates(state.params, updates)
            flat = diagnostics.flat_zone_share(margins)
            metrics = {"train_loss": mean, "margin_p50": margin, "flat_share": flat}
            return state._replace(params=params, rest=rest, opt_state=opt_state), metrics

        key, epoch_key = jax.random.split(state.key)
        state, metrics = jax.lax.scan(
            step, state._replace(key=key), sharding.split_batches(task.batches(epoch_key))
        )
        metrics = jax.tree.map(jnp.mean, metrics)
        norms = diagnostics.weight_norms(state.params)
        metrics |= {f"norm/{path}": norm for path, norm in norms.items()}
        constrained = optax.tree.get(state.opt_state, "constrained_steps")
        if constrained is not None:
            metrics["constrained_epochs"] = constrained / plan.steps_per_epoch
        return state, metrics

    state, metrics = _over_runs(task, one)(knobs, state)
    return sharding.split_state(state), sharding.copy(metrics)


@jax.jit
def evaluate(task: Task, params: nnx.State, rest: nnx.State) -> Any:
    """`task.evaluate` of every run: `(runs,)` by name, or leaves `(runs, ...)` of a part."""
    structure, task = _structure(task), sharding.split_rows(task)

    def one(params: nnx.State, rest: nnx.State) -> Any:
        model = nnx.merge(structure, params, rest)
        model.eval()
        return task.evaluate(model)

    return sharding.copy(_over_runs(task, one)(params, rest))


def train(
    task: Task,
    options: Options,
    *,
    knobs: Knobs | None = None,
    seeds: Sequence[int] | None = None,
    every_epoch: bool = True,
    title: str | None = None,
    feed: Feed | None = None,
) -> Result:
    """Trains all the runs side by side, with a progress bar.

    Where `options.checkpoint_dir` holds a checkpoint, training goes on from it. With such a folder
    SIGTERM ends it after the epoch, or with a feed after the part of it, saved.

    Args:
      task: the data, the model and how it is judged.
      options: how to train.
      knobs: arrays `(runs,)` in place of the options' own learning rate, decay and free epochs.
      seeds: one a run, in place of the options' own.
      every_epoch: whether to evaluate after every epoch, or only after the last.
      title: what the progress bar is called; None for no bar.
      feed: where the data come from part by part, if they are not in the task.

    Raises:
      StoppedError: if SIGTERM came before the end of the last epoch.
    """
    start = time.perf_counter()
    seeds = options.all_seeds if seeds is None else seeds
    plan = options.plan(task.steps_per_epoch)
    spread = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), len(seeds))
    knobs = jax.tree.map(spread, knobs or options.knobs())
    with ExitStack() as stack:
        stack.enter_context(options.mesh.use())
        task, knobs, of_runs = sharding.put((task, knobs, jnp.asarray(seeds)))
        feed = feed or OnDevice(task)
        done = Progress(0, init(task, plan, knobs, of_runs), {}, 0.0)
        store = events = None
        stop_asked = lambda: False
        if options.checkpoint_dir:
            run = _describe(feed, options, knobs, seeds)
            store = stack.enter_context(closing(Checkpoints(options.checkpoint_dir, run)))
            done = store.latest(done)
            stop_asked = stack.enter_context(distributed.stop_signals())
        if options.tensorboard and distributed.is_first():
            writer = Events(options.tensorboard, seeds, done.epoch)
            events = stack.enter_context(closing(writer))
        state, curve, before = done.state, done.curve, done.wall_s
        elapsed = lambda: before + time.perf_counter() - start
        tally = Tally(done.parts, done.sums)
        part_s: list[float] = []
        bar = stack.enter_context(_progress_bar(title, done.epoch, options.epochs))
        for epoch in bar:
            ended: list[float] = []
            trained = _train_parts(feed.parts(epoch, tally.done), plan, knobs, state)
            for state, metrics in trained:
                if tally.done + 1 == feed.parts_per_epoch:
                    break  # Read with what the epoch scores, so that the device need not wait.
                tally.add(jax.device_get(metrics))
                ended.append(time.perf_counter())
                where = f"part {tally.done} of {feed.parts_per_epoch}"
                bar.set_postfix_str(where)
                if stop_asked() and store:
                    inside = (tally.done, tally.sums)
                    store.save(Progress(epoch - 1, state, curve, elapsed(), *inside))
                    raise _stopped(f"{where} of epoch {epoch}", options)
            part_s += np.diff(ended).tolist()
            judged = every_epoch or epoch == options.epochs
            scores = _evaluate(feed, epoch, state) if judged else {}
            metrics, scores = jax.device_get((metrics, scores))
            tally.add(metrics)
            row = tally.row() | scores
            tally = Tally()
            for name, values in sorted(row.items()):
                curve.setdefault(name, []).append(values)
            shown = {"loss": "train_loss", task.score: task.score, "margin": "margin_p50"}
            bar.set_postfix({k: f"{row[n].mean():.3f}" for k, n in shown.items() if n in row})
            if events:
                events.write(epoch, row)
            last, stop = epoch == options.epochs, stop_asked()
            if store and (epoch % options.checkpoint_every == 0 or last or stop):
                store.save(Progress(epoch, state, curve, elapsed()))
            if stop and not last:
                raise _stopped(f"epoch {epoch}", options)
    curves = {name: np.stack(rows, axis=1) for name, rows in curve.items()}
    return Result(state, curves, elapsed(), done.epoch, tuple(part_s))


def _progress_bar(title: str | None, done: int, epochs: int) -> "tqdm.tqdm[int]":
    """Over the epochs that are left, shown by the first process if it has a title."""
    hidden = title is None or not distributed.is_first()
    left = range(done + 1, epochs + 1)
    return tqdm.tqdm(left, title, initial=done, total=epochs, disable=hidden, leave=False)


def _train_parts(
    parts: Iterable[Task], plan: Plan, knobs: Knobs, state: State
) -> Iterator[tuple[State, dict[str, jax.Array]]]:
    """The state after each part, and its metrics, both of which may still be computed."""
    parts = iter(parts)
    part = next(parts, None)
    while part is not None:
        state, metrics = train_epoch(part, plan, knobs, state)
        # The host sees to the next one while the devices train, and to no more of them.
        part = next(parts, None)
        yield state, metrics


def _evaluate(feed: Feed, epoch: int, state: State) -> dict[str, jax.Array]:
    """What every run scores after an epoch."""
    evaluated: list[Any] = []
    for part in feed.held_out(epoch):
        evaluated.append(evaluate(part, state.params, state.rest))
        # So that no more than two parts are in the memory of the device.
        jax.block_until_ready(evaluated[-2:-1])
    return feed.judge(evaluated)


def _stopped(after: str, options: Options) -> distributed.StoppedError:
    return distributed.StoppedError(
        f"Stopped after {after} of {options.epochs}, which {options.checkpoint_dir} keeps: the same"
        " command goes on from there."
    )


def _describe(feed: Feed, options: Options, knobs: Knobs, seeds: Sequence[int]) -> dict[str, Any]:
    """All that decides what a run computes."""
    # Text, for a float32 then has as few digits as tell it apart.
    tuned = {
        k: " ".join(map(str, v))
        for k, v in jax.device_get(knobs)._asdict().items()
        if v is not None
    }
    return options.config() | tuned | {"seeds": list(seeds)} | dict(feed.identity)


@jax.jit
def _init_model(task: Task, seeds: jax.Array) -> tuple[nnx.State, nnx.State, jax.Array]:
    """`(params, rest, key)` of every seed."""

    def one(seed: jax.Array) -> tuple[nnx.State, nnx.State, jax.Array]:
        key, init_key = jax.random.split(jax.random.key(seed))
        _, params, rest = nnx.split(task.model(nnx.Rngs(init_key)), nnx.Param, ...)
        return nnx.as_pure(params), nnx.as_pure(rest), key

    # A map, because XLA takes seconds longer to compile initialisers that are vmapped.
    return sharding.split_state(jax.lax.map(one, seeds))


@functools.partial(jax.jit, static_argnames="plan")
def _init_optimizer(plan: Plan, knobs: Knobs, params: nnx.State) -> optax.OptState:
    """The optimizer's state of every run."""
    init_one = lambda knobs, params: make_optimizer(plan, knobs).init(params)
    return sharding.split_state(jax.vmap(init_one)(knobs, params))


def _over_runs(task: Task, function: Callable[..., Any]) -> Callable[..., Any]:
    """Maps a function over the axis of runs of all its arguments."""
    if jax.default_backend() == "cpu" or not task.vmaps_runs:
        # Batched kernels are slower there: vmapped, three runs of a recommender took 20% longer.
        return lambda *args: jax.lax.map(lambda run: function(*run), args)
    return jax.vmap(function)


def _median(x: jax.Array) -> jax.Array:
    """The median of `(n,)` float32; to sort integers takes a seventh of the time on CPU."""
    # Of two negative floats the lower one has the greater bits: all but the sign are turned over.
    flip = lambda bits: jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    bits = jnp.sort(flip(jax.lax.bitcast_convert_type(x, jnp.int32)))
    middle = jnp.stack([bits[(len(x) - 1) // 2], bits[len(x) // 2]])
    return jnp.mean(jax.lax.bitcast_convert_type(flip(middle), jnp.float32))


def _structure(task: Task) -> nnx.GraphDef:
    """The model without its arrays, made without computing them."""
    return nnx.graphdef(nnx.eval_shape(lambda: task.model(nnx.Rngs(jax.random.key(0)))))
