"""How many requests one server is asked at a time.

A request holds a place from before it is sent until its answer has been read. One whose server has gone silent still holds its
connection, but loads nobody; thirty such, and everybody else would wait for what only they have met. So while requests wait for a
place, those that are silent for much longer than that server usually is do not count, up to a larger limit. A task of the client
counts them, as that belongs to no request; it ends when nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from xetfs.net.detached import run_detached

SILENT_S: Final = 1.0
"""No shorter silence makes a place free for another."""
SILENT_FACTOR: Final = 2.0
"""Nor one shorter than this many times what is usual."""
COUNT_PAUSE_S: Final = 0.25
"""How often silent requests are counted while others wait."""
LENT_FACTOR: Final = 3
"""Most requests that do not count, for each that does."""


class Place:
    """heard_at: when its request was last answered something, or when it was taken."""

    __slots__ = ("heard_at",)

    def __init__(self) -> None:
        self.heard_at = trio.current_time()


class Places:
    """Those at one server. Event loop only."""

    def __init__(self, count: int, usual_s: Callable[[], float], nursery: trio.Nursery) -> None:
        """usual_s: the silence that nearly all answers of that server stay below, 0 while it is not known. nursery: for the task
        that counts."""
        self._count = count
        self._usual_s = usual_s
        self._nursery = nursery
        self._limiter = trio.CapacityLimiter(count)
        self._taken: set[Place] = set()
        self._counting: trio.CancelScope | None = None

    @property
    def busy(self) -> int:
        """Requests under way or waiting for their turn."""
        return len(self._taken) + self._limiter.statistics().tasks_waiting

    @property
    def spare(self) -> bool:
        """Whether a place is free and nobody waits for it."""
        return self._limiter.available_tokens > 0

    async def take(self) -> Place:
        """Wait for a place, which is for `give_back`; a cancelled wait takes none."""
        place = Place()
        if not self.spare and self._counting is None:
            self._counting = trio.CancelScope()
            run_detached(self._nursery, partial(self._lend, self._counting), "counting silent requests")
        await self._limiter.acquire_on_behalf_of(place)  # not of the task: one task may hold two places
        place.heard_at = trio.current_time()
        self._taken.add(place)
        return place

    def give_back(self, place: Place) -> None:
        self._taken.remove(place)
        self._limiter.release_on_behalf_of(place)

    def close(self) -> None:
        if self._counting is not None:
            self._counting.cancel()

    async def _lend(self, scope: trio.CancelScope) -> None:
        """As long as requests wait, leave those that are silent out of the count."""
        try:
            with scope:
                while self._limiter.statistics().tasks_waiting:
                    self._limiter.total_tokens = self._count + min(self._silent(), LENT_FACTOR * self._count)
                    await trio.sleep(COUNT_PAUSE_S)
        finally:
            self._limiter.total_tokens = self._count
            self._counting = None

    def _silent(self) -> int:
        since = trio.current_time() - max(SILENT_S, SILENT_FACTOR * self._usual_s())
        return sum(place.heard_at <= since for place in self._taken)

    def __repr__(self) -> str:
        return f"Places({len(self._taken)} of {self._count} taken, {self._limiter.statistics().tasks_waiting} waiting)"
