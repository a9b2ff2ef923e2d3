"""From files to a split in their own ids: what to train on, what to hold out, against what.

The two forms the data come in: GroupLens's log of ratings, of which the latest of each user is
held out here, and the split that the authors of neural collaborative filtering published
(He et al., 2017).
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from examples.tasks.recommendation.catalog import DATASETS, PublishedSplit, RatingLog
from examples.tasks.recommendation.files import File
from examples.tasks.recommendation.tables import NUMBER, Layout, Table, first_line, read_table

NUM_NEGATIVES = 99

_USER, _ITEM, _PAIR = slice(0, 1), slice(1, 2), slice(0, 2)


@dataclasses.dataclass(frozen=True)
class Split:
    """Interactions in the ids of the files.

    Attributes:
      train: (n, 2) int64, user and item; pairs may repeat, or be the held-out one.
      test: (users, 2) int64, the held-out pair of each user, users ascending.
      negatives: (users, 99) int64, the published negatives, or None.
      source: the table that the held-out pairs come from.
      rows: (users,) int64, the row of ``source`` that each comes from.
    """

    train: np.ndarray
    test: np.ndarray
    negatives: np.ndarray | None
    source: Table
    rows: np.ndarray


def read_split(dataset: str, files: Mapping[str, File]) -> Split:
    """Reads a dataset's files, given by role."""
    known = DATASETS[dataset]
    if known.log and "ratings" in files:
        return _hold_out_latest(files["ratings"], known.log)
    assert known.split is not None
    return _read_published(files, known.split)


def _hold_out_latest(file: File, log: RatingLog) -> Split:
    """Holds out each user's latest rating; among equal timestamps, the last in the file."""
    fields = ("user", "item", "rating", "timestamp")
    layout = Layout(log.separator.join([NUMBER] * 4), repr(log.separator.join(fields)))
    table = read_table(file, layout)
    _check_pairs(table, log)
    users, times = table.values[:, 0], table.values[:, 3]
    # Stable: rows with the same user and timestamp stay in the order of the file.
    order = np.lexsort((times, users))
    rows = order[np.flatnonzero(np.diff(users[order], append=-1))]
    pairs = table.values[:, _PAIR]
    return Split(train=pairs, test=pairs[rows], negatives=None, source=table, rows=rows)


def _read_published(files: Mapping[str, File], known: PublishedSplit) -> Split:
    """Reads the published split; its users must be the same in every file."""
    train = read_table(files["train"], _pair_layout(files["train"]))
    test = read_table(files["test"], _pair_layout(files["test"]))
    for table in (train, test):
        _check_pairs(table, known)
    rows = _rows_by_user(test)
    _check_users(train, test)
    _check_users(test, train)
    negatives = _read_negatives(files["negatives"], known, test) if "negatives" in files else None
    pairs = test.values[rows, _PAIR]
    return Split(train.values[:, _PAIR], pairs, negatives, source=test, rows=rows)


def _read_negatives(file: File, known: PublishedSplit, test: Table) -> np.ndarray:
    """The 99 negatives of each user of the test table, users ascending, as published."""
    table = _read_negative_table(file)
    _check_pairs(table, known)
    table.check_ids(slice(2, None), known.items, "item")
    rows = _rows_by_user(table)
    _check_users(test, table)
    _check_users(table, test)
    theirs, ours = table.values[rows, 1], test.values[_rows_by_user(test), 1]
    if (theirs != ours).any():
        row = rows[np.argmax(theirs != ours)]
        user, item = table.values[row, _PAIR]
        raise table.fault(
            row,
            f"item {item} is not the one that {test.file} holds out for user {user}: the two"
            " files are not of one split, fetch both again",
        )
    return table.values[rows, 2:]


def _read_negative_table(file: File) -> Table:
    """Columns user, item and 99 negatives."""
    pair, number = rf"\({NUMBER},{NUMBER}\)", rf"\t{NUMBER}"
    words = "'(user,item)' and the items of its negatives, tab separated"
    try:
        return read_table(file, Layout(f"{pair}(?:{number}){{{NUM_NEGATIVES}}}+", words))
    except ValueError as error:
        raise (_wrong_count(file, f"{pair}(?:{number})*+") or error) from None


def _wrong_count(file: File, pattern: str) -> ValueError | None:
    """The error for the first bad row, if all that is wrong is how many negatives it has."""
    for line, row in enumerate(file.read().split(b"\n"), start=1):
        row = row.rstrip()
        if not re.fullmatch(pattern.encode(), row):
            return None
        if (count := row.count(b"\t")) != NUM_NEGATIVES:
            user = row[1:].split(b",")[0].decode()
            return ValueError(
                f"{file}, line {line}: user {user} has {count} negatives, {NUM_NEGATIVES} are"
                " needed: fetch the file again, or remove it to have negatives sampled"
            )
    return None


def _pair_layout(file: File) -> Layout:
    """User and item, then perhaps rating and timestamp: as many columns as the first row has."""
    fields = ("user", "item", "rating", "timestamp")
    columns = min(max(len(first_line(file).split()), 2), 4)
    return Layout(r"\t".join([NUMBER] * columns), repr("\t".join(fields[:columns])))


def _check_pairs(table: Table, known: RatingLog | PublishedSplit) -> None:
    table.check_ids(_USER, known.users, "user")
    table.check_ids(_ITEM, known.items, "item")


def _rows_by_user(table: Table) -> np.ndarray:
    """The rows in the order of their users, of which none may repeat."""
    users = table.values[:, 0]
    rows = np.argsort(users, kind="stable")
    repeated = rows[1:][np.diff(users[rows]) == 0]
    if repeated.size:
        row = repeated.min()
        first = np.flatnonzero(users == users[row])[0]
        raise table.fault(
            row,
            f"user {users[row]} has a row already, on line {first + 1}: keep one of the two, or"
            " fetch the file again",
        )
    return rows


def _check_users(of: Table, within: Table) -> None:
    """Raises a ValueError at the first row whose user another table lacks."""
    lacking = ~np.isin(of.values[:, 0], within.values[:, 0])
    if lacking.any():
        row = int(np.argmax(lacking))
        raise of.fault(
            row,
            f"user {of.values[row, 0]} has no row in {within.file}, which may be truncated:"
            " fetch that file again, or remove the user from this one",
        )
