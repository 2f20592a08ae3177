"""Waiting as long as a server asks: for work in the background, which has no deadline."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from xetfs.errors import RateLimited, Unavailable, XetfsError

log = logging.getLogger(__name__)

RETRY_S: Final = 2.0
RETRY_MAX_S: Final = 60.0
"""First and longest pause when nothing is asked for; a request has had several attempts by then."""

T = TypeVar("T")


async def patiently(
    work: Callable[[], Awaitable[T]],
    *,
    errors: tuple[type[Exception], ...] = (RateLimited,),
    on_wait: Callable[[str], None] = lambda reason: None,
) -> T:
    """Call `work` again and again while it fails with one of `errors`, after pauses as long as the server asks.

    on_wait: called with the reason before each pause. Raises what else `work` raises.
    """
    pause_s = RETRY_S
    while True:
        try:
            return await work()
        except errors as exc:
            asked_s = exc.retry_after_s if isinstance(exc, RateLimited | Unavailable) else None
            wait_s = max(pause_s, asked_s or 0.0)
            reason = str(exc) if isinstance(exc, XetfsError) else "no answer in time"
            on_wait(reason)
            log.info("background work waits pause_s=%.0f: %s", wait_s, reason)
        await trio.sleep(wait_s)
        pause_s = min(2 * pause_s, RETRY_MAX_S)
