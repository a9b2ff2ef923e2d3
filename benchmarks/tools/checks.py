"""Checks that a measurement can be taken with its options."""

from collections.abc import Collection
from typing import Any


def check_known(config: Any, **known: Collection[str]) -> None:
    """Refuse a name in an option's tuple that is none of those known."""
    for option, names in known.items():
        for value in getattr(config, option):
            if value not in names:
                raise ValueError(f"{option} holds {value!r}: choose from {', '.join(names)}.")


def check_counts(config: Any, *options: str) -> None:
    """Refuse a count below 1."""
    for option in options:
        if getattr(config, option) < 1:
            raise ValueError(f"{option}={getattr(config, option)} must be at least 1.")
