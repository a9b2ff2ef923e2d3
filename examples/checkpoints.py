"""Checkpoints: a run that was stopped goes on where it was, to the bit."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp


class Progress(NamedTuple):
    """How far a run has come.

    Attributes:
      epoch: epochs done.
      state: what training changes.
      curve: name -> `(runs,)` arrays, one an epoch.
      wall_s: seconds spent.
    """

    epoch: int
    state: Any
    curve: dict[str, list[np.ndarray]]
    wall_s: float


class Checkpoints:
    """The checkpoints of one run in a folder, of which the last is kept.

    Saving blocks, so that of a killed process nothing is lost but what came after `save`; a
    checkpoint that was cut short is not one.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]):
        """Opens a folder, or makes one.

        Args:
          folder: where to keep them.
          run: all that decides what the run computes, as JSON values.

        Raises:
          ValueError: if the folder has a checkpoint of another run.
        """
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._run = json.loads(json.dumps(run))
        self._manager = ocp.CheckpointManager(folder.expanduser().absolute(), options=options)
        self._epoch = self._manager.latest_step()
        if self._epoch is not None:
            self._saved = self._restore(progress=ocp.args.JsonRestore()).progress
            self._refuse_another_run(folder)

    def latest(self, start: Progress) -> Progress:
        """The last checkpoint; `start`, whose state has the right shapes, if there is none."""
        if self._epoch is None:
            return start
        state = self._restore(state=ocp.args.StandardRestore(start.state)).state
        # JSON's numbers are float64, in which a float32 keeps every bit.
        arrays = lambda rows: [np.array(row, np.float32) for row in rows]
        curve = {name: arrays(rows) for name, rows in self._saved["curve"].items()}
        return Progress(self._epoch, state, curve, self._saved["wall_s"])

    def save(self, progress: Progress) -> None:
        """Saves, and returns when all is on disk."""
        curve = {k: [row.tolist() for row in rows] for k, rows in progress.curve.items()}
        content = {"run": self._run, "curve": curve, "wall_s": progress.wall_s}
        self._manager.save(
            progress.epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(progress.state), progress=ocp.args.JsonSave(content)
            ),
        )

    def close(self) -> None:
        """Ends what the folder was opened with."""
        self._manager.close()

    def _restore(self, **items: Any) -> Any:
        return self._manager.restore(self._epoch, args=ocp.args.Composite(**items))

    def _refuse_another_run(self, folder: Path) -> None:
        there, here = self._saved["run"], self._run
        differ = [
            f"{name} is {there.get(name)} there and {here.get(name)} here"
            for name in sorted(there.keys() | here.keys())
            if there.get(name) != here.get(name)
        ]
        if differ:
            raise ValueError(
                f"{folder} has a checkpoint of another run: {'; '.join(differ)}. Give the options"
                " it was made with, or another folder."
            )


def checksum(tree: Any) -> str:
    """Of the arrays of a tree, to tell data apart."""
    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return f"{crc:08x}"
