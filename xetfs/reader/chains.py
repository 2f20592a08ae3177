"""What is loaded ahead of readers: windows one after the other, and blocks of the store.

Each stream of reads has a chain, a task that goes ahead of it. It first looks up what is known, so that a warm file costs no
request and the next blocks are at hand before they are read. Event loop only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from xetfs.protocol.ranges import ByteRange
from xetfs.reader.filemap import Run
from xetfs.reader.knowledge import Knowledge
from xetfs.reader.prefetch import Want
from xetfs.reader.shelf import Shelf
from xetfs.reader.windows import Window, Windows
from xetfs.settings import MIB

log = logging.getLogger(__name__)

HELD_AHEAD_BYTES: Final = 32 * MIB
"""How far ahead of a reader blocks of the store are loaded: the disk is near, and they take memory until they are read."""


class Chain:
    """The windows ahead of one stream, one after the other: the next begins where the last one ends, which is known only once
    that is settled. at: how far it has got. A window is `step` long, and may go past `until` but not past `limit`."""

    def __init__(self, at: int, want: Want) -> None:
        self.at = at
        self.moved = trio.Event()
        self.extend(want)

    def extend(self, want: Want) -> None:
        self.begins = want.demand.start
        self.until = want.ahead_until
        self.limit = want.limit
        self.step = want.step

    def covers(self, offset: int) -> bool:
        return self.at <= offset < self.until


class DownwardChain:
    """The same for a stream that goes backward: each window ends where the one before it begins. at: how far down it has got."""

    def __init__(self, want: Want) -> None:
        self.at = want.demand.start
        self.moved = trio.Event()
        self.extend(want)

    def extend(self, want: Want) -> None:
        self.until = want.down_to
        self.step = want.step

    def covers(self, offset: int) -> bool:
        return self.until <= offset < self.at


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
        self._joined: list[Window] = []  # on behalf of reads to come

    def at(self, offset: int) -> Chain | DownwardChain | None:
        """The chain that will come by `offset`."""
        chains: tuple[Chain | DownwardChain, ...] = (*self._chains.values(), *self._downward.values())
        return next((chain for chain in chains if chain.covers(offset)), None)

    def extend(self, want: Want) -> None:
        """Go as far ahead of a stream as it wants."""
        if want.down_to >= 0:
            self._extend_downward(want)
        if not want.ahead_until:
            return
        chain = self._chains.get(want.stream)
        if chain is None:
            chain = self._chains[want.stream] = Chain(want.demand.start, want)
            self._nursery.start_soon(self._run, want.stream, chain)
        else:
            chain.extend(want)

    def _extend_downward(self, want: Want) -> None:
        chain = self._downward.get(want.stream)
        if chain is None:
            chain = self._downward[want.stream] = DownwardChain(want)
            self._nursery.start_soon(self._run_downward, want.stream, chain)
        else:
            chain.extend(want)

    def leave(self) -> None:
        """Nobody reads any more: end what nobody else waits for."""
        for window in self._joined:
            window.flight.leave()
        self._joined.clear()

    async def _run(self, stream: int, chain: Chain) -> None:
        """Load ahead until the chain's end. Nobody waits for this task, so it lets no error out."""
        try:
            while chain.at < chain.until and self._wanted():
                await self._known.recall(ByteRange(chain.at, chain.until))
                run = self._known.run_at(chain.at)
                if run is None:
                    step = min(chain.step, self._shelf.budget.line.window_bytes_max)
                    chain.at = await self._load_ahead(chain.at, min(chain.at + step, chain.limit))
                elif chain.at < chain.begins + HELD_AHEAD_BYTES:
                    chain.at = await self._open_ahead(run, chain.at, chain.until)
                else:
                    break
                moved, chain.moved = chain.moved, trio.Event()
                moved.set()
        except Exception:
            log.exception("loading ahead failed file=%s", self._name)
        finally:
            del self._chains[stream]
            chain.moved.set()

    async def _run_downward(self, stream: int, chain: DownwardChain) -> None:
        """Load ahead until the chain's end. Nobody waits for this task, so it lets no error out."""
        try:
            while chain.at > chain.until and self._wanted():
                await self._known.recall(ByteRange(chain.until, chain.at))
                run = self._known.run_at(chain.at - 1)
                if run is None:
                    step = min(chain.step, self._shelf.budget.line.window_bytes_max)
                    chain.at = await self._load_below(chain.at, max(chain.at - step, chain.until))
                else:
                    chain.at = run.start
                moved, chain.moved = chain.moved, trio.Event()
                moved.set()
        except Exception:
            log.exception("loading ahead failed file=%s", self._name)
        finally:
            del self._downward[stream]
            chain.moved.set()

    async def _open_ahead(self, run: Run, at: int, until: int) -> int:
        """Have the block at hand that has the bytes of a run from `at` on; returns the offset up to which that is done."""
        block = await self._shelf.open_ahead(run.xorb, run.chunks.start + run.position(at), until - at, nursery=self._nursery)
        if block is None:
            await self._known.forget_unheld(ByteRange(at, until))
            return at
        last = min(block.chunks.end, run.chunks.end) - run.chunks.start
        return run.ends[last - 1]

    async def _load_ahead(self, at: int, end: int) -> int:
        """Load a window from `at` on, at most until `end`; returns the offset that it will reach."""
        window = self._windows.at(at) or self._start(self._windows.gaps(ByteRange(at, end))[0])
        await window.settled.wait()  # the next window begins where this one ends, and that is known only now
        return max(window.covered.end, at + 1)

    async def _load_below(self, at: int, start: int) -> int:
        """Load a window up to `at`, at most from `start` on; returns the offset at which it will begin."""
        window = self._windows.at(at - 1) or self._start(self._windows.gaps(ByteRange(start, at))[-1])
        await window.settled.wait()
        return min(window.covered.start, at - 1)

    def _start(self, gap: ByteRange) -> Window:
        window = self._windows.start(gap, demand=False)
        window.flight.join()
        self._joined = [other for other in self._joined if not other.flight.ended] + [window]
        return window
