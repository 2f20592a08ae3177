"""What is loaded ahead of readers: windows one after the other, and blocks of the store.

Each stream of reads has a chain, a task that goes ahead of it. It first looks up what is known, so that a warm file costs no
request and the next blocks are at hand before they are read. Event loop only.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from xetfs.protocol.ranges import ByteRange
from xetfs.reader.access import Access
from xetfs.reader.filemap import Run
from xetfs.reader.knowledge import Knowledge
from xetfs.reader.prefetch import Want
from xetfs.reader.shelf import Shelf
from xetfs.reader.windows import Window, Windows
from xetfs.units import MIB

log = logging.getLogger(__name__)

HELD_AHEAD_BYTES: Final = 32 * MIB
"""How far ahead of a reader blocks of the store are loaded: the disk is near, and they take memory until they are read."""


class Chain:
    """The windows ahead of one stream, one after the other: the next begins where the last one ends, which is known only once
    that is settled. at: how far it has got. A window is `step` long, and may go past `until` but not past `limit`."""

    def __init__(self, at: int, want: Want, access: Access) -> None:
        self.at = at
        self.moved = trio.Event()
        self.extend(want, access)

    def extend(self, want: Want, access: Access) -> None:
        self.access = access
        self.stream = want.stream
        self.begins = want.demand.start
        self.until = want.ahead_until
        self.limit = want.limit
        self.step = want.step

    @property
    def rest(self) -> ByteRange:
        """What it has not come by yet."""
        return ByteRange(min(self.at, self.until), self.until)


class DownwardChain:
    """The same for a stream that goes backward: each window ends where the one before it begins. at: how far down it has got.
    held_to: down to where what is known has been found to be held."""

    def __init__(self, want: Want, access: Access) -> None:
        self.at = self.held_to = want.demand.start
        self.moved = trio.Event()
        self.extend(want, access)

    def extend(self, want: Want, access: Access) -> None:
        self.access = access
        self.stream = want.stream
        self.until = want.down_to
        self.step = want.step

    @property
    def rest(self) -> ByteRange:
        return ByteRange(min(self.until, self.at), self.at)


C = TypeVar("C", Chain, DownwardChain)


class Chains:
    """The chains of one file, by stream."""

    def __init__(
        self,
        name: str,
        windows: Windows,
        known: Knowledge,
        *,
        shelf: Shelf,
        nursery: trio.Nursery,
        wanted: Callable[[], bool],
    ) -> None:
        """name: of the file, for the log. wanted: whether anybody may still read."""
        self._name = name
        self._windows = windows
        self._known = known
        self._shelf = shelf
        self._nursery = nursery
        self._wanted = wanted
        self._chains: dict[int, Chain] = {}
        self._downward: dict[int, DownwardChain] = {}
        self._joined: list[tuple[int, Window]] = []  # on behalf of reads to come, with the stream that these belong to

    def at(self, offset: int) -> Chain | DownwardChain | None:
        """The chain that will come by `offset`."""
        chains: tuple[Chain | DownwardChain, ...] = (*self._chains.values(), *self._downward.values())
        return next((chain for chain in chains if chain.rest.start <= offset < chain.rest.end), None)

    def extend(self, want: Want, access: Access) -> None:
        """Go as far ahead of a stream as it wants, with the right of whoever read it last."""
        if want.ahead_until:
            chain = self._chains.get(want.stream)
            if chain is None:
                chain = self._chains[want.stream] = Chain(want.demand.start, want, access)
                self._nursery.start_soon(self._run, self._chains, want.stream, self._go_up)
            else:
                chain.extend(want, access)
        if want.down_to >= 0:
            downward = self._downward.get(want.stream)
            if downward is None:
                self._downward[want.stream] = DownwardChain(want, access)
                self._nursery.start_soon(self._run, self._downward, want.stream, self._go_down)
            else:
                downward.extend(want, access)

    def leave(self) -> None:
        """Nobody reads any more: end what nobody else waits for."""
        for _, window in self._joined:
            window.flight.leave()
        self._joined.clear()

    def stop(self, stream: int) -> None:
        """This stream is read no further: end what nobody else waits for."""
        chain = self._chains.get(stream)
        if chain is not None:
            chain.until = chain.at
        for joined in [joined for joined in self._joined if joined[0] == stream]:
            self._joined.remove(joined)
            joined[1].flight.leave()

    async def _run(self, chains: dict[int, C], stream: int, go_on: Callable[[C], Awaitable[bool]]) -> None:
        """Load ahead until the chain's end, or until there is nothing to `go_on` with. Nobody waits for this task, so it lets no
        error out."""
        chain = chains[stream]
        try:
            while len(chain.rest) and self._wanted():
                await self._known.recall(chain.rest)
                if not await go_on(chain):
                    break
                moved, chain.moved = chain.moved, trio.Event()
                moved.set()
        except Exception:
            log.exception("loading ahead failed file=%s", self._name)
        finally:
            del chains[stream]
            chain.moved.set()

    async def _go_up(self, chain: Chain) -> bool:
        run = self._known.run_at(chain.at)
        if run is None:
            window = self._windows.at(chain.at) or self._start_from(chain, chain.at)
            await window.settled.wait()  # the next window begins where this one ends, and that is known only now
            chain.at = max(window.covered.end, chain.at + 1)
        elif chain.at < chain.begins + HELD_AHEAD_BYTES:
            chain.at = await self._open_ahead(run, chain.at, chain.until)
        elif gaps := self._windows.gaps(chain.rest):
            # What is known is opened later, when it is nearer; what is not must be on its way, or nobody would ask for it again
            # once the reader has come near the end of the file.
            await self._start_from(chain, gaps[0].start).settled.wait()
        else:
            return False
        return True

    def _start_from(self, chain: Chain, at: int) -> Window:
        end = min(at + self._step_of(chain), chain.limit)
        return self._start(self._windows.gaps(ByteRange(at, end))[0], chain.access, chain.stream)

    async def _go_down(self, chain: DownwardChain) -> bool:
        if chain.held_to > chain.until:
            await self._known.forget_unheld(chain.rest)
            chain.held_to = chain.until
        run = self._known.run_at(chain.at - 1)
        if run is None:
            window = self._windows.at(chain.at - 1)
            if window is None:
                start = max(chain.at - self._step_of(chain), chain.until)
                window = self._start(self._windows.gaps(ByteRange(start, chain.at))[-1], chain.access, chain.stream)
            await window.settled.wait()
            chain.at = min(window.covered.start, chain.at - 1)
        else:
            chain.at = run.start
        return True

    def _step_of(self, chain: Chain | DownwardChain) -> int:
        return min(chain.step, self._shelf.budget.line.window_bytes_max)

    async def _open_ahead(self, run: Run, at: int, until: int) -> int:
        """Have the block at hand that has the bytes of a run from `at` on; returns the offset up to which that is done."""
        block = await self._shelf.open_ahead(run.xorb, run.chunks.start + run.position(at), until - at, nursery=self._nursery)
        if block is None:
            await self._known.forget_unheld(ByteRange(at, until))
            return at
        last = min(block.chunks.end, run.chunks.end) - run.chunks.start
        return run.ends[last - 1]

    def _start(self, gap: ByteRange, access: Access, stream: int) -> Window:
        window = self._windows.start(gap, access, demand=False)
        window.flight.join()
        self._joined = [joined for joined in self._joined if not joined[1].flight.ended] + [(stream, window)]
        return window
