"""Work that several tasks wait for and none of them owns.

A flight runs in the engine's nursery. Tasks join it, wait, and leave; when the last one leaves before it has landed, it is
cancelled. Its error is given to everybody who waits. Between two awaits nothing else runs, so `join` and `leave` need no lock;
they must be called from the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Flight(Generic[T]):
    """One piece of shared work and its result."""

    def __init__(
        self, nursery: trio.Nursery, work: Callable[[], Awaitable[T]], *, on_end: Callable[[], None] | None = None
    ) -> None:
        """Start `work` in `nursery`. `on_end` is called once, when it has landed, failed or been cancelled."""
        self._waiters = 0
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._result: T | None = None
        self._error: Exception | None = None
        self._landed = False
        self._on_end = on_end
        nursery.start_soon(self._run, work)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self._ended.is_set() or self._scope.cancel_called

    async def _run(self, work: Callable[[], Awaitable[T]]) -> None:
        try:
            with self._scope:
                self._result = await work()
                self._landed = True
        except Exception as exc:  # kept for those who wait; they handle it
            self._error = exc
        finally:
            self._ended.set()
            if self._on_end is not None:
                self._on_end()

    def join(self) -> None:
        """Count one more waiter; each `join` needs its `leave`."""
        self._waiters += 1

    def leave(self) -> None:
        self._waiters -= 1
        if self._waiters == 0 and not self._ended.is_set():
            self._scope.cancel()

    async def wait_ended(self) -> None:
        """Wait until there is nothing left to wait for; for somebody who has not joined and wants no result."""
        await self._ended.wait()

    async def wait(self) -> T:
        """The result of the work, or its error. The caller has joined."""
        await self._ended.wait()
        if self._error is not None:
            # Every waiter raises the same object: without this each would append its frames to a shared traceback.
            raise self._error.with_traceback(None)
        if not self._landed:
            raise RuntimeError("waited for a flight that was cancelled")
        return self._result  # type: ignore[return-value]
