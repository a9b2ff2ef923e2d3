"""Metrics of an epoch that is trained in chunks."""

import time
from collections.abc import Mapping

import numpy as np

AVERAGED = ("train_loss", "margin_p50", "flat_share")


class EpochMetrics:
    """Averages metrics over the chunks of an epoch; of the others it keeps those of the last.

    Attributes:
      done: chunks so far.
      sums: of what is averaged, by name: `(runs,)` float64, so that an epoch that is taken up
        again has the averages to the bit.
    """

    def __init__(self, done: int = 0, sums: Mapping[str, np.ndarray] | None = None):
        """Begin an epoch, or take one up again after `done` chunks with these `sums`."""
        self.done = done
        self.sums = dict(sums or {})
        self._times: list[float] = []
        self._last: Mapping[str, np.ndarray] = {}

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Add a chunk: `(runs,)` float32 by name."""
        self.done += 1
        self._times.append(time.perf_counter())
        for name in AVERAGED:
            self.sums[name] = self.sums.get(name, 0) + metrics[name].astype(np.float64)
        self._last = metrics

    def row(self) -> dict[str, np.ndarray]:
        """Return `(runs,)` float32 by name; of a single chunk its metrics themselves."""
        means = {name: (x / self.done).astype(np.float32) for name, x in self.sums.items()}
        return {**self._last, **means}

    def seconds_per_chunk(self) -> list[float]:
        """Return the seconds from each chunk to the next; the last is read with the scores."""
        return np.diff(self._times)[:-1].tolist()
