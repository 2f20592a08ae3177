"""One limit on the bytes that all readers together have on the wire, decoded, or waiting to be written.

Who wants bytes waits until they fit; demand (a program waits for it) goes before prefetch (nobody does yet). A request larger
than the whole budget is granted when nothing else is held, so that nothing waits for ever. Nobody waits for bytes while holding
some, so there is no deadlock. While the line is known to be full, prefetch gets nothing: it would only slow down what is on its
way, until that comes too late. Event loop only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from xetfs.reader.line import TransferLine


@dataclass(slots=True, eq=False)
class Urgency:
    """Whether somebody waits for a piece of work; shared by all that is done for it, so that it can be raised on the way."""

    demand: bool


@dataclass(slots=True, eq=False)
class _Waiter:
    amount: int
    urgency: Urgency
    granted: trio.Event = field(default_factory=trio.Event)


class Budget:
    def __init__(self, limit: int, *, reclaim: Callable[[int], int] = lambda amount: 0) -> None:
        """limit: bytes. reclaim(n): called when n more bytes are needed; drops what can be dropped at once, and says how much."""
        self.limit = limit
        self.held = 0
        self.held_most = 0
        self._under_way = 0
        self._reclaim = reclaim
        self.line = TransferLine()
        self._waiting: deque[_Waiter] = deque()

    async def acquire(self, amount: int, urgency: Urgency) -> None:
        """Wait until `amount` bytes are ours. A cancelled wait holds nothing."""
        waiter = _Waiter(amount, urgency)
        self._waiting.append(waiter)
        self.wake()
        try:
            await waiter.granted.wait()
        except trio.Cancelled:
            if waiter.granted.is_set():
                self.release(amount)
            else:
                self._waiting.remove(waiter)
                self.wake()
            raise

    def add(self, amount: int) -> None:
        """Count bytes that exist already, such as what a buffer was decoded into; may exceed the limit for a moment."""
        self._take(amount)

    def release(self, amount: int) -> None:
        """Give back what was acquired."""
        self._under_way -= amount
        self.subtract(amount)

    def subtract(self, amount: int) -> None:
        """The opposite of `add`."""
        self.held -= amount
        self.wake()

    def wake(self) -> None:
        """Grant what fits now; to be called, too, when an urgency was raised or something has become reclaimable."""
        while self._waiting:
            waiter = next((waiter for waiter in self._waiting if waiter.urgency.demand), self._waiting[0])
            if not waiter.urgency.demand and self.line.full(self._under_way):
                return
            if not self._fits(waiter.amount):
                return  # whoever comes later and needs less must not starve the one that is next
            self._waiting.remove(waiter)
            self._take(waiter.amount)
            self._under_way += waiter.amount
            waiter.granted.set()

    def _fits(self, amount: int) -> bool:
        excess = self.held + amount - self.limit
        if excess > 0:
            self.held -= self._reclaim(excess)
        return self.held == 0 or self.held + amount <= self.limit

    def _take(self, amount: int) -> None:
        self.held += amount
        self.held_most = max(self.held_most, self.held)

    def __repr__(self) -> str:
        return f"Budget({self.held}/{self.limit}, {len(self._waiting)} waiting)"
