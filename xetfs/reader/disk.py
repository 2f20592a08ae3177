"""Calls of the store in worker threads, each for a bounded time.

A disk that fails says so; a disk that hangs (a network file system whose server is away, a dying drive) does not, and a thread
that waits for it cannot be ended. So a call that takes too long is abandoned and counts as a miss, and until every abandoned
thread has come back the disk is left alone: calls are misses at once. At most as many threads hang as the limiters of the calls
allow. Event loop only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

import trio

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


class _Call:
    __slots__ = ("abandoned", "running")

    def __init__(self) -> None:
        self.running = False
        self.abandoned = False


class DiskCalls:
    """patience_s: longest wait for one call. on_change: told when the disk begins to hang (True) and when it has answered."""

    def __init__(self, patience_s: float, *, on_change: Callable[[bool], None]) -> None:
        self._patience_s = patience_s
        self._on_change = on_change
        self._abandoned = 0
        self._lock = threading.Lock()  # between a call that is being abandoned and the thread that comes back

    @property
    def hangs(self) -> bool:
        """True while a thread that was abandoned has not come back."""
        return self._abandoned > 0

    async def run(
        self, function: Callable[P, T], missing: D, limiter: trio.CapacityLimiter, *args: P.args, **kwargs: P.kwargs
    ) -> T | D:
        """Return what `function` returns in a worker thread, or `missing` if the disk does not answer.

        Raises what it raises. A cancelled caller waits for the thread too, for the same time at most: writes are not left half
        done. The function must not be harmed by ending later than its caller.
        """
        if self.hangs:
            return missing
        call, token = _Call(), trio.lowlevel.current_trio_token()

        def work() -> T:
            call.running = True
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    call.running = False
                    late = call.abandoned
                if late:
                    with suppress(trio.RunFinishedError):
                        token.run_sync_soon(self._came_back)

        with trio.CancelScope(deadline=trio.current_time() + self._patience_s, shield=True):
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)
        with self._lock:
            call.abandoned = call.running  # not one that was still waiting for a thread
        if call.abandoned:
            self._abandoned += 1
            if self._abandoned == 1:
                log.warning("the disk of the cache has not answered for %g s, going on without it", self._patience_s)
                self._on_change(True)
        return missing

    def _came_back(self) -> None:
        self._abandoned -= 1
        if not self._abandoned:
            log.info("the disk of the cache answers again")
            self._on_change(False)
