"""Hedged requests: the next attempt starts before the last has ended, if that takes unusually long; the first to succeed wins.

Most causes of tail latency (a lost packet, a busy front end, a dead connection) have nothing to do with what is asked for, and do
not affect a second request. Hedges are bounded: each request earns a small share of one, so that when everything is slow because
the link is full, they do not make it worse. Both attempts write the same bytes to the same buffer, which costs no memory; a host
that answers them differently is caught by the hashes.

The figure that pays for it: with 1 in 100 requests never answered at 40 ms, the 99th percentile is 0.5 s in place of 2.1 s.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from xetfs.errors import XetfsError
from xetfs.net.latency import LatencyEstimator
from xetfs.telemetry import NET_HEDGES, NET_HEDGES_WON, Counters

log = logging.getLogger(__name__)

HEDGE_AFTER_MIN_S: Final = 0.5
"""Shortest delay before a hedge: a pause of our own process, or of the kernel, must not look like a slow server."""
HEDGE_FACTOR: Final = 1.5
"""A request is slow when it takes this many times as long as the 95th percentile."""
HEDGE_SHARE: Final = 1 / 20
"""Hedges per request, in the long run."""
CREDIT_MAX: Final = 4.0
"""Most hedges that may be saved up, and so sent in a row."""
CREDIT_FIRST: Final = 1.0

T = TypeVar("T")


def hedge_after_s(latency: LatencyEstimator, length: int) -> float | None:
    """Seconds after which to hedge a request for `length` bytes, or None while there is no estimate."""
    p95_s = latency.p95_s(length)
    return None if p95_s is None else max(HEDGE_AFTER_MIN_S, HEDGE_FACTOR * p95_s)


class Hedger:
    """Sends hedges and keeps them few. One per client; event loop only."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._credit = CREDIT_FIRST

    async def run(self, attempt: Callable[[], Awaitable[T]], *, after_s: float | None, may_hedge: Callable[[], bool]) -> T:
        """Return what `attempt` returns, called a second time if the first takes longer than `after_s` and `may_hedge` allows.

        after_s: None for no hedge. Raises what the first call raised, unless the second succeeds. Nothing runs on when this
        returns.
        """
        self._credit = min(CREDIT_MAX, self._credit + HEDGE_SHARE)
        if after_s is None:
            return await attempt()
        values: dict[int, T] = {}
        errors: dict[int, XetfsError] = {}
        started = 1

        async def call(number: int) -> None:
            try:
                values[number] = await attempt()
            except XetfsError as error:
                errors[number] = error
            if values or len(errors) == started:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 1)
            await trio.sleep(after_s)
            if self._credit >= 1 and may_hedge():
                self._credit -= 1
                self._counters.add(NET_HEDGES)
                log.debug("hedging a slow request after_s=%.2f", after_s)
                started = 2
                nursery.start_soon(call, 2)
        for number, value in values.items():  # the first that was put there won
            if number == 2:
                self._counters.add(NET_HEDGES_WON)
            return value
        raise errors.get(1) or errors[2]
