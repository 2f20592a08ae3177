"""A second request beside one that takes unusually long: the first to finish wins, the other is cancelled.

Most of what makes the slowest requests slow (a lost packet, a busy front, a dead connection) has nothing to do with what they ask
for, and does not meet a second one. Hedges are few: each request earns a small share of one, so that when everything is slow,
because the link is full, they do not make it worse. Both requests write the same bytes to the same buffer, which costs no memory;
a host that answers them differently is found out by the hashes, as if it had lied once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import trio

from xetfs.errors import XetfsError
from xetfs.net.pace import Pace
from xetfs.telemetry import NET_HEDGES, NET_HEDGES_WON, Counters

log = logging.getLogger(__name__)

HEDGE_AFTER_MIN_S: Final = 0.5
"""No request is called slow sooner: a pause of our own process, or of the kernel, must not look like one."""
HEDGE_FACTOR: Final = 1.5
"""A request is slow when it takes this many times as long as nearly all do."""
HEDGE_SHARE: Final = 1 / 20
"""Hedges per request, in the long run."""
CREDIT_MAX: Final = 4.0
"""Hedges that may be saved up, and so come in a row."""
CREDIT_FIRST: Final = 1.0

T = TypeVar("T")


def hedge_after_s(pace: Pace, length: int) -> float | None:
    """When to hedge a request for so many bytes; None while it is not known what is usual."""
    usual_s = pace.usual_s(length)
    return None if usual_s is None else max(HEDGE_AFTER_MIN_S, HEDGE_FACTOR * usual_s)


class Hedger:
    """Sends hedges, and sees to it that they stay few. One per client; event loop only."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._credit = CREDIT_FIRST

    async def run(self, attempt: Callable[[], Awaitable[T]], *, after_s: float | None, may: Callable[[], bool]) -> T:
        """The result of `attempt`, called a second time if the first call is not done after `after_s` and `may` allows it.

        Raises what the first call raised, unless the second succeeds. Nothing of either runs on when this returns.
        """
        self._credit = min(CREDIT_MAX, self._credit + HEDGE_SHARE)
        if after_s is None:
            return await attempt()
        race = _Race(attempt)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(race.run, "first", nursery.cancel_scope)
            with trio.move_on_after(after_s):
                await race.decided.wait()
            if not race.decided.is_set() and self._credit >= 1 and may():
                self._credit -= 1
                self._counters.add(NET_HEDGES)
                log.debug("hedging a slow request after_s=%.2f", after_s)
                race.running += 1
                nursery.start_soon(race.run, "second", nursery.cancel_scope)
        if race.winner == "second":
            self._counters.add(NET_HEDGES_WON)
        return race.result()


class _Race(Generic[T]):
    """One or two calls of the same attempt. decided: one has succeeded, or none can any more."""

    def __init__(self, attempt: Callable[[], Awaitable[T]]) -> None:
        self._attempt = attempt
        self._values: list[T] = []
        self._errors: dict[str, XetfsError] = {}
        self.running = 1
        self.winner = ""
        self.decided = trio.Event()

    async def run(self, name: str, scope: trio.CancelScope) -> None:
        try:
            value = await self._attempt()
        except XetfsError as error:
            self._errors[name] = error
        else:
            if not self.winner:
                self.winner = name
                self._values.append(value)
        self.running -= 1
        if self.winner or not self.running:
            self.decided.set()
            scope.cancel()

    def result(self) -> T:
        if self._values:
            return self._values[0]
        raise self._errors.get("first") or self._errors["second"]
