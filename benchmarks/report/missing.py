"""Lists what was not run, each with the command that runs it."""

from collections.abc import Sequence
from typing import NamedTuple

from examples.results import tables


class Missing(NamedTuple):
    """Names what was not run.

    Attributes:
      what: in words.
      beside: what the paper reports of it, or what is to be reached.
      command: what runs it.
    """

    what: str
    beside: str
    command: str


def table(entries: Sequence[Missing]) -> str:
    """Return a row per command."""
    by_command = tables.group(entries, lambda entry: entry.command)
    rows = [
        ("; ".join(e.what for e in alike), "; ".join(e.beside for e in alike if e.beside), f"`{c}`")
        for c, alike in by_command.items()
    ]
    return tables.markdown(("not yet run", "the paper's, or to be reached", "what runs it"), rows)
