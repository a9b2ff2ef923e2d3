"""Holds what the program of a train step takes from the options, compiled in or as arrays."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from examples.training.traits import (
    BiasOptimizerName,
    DecayForm,
    OptimizerName,
    ScheduleName,
    SwitchName,
)

Scalar = Any  # A float or a float32 scalar, a traced one too.


class StaticOptions(NamedTuple):
    """Holds what of an optimizer is fixed when a program is compiled.

    Attributes:
      optimizer: its name.
      steps_per_epoch: updates in an epoch.
      warmup_steps: updates until the learning rate peaks.
      total_steps: updates until it is at its final value, if its schedule has one.
      clip_norm: what the norm of a gradient, all leaves together, is cut to; None for not at all.
      flood_level: below which the mean loss of a batch is turned back.
      accumulate: train steps whose mean gradient makes one update.
      switch: which one, where the free epochs are not a number.
      decay_steps: updates from which one more decay holds: of step-wise all, of simple the one, of
        abel the last.
      others: as `Options` explains them.
    """

    optimizer: OptimizerName
    steps_per_epoch: int
    warmup_steps: int
    total_steps: int
    clip_norm: float | None
    flood_level: float
    accumulate: int = 1
    switch: SwitchName | None = None
    project: bool = True
    bias_optimizer: BiasOptimizerName | None = None
    momentum: float = 0.9
    b1: float = 0.9
    b2: float = 0.999
    adam_eps: float = 1e-8
    decay_form: DecayForm = "decoupled"
    decay_vectors: bool = False
    initial_rate: float = 0.0
    final_rate: float = 0.0
    warmup_power: float = 1.0
    schedule: ScheduleName = "polynomial"
    decay_power: float = 1.0
    decay_factor: float = 0.1
    decay_steps: tuple[int, ...] = ()
    average_over: int = 1


class Hyperparameters(NamedTuple):
    """Holds what of an optimizer is tuned, and may be traced: so one program runs a whole grid.

    Attributes:
      learning_rate: the peak.
      weight_decay: of kernels and embeddings.
      free_epochs: epochs before LAWN's switch; None for an automatic one.
      norms_of: the earlier epoch whose norms are held; None for that of the switch.
      norms_scale: a factor on the norms that are held; None for 1.
      rest_learning_rate: the peak of what is on no sphere, of adam_h and muon_h; None for the same.
    """

    learning_rate: Scalar
    weight_decay: Scalar = 0.0
    free_epochs: Scalar | None = None
    norms_of: Scalar | None = None
    norms_scale: Scalar | None = None
    rest_learning_rate: Scalar | None = None

    def per_run(self, runs: int) -> "Hyperparameters":
        """Return float32 arrays `(runs,)`, of numbers or of such arrays."""
        return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), runs), self)

    @classmethod
    def stack(cls, runs: Iterable["Hyperparameters"]) -> "Hyperparameters":
        """Return arrays `(runs,)` of the numbers of each run."""
        return jax.tree.map(lambda *numbers: jnp.array(numbers), *runs)
