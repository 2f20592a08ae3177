"""A limit on the work in flight that adapts to what the network carries."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class AdaptiveLimiter:
    """Bounds the total cost of the work in flight by additive increase and multiplicative decrease (AIMD).

    Work that times out halves the limit, down to `least`; work that succeeds raises it by `step`, up to `most`. First come, first
    served; work that costs more than the limit runs alone. Event loop only.
    """

    def __init__(self, *, most: int, least: int, step: int) -> None:
        self.limit = most
        self.held = 0
        self._most = most
        self._least = least
        self._step = step
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    @asynccontextmanager
    async def hold(self, cost: int) -> AsyncIterator[None]:
        """Wait until `cost` fits, and hold it in the block. trio.TooSlowError out of the block lowers the limit."""
        await self._acquire(cost)
        limit = self.limit
        try:
            yield
            self.limit = min(self.limit + self._step, self._most)
        except trio.TooSlowError:
            self.limit = max(limit // 2, self._least)
            raise
        finally:
            self.held -= cost
            self._wake()

    async def _acquire(self, cost: int) -> None:
        turn = (cost, trio.Event())
        self._waiting.append(turn)
        self._wake()
        try:
            await turn[1].wait()
        except trio.Cancelled:
            if turn[1].is_set():  # granted and cancelled at the same time
                self.held -= cost
            else:
                self._waiting.remove(turn)
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting:
            cost, granted = self._waiting[0]
            if self.held and self.held + cost > self.limit:
                return
            self._waiting.popleft()
            self.held += cost
            granted.set()

    def __repr__(self) -> str:
        return f"AdaptiveLimiter({self.held} of {self.limit}, {len(self._waiting)} waiting)"
