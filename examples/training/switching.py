"""Says where LAWN's switch will not come, before a run, and where it did not, after it."""

import logging
from collections.abc import Mapping

import numpy as np

from examples.training import distributed
from examples.training.options import Hyperparameters, Options

_logger = logging.getLogger(__name__)


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


def warn_after(curve: Mapping[str, np.ndarray]) -> None:
    """Warn of runs that have ended without a switch.

    Args:
      curve: name -> `(runs, epochs)`, as `train` returns it.
    """
    if "constrained_epochs" not in curve or not distributed.is_first():
        return
    without = curve["constrained_epochs"][:, -1] == 0
    if without.any():
        _logger.warning(
            "LAWN never began in %d of %d run(s): the switch was not reached, so what was trained"
            " is the base optimizer. The median margin ended at %s.",
            *(without.sum(), len(without)),
            " ".join(f"{margin:.2f}" for margin in curve["margin_p50"][without, -1]),
        )
