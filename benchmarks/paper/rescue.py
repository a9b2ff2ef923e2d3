"""Repairs a run whose loss has flattened: Adam up to some epoch, then several ways to go on.

    python -m benchmarks.paper.rescue --data-dir DIR

From the weights and moments that Adam has at that epoch training goes on in each of these ways, on
the same batches and with the same schedule of the learning rate:

    Adam, with weight decay           0, as before, or some
    norms fixed                       times the factor that makes the median margin 2.5 there

Factors that are set by hand are in the comparison `held-norms` of `benchmarks.paper.sweep`. Stop it
and give the command again: a seed that is in the records is not run again.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import lawn_optax
from benchmarks.paper import stages
from benchmarks.paper.comparisons import FLATTENED, HELD, HELD_NORMS
from benchmarks.tools.records import newest_or_new
from examples import ncf, training
from examples.results import records
from examples.training import command
from lawn_optax import diagnostics

FILE = "rescue.jsonl"
DECAYS = (0.0, 0.1, 0.3, 1.0, 3.0)
THRESHOLD = 2.5
BATCHES = 10  # Whose median margin decides about the factor.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RescueConfig:
    """Runs what is missing of the rescue."""

    data_dir: Path | None = None
    """Where the dataset's files are; by default they are downloaded."""
    epoch: int = FLATTENED
    """At which training changes."""
    seeds: int = 3
    """How many, from 0 on."""
    records: Path | None = None
    """Folder to add to; by default the newest `<date>-held-norms` of benchmarks/records."""

    def __post_init__(self) -> None:
        if not 0 < self.epoch < HELD.epochs:
            raise ValueError(f"epoch={self.epoch} must lie between 0 and {HELD.epochs}, the last.")


def main(config: RescueConfig) -> None:
    """Run each seed that the records lack."""
    base = dataclasses.replace(HELD, data_dir=config.data_dir)
    task = ncf.load(base)
    out = (config.records or newest_or_new(HELD_NORMS.name)) / FILE
    done = records.read_records(out)
    for seed in range(config.seeds):
        about = {"benchmark": "rescue", "epoch": config.epoch}
        if any({**about, "first_seed": seed}.items() <= run["config"].items() for run in done):
            continue
        found = []
        of_seed = dataclasses.replace(base, first_seed=seed)
        for run, result in experiment(task, of_seed, config.epoch):
            found += records.make_records(about | run.config(), run.all_seeds, result)
        records.append_records(out, found)


def experiment(task: Any, base: ncf.Config, epoch: int) -> list[tuple[ncf.Config, training.Result]]:
    """Train with Adam to an epoch, and from there on in each way."""
    title = f"seed {base.first_seed}"
    decayed = [dataclasses.replace(base, optimizer="adamw", weight_decay=x) for x in DECAYS]
    trunk = stages.begin(task, decayed[0], epoch, f"{title}, Adam")
    results = [
        (run, stages.branch(task, run, trunk, f"{title}, decay {run.weight_decay:g}"))
        for run in decayed
    ]
    free = dataclasses.replace(base, free_epochs=float(base.epochs), norms_scale=1.0)
    trunk = stages.begin(task, free, epoch, f"{title}, Adam-LAWN")
    factor = factor_to_margin(task, trunk.state, base.first_seed)
    fixed = dataclasses.replace(base, free_epochs=float(epoch), norms_scale=factor)
    return [*results, (fixed, stages.branch(task, fixed, trunk, f"{title}, factor {factor:g}"))]


def factor_to_margin(task: Any, state: training.State, seed: int) -> float:
    """Return the factor on all norms that makes the median margin of some batches `THRESHOLD`."""
    structure = training.model_structure(task)
    params, rest = jax.tree.map(lambda x: x[0], (state.params, state.rest))
    batches = jax.tree.map(lambda x: x[:BATCHES], task.batches(jax.random.key(seed)))

    @jax.jit
    def median_margin(params: nnx.State) -> jax.Array:
        model = nnx.merge(structure, params, rest)
        return jnp.median(jax.lax.map(lambda batch: task.loss(model, batch)[1], batches))

    scaled = lawn_optax.scale_to_margin(params, median_margin, THRESHOLD)
    path, norm = next(iter(diagnostics.weight_norms(params).items()))
    return float(diagnostics.weight_norms(scaled)[path] / norm)


if __name__ == "__main__":
    command.run(main, command.parser(RescueConfig, "benchmarks.paper.rescue", __doc__))
