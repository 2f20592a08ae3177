"""Tasks that nobody waits for.

They run in a nursery of the engine and end with it. An unexpected exception in one must not end the engine: it is a bug, and is
logged.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger(__name__)


def run_detached(nursery: trio.Nursery, run: Callable[[], Awaitable[object]], what: str) -> None:
    """Call `run` in a task of `nursery`, and log any exception it raises. what: names the task in the log, as in "probing X"."""
    nursery.start_soon(_guard, run, what, name=what)


async def _guard(run: Callable[[], Awaitable[object]], what: str) -> None:
    try:
        await run()
    except Exception:
        log.exception("a bug: %s failed", what)
