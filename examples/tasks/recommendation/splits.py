"""Reads a dataset's files into what to train on, what to hold out, and against what to rank it.

The data come as GroupLens's log of ratings, of which each user's latest is held out here, or as the
split that the authors of neural collaborative filtering published (He et al., 2017).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from examples.tasks.recommendation.datasets import DATASETS, PublishedSplit, RatingLog
from examples.tasks.recommendation.files import File
from examples.tasks.recommendation.text_tables import Layout, Table, read_table

NUM_NEGATIVES = 99
_SHIFT = 32


@dataclasses.dataclass(frozen=True)
class Split:
    """Holds interactions in the ids of the files.

    Attributes:
      train: `(n, 2)` int64, user and item; pairs may repeat, or be the held-out one.
      test: `(users, 2)` int64, the held-out pair of each user, users ascending.
      previous: `(users, 2)` int64, the pair before it, of a user with one pair that pair itself;
        None where the files do not say when.
      negatives: `(users, 99)` int64, the published negatives, or None.
      source: the table that the held-out pairs come from.
      rows: `(users,)` int64, the row of `source` that each held-out pair comes from.
      remarks: what is odd about the files, though not wrong enough to refuse them.
    """

    train: np.ndarray
    test: np.ndarray
    previous: np.ndarray | None
    negatives: np.ndarray | None
    source: Table
    rows: np.ndarray
    remarks: tuple[str, ...]


def read_split(dataset: str, files: Mapping[str, File]) -> Split:
    """Read a dataset's files, given by role."""
    known = DATASETS[dataset]
    if known.log and "ratings" in files:
        return _hold_out_latest(files["ratings"], known.log)
    assert known.split is not None
    return _read_published(files, known.split)


def pack(pairs: np.ndarray) -> np.ndarray:
    """Make one number of each pair, `(n, 2)` to `(n,)`, in the order of user and then item."""
    return (pairs[:, 0] << _SHIFT) | pairs[:, 1]


def unpack(keys: np.ndarray) -> np.ndarray:
    """Undo `pack`: `(n,)` to `(n, 2)`."""
    return np.stack([keys >> _SHIFT, keys & ((1 << _SHIFT) - 1)], axis=1)


def _hold_out_latest(file: File, log: RatingLog) -> Split:
    """Hold out each user's latest rating; among equal timestamps, the last in the file."""
    table = read_table(file, [_pair_layout(4, log.separator)])
    table.check(log.limits)
    users, items, _, times = table.values.T
    # A pair counts once, where it stood first with its latest time: a block of rows that is
    # repeated further down must not decide which of a user's items comes last.
    backwards = -np.arange(len(users))
    order = np.lexsort((backwards, times, items, users))
    last_of_pair = np.flatnonzero(np.diff(pack(table.values[order]), append=-1))
    once = np.sort(order[last_of_pair])
    # Stable: rows with the same user and timestamp stay in the order of the file.
    order = once[np.lexsort((times[once], users[once]))]
    last = np.flatnonzero(np.diff(users[order], append=-1))
    first = np.append(0, last[:-1] + 1)
    rows, before = order[last], order[np.maximum(last - 1, first)]
    pairs = table.values[:, :2]
    return Split(pairs[once], pairs[rows], pairs[before], None, table, rows, _repetitions(table))


def _read_published(files: Mapping[str, File], known: PublishedSplit) -> Split:
    """Read the published split; its users must be the same in every file."""
    layouts = [_pair_layout(columns) for columns in (2, 3, 4)]
    train, test = (read_table(files[role], layouts) for role in ("train", "test"))
    for table in (train, test):
        table.check(known.limits)
    rows = _rows_by_user(test)
    _check_same_users(train, test)
    pairs = test.values[rows, :2]
    remarks = _repetitions(train)
    if held_out := np.isin(pack(train.values), pack(pairs)).sum():
        remarks += (
            f"{train.file.name}: rows that are held out, and so not trained on: {held_out}",
        )
    negatives = None
    if "negatives" in files:
        negatives = _read_negatives(files["negatives"], known, test)
        remarks += _odd_negatives(files["negatives"], negatives, train, pairs[:, 0])
    return Split(train.values[:, :2], pairs, None, negatives, test, rows, remarks)


def _read_negatives(file: File, known: PublishedSplit, test: Table) -> np.ndarray:
    """Return the 99 negatives of each user of the test table, users ascending, as published."""
    table = read_table(file, [_NEGATIVE_LAYOUT])
    table.check({**known.limits, "negative": known.limits["item"]})
    rows = _rows_by_user(table)
    _check_same_users(test, table)
    theirs, ours = table.values[rows, 1], test.values[_rows_by_user(test), 1]
    if (theirs != ours).any():
        row = rows[np.argmax(theirs != ours)]
        user, item = table.values[row, :2]
        raise table.fault(
            row,
            f"item {item} is not the one that {test.file} holds out for user {user}: the two"
            " files are not of one split, fetch both again",
        )
    return table.values[rows, 2:]


def _pair_layout(columns: int, separator: str = "\t") -> Layout:
    """Describe rows of user and item, then perhaps rating and timestamp."""
    names = ("user", "item", "rating", "timestamp")[:columns]
    words = repr(separator.join(names))
    return Layout(names, separator.join("#" * columns), separator, words)


_NEGATIVE_LAYOUT = Layout(
    ("user", "item") + NUM_NEGATIVES * ("negative",),
    "(#,#)" + NUM_NEGATIVES * "\t#",
    r",|\)?\t",
    f"'(user,item)' and {NUM_NEGATIVES} negatives, tab separated,",
)


def _rows_by_user(table: Table) -> np.ndarray:
    """Return the rows in the order of their users, none of which may repeat."""
    users = table.values[:, 0]
    rows = np.argsort(users, kind="stable")
    repeated = rows[1:][np.diff(users[rows]) == 0]
    if repeated.size:
        row = repeated.min()
        first = table.line(np.flatnonzero(users == users[row])[0])
        raise table.fault(
            row,
            f"user {users[row]} has a row already, on line {first}: keep one of the two, or"
            " fetch the file again",
        )
    return rows


def _check_same_users(one: Table, other: Table) -> None:
    """Raise a ValueError at the first row whose user the other table lacks, in either of two."""
    for table, within in ((one, other), (other, one)):
        lacking = ~np.isin(table.values[:, 0], within.values[:, 0])
        if lacking.any():
            row = int(np.argmax(lacking))
            raise table.fault(
                row,
                f"user {table.values[row, 0]} has no row in {within.file}, which may be truncated:"
                " fetch that file again, or remove the user from this one",
            )


def _repetitions(table: Table) -> tuple[str, ...]:
    """Say how many rows repeat a pair, if any do."""
    _, first, pair = np.unique(pack(table.values), return_index=True, return_inverse=True)
    repeats = np.setdiff1d(np.arange(len(pair)), first)
    if not repeats.size:
        return ()
    row = repeats[0]
    user, item = table.values[row, :2]
    changed = (table.values[repeats] != table.values[first[pair[repeats]]]).any(axis=1).sum()
    return (
        f"{table.file.name}: rows that repeat the user and item of an earlier one:"
        f" {repeats.size}, the first on line {table.line(row)} (user {user}, item {item})"
        + (f", {changed} with another rating or time" if changed else "")
        + "; each pair counts once, with its latest time",
    )


def _odd_negatives(
    file: File, negatives: np.ndarray, train: Table, users: np.ndarray
) -> tuple[str, ...]:
    """Say how many published negatives are none, or are there twice, if any are."""
    pairs = np.stack([users.repeat(NUM_NEGATIVES), negatives.ravel()], axis=1)
    observed = np.isin(pack(pairs), pack(train.values)).sum()
    twice = (np.diff(np.sort(negatives, axis=1), axis=1) == 0).sum()
    if not observed and not twice:
        return ()
    return (
        f"{file.name}: negatives that their users train on: {observed}, that stand there twice:"
        f" {twice}; all are kept as published",
    )
