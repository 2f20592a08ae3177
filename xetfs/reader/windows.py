"""Stretches of one file on their way, each one flight of its source.

Whoever needs a byte that a window will bring joins it; the last to leave ends it. Its error is kept for a moment for those who
ask again at once. Event loop only.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from xetfs import telemetry
from xetfs.errors import NotFound
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.access import Access, Accesses, listed_but_missing
from xetfs.reader.budget import Urgency
from xetfs.reader.flights import Flight
from xetfs.reader.knowledge import Knowledge
from xetfs.reader.shelf import Shelf
from xetfs.settings import Settings
from xetfs.telemetry import Counters

FAILURE_KEPT_S: Final = 1.0
"""How long a failed place answers with the same error at once: the kernel asks for a page that failed a second time, and the
program that waits should not wait two deadlines."""
DEADLINE_SHARE: Final = 0.9
"""A window ends a little before the operations that wait for it do, so that its error is known and can be kept."""


class Window:
    """A stretch of the file on its way. covered: what it will bring; at first what was asked, whole chunks once `settled`.
    access: with whose right it is fetched.

    scope: of its work, without a deadline until somebody waits for it: on a slow line, what is loaded ahead may take long.
    """

    flight: Flight[None]

    def __init__(self, span: ByteRange, access: Access, urgency: Urgency) -> None:
        self.covered = span
        self.access = access
        self.settled = trio.Event()
        self.urgency = urgency
        self.scope = trio.CancelScope()


@dataclass(frozen=True, slots=True)
class _Failure:
    span: ByteRange
    access: Access
    error: Exception
    until_s: float


class Windows:
    """The windows of one file that are under way."""

    def __init__(
        self,
        known: Knowledge,
        accesses: Accesses,
        *,
        shelf: Shelf,
        nursery: trio.Nursery,
        settings: Settings,
        counters: Counters,
        bytes_max: int,
    ) -> None:
        """known: where what they bring is noted. accesses: where it is noted with which right. bytes_max: of one window."""
        self._accesses = accesses
        self._known = known
        self._shelf = shelf
        self._nursery = nursery
        self._deadline_s = DEADLINE_SHARE * settings.operation_deadline_s
        self._counters = counters
        self._bytes_max = bytes_max
        self._under_way: list[Window] = []
        self._failures: list[_Failure] = []

    def __len__(self) -> int:
        return len(self._under_way)

    def at(self, offset: int, access: Access | None = None) -> Window | None:
        """The window that will bring the byte at `offset`; not one that is being cancelled. access: only those with this one."""
        for window in self._under_way:
            if _holds(window.covered, offset) and not window.flight.ended and access in (None, window.access):
                return window
        return None

    def within(self, span: ByteRange) -> list[Window]:
        """The windows that will bring a part of `span`."""
        return [window for window in self._under_way if window.covered.start < span.end and span.start < window.covered.end]

    @property
    def awaited(self) -> Window | None:
        """A window that a program waits for, if there is one."""
        return next((window for window in self._under_way if window.urgency.demand), None)

    def gaps(self, span: ByteRange) -> list[ByteRange]:
        """What of `span` is neither known nor on its way, in stretches no longer than the largest window."""
        found = []
        for gap in self._known.gaps(span):
            at = gap.start
            while at < gap.end:
                window = self.at(at)
                if window is not None:
                    at = window.covered.end
                    continue
                starts = (other.covered.start for other in self._under_way if other.covered.start > at)
                end = min(gap.end, at + self._bytes_max, *starts)
                found.append(ByteRange(at, end))
                at = end
        return found

    def start(self, span: ByteRange, access: Access, *, demand: bool) -> Window:
        """Begin to load `span`, one of the gaps. demand: a program waits for it."""
        window = Window(span, access, Urgency(demand))
        if demand:
            window.scope.deadline = trio.current_time() + self._deadline_s
        window.flight = Flight(self._nursery, partial(self._load, window), on_end=lambda: self._under_way.remove(window))
        self._under_way.append(window)
        self._counters.add(telemetry.READER_WINDOWS if demand else telemetry.READER_PREFETCH_WINDOWS)
        return window

    def demand(self, span: ByteRange, access: Access, *, own: bool = False) -> Window:
        """The window that brings the byte at span.start, for a program that waits; if there is none, one to span.end at most.

        own: not one that is fetched with the right of another.
        Raises the error of one that has just failed there with this access.
        """
        window = self.at(span.start, access if own else None)
        if window is None:
            self.raise_kept_failure(span.start, access)
            gap = ByteRange(span.start, min(span.end, span.start + self._bytes_max)) if own else self.gaps(span)[0]
            return self.start(gap, access, demand=True)
        if not window.urgency.demand:
            window.urgency.demand = True
            window.scope.deadline = trio.current_time() + self._deadline_s
            self._shelf.budget.wake()
        return window

    async def _load(self, window: Window) -> None:
        """The work of a window: what it brings is in the map when it ends, its error among the failures."""
        span = window.covered

        def on_covered(covered: ByteRange) -> None:
            window.covered = covered
            window.settled.set()

        try:
            with window.scope:
                try:
                    runs = await window.access.source.load(span, self._known.map, window.urgency, on_covered)
                except NotFound as exc:
                    raise listed_but_missing(exc) from exc
            if window.scope.cancelled_caught:
                raise trio.TooSlowError
            self._known.take_in(runs)
            self._accesses.note_fetched(window.access)
        except Exception as exc:
            self._failures.append(_Failure(span, window.access, exc, trio.current_time() + FAILURE_KEPT_S))
            raise
        finally:
            window.settled.set()

    def raise_kept_failure(self, offset: int, access: Access) -> None:
        """Raise the error of a window that has just failed at `offset` with this access, if there is one."""
        now = trio.current_time()
        self._failures = [failure for failure in self._failures if failure.until_s > now]
        for failure in self._failures:
            if failure.access is access and _holds(failure.span, offset):
                raise failure.error.with_traceback(None)


def join(window: Window, joined: ExitStack) -> Flight[None]:
    """Wait for a window until `joined` is closed."""
    window.flight.join()
    joined.callback(window.flight.leave)
    return window.flight


def _holds(span: ByteRange, offset: int) -> bool:
    return span.start <= offset < span.end
