"""TensorBoard event files: a folder per run, a point per epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorboardX


class TensorBoardWriter:
    """Writes the curves of some runs while they are trained."""

    def __init__(self, folder: Path, seeds: Sequence[int], epoch: int):
        """Open the files.

        Args:
          folder: where the folders of the runs go.
          seeds: of each run.
          epoch: epochs done; points of later ones, of a run that was killed, are dropped.
        """
        # A file's name holds the second it was opened in: one that goes on within the same second
        # must not overwrite the first.
        self._writers = [
            tensorboardX.SummaryWriter(
                str(folder / f"run-{run}-seed-{seed}"),
                purge_step=epoch + 1,
                filename_suffix=f".from-epoch-{epoch + 1}",
            )
            for run, seed in enumerate(seeds)
        ]

    def write(self, epoch: int, row: Mapping[str, np.ndarray]) -> None:
        """Add a point to every curve: name -> `(runs,)` values."""
        for run, writer in enumerate(self._writers):
            for name, values in row.items():
                writer.add_scalar(name, values[run], epoch)
            writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers:
            writer.close()
