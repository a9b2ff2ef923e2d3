r"""Reads text files of whole numbers strictly: an error names the file, the line and the remedy.

The pattern of a row is matched over the whole file at once; where the match ends, the fault is. A
row must end with a newline, since a file that is cut inside its last number would otherwise pass.
What spreadsheets and downloads add is accepted: a byte-order mark, the line ends of other systems,
blank lines at the end, and a first line that names the columns.
"""

import codecs
import dataclasses
import re
import time
from collections.abc import Sequence

import numpy as np

from examples.tasks.recommendation.datasets import Limits
from examples.tasks.recommendation.files import File

# Possessive (`++`), so that a file of a million rows is matched without a record to backtrack on;
# 18 digits always fit in 64 bits. Without leading zeros, since 7 and 007 could be two ids.
_NUMBER = r"(?!0\d)\d{1,18}+"
_BLANKS = bytes.maketrans(b":(),", b"    ")
_HEADINGS = {
    "user": "user",
    "item": "item|movie",
    "rating": "rating",
    "timestamp": "time",
    "negative": "negative",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Describes the rows of a file.

    Attributes:
      columns: what each number of a row is.
      template: a row with `#` in place of each number.
      separators: a pattern for what stands between two numbers.
      words: what is expected, for an error message.
    """

    columns: tuple[str, ...]
    template: str
    separators: str
    words: str

    @property
    def pattern(self) -> str:
        """The regular expression of a row."""
        return re.escape(self.template).replace(r"\#", _NUMBER)

    def fields(self, row: str) -> list[str]:
        """Split a row at the separators, whether or not it is as it should be."""
        return re.split(self.separators, row.strip(" \r\n").removeprefix("("))

    def is_header(self, row: str) -> bool:
        """Tell whether a row names the columns in their order; the last may stand for several."""
        fields = self.fields(row)
        names = [
            re.search(_HEADINGS[c], f, re.I) for c, f in zip(self.columns, fields, strict=False)
        ]
        return 2 <= len(fields) <= len(self.columns) and all(names)


@dataclasses.dataclass(frozen=True)
class Table:
    """Holds the numbers of a file.

    Attributes:
      file: where they come from.
      columns: what each column is.
      values: `(rows, columns)` int64.
      first_line: the line of the first row, counted from 1.
    """

    file: File
    columns: tuple[str, ...]
    values: np.ndarray
    first_line: int

    def line(self, row: int) -> int:
        """Return the line of a row."""
        return self.first_line + int(row)

    def fault(self, row: int, problem: str) -> ValueError:
        """Return an error that names the file and the line of a row."""
        return ValueError(f"{self.file}, line {self.line(row)}: {problem}")

    def check(self, limits: Limits) -> None:
        """Raise a ValueError at the first value that is outside the limits of its column."""
        for name in dict.fromkeys(self.columns):
            if allowed := limits.get(name):
                self._check_column(
                    name,
                    allowed,
                    f"is out of range: the {name}s of this dataset are {allowed.start} to"
                    f" {allowed.stop - 1}; correct the row, or fetch the file again",
                )
        # A clock that is a day slow is no reason to refuse.
        self._check_column(
            "timestamp",
            range(int(time.time()) + 86_400),
            "is in the future: expected seconds since 1970; divide milliseconds by 1000, or fetch"
            " the file again",
        )

    def _check_column(self, name: str, allowed: range, problem: str) -> None:
        values = self.values[:, [column == name for column in self.columns]]
        wrong = (values < allowed.start) | (values >= allowed.stop)
        if wrong.any():
            row = int(np.argmax(wrong.any(axis=1)))
            raise self.fault(row, f"{name} {values[row][wrong[row]][0]} {problem}")


def read_table(file: File, layouts: Sequence[Layout]) -> Table:
    """Read a file whose rows all have the same layout.

    Args:
      file: what to read.
      layouts: those that it may have, told apart by their number of columns.

    Raises:
      ValueError: if the file is empty, truncated or malformed.
    """
    text = _clean(file)
    top = _show(text.partition(b"\n")[0])
    by_columns = {len(layout.columns): layout for layout in layouts}
    layout = by_columns.get(len(layouts[0].fields(top)), layouts[0])
    first_line = 1
    if layout.is_header(top):
        text, first_line = text.partition(b"\n")[2], 2
    if not text:
        raise ValueError(f"{file}, line {first_line}: the file is empty: fetch it again")
    rows = re.compile(rf"(?:{layout.pattern}[ \t\r]*+\n)*+".encode()).match(text)
    assert rows is not None
    if rows.end() < len(text):
        line = first_line + text.count(b"\n", 0, rows.end())
        raise ValueError(f"{file}, line {line}: {_problem(layout, text[rows.end() :], line)}")
    values = np.fromstring(text.translate(_BLANKS), dtype=np.int64, sep=" ")
    return Table(file, layout.columns, values.reshape(-1, len(layout.columns)), first_line)


def _clean(file: File) -> bytes:
    """Return the text without a byte-order mark and blank lines at its end."""
    text = file.read()
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in text[:100]:
        raise ValueError(
            f"{file}: expected plain text, got UTF-16 or binary data: save it as UTF-8"
        )
    text = text.removeprefix(codecs.BOM_UTF8)
    if b"\n" not in text:
        text = text.replace(b"\r", b"\n")
    rows = text.rstrip(b" \t\r\n")
    return rows + b"\n" if b"\n" in text[len(rows) :] and rows else rows


def _problem(layout: Layout, rest: bytes, line: int) -> str:
    """Say what is wrong with the row that the rest of a file begins with, and the remedy."""
    row, newline, _ = rest.partition(b"\n")
    if not newline and re.fullmatch(layout.pattern.encode(), row):
        return (
            "the last row ends without a newline, so the file may be truncated: fetch it again,"
            " or end the row with a newline if it is whole"
        )
    shown = _show(row)
    fields = layout.fields(shown)
    if line == 1 and shown[:1].isalpha():
        reason = "nor does the line name these columns in this order"
    elif len(fields) != len(layout.columns):
        reason = f"where the number of fields is {len(fields)} and not {len(layout.columns)}"
    else:
        reason = next(filter(None, map(_field_problem, layout.columns, fields)), "")
    got = repr(shown if len(shown) <= 60 else shown[:60] + "…")
    return (
        f"expected {layout.words} in integers, got {got}{reason and ', '}{reason}:"
        " correct the row, or fetch the file again"
    )


def _field_problem(name: str, field: str) -> str:
    """Say what is wrong with a field; nothing if it is a whole number in plain digits."""
    if re.fullmatch(_NUMBER, field, re.ASCII):
        return ""
    try:
        # Python reads signs, zeros in front, decimal points and the digits of all scripts.
        number = float(field)
    except ValueError:
        return f"whose {name} {field!r} is not a number"
    if number.is_integer() and 0 <= number < 2**53:
        return f"whose {name} {field!r} must be written {int(number)}"
    return f"whose {name} {field!r} is not a whole number from 0 to 10^18 - 1"


def _show(row: bytes) -> str:
    """Decode a row for an error message."""
    return row.decode("utf-8", errors="backslashreplace").rstrip("\r")
