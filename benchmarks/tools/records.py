"""Finds records: benchmarks/records/<date>-<what>/, the newest of which counts."""

import datetime
from pathlib import Path

import numpy as np

from examples.results.records import Record, read_records

NOT_YET_RUN = "not yet run"  # What stands where there are no records.
RECORDS = Path(__file__).parents[1] / "records"


def newest(what: str) -> Path | None:
    """Return the folder of the latest date, None where there is none."""
    found = sorted(RECORDS.glob(f"????-??-??-{what}"))
    return found[-1] if found else None


def newest_or_new(what: str) -> Path:
    """Return the folder to add records to: the newest, or one of today that is yet to be made."""
    return newest(what) or RECORDS / f"{datetime.date.today()}-{what}"


def records_of(what: str) -> list[Record]:
    """Return all records of the newest folder, none where there is no folder."""
    files = sorted(folder.glob("*.jsonl")) if (folder := newest(what)) else []
    return [record for file in files for record in read_records(file)]


def write_scores(x: np.ndarray) -> str | list[float]:
    """Write numbers `(n,)` to six digits.

    Bools become "n:digits", hexadecimal, the first in the highest bit of the first digit.
    """
    if x.dtype == bool:
        return f"{len(x)}:{np.packbits(x).tobytes().hex()}"
    return [float(f"{value:.6g}") for value in x]


def read_bits(text: str) -> np.ndarray:
    """Read bools that `write_scores` has written."""
    n, digits = text.split(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=int(n)).astype(bool)
