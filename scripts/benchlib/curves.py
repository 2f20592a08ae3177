"""The cost of an operation while the repo, the file, the number of shards or the cache grows.

A curve is judged by what the largest size costs over what the smallest does. The sizes of a curve lie a factor of 64 to 1000
apart. A cost that goes with the size would grow as much, one with a search among all of them by a quarter or so; and CPU time
varies by a third by itself where other programs share the caches of the processor. So growth begins at twice as much for CPU
time, and at a quarter more for what is counted, such as requests, which vary only with where chunks happen to end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from benchlib.figures import Spread

GROWTH_MAX: Final = 2.0
"""Maximum growth of CPU time and memory."""
COUNT_GROWTH_MAX: Final = 1.25
"""Maximum growth of requests and bytes."""
Sample = TypeVar("Sample")


@dataclass(frozen=True, slots=True)
class Curve:
    """One cost by size. axis: what grows; points: by size, in order, the values of each round. growth_max: None where growth is
    expected, and only shown."""

    scenario: str
    name: str
    how: str
    unit: str
    axis: str
    points: Mapping[int, tuple[float, ...]]
    growth_max: float | None = GROWTH_MAX

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def sizes(self) -> list[int]:
        return list(self.points)

    @property
    def medians(self) -> list[float]:
        return [Spread.of(values).median for values in self.points.values()]

    @property
    def growths(self) -> tuple[float, ...]:
        """Cost at the largest size over that at the smallest, for each round. From 0 to 0 is no growth."""
        first, *_, last = self.points.values()
        return tuple(_over(large, small) for small, large in zip(first, last, strict=True))

    @property
    def growth(self) -> float:
        return Spread.of(self.growths).median

    @property
    def is_flat(self) -> bool | None:
        return None if self.growth_max is None else self.growth <= self.growth_max


def _over(large: float, small: float) -> float:
    if small == 0:
        return 1.0 if large == 0 else float("inf")
    return large / small


def by_size(
    samples: Mapping[str, Sequence[Sample]], sizes: Mapping[str, int], value: Callable[[Sample], float]
) -> dict[int, tuple[float, ...]]:
    """Return the points of a curve from the passes of the systems, each of which is one size."""
    return {size: tuple(value(sample) for sample in samples[system]) for system, size in sizes.items()}
