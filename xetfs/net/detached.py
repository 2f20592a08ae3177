"""Tasks that outlive the call that starts them.

They run in the nursery of the HTTP client, and so end with the engine. An error in one must not end the engine: it is a bug, and
goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger(__name__)


def run_detached(nursery: trio.Nursery, run: Callable[[], Awaitable[object]], what: str) -> None:
    """Call `run` in a task of `nursery`. It may end by any exception; what: names the task in the log."""
    nursery.start_soon(_guard, run, what, name=what)


async def _guard(run: Callable[[], Awaitable[object]], what: str) -> None:
    try:
        await run()
    except Exception:
        log.exception("a bug: %s failed", what)
