"""Reads files of records, one JSON object per line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read(path: Path, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the objects of a file.

    Args:
      path: the file.
      needed: what each of them must have.

    Raises:
      ValueError: for a line that is torn, no object, or without what is needed.
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            record = json.loads(line)
            lacks = [name for name in needed if name not in record]
            if not isinstance(record, dict) or lacks:
                raise ValueError(f"it has no {lacks[0]!r}" if lacks else "it is no object")
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{str(path)!r} is no file of records, by its line {number} ({error}): give"
                " another, or delete that line if a run was killed while it wrote it."
            ) from error
        found.append(record)
    return found
