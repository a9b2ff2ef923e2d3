"""Declares beside each option its range, its names, and the optimizers or schedules that use it.

A dataclass says them in `typing.Annotated`; those of a field hold for the field of a subclass too.

>>> import dataclasses
>>> @dataclasses.dataclass
... class Options:
...   schedule: str = 'cosine'
...   power: Annotated[float, ABOVE_0, Only(('polynomial',), ('schedule',))] = 1.0
>>> check_ranges(Options(power=-1.0))
Traceback (most recent call last):
ValueError: power=-1.0 must be above 0, and finite.
>>> check_owners(Options(power=2.0))
Traceback (most recent call last):
ValueError: power=2.0 with schedule='cosine': it is of polynomial alone; leave it at 1.0.
"""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, get_origin

Limit = TypeVar("Limit")


class Range(NamedTuple):
    """Holds the values that a number may have.

    Attributes:
      words: what it must be.
      holds: whether a number is that.
    """

    words: str
    holds: Callable[[float], bool]


AT_LEAST_0 = Range("at least 0, and finite", lambda x: 0 <= x < math.inf)
AT_LEAST_1 = Range("at least 1", lambda x: x >= 1)
ABOVE_0 = Range("above 0, and finite", lambda x: 0 < x < math.inf)
BELOW_1 = Range("at least 0 and below 1", lambda x: 0 <= x < 1)
A_SEED = Range("from 0 to 4294967295", lambda x: 0 <= x < 2**32)
BETWEEN_0_AND_1 = Range("above 0 and below 1", lambda x: 0 < x < 1)


class OneOf(NamedTuple):
    """Holds the names that each element of an option may be."""

    names: Collection[str]


class Only(NamedTuple):
    """Says what has an option, which is refused with all else.

    Attributes:
      having: names of optimizers, or of schedules.
      chosen_by: the options that choose one.
    """

    having: tuple[str, ...]
    chosen_by: tuple[str, ...]


def of(options: type, kind: type[Limit]) -> Mapping[str, Limit]:
    """Return the limits of one kind of a dataclass, by field."""
    return {
        name: limit
        for owner in reversed(options.__mro__)
        for name, hint in inspect.get_annotations(owner).items()
        if get_origin(hint) is Annotated
        for limit in hint.__metadata__
        if isinstance(limit, kind)
    }


def default(options: Any, name: str) -> Any:
    """Return the default of an option."""
    return options.__dataclass_fields__[name].default


def check_ranges(options: Any) -> None:
    """Refuse numbers out of their ranges, one or several; None and words are not numbers."""
    for name, limit in of(type(options), Range).items():
        value = getattr(options, name)
        if value is None or isinstance(value, str):
            continue
        if not isinstance(value, tuple) and not limit.holds(value):
            raise ValueError(f"{name}={value} must be {limit.words}.")
        if isinstance(value, tuple) and not (value and all(map(limit.holds, value))):
            raise ValueError(f"{name}={value} must hold at least one number, each {limit.words}.")


def check_names(options: Any) -> None:
    """Refuse names that are none of those known."""
    for name, limit in of(type(options), OneOf).items():
        for value in getattr(options, name):
            if value not in limit.names:
                raise ValueError(f"{name} holds {value!r}: choose from {', '.join(limit.names)}.")


def check_owners(options: Any) -> None:
    """Refuse options that are given and that none of what is chosen has."""
    for name, limit in of(type(options), Only).items():
        value, usual = getattr(options, name), default(options, name)
        chosen = {of: getattr(options, of) for of in limit.chosen_by if getattr(options, of)}
        if value != usual and not {*chosen.values()} & {*limit.having}:
            with_these = " and ".join(f"{of}={choice!r}" for of, choice in chosen.items())
            raise ValueError(
                f"{name}={value} with {with_these}: it is of {' and '.join(limit.having)} alone;"
                f" leave it at {usual}."
            )
