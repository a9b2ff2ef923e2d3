r"""Reads a text file of ids strictly: what is wrong is told with its file and line.

A table is one pattern a row, matched over the whole file at once; where the match ends is where
the fault is. A row must end with a newline, for a file cut inside its last number would otherwise
pass.
"""

import dataclasses
import re

import numpy as np

from examples.tasks.recommendation.files import File

# Possessive (`++`), so that a file of a million rows is matched without a record to backtrack on;
# 18 digits always fit in 64 bits.
NUMBER = r"\d{1,18}+"
_BLANKS = bytes.maketrans(b":(),", b"    ")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a row looks: a pattern, and the same in words."""

    pattern: str
    words: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The numbers of a file: ``values`` (rows, columns) int64; row k stands on line k + 1."""

    file: File
    values: np.ndarray

    def fault(self, row: int, problem: str) -> ValueError:
        """An error that names the file and the line of a row."""
        return ValueError(f"{self.file}, line {row + 1}: {problem}")

    def check_ids(self, columns: slice, ids: range, what: str) -> None:
        """Raises a ValueError at the first row with an id out of range."""
        values = self.values[:, columns]
        wrong = (values < ids.start) | (values >= ids.stop)
        if wrong.any():
            row = int(np.argmax(wrong.any(axis=1)))
            raise self.fault(
                row,
                f"{what} {values[row][wrong[row]][0]} is out of range: the {what}s of this dataset"
                f" are {ids.start} to {ids.stop - 1}; correct the row, or fetch the file again",
            )


def read_table(file: File, layout: Layout) -> Table:
    """Reads a file whose every row has the layout.

    Args:
      file: what to read.
      layout: the pattern of a row; every number in it becomes a column.

    Raises:
      ValueError: if the file is empty, truncated or malformed.
    """
    text = file.read()
    if not text:
        raise ValueError(f"{file}, line 1: the file is empty: fetch it again")
    rows = re.compile(rf"(?:{layout.pattern}[ \t\r]*+\n)*+".encode()).match(text)
    assert rows is not None
    if rows.end() < len(text):
        raise _malformed(file, layout, text, rows.end())
    values = np.fromstring(text.translate(_BLANKS), dtype=np.int64, sep=" ")
    return Table(file, values.reshape(text.count(b"\n"), -1))


def first_line(file: File) -> str:
    """The first line of a file, as far as it is ASCII."""
    return file.read().split(b"\n", 1)[0].decode("ascii", errors="replace")


def _malformed(file: File, layout: Layout, text: bytes, start: int) -> ValueError:
    """The error for the row that starts at a byte and is not as it should be."""
    line = text.count(b"\n", 0, start) + 1
    row, newline, _ = text[start:].partition(b"\n")
    if not newline and re.fullmatch(layout.pattern.encode(), row):
        problem = (
            "the last row ends without a newline, so the file may be truncated: fetch it again,"
            " or end the row with a newline if it is whole"
        )
    else:
        shown = row[:60].decode("latin-1") + ("…" if len(row) > 60 else "")
        problem = (
            f"expected {layout.words} in integers, got {shown!r}: correct the row, or fetch the"
            " file again"
        )
    return ValueError(f"{file}, line {line}: {problem}")
