"""What the parts of an epoch have in their metrics, taken together."""

from collections.abc import Mapping

import jax
import numpy as np

AVERAGED = ("train_loss", "margin_p50", "flat_share")


class Tally:
    """Averages over the parts of an epoch, and of the other metrics those of the last part.

    The host holds what has been computed, one part behind the device, so that no more than two
    parts are in its memory.
    """

    def __init__(self, done: int = 0, sums: Mapping[str, np.ndarray] | None = None):
        """Begins an epoch.

        Args:
          done: parts that were done before, of an epoch that is taken up again.
          sums: over these, from `sums`.
        """
        self._done = done
        self._sums = {name: np.asarray(total) for name, total in (sums or {}).items()}
        self._row: dict[str, np.ndarray] = {}
        self._pending: dict[str, jax.Array] | None = None

    @property
    def done(self) -> int:
        """Parts, that which is being computed included."""
        return self._done + (self._pending is not None)

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a part that has been started, and waits for the one before it."""
        self._fetch()
        self._pending = metrics

    def sums(self) -> dict[str, np.ndarray]:
        """Of what is averaged, by name: `(runs,)` float64, to save."""
        self._fetch()
        return self._sums

    def row(self) -> dict[str, np.ndarray]:
        """`(runs,)` float32 by name; of one part its metrics themselves."""
        self._fetch()
        means = {k: (total / self._done).astype(np.float32) for k, total in self._sums.items()}
        return self._row | means

    def _fetch(self) -> None:
        if self._pending is not None:
            self._row = jax.device_get(self._pending)
            for name in AVERAGED:
                self._sums[name] = self._sums.get(name, 0) + self._row[name].astype(np.float64)
            self._done, self._pending = self._done + 1, None
