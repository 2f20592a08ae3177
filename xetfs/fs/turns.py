"""Which of pyfuse3's tasks waits for the next request.

pyfuse3 has a few tasks, each of which waits for a request, reads it and answers it. A lock sees to it that one waits at a time.
trio's is fair: it passes to another task as soon as a request has come. As nearly all requests are answered at once by the task
that has read them, each would cost a change of tasks for nothing, which is more than half of what pyfuse3 and trio take for it
(measured: 28 µs of CPU time for a read of 4 KiB that is answered with a constant, 17 with the lock below).

So here the lock may be taken again by the task that gave it up, and passes to another only when the event loop has nothing left
to do and still nobody waits for a request: then that task waits for something else, or has ended.

pyfuse3 looks trio up in its own module, where its asyncio mode puts something else in place as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Final

import pyfuse3
import trio


class Turn(trio.abc.Instrument):
    """The lock. Its holder must wait for nothing but the request while it holds it."""

    def __init__(self) -> None:
        self._is_taken = False
        self._others = trio.lowlevel.ParkingLot()
        self._token: trio.lowlevel.TrioToken | None = None

    async def __aenter__(self) -> None:
        while self._is_taken:
            await self._others.park()
        self._is_taken = True

    async def __aexit__(self, *_: object) -> None:
        self._is_taken = False

    def before_io_wait(self, timeout: float) -> None:
        if not self._is_taken and self._others and self._token is not None:
            # It is too late for waking a task from here, the loop has decided how long it waits. This ends that.
            self._token.run_sync_soon(self._pass_on, idempotent=True)

    def _pass_on(self) -> None:
        if not self._is_taken:
            self._others.unpark()

    @contextmanager
    def in_this_run(self) -> Iterator[None]:
        """Pass the lock on while this lasts, in the event loop that is running."""
        self._token = trio.lowlevel.current_trio_token()
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)


_turn: Final = Turn()
"""The only one, as pyfuse3 keeps its lock for the life of the process."""


@contextmanager
def quick_turns() -> Iterator[None]:
    """Let pyfuse3's tasks wait in this way; to be entered where its main loop is run."""
    pyfuse3.trio = SimpleNamespace(**{**vars(trio), "Lock": lambda: _turn})  # type: ignore[attr-defined]
    with _turn.in_this_run():
        yield
