"""Warns before a run if LAWN's switch cannot come, and after it if it did not."""

import logging
from collections.abc import Mapping

import numpy as np

from examples.training import distributed
from examples.training.options import Hyperparameters, Options

_logger = logging.getLogger(__name__)
UNREACHED = {
    "flattening": "the gradient did not rise again relative to the loss",
    "rise": "the gradient did not rise again",
    "hold": "the median margin did not reach 3",
    "auto": "the median margin was not above 2.5 for good",
}


def warn_before(options: Options, hyperparameters: Hyperparameters) -> None:
    """Warn of free epochs that the runs do not have, or that their optimizer does not know.

    Args:
      options: what all the runs share.
      hyperparameters: arrays `(runs,)`.
    """
    free = hyperparameters.free_epochs
    if free is None or not distributed.is_first():
        return
    given = [f"{epochs:g}" for epochs in np.unique(free) if epochs >= options.epochs]
    if not options.constrains():
        _logger.warning(
            "free_epochs=%s is not used: %s has no switch, its twin with _lawn in its name has.",
            *(" ".join(f"{epochs:g}" for epochs in np.unique(free)), options.optimizer),
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
    if without.any():
        _logger.warning(
            "LAWN never began in %d of %d run(s) of %s with free_epochs=%s and epochs=%d: %s, so"
            " what was trained is the base optimizer. The median margin ended at %s; a number of"
            " free epochs switches by hand.",
            *(without.sum(), len(without)),
            *(options.optimizer, options.free_epochs, options.epochs),
            UNREACHED.get(str(options.free_epochs), "the switch was not reached"),
            " ".join(f"{margin:.2f}" for margin in curve["margin_p50"][without, -1]),
        )
