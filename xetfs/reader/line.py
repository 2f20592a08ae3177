"""What the transfers show of the line they come over: how much to ask for at a time, and whether it can carry more.

Event loop only; seconds on trio's clock.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from xetfs.units import KIB, MIB

PART_BYTES_MIN: Final = 5 * MIB
PART_BYTES_MAX: Final = 32 * MIB
"""As long as the largest window. Each part costs the CAS a question and the transfer server a request."""
PART_S: Final = 0.3
"""How long a transfer should take: several round trips even to a server far away, so that a connection is mostly busy, and short
enough that many connections share what memory there is for bytes on the way."""
UNDER_WAY_S: Final = 6.0
"""The line is full when as much is under way as it lately brought in so long. That is longer than a transfer usually takes, so
that more and more can be under way while it helps."""
UNDER_WAY_BYTES_MIN: Final = 1 * MIB
UNDER_WAY_BYTES_FIRST: Final = 4 * MIB
"""As long as nothing is known of the line."""
ARRIVALS: Final = 16
"""The latest transfers, from whose ends the rate of the line is known."""
KNOWN_S: Final = 60.0
"""After a pause as long as this the line is an unknown one: a machine may have been carried to another network."""
TRANSFERS_UNKNOWN: Final = 4
WINDOW_S: Final = 4.0
"""A program that waits for a window, with others beside it, should have it long before its deadline."""
FAST_BYTES_S: Final = 8e6
"""Brings the longest window in 4 s, and is reached by a transfer of 1 MiB over a latency of 100 ms."""
WINDOW_BYTES_MIN: Final = 512 * KIB
SAMPLE_BYTES_MIN: Final = 1 * MIB
FORGET: Final = 1.003
"""By how much the best rate is taken to be worse after each transfer that did not reach it. It is the best that counts: when many
connections share a line each is slow, and shorter parts on still more of them would only make it worse."""


class TransferLine:
    """One for all transfers of an engine."""

    def __init__(self) -> None:
        self._began: dict[object, float] = {}  # of the transfers under way, the oldest first
        # When they ended, on a clock that stands still in pauses, and their bytes.
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=ARRIVALS)
        self._came_at = -math.inf  # when a transfer last ended
        self._paused_s = 0.0
        self._byte_s: float | None = None  # what a byte of a long transfer takes at best

    @contextmanager
    def transfer(self, size: int) -> Iterator[None]:
        """A transfer of `size` bytes is under way."""
        transfer, began = object(), trio.current_time()
        if not self._began:
            self._go_on(began)
        self._began[transfer] = began
        try:
            yield
        finally:
            del self._began[transfer]
        self._came_at = trio.current_time()
        self._arrivals.append((self._came_at - self._paused_s, size))
        if size >= SAMPLE_BYTES_MIN:
            byte_s = (trio.current_time() - began) / size
            self._byte_s = byte_s if self._byte_s is None else min(byte_s, self._byte_s * FORGET)

    def _go_on(self, now: float) -> None:
        """Something is under way again, after a pause in which nothing was, or nothing came."""
        if now - self._came_at < KNOWN_S:
            self._paused_s += now - self._came_at
        else:
            self._arrivals.clear()
            self._arrivals.append((now - self._paused_s, 0))

    @property
    def part_bytes(self) -> int:
        """How many bytes to ask for at a time when there are many to ask for: what comes in PART_S."""
        if not self._byte_s:
            return PART_BYTES_MIN
        return max(PART_BYTES_MIN, min(round(PART_S / self._byte_s), PART_BYTES_MAX))

    @property
    def is_fast(self) -> bool:
        """True if it is known that one connection brings FAST_BYTES_S."""
        return self._byte_s is not None and self._byte_s * FAST_BYTES_S <= 1

    @property
    def window_bytes_max(self) -> int:
        """How long a window may be that is loaded ahead: what comes in WINDOW_S over one connection."""
        return max(round(WINDOW_S / self._byte_s), WINDOW_BYTES_MIN) if self._byte_s else sys.maxsize

    def transfers_of(self, seconds: float, size: int) -> int:
        """How many transfers that take so long make up one of `size` bytes; a few while that is not known."""
        return TRANSFERS_UNKNOWN if self._byte_s is None else int(size * self._byte_s / seconds)

    def full(self, under_way_bytes: int) -> bool:
        """Whether the line carries no more when so much is under way: another transfer would not make the bytes come sooner, but
        take its share from those that a program waits for, which have a deadline."""
        rate = self._bytes_s
        limit = UNDER_WAY_BYTES_FIRST if rate is None else max(UNDER_WAY_S * rate, UNDER_WAY_BYTES_MIN)
        return under_way_bytes >= limit

    @property
    def _bytes_s(self) -> float | None:
        """What all transfers together brought in a second lately; None while that is not known."""
        if len(self._arrivals) < 2:
            return None
        first, last = self._arrivals[0], self._arrivals[-1]
        return (sum(size for _, size in self._arrivals) - first[1]) / max(last[0] - first[0], 1e-3)
