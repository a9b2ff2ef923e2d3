"""Makes LAWN's switch; warns before a run if it cannot come, and after it if it did not."""

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

import lawn_optax
from examples.training import distributed
from examples.training.hyperparameters import Hyperparameters, StaticOptions
from examples.training.limits import default
from examples.training.options import Options
from examples.training.traits import WITH_SWITCH, SwitchName

_logger = logging.getLogger(__name__)


class AutomaticSwitch(NamedTuple):
    """Holds what a name of `free_epochs` stands for.

    Attributes:
      make: the library's function that returns the switch.
      unreached: what kept the switch from coming, where it did not.
    """

    make: Callable[[], lawn_optax.Switch]
    unreached: str


SWITCHES: Mapping[SwitchName, AutomaticSwitch] = {
    "flattening": AutomaticSwitch(
        lawn_optax.at_flattening, "the gradient did not rise again relative to the loss"
    ),
    "rise": AutomaticSwitch(lawn_optax.at_gradient_rise, "the gradient did not rise again"),
    "hold": AutomaticSwitch(lawn_optax.hold_median_margin, "the median margin did not reach 3"),
    "auto": AutomaticSwitch(
        lawn_optax.at_median_margin, "the median margin was not above 2.5 for good"
    ),
}


def make_switch(static: StaticOptions, hyperparameters: Hyperparameters) -> lawn_optax.Switch:
    """Make LAWN's switch."""
    free_epochs, norms_of = hyperparameters.free_epochs, hyperparameters.norms_of
    if free_epochs is not None:
        return lawn_optax.at_epoch(free_epochs, static.steps_per_epoch, norms_of=norms_of)
    assert static.switch is not None  # `Options` gives one of the two.
    return SWITCHES[static.switch].make()


def warn_before(options: Options, hyperparameters: Hyperparameters) -> None:
    """Warn of free epochs that the runs do not have, or that their optimizer does not know.

    Args:
      options: what all the runs share.
      hyperparameters: arrays `(runs,)`.
    """
    if not distributed.is_first():
        return
    free = hyperparameters.free_epochs
    numbers = [] if free is None else np.unique(free).tolist()
    given = [f"{epochs:g}" for epochs in numbers if epochs >= options.epochs]
    if options.optimizer not in WITH_SWITCH:
        if numbers or options.free_epochs != default(options, "free_epochs"):
            others = f"{' and '.join(WITH_SWITCH)} have"
            if f"{options.optimizer}_lawn" in WITH_SWITCH:
                others = "its twin with _lawn in its name has"
            _logger.warning(
                "free_epochs=%s is not used: %s has no switch, %s.",
                " ".join(f"{epochs:g}" for epochs in numbers) or options.free_epochs,
                *(options.optimizer, others),
            )
    elif given:
        _logger.warning(
            "free_epochs=%s with epochs=%d: %s trains freely to the end, and LAWN never begins.",
            *(" ".join(given), options.epochs, options.optimizer),
        )


def warn_after(options: Options, curve: Mapping[str, np.ndarray]) -> None:
    """Warn of runs that have ended without a switch.

    Args:
      options: what all the runs share.
      curve: name -> `(runs, epochs)`, as `train` returns it.
    """
    if "constrained_epochs" not in curve or not distributed.is_first():
        return
    without = curve["constrained_epochs"][:, -1] == 0
    free = options.free_epochs
    reason, remedy = "the switch was not reached", "fewer free epochs reach it"
    if isinstance(free, str):
        reason, remedy = SWITCHES[free].unreached, "a number of free epochs switches by hand"
    if without.any():
        _logger.warning(
            "LAWN never began in %d of %d run(s) of %s with free_epochs=%s and epochs=%d: %s, so"
            " what was trained is the base optimizer. The median margin ended at %s; %s.",
            *(without.sum(), len(without)),
            *(options.optimizer, free, options.epochs, reason),
            " ".join(f"{margin:.2f}" for margin in curve["margin_p50"][without, -1]),
            remedy,
        )
