"""How long an origin usually takes to answer, estimated from its latest answers.

A fixed stall timeout is either too long, so that a program waits ten seconds for a dead connection, or too short for a distant
server. So each origin has one estimator per kind of request, as a server may plan slowly and send fast. It keeps two measures of
each recent answer: its longest silence (before the headers or within the body) and the seconds per byte of its body. Only
answers that arrived count, so a server that has gone silent does not make silence look normal. A server that has merely become
slow is not given up: each further attempt waits twice as long.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

SAMPLES_MAX: Final = 64
"""Answers remembered: enough for a quantile, few enough to follow a network that changes."""
SAMPLES_MIN: Final = 8
"""Answers needed before there is an estimate."""
PERCENTILE: Final = 0.95
STALL_FACTOR: Final = 4.0
"""A silence this many times as long as the 95th percentile is a stall."""
BULK_BYTES_MIN: Final = 64 * 1024
"""Bodies from this length on measure the time per byte. In shorter ones latency dominates."""


Kind = Literal["metadata", "data"]
"""What a request asks for: an answer that the server computes, or stored bytes."""


class Samples:
    """The latest values of one measure, and their 95th percentile."""

    __slots__ = ("_p95", "_values")

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=SAMPLES_MAX)
        self._p95: float | None = None

    def add(self, value: float) -> None:
        self._values.append(value)
        self._p95 = None

    @property
    def p95(self) -> float | None:
        """None while there are fewer than SAMPLES_MIN values."""
        if self._p95 is None and len(self._values) >= SAMPLES_MIN:
            ordered = sorted(self._values)
            self._p95 = ordered[min(int(PERCENTILE * len(ordered)), len(ordered) - 1)]
        return self._p95


class LatencyEstimator:
    """Recent latency of one kind of request to one origin, in seconds on trio's clock. Event loop only."""

    def __init__(self, *, floor_s: float, first_s: float, ceiling_s: float) -> None:
        """floor_s, ceiling_s: bounds of the stall timeout. first_s: timeout of a first attempt while there is no estimate."""
        self._floor_s = min(floor_s, ceiling_s)
        self._first_s = first_s
        self._ceiling_s = ceiling_s
        self._silences = Samples()
        self._byte_times = Samples()

    def note_silence(self, seconds: float) -> None:
        """Record the longest silence of an answer that arrived, before its headers or within its body."""
        self._silences.add(seconds)

    def note_body(self, length: int, seconds: float) -> None:
        """Record that a body of `length` bytes arrived whole, `seconds` after its headers."""
        if length >= BULK_BYTES_MIN:
            self._byte_times.add(seconds / length)

    def stall_timeout_s(self, attempt: int) -> float:
        """The silence after which attempt number `attempt` (from 1) is given up. It doubles with each attempt."""
        p95_s = self._silences.p95
        first_s = self._first_s if p95_s is None else max(self._floor_s, STALL_FACTOR * p95_s)
        return min(self._ceiling_s, first_s * (1 << min(attempt - 1, 16)))

    def p95_s(self, length: int) -> float | None:
        """How long 95 % of requests for `length` bytes take at most, or None while there is no estimate."""
        silence_s, byte_time_s = self._silences.p95, self._byte_times.p95
        if silence_s is None or (byte_time_s is None and length >= BULK_BYTES_MIN):
            return None
        return silence_s + length * (byte_time_s or 0.0)

    def __repr__(self) -> str:
        return f"LatencyEstimator(stall_timeout_s={self.stall_timeout_s(1):.3f}, p95_s={self.p95_s(0)})"
