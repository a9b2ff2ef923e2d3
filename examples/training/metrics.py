"""What the parts of an epoch have in their metrics, taken together."""

from collections.abc import Mapping

import numpy as np

AVERAGED = ("train_loss", "margin_p50", "flat_share")


class Tally:
    """Averages over the parts of an epoch, and of the other metrics those of the last part.

    Attributes:
      done: parts so far.
      sums: of what is averaged, by name: `(runs,)` float64, so that an epoch that is taken up
        again has the averages to the bit.
    """

    def __init__(self, done: int = 0, sums: Mapping[str, np.ndarray] | None = None):
        """Begins an epoch, or takes one up again after `done` parts with these `sums`."""
        self.done = done
        self.sums = dict(sums or {})
        self._last: Mapping[str, np.ndarray] = {}

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Adds a part: `(runs,)` float32 by name."""
        self.done += 1
        for name in AVERAGED:
            self.sums[name] = self.sums.get(name, 0) + metrics[name].astype(np.float64)
        self._last = metrics

    def row(self) -> dict[str, np.ndarray]:
        """`(runs,)` float32 by name; of one part its metrics themselves."""
        means = {name: (x / self.done).astype(np.float32) for name, x in self.sums.items()}
        return {**self._last, **means}
