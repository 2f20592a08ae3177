"""Retries: how often, after how long, and when not.

The only place that repeats a request; everything below makes one attempt, everything above takes the result as final. The pause
doubles, is drawn at random below its bound so that many readers do not come back at once ("full jitter"), and gives way to
what the server asks for. Nobody sleeps past a deadline: an error is raised as soon as it is certain.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from xetfs.errors import RateLimited, Unavailable, XetfsError
from xetfs.telemetry import NET_FAILURES, NET_RETRIES, Counters

log = logging.getLogger(__name__)

PAUSE_FIRST_S: Final = 0.25
PAUSE_MAX_S: Final = 8.0
TOLD_PAUSE_S: Final = 1.0
"""Pauses from this length on that a server asks for are logged at INFO, as somebody may wonder why a program waits."""

T = TypeVar("T")


async def with_retries(attempt: Callable[[int], Awaitable[T]], *, attempts_max: int, counters: Counters, pause_max_s: float) -> T:
    """Call `attempt` with the number of the attempt, from 1, until it succeeds, fails for good, or has been called attempts_max
    times.

    pause_max_s: a server that asks to wait longer is not waited for: whoever waits would have given up by then, and would not
    have heard why. Work in the background waits by itself (repo/patience.py).
    Raises what the last attempt raised. Returns early with that error when the pause would reach past the caller's deadline.
    """
    for number in range(1, attempts_max + 1):
        try:
            return await attempt(number)
        except XetfsError as error:
            await trio.lowlevel.checkpoint_if_cancelled()  # an attempt cut short by the caller's own deadline
            pause_s = pause_before_retry(error, number, pause_max_s)
            if not error.retryable or number == attempts_max or pause_s is None or _past_deadline(pause_s):
                counters.add(NET_FAILURES)
                raise
            counters.add(NET_RETRIES)
            level = logging.INFO if _asked_s(error) >= TOLD_PAUSE_S else logging.DEBUG
            log.log(level, "trying again: %s attempt=%d pause_s=%.2f", error, number, pause_s)
        await trio.sleep(pause_s)
    raise ValueError(f"attempts_max must be at least 1, got {attempts_max}")


def pause_before_retry(error: XetfsError, number: int, pause_max_s: float) -> float | None:
    """Seconds to wait after failed attempt `number` (1 is the first); None if the server asks for more than pause_max_s."""
    if isinstance(error, Unavailable) and error.unconnected and number == 1:
        return 0.0
    asked_s = _asked_s(error)
    jitter_s = random.uniform(0, min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** (number - 1)))
    # The jitter comes on top: everybody was told the same moment.
    return asked_s + jitter_s if asked_s <= pause_max_s else None


def _asked_s(error: XetfsError) -> float:
    asked_s = error.retry_after_s if isinstance(error, RateLimited | Unavailable) else None
    return asked_s or 0.0


def _past_deadline(pause_s: float) -> bool:
    return trio.current_time() + pause_s >= trio.current_effective_deadline()
