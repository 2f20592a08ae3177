"""How pyfuse3's tasks wait for the next request.

pyfuse3 has a few tasks, each of which waits for a request, reads it and answers it. That takes more time in trio than in the
kernel, for nothing as long as requests are answered at once, which nearly all are. So two things that pyfuse3 takes from trio are
other ones here. (Measured: 28 µs of CPU time for a read of 4 KiB that is answered with a `pread`, 17 with the first of them, 12
with both.)

The lock that lets one task wait at a time: trio's is fair and passes to another task as soon as a request has come, a change of
tasks for each request. `Turn` may be taken again by the task that gave it up, and passes to another only when the event loop has
nothing left to do and still nobody waits for a request: then that task waits for something else, or has ended.

The wait itself: `Doorbell` first looks whether there is a request already, as there is when several programs read, or the kernel
reads ahead, and goes round through the event loop only when there is none or others have waited for their turn long enough.

pyfuse3 looks trio up in its own module, where its asyncio mode puts something else in place as well.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Final

import pyfuse3
import trio

BUSY_S_MAX: Final = 0.0005
"""How long requests may be answered one after the other while other tasks wait: that of a reply of 1 MiB or two."""


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


class Doorbell:
    """Waits until a descriptor is readable."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._gave_way_at = clock()
        self._polls: dict[int, Callable[[int], list[tuple[int, int]]]] = {}

    async def wait_readable(self, fd: int) -> None:
        """Without giving way to other tasks if it is readable, unless the last time was long ago."""
        if self._clock() - self._gave_way_at < BUSY_S_MAX and self._poll(fd)(0):
            return
        await trio.lowlevel.wait_readable(fd)
        self._gave_way_at = self._clock()

    def _poll(self, fd: int) -> Callable[[int], list[tuple[int, int]]]:
        poll = self._polls.get(fd)
        if poll is None:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poll = self._polls[fd] = poller.poll
        return poll


_turn: Final = Turn()
"""The only one, as pyfuse3 keeps its lock for the life of the process."""


@contextmanager
def quick_turns() -> Iterator[None]:
    """Let pyfuse3's tasks wait in this way; to be entered where its main loop is run."""
    lowlevel = SimpleNamespace(**{**vars(trio.lowlevel), "wait_readable": Doorbell().wait_readable})
    pyfuse3.trio = SimpleNamespace(**{**vars(trio), "Lock": lambda: _turn, "lowlevel": lowlevel})  # type: ignore[attr-defined]
    with _turn.in_this_run():
        yield
