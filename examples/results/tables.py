"""Tables from records: grouped, averaged, in Markdown."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from examples.results.records import Record

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


def group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return items of one key together, keys in the order of their first."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def final(records: Sequence[Record], name: str) -> np.ndarray:
    """Return `(runs,)` values of the last epoch; NaN where a run has none."""
    return np.array([record["final"][name] for record in records], float)


def standard_error(values: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over the first axis, 0 of a single value."""
    if len(values) < 2:
        return np.zeros(values.shape[1:])
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def mean_and_error(values: np.ndarray, digits: int = 1) -> str:
    """Return `mean ± standard error`, the mean alone of a single value."""
    mean = f"{values.mean():.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {standard_error(values):.{digits}f}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that lines up as text, too."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [columns, ["-" * width for width in widths], *rows]
    padded = [[c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
