"""Numbers with a spread, and targets to judge them by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Sample = TypeVar("Sample")


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be; the value itself is good enough."""

    kind: Literal["at least", "at most"]
    value: float

    def reached(self, value: float) -> bool:
        return value >= self.value if self.kind == "at least" else value <= self.value

    def share(self, value: float) -> float:
        """How much of the target a value is: 1 is just reached, more is better, whichever way the target looks."""
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
    """The median of some rounds, with the least and the greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError when there are none."""
        if not values:
            raise ValueError("no values")
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result. name: what it is of; how: what was measured, and how; values: one per round."""

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
        """Whether the median is good enough; None without a target."""
        return None if self.target is None else self.target.reached(self.spread.median)

    @property
    def is_ratio(self) -> bool:
        return self.unit == "×"


def ratios(over: Iterable[float], under: Iterable[float]) -> tuple[float, ...]:
    """Round by round: what was measured one after the other had the same machine beneath it."""
    return tuple(a / b for a, b in zip(over, under, strict=True))


def each(samples: Iterable[Sample], value: Callable[[Sample], float]) -> tuple[float, ...]:
    return tuple(value(sample) for sample in samples)


def number(value: float) -> str:
    """With three or four digits, and without a tail of zeros."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 1 else f"{value:.3g}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
