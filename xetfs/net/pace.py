"""How long an origin usually takes, learnt from its latest answers: what a stall is, and when a request is slow.

A fixed limit is either too long, so that a program waits ten seconds for a connection that died, or too short for a server far
away. So each origin has its own measure for each kind of request, as it may plan slowly and send fast: the longest silence of
each of its latest answers (until the headers, or within the body), and the seconds that their bytes took. Only answers that came
count: a server that has gone silent does not make silence usual. One that has merely become slow is not given up at the first
impatience, as every further attempt waits twice as long.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

SAMPLES_MAX: Final = 64
"""Answers that are remembered: enough for a quantile, few enough to follow a network that changes."""
SAMPLES_MIN: Final = 8
"""Answers before anything is called usual."""
USUAL_SHARE: Final = 0.95
STALL_FACTOR: Final = 4.0
"""A silence this many times as long as usual is a stall."""
BULK_BYTES_MIN: Final = 64 * 1024
"""Bodies from this length on say how fast bytes come; in shorter ones it is the silence that counts."""


Kind = Literal["metadata", "data"]
"""What a request asks for: an answer that is computed, or bytes that lie there."""


class Samples:
    """The latest values of one measure and the one that 95 in 100 do not exceed."""

    __slots__ = ("_usual", "_values")

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=SAMPLES_MAX)
        self._usual: float | None = None

    def add(self, value: float) -> None:
        self._values.append(value)
        self._usual = None

    @property
    def usual(self) -> float | None:
        """None while there are too few."""
        if self._usual is None and len(self._values) >= SAMPLES_MIN:
            ordered = sorted(self._values)
            self._usual = ordered[min(int(USUAL_SHARE * len(ordered)), len(ordered) - 1)]
        return self._usual


class Pace:
    """What one origin has shown lately of one kind of request. Seconds on trio's clock. Event loop only."""

    def __init__(self, *, floor_s: float, first_s: float, ceiling_s: float) -> None:
        """floor_s, ceiling_s: no silence shorter than the one is called a stall, none longer than the other is not.
        first_s: what a first attempt is given while little is known."""
        self._floor_s = min(floor_s, ceiling_s)
        self._first_s = first_s
        self._ceiling_s = ceiling_s
        self._silences = Samples()
        self._byte_times = Samples()

    def note_silence(self, seconds: float) -> None:
        """This was the longest silence of an answer that came: until its headers, or within its body."""
        self._silences.add(seconds)

    def note_body(self, length: int, seconds: float) -> None:
        """A body of `length` bytes came whole, in so many seconds after its headers."""
        if length >= BULK_BYTES_MIN:
            self._byte_times.add(seconds / length)

    def patience_s(self, attempt: int) -> float:
        """The silence after which attempt number `attempt` (from 1) is given up. Twice as long each time, as slow is not dead."""
        usual_s = self._silences.usual
        first_s = self._first_s if usual_s is None else max(self._floor_s, STALL_FACTOR * usual_s)
        return min(self._ceiling_s, first_s * (1 << min(attempt - 1, 16)))

    def usual_s(self, length: int) -> float | None:
        """How long nearly every request for so many bytes takes at most; None while little is known."""
        silence_s, byte_time_s = self._silences.usual, self._byte_times.usual
        if silence_s is None or (byte_time_s is None and length >= BULK_BYTES_MIN):
            return None
        return silence_s + length * (byte_time_s or 0.0)

    def __repr__(self) -> str:
        return f"Pace(patience_s={self.patience_s(1):.3f}, usual_s={self.usual_s(0)})"
