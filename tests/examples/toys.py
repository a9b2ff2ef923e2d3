"""Datasets that train in a blink."""

import numpy as np

from examples.tasks.recommendation import Interactions


def toy_interactions() -> Interactions:
    """Five users with four of twelve items each, and 30 candidates."""
    rng = np.random.default_rng(0)
    train = [(user, item) for user in range(5) for item in np.sort(rng.choice(12, 4, False))]
    candidates = rng.integers(0, 12, (5, 30))
    arrays = (np.array(table, np.int32) for table in (train, candidates))
    return Interactions("toy", *arrays, num_items=12, num_interactions=25, removed_users=0)


def toy_uses() -> np.ndarray:
    """Which of 160 identifiers each of eight modules uses, from a tenth of them to a third."""
    return np.random.default_rng(0).random((8, 160)) < np.linspace(0.1, 0.35, 8)[:, None]
