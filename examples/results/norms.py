"""Weight norms of records over the epochs: the total, its bounces, the largest layers' shares.

A record has the norms of kernels and embeddings, so the total is of these.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from examples.results.records import Record

LAYER, TOTAL = "norm/", "norm/total"
LARGEST = 10  # Layers, as in Figure S2 of arXiv 2103.12682.
ROUNDING = 1e-6  # Relative: what has changed by less has not, and a norm that is held does not.

Norms = Mapping[str, np.ndarray]


def with_total(record: Record) -> Record:
    """Return a record that has the norm of all its layers together as one more curve."""
    layers = mean([record])
    if not layers:
        return record
    norm = total(layers)
    curve = record["curve"] | {TOTAL: norm.tolist()}
    return record | {"curve": curve, "final": record["final"] | {TOTAL: float(norm[-1])}}


def mean(runs: Sequence[Record]) -> dict[str, np.ndarray]:
    """Return the mean over runs of the norm of every layer that all of them have: `(epochs,)`."""
    shared = set.intersection(*({*run["curve"]} for run in runs)) - {TOTAL}
    names = sorted(name for name in shared if name.startswith(LAYER))
    of = lambda name: np.array([run["curve"][name] for run in runs], float).mean(axis=0)
    return {name.removeprefix(LAYER): of(name) for name in names}


def total(layers: Norms) -> np.ndarray:
    """Return the norm of all layers together: `(epochs,)`."""
    return np.sqrt(sum(np.square(norm) for norm in layers.values()))


def largest(layers: Norms, count: int = LARGEST) -> list[str]:
    """Return the layers with the largest norms, each at its own largest, the largest first."""
    return sorted(layers, key=lambda name: -layers[name].max())[:count]


def shares(layers: Norms, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return which share of the squared total the squared norms of layers have: `(epochs,)`."""
    whole = np.square(total(layers))
    return {name: np.square(layers[name]) / whole for name in names}


def last_at(norm: np.ndarray, value: float) -> float | None:
    """Return the epoch, between whole ones, at which a norm last had a value; None if never."""
    above = norm - value
    above = np.where(np.abs(above) <= ROUNDING * abs(value), 0, above)
    passed = np.flatnonzero(above[:-1] * above[1:] <= 0)
    if not len(passed):
        return None
    i = int(passed[-1])
    step = norm[i + 1] - norm[i]
    return i + 1 + float((value - norm[i]) / step if step else 0)


def bounces(norm: np.ndarray) -> list[int]:
    """Return where a norm has fallen and rises next, as indices of `(epochs,)`."""
    found, last, falling = [], 0, False
    for i, value in enumerate(norm):
        if abs(value - norm[last]) <= ROUNDING * norm[last]:
            continue
        rising = bool(value > norm[last])
        if falling and rising:
            found.append(last)
        falling, last = not rising, i
    return found
