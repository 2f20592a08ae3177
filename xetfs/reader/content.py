"""One content, for any number of readers, in whatever repos it lies.

A read is answered in one of three ways. If every byte is at hand (in memory, or in an open block of the store whose bytes the
page cache has) it is answered without an await. If it is known where the bytes are but the disk must be waited for, a thread
reads them. What is not known, or not held any longer, is loaded: a *window* of the file is one flight of a Source; whoever
needs a byte that a window under way will bring waits for that window. Windows ahead of a reader are started by a task of their
own, which first looks up what the store knows, so that a warm file costs no request and the next blocks are open before they
are read.

What is known of a content, what is held of it and what is on its way is shared by all who may read it. What must be fetched is
fetched with the right of the reader who asks (reader/access.py): a window that another reader has under way is joined, and if it
fails, the one who waits loads it anew with a right of their own. Event loop only.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from functools import partial

import trio

from xetfs import telemetry
from xetfs.detached import run_detached
from xetfs.errors import CorruptData, Evicted
from xetfs.protocol.formats import LayoutReader
from xetfs.protocol.memory import new_buffer
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.access import Access, Accesses
from xetfs.reader.chains import Chains
from xetfs.reader.filemap import FileMap, Level, Run
from xetfs.reader.knowledge import Knowledge
from xetfs.reader.prefetch import Prefetcher, Want
from xetfs.reader.shelf import Shelf
from xetfs.reader.sources import Source
from xetfs.reader.windows import Window, Windows, join
from xetfs.settings import Settings
from xetfs.store.api import Block
from xetfs.telemetry import Counters

log = logging.getLogger(__name__)

PIECE_ATTEMPTS_MAX = 8
"""Times that one place is looked for: each follows an eviction or a bad block under the reader, which do not come in rows."""
LAYOUT_PIECES = 4
"""Pieces of a header that are looked at after one read. A header of 11 MB with 50,000 tensors has 170."""

Buffer = bytes | bytearray | memoryview


class FileContent:
    def __init__(
        self,
        source: Source,
        size: int,
        *,
        shelf: Shelf,
        nursery: trio.Nursery,
        settings: Settings,
        counters: Counters,
        layout: LayoutReader | None = None,
    ) -> None:
        """source: any of those that the content may be read from; it names it. layout: what reads the layout of this file, if it
        is of a known format."""
        self.size = size
        self.source = source
        self.accesses = Accesses()
        self._shelf = shelf
        self._nursery = nursery
        self._counters = counters
        limits = settings.reader
        window_bytes_max = max(min(limits.window_bytes_max, limits.memory_bytes_max * 2 // 7), limits.window_bytes_min)
        self._window_bytes_max = window_bytes_max
        # What is loaded ahead must fit in memory until it is read: on a disk that is full it is kept nowhere else.
        self._ahead_bytes_max = min(limits.ahead_bytes_max, limits.memory_bytes_max * 6 // 7)
        self._streams = 0  # that were begun so far
        self._prefetcher = Prefetcher(
            size,
            window_bytes_min=limits.window_bytes_min,
            window_bytes_max=window_bytes_max,
            ahead_bytes_max=self._ahead_bytes_max,
            awaits_layout=layout is not None,
            is_fast=lambda: shelf.budget.line.is_fast,
        )
        self._layout = layout  # until it is done
        level_min = Level.FILE if limits.verify == "proof" else Level.FRAMING
        self._known = Knowledge(source, size, shelf, level_min)
        self._windows = Windows(
            self._known,
            self.accesses,
            shelf=shelf,
            nursery=nursery,
            settings=settings,
            counters=counters,
            bytes_max=window_bytes_max,
        )
        self._chains = Chains(
            source.key[:16], self._windows, self._known, shelf=shelf, nursery=nursery, wanted=lambda: self.in_use
        )
        self._chain_patience_s = settings.net.stall_timeout_s
        self._users = 0
        nothing = ByteRange(0, 0)
        self._observed = (nothing, Want(nothing, 0, 0, 0, 0))

    # What readers use

    def read_nowait(self, span: ByteRange, access: Access) -> Buffer | None:
        """See FileReader.read_nowait."""
        if self.accesses.doubts(access):
            return None
        if span.end > self.size:
            span = span.clip(self.size)
        if span.start == span.end:
            return b""
        self._observe(span, access)
        data = self._at_hand(span.start, span.end)
        if data is not None:
            self._counters.add(telemetry.READER_SERVED_BYTES, len(data))
            if self._layout is not None:
                self._learn_layout(self._layout)
        return data

    async def read(self, span: ByteRange, access: Access) -> Buffer:
        """See FileReader.read."""
        span = span.clip(self.size)
        if not len(span):
            return b""
        self._counters.add(telemetry.READER_WAITS)
        start = trio.current_time()
        if self.accesses.doubts(access):
            await self.accesses.check(access)
        want = self._observe(span, access)
        await self._known.recall(want.demand)
        pieces: list[Buffer] = []
        at = span.start
        with ExitStack() as joined:
            self._start_missing(span, want, access, joined)
            while at < span.end:
                piece = await self._piece(ByteRange(at, span.end), want, access, joined)
                pieces.append(piece)
                at += len(piece)
        self._counters.observe(telemetry.READER_WAIT_SECONDS, trio.current_time() - start)
        self._counters.add(telemetry.READER_SERVED_BYTES, len(span))
        if self._layout is not None:
            self._learn_layout(self._layout)
        return pieces[0] if len(pieces) == 1 else _joined(pieces, len(span))

    async def stream(self, span: ByteRange, access: Access, chunk_bytes: int) -> AsyncGenerator[memoryview, None]:
        """See FileReader.stream."""
        span = span.clip(self.size)
        self._streams += 1
        number, at = -self._streams, span.start  # never one of the prefetcher's
        try:
            while at < span.end:
                part = ByteRange(at, min(at + chunk_bytes, span.end))
                # Somebody waits for the first pieces, so the first windows are short; then each is as long as all before it.
                step = min(max(part.end - span.start, chunk_bytes), self._window_bytes_max)
                want = Want(part, min(at + self._ahead_bytes_max, span.end), span.end, step, number)
                if self.in_use and want.ahead_until > part.end:
                    self._chains.extend(want._replace(demand=ByteRange(part.end, part.end)), access)
                await trio.lowlevel.checkpoint()
                piece = None if self.accesses.doubts(access) else self._piece_nowait(at, part.end)
                if piece is None:
                    piece = await self._wait_for_piece(part, want, access)
                self._counters.add(telemetry.READER_SERVED_BYTES, len(piece))
                at += len(piece)
                yield memoryview(piece)
        finally:
            self._chains.stop(number)

    async def _wait_for_piece(self, part: ByteRange, want: Want, access: Access) -> Buffer:
        self._counters.add(telemetry.READER_WAITS)
        start = trio.current_time()
        if self.accesses.doubts(access):
            await self.accesses.check(access)
        await self._known.recall(want.demand)
        with ExitStack() as joined:
            self._start_missing(part, want, access, joined)
            piece = await self._piece(part, want, access, joined)
        self._counters.observe(telemetry.READER_WAIT_SECONDS, trio.current_time() - start)
        return piece

    async def evict(self) -> None:
        """See FileReader.evict."""
        await self._known.recall(ByteRange(0, self.size))
        runs = self.map.runs()
        self.disown()
        for run in runs:
            await self._shelf.drop_chunks(run.xorb, run.chunks)
        await self.flush()

    async def bring(self, span: ByteRange, access: Access, on_covered: Callable[[int], None]) -> None:
        """See FileReader.bring."""
        await self._known.recall(span)
        await self._known.forget_unheld(span)
        with ExitStack() as joined:
            for gap in self._windows.gaps(span):
                self._windows.start(gap, access, demand=False)
            windows = self._windows.within(span)
            for window in windows:
                join(window, joined)
            for window in windows:
                await window.settled.wait()
            on_covered(max([span.end, *(window.covered.end for window in windows)]))
            for window in windows:
                await self._wait_brought(window, access, joined)

    async def _wait_brought(self, window: Window, access: Access, joined: ExitStack) -> None:
        """Wait for a window that was joined; load what it does not bring, if it was another's and fails."""
        try:
            await window.flight.wait()
        except Exception:
            if window.access is access:
                raise
            for gap in self._windows.gaps(window.covered):
                await join(self._windows.start(gap, access, demand=False), joined).wait()

    async def wait_served(self) -> None:
        """Wait until nobody waits for a window."""
        while window := self._windows.awaited:
            await window.flight.wait_ended()

    def _observe(self, span: ByteRange, access: Access) -> Want:
        """What this read makes worth loading; the same answer when a `read` follows its `read_nowait`."""
        seen, want = self._observed
        if seen != span:
            want = self._prefetcher.observe(span)
            self._observed = (span, want)
            if (want.ahead_until or want.down_to >= 0) and self.in_use:
                self._chains.extend(want, access)
        return want

    def _learn_layout(self, layout: LayoutReader) -> None:
        """Give the reader of the layout what it wants, as far as that is at hand. Nothing is loaded for it: programs that read
        such a file read the same bytes first. A few pieces at a time, as each takes some milliseconds."""
        for _ in range(LAYOUT_PIECES):
            if layout.wants is None:
                break
            data = self._at_hand(layout.wants.start, layout.wants.end)
            if data is None:
                return
            layout.feed(data)
        if layout.wants is None:
            self._prefetcher.learn(layout.layout)
            self._layout = None

    def open(self, access: Access) -> None:
        """Count one more user; each needs its `close`."""
        self._users += 1
        if not self._known.recalled:
            run_detached(self._nursery, partial(self._prepare, access), f"preparing file={self.source.key[:16]}")

    async def _prepare(self, access: Access) -> None:
        """Save the first read of a file that nobody has read yet a round trip, where one can be made now."""
        await self._known.recall(ByteRange(0, min(self.size, 1)))
        if self.in_use and self._known.empty:
            await access.source.prepare()

    def close(self) -> None:
        """Count one user less; after the last, nothing is loaded ahead any more."""
        self._users -= 1
        if self._users == 0:
            self._chains.leave()

    @property
    def in_use(self) -> bool:
        return self._users > 0

    @property
    def idle(self) -> bool:
        """Whether it can be forgotten without a loss: not open, nothing on its way, nothing to write."""
        return not (self._users or self._windows or self._known.dirty)

    # Bytes that are held

    def _at_hand(self, start: int, end: int) -> Buffer | None:
        piece = self._piece_nowait(start, end)
        if piece is None or len(piece) == end - start:
            return piece
        pieces: list[Buffer] = [piece]
        at = start + len(piece)
        while at < end:
            piece = self._piece_nowait(at, end)
            if piece is None:
                return None
            pieces.append(piece)
            at += len(piece)
        return _joined(pieces, end - start)

    def _piece_nowait(self, start: int, end: int) -> Buffer | None:
        """Bytes from `start` on, as many as one block has of them, at most until `end`."""
        run = self._known.run_at(start)
        if run is None:
            return None
        block = self._shelf.find_nowait(run.xorb, run.chunks.start + run.position(start))
        if block is None:
            return None
        part = _within(run, block, start, end)
        if part is None:
            return None
        try:
            return block.read_nowait(*part)
        except CorruptData:
            return None  # found again, and dealt with, where there is time to

    async def _piece(self, span: ByteRange, want: Want, access: Access, joined: ExitStack) -> Buffer:
        """The same as `_piece_nowait`, whatever must be done for it."""
        bad = evicted = 0
        chain_until = trio.current_time() + self._chain_patience_s
        while bad + evicted < PIECE_ATTEMPTS_MAX:
            run = self._known.run_at(span.start)
            if run is None:
                if await self._wait_for(span, access, joined, chain_until) and self._known.run_at(span.start) is None:
                    bad += 1  # a window that does not bring what it was started for
                continue
            block = await self._shelf.find(run.xorb, run.chunks.start + run.position(span.start))
            if block is None:
                await self._known.forget_unheld(ByteRange(span.start, max(span.end, want.demand.end)))
                self._start_missing(span, want, access, joined)
                evicted += 1
                continue
            part = _within(run, block, span.start, span.end)
            try:
                if part is None:
                    raise CorruptData(f"a block of xorb {run.xorb.hex()[:12]} does not hold what this file has there")
                data = block.read_nowait(*part)
                if data is None:
                    data = await self._shelf.read(block, *part)
                if data is not None:
                    return data
                evicted += 1  # the disk does not answer: it is fetched again
            except CorruptData as exc:
                log.warning("dropped a bad block, fetching again file=%s: %s", self.source.key[:16], exc)
                await self._shelf.drop(block)
                bad += 1
        what = f"bytes {span.start}-{span.end} of {self.source.key[:16]}"
        if not bad:
            raise Evicted(f"{what} were evicted before they could be read")
        raise CorruptData(f"no valid copy of {what} could be fetched")

    # Bytes that must be loaded

    def _start_missing(self, span: ByteRange, want: Want, access: Access, joined: ExitStack) -> None:
        """Start the windows that the span lacks, all at once, and join them; the last one goes on as far as the demand."""
        for gap in self._windows.gaps(want.demand):
            if gap.start < span.end and self._chains.at(gap.start) is None:
                join(self._windows.demand(gap, access), joined)

    async def _wait_for(self, span: ByteRange, access: Access, joined: ExitStack, chain_until: float) -> bool:
        """Wait for what brings the byte at span.start, which is not in the map: a window, started if there is none, or a chain
        that will come by. Whether it was a window, so that the byte should be there now.

        chain_until: when to stop waiting for chains. One that keeps moving and never comes by would be waited for without end.
        """
        chain = self._chains.at(span.start)
        if chain is not None and self._windows.at(span.start) is None and trio.current_time() < chain_until:
            with trio.move_on_at(chain_until):
                await chain.moved.wait()
            return False
        window = self._windows.demand(span, access)
        try:
            await join(window, joined).wait()
        except Exception as exc:
            if window.access is access:
                raise
            log.debug("another reader's window failed, loading it anew file=%s: %s", self.source.key[:16], exc)
            await join(self._windows.demand(span, access, own=True), joined).wait()
        return True

    # What is known

    @property
    def map(self) -> FileMap:
        """What is known of the file; for others to look at, and for checks to make surer."""
        return self._known.map

    def adopt(self, runs: Sequence[Run]) -> None:
        """Take in what a check of the whole file has made surer."""
        self._known.take_in(runs)

    def disown(self) -> None:
        """Forget all that is known of the file, in the store too: a check of the whole file has shown that it is not true."""
        self._known.disown()

    async def flush(self) -> None:
        """Give what was learnt since the last flush to the store."""
        await self._known.flush()

    def __repr__(self) -> str:
        return f"FileContent({self.source.key[:16]}, {self.map!r}, {len(self._windows)} windows)"


def _joined(pieces: Sequence[Buffer], size: int) -> Buffer:
    """Pieces as one, in memory that is used again where that pays."""
    joined, at = new_buffer(size), 0
    for piece in pieces:
        joined[at : at + len(piece)] = piece
        at += len(piece)
    return joined


def _within(run: Run, block: Block, start: int, end: int) -> tuple[int, int] | None:
    """Where in the data of `block` the file's bytes [start, end) stand, as far as run and block have them; the run holds `start`.

    None if the block's hashes there are not those that the file is known to have: then it is no block of this file.
    """
    ends = run.ends
    first = bisect_right(ends, start)
    in_block = run.chunks.start + first - block.chunks.start
    last = first + 1
    if ends[first] < end:
        last = min(bisect_left(ends, end, first) + 1, len(ends), first + block.chunks.end - block.chunks.start - in_block)
    if block.raw_hashes(in_block, in_block + last - first) != run.hashes_of(first, last):
        return None
    shift = block.offsets[in_block] - run.chunk_start(first)
    return start + shift, min(end, ends[last - 1]) + shift
