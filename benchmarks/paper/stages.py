"""Trains a recommender in stages: to some epoch, and from there on in several ways."""

import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from examples import ncf, training

CURVES = ("hr_at_10", "ndcg_at_10", "train_loss", "margin_p50")


def begin(task: training.Task, run: ncf.Config, epochs: int, title: str) -> training.Result:
    """Train the first epochs of a run."""
    static = run.static_options(task.steps_per_epoch)
    hyperparameters = run.hyperparameters().per_run(run.seeds)
    state = training.init(task, static, hyperparameters, jnp.asarray(run.all_seeds))
    return _train(task, run, state, range(epochs), title)


def branch(
    task: training.Task, run: ncf.Config, trunk: training.Result, title: str
) -> training.Result:
    """Train the epochs that are left, with the task and the hyperparameters that are given now.

    Args:
      task: like that of the trunk; its data may differ.
      run: like that of the trunk; what is compiled must be the same.
      trunk: the epochs before, whose curve the result begins with.
      title: what the progress bar is called.
    """
    done = len(trunk.curve["train_loss"][0])
    # A step of training takes the state's memory.
    state = jax.tree.map(jnp.copy, trunk.state)
    rest = _train(task, run, state, range(done, run.epochs), title)
    curve = {k: np.hstack([trunk.curve[k], rest.curve[k]]) for k in CURVES}
    return training.Result(rest.state, curve, trunk.wall_s + rest.wall_s)


def _train(
    task: training.Task, run: ncf.Config, state: training.State, epochs: Iterable[int], title: str
) -> training.Result:
    """Train from a state, which is used up, for some epochs."""
    static = run.static_options(task.steps_per_epoch)
    hyperparameters = run.hyperparameters().per_run(run.seeds)
    start, rows = time.perf_counter(), []
    for _ in tqdm.tqdm(epochs, desc=title, leave=False):
        state, metrics = training.train_epoch(task, static, hyperparameters, state)
        rows.append(jax.device_get(metrics | training.evaluate(task, state.params, state.rest)))
    curve = {name: np.stack([row[name] for row in rows], axis=1) for name in CURVES}
    return training.Result(state, curve, time.perf_counter() - start)
