"""Measured values with their spread, and targets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Sample = TypeVar("Sample")


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for a figure; the bound itself is good enough."""

    kind: Literal["at least", "at most"]
    value: float

    def reached(self, value: float) -> bool:
        return value >= self.value if self.kind == "at least" else value <= self.value

    def share(self, value: float) -> float:
        """Return how much of the target a value reaches: 1 is just reached, and more is better for both kinds."""
        if self.kind == "at least":
            return value / self.value
        if value == self.value:
            return 1.0
        return self.value / value if value else math.inf

    def __str__(self) -> str:
        return f"{'≥' if self.kind == 'at least' else '≤'} {number(self.value)}"


def at_least(value: float) -> Target:
    return Target("at least", value)


def at_most(value: float) -> Target:
    return Target("at most", value)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, with their minimum and maximum."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError if there are no values."""
        if not values:
            raise ValueError("no values")
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the results. how: what was measured, and how; values: one per round."""

    scenario: str
    name: str
    how: str
    unit: str
    values: tuple[float, ...]
    target: Target | None = None

    @property
    def spread(self) -> Spread:
        return Spread.of(self.values)

    @property
    def reached(self) -> bool | None:
        """True if the median reaches the target; None without a target."""
        return None if self.target is None else self.target.reached(self.spread.median)

    @property
    def is_ratio(self) -> bool:
        return self.unit == "×"


def ratios(over: Iterable[float], under: Iterable[float]) -> tuple[float, ...]:
    """Return the ratio of each round: neighbours in time had the same machine."""
    return tuple(a / b for a, b in zip(over, under, strict=True))


def each(samples: Iterable[Sample], value: Callable[[Sample], float]) -> tuple[float, ...]:
    return tuple(value(sample) for sample in samples)


def number(value: float) -> str:
    """Format with three or four digits, without trailing zeros."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 1 else f"{value:.3g}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
