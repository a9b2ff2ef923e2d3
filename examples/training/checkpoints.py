"""Checkpoints: a run that was stopped goes on where it was, to the bit.

DIR/7/state           what training changes after epoch 7, by Orbax
DIR/7/progress.json   whose it is, the curve so far, and the checksum of every file beside it
DIR/7+300             the same after 300 chunks more of the next epoch, where SIGTERM came within it
DIR/newest            7+300

A checkpoint is written beside its place and moved there whole, then `newest` names it, then what is
too old is deleted; so a process may be killed anywhere. What a disk loses, the checksums tell.
"""

import json
import logging
import re
import shutil
import types
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from examples.training import distributed

KEPT = 3
PROGRESS = "progress.json"

Place = tuple[int, int]  # Epochs done, and chunks of the next.
BEGIN, NOT_OURS = (0, 0), (-1, 0)

_logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far a run has come.

    Attributes:
      epoch: epochs done.
      state: what training changes.
      curve: name -> `(runs,)` arrays, one an epoch.
      wall_s: seconds spent.
      chunks: of the next epoch that are done, 0 between epochs.
      sums: name -> `(runs,)` float64, over these chunks.
    """

    epoch: int
    state: Any
    curve: dict[str, list[np.ndarray]]
    wall_s: float
    chunks: int = 0
    sums: Mapping[str, np.ndarray] = types.MappingProxyType({})

    def where(self) -> str:
        """Return the place in words."""
        if not self.chunks:
            return f"epoch {self.epoch}"
        return f"chunk {self.chunks} of epoch {self.epoch + 1}"


class Checkpoints:
    """The checkpoints of one run in a folder, of which the last `KEPT` stay.

    Saving blocks, so that of a killed process nothing is lost but what came after `save`.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]):
        """Make the folder, and look at nothing yet.

        Args:
          folder: where to keep them, seen by all processes.
          run: all that decides what the run computes, as JSON values.

        Raises:
          ValueError: if there is a file of that name.
        """
        self._folder = folder.absolute()
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"checkpoint_dir={folder} is a file: give a folder, which is made.")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = json.loads(json.dumps(run))
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())

    def latest(self, start: Progress) -> Progress:
        """Return the last checkpoint that is whole; `start` if there is none.

        Args:
          start: its state has the shapes and the shardings to restore to, those of whatever mesh.

        Raises:
          ValueError: if the folder has checkpoints of another run, or of something else.
        """
        found = self._newest_whole() if distributed.is_first() else BEGIN
        place = (distributed.of_first(found[0]), distributed.of_first(found[1]))
        if place == NOT_OURS:
            raise ValueError(
                f"{self._folder} has {', '.join(map(_name, self._places()))}, none of which is a"
                " whole checkpoint of the examples: give another folder."
            )
        if place == BEGIN:
            return start
        saved = self._read(place)
        self._refuse_another(saved["run"], self._run, "options")
        self._refuse_another(saved["state"], _describe(start.state), "model and optimizer")
        state = self._orbax.restore(
            self._path(place) / "state", args=ocp.args.StandardRestore(start.state)
        )
        # JSON's numbers are float64, in which a float32 keeps every bit.
        arrays = lambda rows: [np.array(row, np.float32) for row in rows]
        curve = {name: arrays(rows) for name, rows in saved["curve"].items()}
        sums = {name: np.array(total) for name, total in saved.get("sums", {}).items()}
        epoch, chunks = place
        return Progress(epoch, state, curve, saved["wall_s"], chunks, sums)

    def save(self, progress: Progress) -> None:
        """Save, and return when all is written; every process must call it."""
        place = (progress.epoch, progress.chunks)
        path = self._path(place)
        beside = path.with_suffix(".tmp")
        if distributed.is_first():
            self._write_newest(self._read_newest() or BEGIN)
            shutil.rmtree(beside, ignore_errors=True)
        # In it the processes wait for each other, first and last.
        self._orbax.save(beside / "state", args=ocp.args.StandardSave(progress.state))
        if distributed.is_first():
            content = {
                "run": self._run,
                "state": _describe(progress.state),
                "curve": {k: [row.tolist() for row in rows] for k, rows in progress.curve.items()},
                "wall_s": progress.wall_s,
                "sums": {name: total.tolist() for name, total in progress.sums.items()},
                "files": {
                    str(file.relative_to(beside)): _checksum(file.read_bytes())
                    for file in sorted(beside.rglob("*"))
                    if file.is_file()
                },
            }
            sealed = {"content": content, "checksum": _checksum(json.dumps(content).encode())}
            (beside / PROGRESS).write_text(json.dumps(sealed), encoding="utf-8")
            shutil.rmtree(path, ignore_errors=True)  # There may be a torn one.
            beside.rename(path)
            self._write_newest(place)
            self._delete_others(place)

    def close(self) -> None:
        """End what Orbax began."""
        self._orbax.close()

    def _newest_whole(self) -> Place:
        """Return the newest place, `BEGIN` or `NOT_OURS` without one; warn of torn ones."""
        named = self._read_newest()
        torn = {}
        whole = BEGIN
        for place in sorted({*self._places(), named or BEGIN} - {BEGIN}, reverse=True):
            problem = self._problem(place)
            if problem is None:
                whole = place
                break
            torn[place] = problem
        if torn and whole == BEGIN and named is None:
            return NOT_OURS
        instead = "begins anew" if whole == BEGIN else f"goes on from epoch {_name(whole)}"
        for place, problem in torn.items():
            _logger.warning(
                "The checkpoint of epoch %s in %s is torn, %s; training %s.",
                *(_name(place), self._folder, problem, instead),
            )
        return whole

    def _problem(self, place: Place) -> str | None:
        """Say what of a checkpoint is not as it was written."""
        path = self._path(place)
        if not path.is_dir():
            return "it is missing"
        try:
            for name, checksum in self._read(place)["files"].items():
                if _checksum((path / name).read_bytes()) != checksum:
                    return f"{name} is not what was written"
        except FileNotFoundError as error:
            return f"{Path(error.filename).relative_to(path)} is missing"
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def _read(self, place: Place) -> dict[str, Any]:
        """Read what is written beside a state; raise a ValueError unless it is that."""
        text = (self._path(place) / PROGRESS).read_text(encoding="utf-8", errors="replace")
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

    def _places(self) -> list[Place]:
        """Return the places of the checkpoints that are there, whole or not."""
        places = (_place(path.name) for path in self._folder.iterdir() if path.is_dir())
        return sorted(place for place in places if place)

    def _path(self, place: Place) -> Path:
        return self._folder / _name(place)

    def _read_newest(self) -> Place | None:
        """Return what was saved last, `BEGIN` before the first; None in another's folder."""
        try:
            return _place((self._folder / "newest").read_text(encoding="utf-8").strip())
        except (OSError, ValueError):
            return None

    def _write_newest(self, place: Place) -> None:
        beside = self._folder / "newest.tmp"
        beside.write_text(f"{_name(place)}\n", encoding="utf-8")
        beside.replace(self._folder / "newest")

    def _delete_others(self, place: Place) -> None:
        """Delete the oldest, what was torn, and what was not finished."""
        places = self._places()
        kept = [p for p in places if p <= place][-KEPT:]
        unfinished = [path for path in self._folder.glob("*.tmp") if _place(path.stem)]
        for path in [self._path(p) for p in places if p not in kept] + unfinished:
            shutil.rmtree(path, ignore_errors=True)


def _name(place: Place) -> str:
    """Return the name of a place: `7`, or `7+300`."""
    epoch, chunks = place
    return f"{epoch}+{chunks}" if chunks else f"{epoch}"


def _place(name: str) -> Place | None:
    """Return the place of a name; None for the name of something else."""
    match = re.fullmatch(r"(\d+)(?:\+(\d+))?", name, re.ASCII)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _describe(state: Any) -> dict[str, str]:
    """Return dtype and shape of every leaf by path: what another model or optimizer changes."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def checksum(tree: Any) -> str:
    """Return a checksum of the arrays of a tree, to tell data apart."""
    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return f"{crc:08x}"


def _checksum(content: bytes) -> str:
    """Return the length and a checksum of a file's content: either tells a file cut short."""
    return f"{len(content)}-{zlib.crc32(content):08x}"
