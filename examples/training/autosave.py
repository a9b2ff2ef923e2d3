"""Saves a run as its options say, and stops it in time when the machine is to go."""

from contextlib import ExitStack, closing
from typing import Any

from examples.training import distributed
from examples.training.checkpoints import Checkpoints, Progress
from examples.training.options import Options


class Autosave(ExitStack):
    """Saves when it is due, if there is a folder to save to, and stops when SIGTERM asks for it."""

    def __init__(self, options: Options, run: dict[str, Any]):
        """Make the folder, if there is to be one.

        Args:
          options: where to save, and how often.
          run: all that decides what the run computes, as JSON values.
        """
        super().__init__()
        self._options = options
        self._checkpoints: Checkpoints | None = None
        if options.checkpoint_dir:
            checkpoints = Checkpoints(options.checkpoint_dir, run)
            self._checkpoints = self.enter_context(closing(checkpoints))
            self._stop_asked = self.enter_context(distributed.stop_signals())

    def latest(self, begin: Progress) -> Progress:
        """Return what the last checkpoint holds; `begin` without one."""
        return self._checkpoints.latest(begin) if self._checkpoints else begin

    def save_if_due(self, progress: Progress) -> None:
        """Save after every so many epochs, after the last, and before it stops the run.

        Raises:
          StoppedError: if SIGTERM came before the end of the last epoch.
        """
        if self._checkpoints is None:
            return
        options, stop = self._options, self._stop_asked()
        last = progress.epoch == options.epochs
        due = not progress.chunks and (progress.epoch % options.checkpoint_every == 0 or last)
        if due or stop:
            self._checkpoints.save(progress)
        if stop and not last:
            raise distributed.StoppedError(
                f"Stopped after {progress.where()} of {options.epochs}, which"
                f" {options.checkpoint_dir} keeps: the same command goes on from there."
            )
