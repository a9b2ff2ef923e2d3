"""Checkpoints: a run that was stopped goes on where it was, to the bit.

DIR/7/state           what training changes after epoch 7, by Orbax
DIR/7/progress.json   whose it is, the curve so far, and the checksum of every file beside it
DIR/newest            7

A checkpoint is written beside its place and moved there whole, then `newest` names it, then what is
too old is deleted; so a process may be killed anywhere. What a disk loses, the checksums tell.
"""

import json
import logging
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from examples import processes

KEPT = 3
PROGRESS = "progress.json"
NOT_OURS = -1

_logger = logging.getLogger(__name__)


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
    """The checkpoints of one run in a folder, of which the last `KEPT` stay.

    Saving blocks, so that of a killed process nothing is lost but what came after `save`.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]):
        """Makes the folder, and looks at nothing yet.

        Args:
          folder: where to keep them, seen by all processes.
          run: all that decides what the run computes, as JSON values.

        Raises:
          ValueError: if there is a file of that name.
        """
        self._folder = folder.expanduser().absolute()
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"checkpoint_dir={folder} is a file: give a folder, which is made.")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = json.loads(json.dumps(run))
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())

    def latest(self, start: Progress) -> Progress:
        """The last checkpoint that is whole; `start` if there is none.

        Args:
          start: its state has the shapes and the shardings to restore to, those of whatever mesh.

        Raises:
          ValueError: if the folder has checkpoints of another run, or of something else.
        """
        epoch = processes.of_first(self._newest_whole() if processes.is_first() else 0)
        if epoch == NOT_OURS:
            raise ValueError(
                f"{self._folder} has {', '.join(map(str, self._epochs()))}, none of which is a"
                " whole checkpoint of the examples: give another folder."
            )
        if epoch == 0:
            return start
        saved = self._read(epoch)
        self._refuse_another(saved["run"], self._run, "options")
        self._refuse_another(saved["state"], _describe(start.state), "model and optimizer")
        state = self._orbax.restore(
            self._path(epoch) / "state", args=ocp.args.StandardRestore(start.state)
        )
        # JSON's numbers are float64, in which a float32 keeps every bit.
        arrays = lambda rows: [np.array(row, np.float32) for row in rows]
        curve = {name: arrays(rows) for name, rows in saved["curve"].items()}
        return Progress(epoch, state, curve, saved["wall_s"])

    def save(self, progress: Progress) -> None:
        """Saves, and returns when all is written; every process must call it."""
        place = self._path(progress.epoch)
        beside = place.with_suffix(".tmp")
        if processes.is_first():
            self._write_newest(self._read_newest() or 0)
            shutil.rmtree(beside, ignore_errors=True)
        # In it the processes wait for each other, first and last.
        self._orbax.save(beside / "state", args=ocp.args.StandardSave(progress.state))
        if processes.is_first():
            content = {
                "run": self._run,
                "state": _describe(progress.state),
                "curve": {k: [row.tolist() for row in rows] for k, rows in progress.curve.items()},
                "wall_s": progress.wall_s,
                "files": {
                    str(path.relative_to(beside)): _checksum(path.read_bytes())
                    for path in sorted(beside.rglob("*"))
                    if path.is_file()
                },
            }
            sealed = {"content": content, "checksum": _checksum(json.dumps(content).encode())}
            (beside / PROGRESS).write_text(json.dumps(sealed), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)  # There may be a torn one.
            beside.rename(place)
            self._write_newest(progress.epoch)
            self._delete_others(progress.epoch)

    def close(self) -> None:
        """Ends what Orbax began."""
        self._orbax.close()

    def _newest_whole(self) -> int:
        """Its epoch, 0 or `NOT_OURS` if there is none; warns of those that should be whole."""
        named = self._read_newest()
        torn = {}
        whole = 0
        for epoch in sorted({*self._epochs(), named or 0} - {0}, reverse=True):
            problem = self._problem(epoch)
            if problem is None:
                whole = epoch
                break
            torn[epoch] = problem
        if torn and not whole and named is None:
            return NOT_OURS
        instead = f"goes on from epoch {whole}" if whole else "begins anew"
        for epoch, problem in torn.items():
            _logger.warning(
                "The checkpoint of epoch %d in %s is torn, %s; training %s.",
                *(epoch, self._folder, problem, instead),
            )
        return whole

    def _problem(self, epoch: int) -> str | None:
        """What of a checkpoint is not as it was written."""
        path = self._path(epoch)
        if not path.is_dir():
            return "it is missing"
        try:
            for name, checksum in self._read(epoch)["files"].items():
                if _checksum((path / name).read_bytes()) != checksum:
                    return f"{name} is not what was written"
        except FileNotFoundError as error:
            return f"{Path(error.filename).relative_to(path)} is missing"
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def _read(self, epoch: int) -> dict[str, Any]:
        """What is written beside a state; a ValueError unless it is that."""
        text = (self._path(epoch) / PROGRESS).read_text(encoding="utf-8", errors="replace")
        try:
            sealed = json.loads(text)
            whole = sealed["checksum"] == _checksum(json.dumps(sealed["content"]).encode())
        except (ValueError, TypeError, KeyError):
            whole = False
        if not whole:
            raise ValueError(f"{PROGRESS} is not what was written")
        return sealed["content"]

    def _refuse_another(self, there: Mapping[str, Any], here: Mapping[str, Any], what: str) -> None:
        differ = [
            f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
            for name in sorted(there.keys() | here.keys())
            if there.get(name) != here.get(name)
        ]
        if differ:
            more = f" and {len(differ) - 8} more" if len(differ) > 8 else ""
            raise ValueError(
                f"{self._folder} has a checkpoint of another run: {'; '.join(differ[:8])}{more}."
                f" Give the {what} it was made with, or another folder."
            )

    def _epochs(self) -> list[int]:
        """Of the checkpoints that are there, whole or not."""
        names = {path.name for path in self._folder.iterdir() if path.is_dir()}
        return sorted(int(name) for name in names if name.isdecimal())

    def _path(self, epoch: int) -> Path:
        return self._folder / str(epoch)

    def _read_newest(self) -> int | None:
        """The epoch saved last, 0 before the first; None if this is no folder of ours."""
        try:
            return int((self._folder / "newest").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _write_newest(self, epoch: int) -> None:
        beside = self._folder / "newest.tmp"
        beside.write_text(f"{epoch}\n", encoding="utf-8")
        beside.replace(self._folder / "newest")

    def _delete_others(self, epoch: int) -> None:
        """Deletes the oldest, what was torn, and what was not finished."""
        epochs = self._epochs()
        kept = [e for e in epochs if e <= epoch][-KEPT:]
        unfinished = [path for path in self._folder.glob("*.tmp") if path.stem.isdecimal()]
        for path in [self._path(e) for e in epochs if e not in kept] + unfinished:
            shutil.rmtree(path, ignore_errors=True)


def _describe(state: Any) -> dict[str, str]:
    """Dtype and shape of every leaf by path: what another model or optimizer would change."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def checksum(tree: Any) -> str:
    """Of the arrays of a tree, to tell data apart."""
    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return f"{crc:08x}"


def _checksum(content: bytes) -> str:
    """Of a file; its length too, for a file cut short."""
    return f"{len(content)}-{zlib.crc32(content):08x}"
