"""Says where the hyperparameters of a search are drawn from."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Says where a hyperparameter is drawn from: the logarithm uniformly from `low` to `high`."""

    low: float
    high: float

    def __str__(self) -> str:
        """Return the range in words."""
        return f"{self.low:g} to {self.high:g}"

    def at(self, share: float) -> float:
        """Return the number that a share of the range lies below, to three digits."""
        return self._rounded(self.low * (self.high / self.low) ** share)

    def _rounded(self, x: float) -> float:
        return min(max(float(f"{x:.3g}"), self.low), self.high)


class Linear(Range):
    """Says that a hyperparameter is drawn uniformly from `low` to `high`."""

    def at(self, share: float) -> float:
        """Return the number that a share of the range lies below, to three digits."""
        return self._rounded(self.low + (self.high - self.low) * share)


class Choice(NamedTuple):
    """Says which values a hyperparameter is drawn from, each as often."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        """Return the values in words."""
        return " or ".join(f"{value:g}" for value in self.values)

    def at(self, share: float) -> float:
        """Return the value that a share of them lies before."""
        return self.values[int(share * len(self.values))]


Space = Mapping[str, Range | Choice]
Point = dict[str, Any]  # Numbers by what is drawn.

# What may be drawn in place of options: these, from the number that is drawn and all others.
DERIVED: Mapping[str, Callable[[float, Point], Point]] = {
    "1 - momentum": lambda x, point: {"momentum": 1 - x},
    "1 - b1": lambda x, point: {"b1": 1 - x},
    "1 - b2": lambda x, point: {"b2": 1 - x},
    "final_rate / learning_rate": lambda x, point: {"final_rate": x * point["learning_rate"]},
    "power": lambda x, point: {"warmup_power": x, "decay_power": x},
}


def options_of(point: Point) -> Point:
    """Return what is drawn as options."""
    options: Point = {}
    for name, x in point.items():
        derived = DERIVED[name](x, point) if name in DERIVED else {name: x}
        options |= {option: float(f"{value:.7g}") for option, value in derived.items()}
    return options
