r"""Applies the leave-one-out protocol of He et al. (2017) to a split, and makes arrays of it.

Users with fewer than 20 interactions are removed, ids become 0 .. n - 1 in the order of the
original ones, and each user's held-out item is to be ranked among 99 items that the user has not
interacted with.
"""

import dataclasses
import functools

import numpy as np

from examples.tasks.recommendation.splits import NUM_NEGATIVES, Split, pack, unpack

MIN_INTERACTIONS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """Holds who interacted with what, and what each user is tested on.

    Negatives to train on are to be drawn from the items that are not in `train`, as He et al.
    do, so the held-out item may be among them: to spare it would tell the model which item it is.
    The draw needs no rejection. For user u let s be `offsets[u]:offsets[u + 1]`; then the r-th
    item that is not observed, r from 0, is `r + sum(unobserved_below[s] <= r)`, a binary search.
    A table of all pairs would take `num_users * num_items` bits; this takes 32 per interaction.

    Attributes:
      dataset: its name.
      train: (n, 2) int32, user and item of each interaction, ascending, none twice.
      candidates: (num_users, 100) int32, the held-out item of each user, then its 99 negatives.
        Published negatives are kept as they are: 156 of MovieLens-1M's equal the held-out item.
      num_items: items are 0 .. num_items - 1.
      num_interactions: how many there were before users were removed, the held-out ones included.
      removed_users: how many users had fewer than 20 interactions and were removed.
      remarks: what is odd about the files, one remark per line.
      validation: (num_users, 100) int32, the item before the held-out one of each user, which is
        held out as well, then 99 negatives; (0, 100) unless it was asked for.

    Examples:
      The user has observed items 1 and 2 of 0 .. 3, and 3 is held out. The second item that can
      be drawn (r = 1) is 3.

      >>> candidates = np.array([[3] + 99 * [0]], np.int32)
      >>> data = Interactions("toy", np.array([[0, 1], [0, 2]], np.int32), candidates, 4, 3, 0)
      >>> data.unobserved_below
      array([1, 1], dtype=int32)
      >>> 1 + int(np.sum(data.unobserved_below[data.offsets[0] : data.offsets[1]] <= 1))
      3
    """

    dataset: str
    train: np.ndarray
    candidates: np.ndarray
    num_items: int
    num_interactions: int
    removed_users: int
    remarks: str = ""
    validation: np.ndarray = dataclasses.field(
        default_factory=lambda: np.empty((0, 1 + NUM_NEGATIVES), np.int32)
    )

    @property
    def num_users(self) -> int:
        """The number of users, who are 0 .. num_users - 1."""
        return len(self.candidates)

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """(num_users + 1,) int32: user u has the rows `offsets[u]:offsets[u + 1]` of train."""
        users = np.arange(self.num_users + 1)
        return np.searchsorted(self.train[:, 0], users).astype(np.int32)

    @functools.cached_property
    def unobserved_below(self) -> np.ndarray:
        """(n,) int32: for each row of train, how many smaller items its user has not observed."""
        rank = np.arange(len(self.train)) - self.offsets[self.train[:, 0]]
        return (self.train[:, 1] - rank).astype(np.int32)


def leave_one_out(
    dataset: str, split: Split, negatives_seed: int, *, validate: bool = False
) -> Interactions:
    """Apply the protocol to a split.

    Args:
      dataset: its name.
      split: the interactions in the ids of the files.
      negatives_seed: fixes the sampled negatives; without effect where they are published.
      validate: whether to hold out the interaction before the latest as well; the split has it.

    Raises:
      ValueError: if no user has 20 interactions, or one has too few items left to sample from.
    """
    # Pairs count once, since the data are binary, and the held-out pair is never trained on.
    train = unpack(np.setdiff1d(pack(split.train), pack(split.test)))
    num_interactions = len(train) + len(split.test)
    keep = _count(split.test[:, 0], train[:, 0]) + 1 >= MIN_INTERACTIONS
    if not keep.any():
        raise ValueError(
            f"{split.source.file}: no user has {MIN_INTERACTIONS} interactions; the file is"
            " truncated or is not the whole dataset: fetch it again"
        )
    users, held_out = split.test[keep].T
    train = train[np.isin(train[:, 0], users)]
    tested = held_out[:, None]
    if validate:
        assert split.previous is not None
        tested = np.column_stack([held_out, split.previous[keep, 1]])
        train = unpack(np.setdiff1d(pack(train), pack(split.previous)))
    negatives = np.empty((len(users), 0), int) if split.negatives is None else split.negatives[keep]
    items = np.unique(np.concatenate([train[:, 1], tested.ravel(), negatives.ravel()]))

    train = np.stack([np.searchsorted(users, train[:, 0]), np.searchsorted(items, train[:, 1])], 1)
    candidates = np.searchsorted(items, np.column_stack([held_out, negatives]))
    data = Interactions(
        dataset=dataset,
        train=train.astype(np.int32),
        candidates=candidates.astype(np.int32),
        num_items=len(items),
        num_interactions=num_interactions,
        removed_users=int(np.sum(~keep)),
        remarks="\n".join(split.remarks),
    )
    if split.negatives is not None:
        return data
    tested = np.searchsorted(items, tested)
    # NumPy has frozen RandomState's stream; a Generator's may change with the version, and
    # HR@10 against other negatives is another number.
    randoms = np.random.RandomState(negatives_seed), np.random.RandomState([negatives_seed, 1])
    ranked = [
        np.column_stack([item, _negatives(data, tested, split, split.rows[keep], random)])
        for item, random in zip(tested.T, randoms, strict=False)
    ]
    tables = [table.astype(np.int32) for table in ranked]
    data = dataclasses.replace(data, candidates=tables[0])
    return dataclasses.replace(data, validation=tables[1]) if validate else data


def _negatives(
    data: Interactions,
    tested: np.ndarray,
    split: Split,
    rows: np.ndarray,
    random: np.random.RandomState,
) -> np.ndarray:
    """Sample 99 items of each user, none twice, that are neither trained on nor tested."""
    negatives = np.empty((data.num_users, NUM_NEGATIVES), np.int64)
    for user, of_user in enumerate(tested):
        observed = np.zeros(data.num_items, bool)
        observed[data.train[data.offsets[user] : data.offsets[user + 1], 1]] = True
        observed[of_user] = True
        pool = np.flatnonzero(~observed)
        if len(pool) < NUM_NEGATIVES:
            raise split.source.fault(
                rows[user],
                f"user {split.source.values[rows[user], 0]} has {len(pool)} items left that it has"
                f" not interacted with, {NUM_NEGATIVES} negatives are needed: the file is truncated"
                " or too small, fetch it again or remove the user",
            )
        negatives[user] = random.choice(pool, NUM_NEGATIVES, replace=False)
    return negatives


def _count(users: np.ndarray, sorted_users: np.ndarray) -> np.ndarray:
    """Count how often each of the users occurs."""
    return np.searchsorted(sorted_users, users, "right") - np.searchsorted(sorted_users, users)
