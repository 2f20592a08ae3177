"""One file's bytes, for any number of readers.

A read is answered in one of three ways. If every byte is at hand (in memory, or in an open block of the store whose bytes the
page cache has) it is answered without an await. If it is known where the bytes are but the disk must be waited for, a thread
reads them. What is not known, or not held any longer, is loaded: a *window* of the file is one flight of a Source; whoever
needs a byte that a window under way will bring waits for that window. Windows ahead of a reader are started by a task of their
own, which first looks up what the store knows, so that a warm file costs no request and the next blocks are open before they
are read.

A FileReader is shared by all openings of the same content and lives in the event loop's thread.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import trio

from xetfs import telemetry
from xetfs.errors import CorruptData, Evicted, NotFound, ProtocolViolation
from xetfs.protocol.formats import LayoutReader
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.memory import new_buffer
from xetfs.protocol.ranges import ByteRange, ChunkRange
from xetfs.reader.budget import Urgency
from xetfs.reader.filemap import SEGMENT_BYTES, FileMap, Level, Run, decode_runs, encode_runs
from xetfs.reader.flights import Flight
from xetfs.reader.planner import gaps_in
from xetfs.reader.prefetch import Prefetcher, Want
from xetfs.reader.shelf import Shelf
from xetfs.reader.sources import Source
from xetfs.settings import MIB, Settings
from xetfs.store.api import Block
from xetfs.telemetry import Counters

log = logging.getLogger(__name__)

MAP_RECORD = "map"
"""Kind of the store's records that hold file maps."""
FAILURE_KEPT_S = 1.0
"""How long a failed place answers with the same error at once: the kernel asks for a page that failed a second time, and the
program that waits should not wait two deadlines."""
DEADLINE_SHARE = 0.9
"""A window ends a little before the operations that wait for it do, so that its error is known and can be kept."""
PIECE_ATTEMPTS_MAX = 8
"""Times that one place is looked for: each follows an eviction or a bad block under the reader, which do not come in rows."""
HELD_AHEAD_BYTES = 32 * MIB
"""How far ahead of a reader blocks of the store are loaded: the disk is near, and they take memory until they are read."""
LAYOUT_PIECES = 4
"""Pieces of a header that are looked at after one read. A header of 11 MB with 50,000 tensors has 170."""

Buffer = bytes | bytearray | memoryview


class _Window:
    """A stretch of the file on its way. covered: what it will bring; at first what was asked, whole chunks once `settled`.

    scope: of its work, without a deadline until somebody waits for it: on a slow line, what is loaded ahead may take long.
    """

    flight: Flight[None]

    def __init__(self, span: ByteRange, urgency: Urgency) -> None:
        self.covered = span
        self.settled = trio.Event()
        self.urgency = urgency
        self.scope = trio.CancelScope()


class _Chain:
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


@dataclass(frozen=True, slots=True)
class _Failure:
    span: ByteRange
    error: Exception
    until_s: float


class FileReader:
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
        """layout: what reads the layout of this file, if it is of a known format."""
        self.size = size
        self.source = source
        self.map = FileMap(size)
        self._shelf = shelf
        self._nursery = nursery
        self._settings = settings
        self._counters = counters
        self._window_bytes_max = max(min(settings.window_bytes_max, settings.memory_bytes_max // 7), settings.window_bytes_min)
        self._prefetcher = Prefetcher(
            size,
            window_bytes_min=settings.window_bytes_min,
            window_bytes_max=self._window_bytes_max,
            # What is loaded ahead must fit in memory until it is read: on a disk that is full it is kept nowhere else.
            ahead_bytes_max=min(settings.ahead_bytes_max, settings.memory_bytes_max * 3 // 4),
            awaits_layout=layout is not None,
        )
        self._layout = layout  # until it is done
        self._windows: list[_Window] = []
        self._ahead: list[_Window] = []  # windows that this reader itself waits for, on behalf of reads to come
        self._failures: list[_Failure] = []
        self._segments_loaded: set[int] = set()
        self._segments_dirty: set[int] = set()
        self._level_min = Level.FILE if settings.verify == "proof" else Level.FRAMING
        self._users = 0
        nothing = ByteRange(0, 0)
        self._observed = (nothing, Want(nothing, 0, 0, 0, 0))
        self._chains: dict[int, _Chain] = {}

    # What the fronts use

    def read_nowait(self, span: ByteRange) -> Buffer | None:
        """The bytes of `span` as far as the file goes, if all are at hand; None if something must be waited for.

        Whoever gets None calls `read` with the same span.
        """
        if span.end > self.size:
            span = span.clip(self.size)
        if span.start == span.end:
            return b""
        self._observe(span)
        data = self._at_hand(span.start, span.end)
        if data is not None:
            self._counters.add(telemetry.READER_SERVED_BYTES, len(data))
            if self._layout is not None:
                self._learn_layout(self._layout)
        return data

    async def read(self, span: ByteRange) -> Buffer:
        """The bytes of `span`, exactly as many as the file has there.

        Raises what the source raised, CorruptData when bytes cannot be had right, Evicted when they cannot be kept,
        trio.TooSlowError when a window was not done in time. A cancelled read leaves nothing behind; windows that nobody else
        waits for end with it.
        """
        span = span.clip(self.size)
        if not len(span):
            return b""
        self._counters.add(telemetry.READER_WAITS)
        want = self._observe(span)
        await self._recall(want.demand)
        pieces: list[Buffer] = []
        at = span.start
        with ExitStack() as joined:
            self._start_missing(span, want, joined)
            while at < span.end:
                piece = await self._piece(ByteRange(at, span.end), want, joined)
                pieces.append(piece)
                at += len(piece)
        self._counters.add(telemetry.READER_SERVED_BYTES, len(span))
        if self._layout is not None:
            self._learn_layout(self._layout)
        return pieces[0] if len(pieces) == 1 else _joined(pieces, len(span))

    async def bring(self, span: ByteRange, on_covered: Callable[[int], None]) -> None:
        """Have the bytes of `span` (within the file, not empty) held, at the urgency of what nobody waits for; not a read.

        on_covered: called as soon as it is known up to where that will be, at least the end of `span`. Raises what `read` does; a
        cancellation leaves nothing behind.
        """
        await self._recall(span)
        await self._forget_unheld(span)
        with ExitStack() as joined:
            for gap in self._gaps(span):
                self._start(gap, Urgency(demand=False))
            windows = [window for window in self._windows if window.covered.start < span.end and span.start < window.covered.end]
            flights = [self._join(window, joined) for window in windows]
            for window in windows:
                await window.settled.wait()
            on_covered(max([span.end, *(window.covered.end for window in windows)]))
            for flight in flights:
                await flight.wait()

    async def wait_served(self) -> None:
        """Wait until nobody waits for a window."""
        while window := next((window for window in self._windows if window.urgency.demand), None):
            await window.flight.wait_ended()

    def _observe(self, span: ByteRange) -> Want:
        """What this read makes worth loading; the same answer when a `read` follows its `read_nowait`."""
        seen, want = self._observed
        if seen != span:
            want = self._prefetcher.observe(span)
            self._observed = (span, want)
            if want.ahead_until and self.in_use:
                self._extend_chain(want)
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

    def open(self) -> None:
        """Count one more user; each needs its `close`."""
        self._users += 1
        if not self._segments_loaded:
            self._nursery.start_soon(self._prepare)

    async def _prepare(self) -> None:
        """Get ready to load a file that nobody has read yet, so far as that takes a round trip."""
        await self._recall(ByteRange(0, min(self.size, 1)))
        if self.in_use and self.map.gaps(ByteRange(0, self.size), Level.CLAIMED) == [ByteRange(0, self.size)]:
            await self.source.prepare()

    def close(self) -> None:
        """Count one user less; after the last, nothing is loaded ahead any more."""
        self._users -= 1
        if self._users == 0:
            for window in self._ahead:
                if window.flight is not None:
                    window.flight.leave()
            self._ahead.clear()

    @property
    def in_use(self) -> bool:
        return self._users > 0

    @property
    def idle(self) -> bool:
        """Whether it can be forgotten without a loss: not open, nothing on its way, nothing to write."""
        return not (self._users or self._windows or self._segments_dirty)

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
        run = self._run_at(start)
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

    def _run_at(self, offset: int) -> Run | None:
        """The run that holds the byte at `offset`, if it is sure enough to be given out."""
        run = self.map.at(offset)
        return run if run is not None and run.level >= self._level_min else None

    async def _piece(self, span: ByteRange, want: Want, joined: ExitStack) -> Buffer:
        """The same as `_piece_nowait`, whatever must be done for it."""
        bad = evicted = 0
        while bad + evicted < PIECE_ATTEMPTS_MAX:
            run = self._run_at(span.start)
            if run is None:
                if await self._wait_for(span, joined) and self._run_at(span.start) is None:
                    bad += 1  # a window that does not bring what it was started for
                continue
            block = await self._shelf.find(run.xorb, run.chunks.start + run.position(span.start))
            if block is None:
                await self._forget_unheld(ByteRange(span.start, max(span.end, want.demand.end)))
                self._start_missing(span, want, joined)
                evicted += 1
                continue
            part = _within(run, block, span.start, span.end)
            try:
                if part is None:
                    raise CorruptData(f"a block of xorb {run.xorb.hex()[:12]} does not hold what this file has there")
                data = block.read_nowait(*part)
                return await self._shelf.read(block, *part) if data is None else data
            except CorruptData as exc:
                log.warning("dropped a bad block, fetching again file=%s: %s", self.source.key[:16], exc)
                await self._shelf.drop(block)
                bad += 1
        what = f"bytes {span.start}-{span.end} of {self.source.key[:16]}"
        if not bad:
            raise Evicted(f"{what} leave the cache before they can be read")
        raise CorruptData(f"{what} cannot be had right")

    async def _forget_unheld(self, span: ByteRange) -> None:
        """Drop from the map what is not held any longer of the runs under `span`, so that it is loaded again, all of it at
        once."""
        runs = self.map.within(span)
        wanted: dict[XorbHash, list[ChunkRange]] = {}
        for run in runs:
            wanted.setdefault(run.xorb, []).append(run.chunks)
        held = await self._shelf.held(wanted)
        for run in runs:
            if self.map.at(run.start) is not run:
                continue  # forgotten or learnt anew while we asked
            for gap in gaps_in([run.chunks], held[run.xorb]):
                first, last = gap.start - run.chunks.start, gap.end - run.chunks.start
                self.map.forget(ByteRange(run.chunk_start(first), run.ends[last - 1]))

    # Bytes that must be loaded

    def _start_missing(self, span: ByteRange, want: Want, joined: ExitStack) -> None:
        """Start the windows that the span lacks, all at once, and join them; the last one goes on as far as the demand."""
        for gap in self._gaps(want.demand):
            if gap.start < span.end and self._chain_at(gap.start) is None:
                self._raise_kept_failure(gap.start)
                self._join(self._start(gap, Urgency(demand=True)), joined)

    async def _wait_for(self, span: ByteRange, joined: ExitStack) -> bool:
        """Wait for what brings the byte at span.start, which is not in the map: a window, started if there is none, or a chain
        that will come by. Whether it was a window, so that the byte should be there now."""
        window = self._window_at(span.start)
        chain = self._chain_at(span.start)
        if window is None and chain is not None:
            await chain.moved.wait()
            return False
        if window is None:
            self._raise_kept_failure(span.start)
            window = self._start(self._gaps(span)[0], Urgency(demand=True))
        if not window.urgency.demand:
            window.urgency.demand = True
            window.scope.deadline = self._window_deadline()
            self._shelf.budget.wake()
        await self._join(window, joined).wait()
        return True

    @staticmethod
    def _join(window: _Window, joined: ExitStack) -> Flight[None]:
        window.flight.join()
        joined.callback(window.flight.leave)
        return window.flight

    # Windows ahead of readers

    def _extend_chain(self, want: Want) -> None:
        chain = self._chains.get(want.stream)
        if chain is None:
            chain = self._chains[want.stream] = _Chain(want.demand.start, want)
            self._nursery.start_soon(self._run_chain, want.stream, chain)
        else:
            chain.extend(want)

    def _chain_at(self, offset: int) -> _Chain | None:
        return next((chain for chain in self._chains.values() if chain.covers(offset)), None)

    async def _run_chain(self, stream: int, chain: _Chain) -> None:
        """Load ahead until the chain's end. Nobody waits for this task, so it lets no error out."""
        try:
            while chain.at < chain.until and self.in_use:
                await self._recall(ByteRange(chain.at, chain.until))
                run = self._run_at(chain.at)
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
            log.exception("loading ahead failed file=%s", self.source.key[:16])
        finally:
            del self._chains[stream]
            chain.moved.set()

    async def _open_ahead(self, run: Run, at: int, until: int) -> int:
        """Have the block at hand that has the bytes of a run from `at` on; returns the offset up to which that is done."""
        block = await self._shelf.open_ahead(run.xorb, run.chunks.start + run.position(at), until - at, nursery=self._nursery)
        if block is None:
            await self._forget_unheld(ByteRange(at, until))
            return at
        last = min(block.chunks.end, run.chunks.end) - run.chunks.start
        return run.ends[last - 1]

    async def _load_ahead(self, at: int, end: int) -> int:
        """Load a window from `at` on, at most until `end`; returns the offset that it will reach."""
        window = self._window_at(at)
        if window is None:
            window = self._start(self._gaps(ByteRange(at, end))[0], Urgency(demand=False))
            self._ahead.append(window)
            window.flight.join()
        await window.settled.wait()  # the next window begins where this one ends, and that is known only now
        return max(window.covered.end, at + 1)

    def _window_at(self, offset: int) -> _Window | None:
        """The window under way that will bring the byte at `offset`; not one that is being cancelled."""
        return next((window for window in self._windows if _holds(window.covered, offset) and not window.flight.ended), None)

    def _gaps(self, span: ByteRange) -> list[ByteRange]:
        """What of `span` is neither in the map nor on its way, in stretches no longer than the largest window."""
        found = []
        for gap in self.map.gaps(span, self._level_min):
            at = gap.start
            while at < gap.end:
                window = self._window_at(at)
                if window is not None:
                    at = window.covered.end
                    continue
                starts = (other.covered.start for other in self._windows if other.covered.start > at)
                end = min(gap.end, at + self._window_bytes_max, *starts)
                found.append(ByteRange(at, end))
                at = end
        return found

    def _start(self, span: ByteRange, urgency: Urgency) -> _Window:
        window = _Window(span, urgency)
        if urgency.demand:
            window.scope.deadline = self._window_deadline()

        def ended() -> None:
            self._windows.remove(window)
            if window in self._ahead:
                self._ahead.remove(window)

        window.flight = Flight(self._nursery, partial(self._load, window), on_end=ended)
        self._windows.append(window)
        self._counters.add(telemetry.READER_WINDOWS if urgency.demand else telemetry.READER_PREFETCH_WINDOWS)
        return window

    def _window_deadline(self) -> float:
        return trio.current_time() + DEADLINE_SHARE * self._settings.operation_deadline_s

    async def _load(self, window: _Window) -> None:
        """The work of a window: what it brings is in the map when it ends, its error among the failures."""
        span = window.covered

        def on_covered(covered: ByteRange) -> None:
            window.covered = covered
            window.settled.set()

        try:
            with window.scope:
                try:
                    runs = await self.source.load(span, self.map, window.urgency, on_covered)
                except NotFound as exc:
                    # The file is listed and may be open: whoever reads it must not be told that there is none.
                    raise ProtocolViolation(f"a file is listed, and its content is not there: {exc}") from exc
            if window.scope.cancelled_caught:
                raise trio.TooSlowError
            self._take_in(runs)
        except Exception as exc:
            self._failures.append(_Failure(span, exc, trio.current_time() + FAILURE_KEPT_S))
            raise
        finally:
            window.settled.set()

    def _take_in(self, runs: Sequence[Run]) -> None:
        try:
            self.map.add(runs)
        except CorruptData as exc:
            # What was known is no surer than what is new, or the new would have been refused: begin anew with that.
            log.warning("what was known of a file is contradicted, replaced file=%s: %s", self.source.key[:16], exc)
            for run in runs:
                self.map.forget(ByteRange(run.start, run.end))
            self.map.add(runs)
        self._segments_dirty.update(run.start // SEGMENT_BYTES for run in runs)

    def _raise_kept_failure(self, offset: int) -> None:
        now = trio.current_time()
        self._failures = [failure for failure in self._failures if failure.until_s > now]
        for failure in self._failures:
            if _holds(failure.span, offset):
                raise failure.error.with_traceback(None)

    # The map and its records

    async def _recall(self, span: ByteRange) -> None:
        """Load what the store remembers of the map around `span`; a run may have begun in the segment before."""
        numbers = range(max(span.start // SEGMENT_BYTES - 1, 0), (max(span.end, 1) - 1) // SEGMENT_BYTES + 1)
        missing = [number for number in numbers if number not in self._segments_loaded]
        if not missing:
            return
        records = await self._shelf.records(MAP_RECORD, [f"{self.source.key}/{number}" for number in missing])
        for number, record in zip(missing, records, strict=True):
            if record is not None and number not in self._segments_loaded:
                try:
                    self.map.add(decode_runs(record, self.size, self.source.recalled))
                except CorruptData as exc:
                    log.warning("a file map in the store is not usable file=%s: %s", self.source.key[:16], exc)
            self._segments_loaded.add(number)

    def adopt(self, runs: Sequence[Run]) -> None:
        """Take in what a check of the whole file has made surer."""
        self._take_in(runs)

    def disown(self) -> None:
        """Forget all that is known of the file, in the store too: a check of the whole file has shown that it is not true."""
        self.map.forget(ByteRange(0, self.size))
        segments = range(-(-self.size // SEGMENT_BYTES))
        self._segments_loaded.update(segments)  # not to be recalled before the next flush has replaced it
        self._segments_dirty.update(segments)

    async def flush(self) -> None:
        """Give what was learnt since the last flush to the store."""
        dirty, self._segments_dirty = self._segments_dirty, set()
        for number in sorted(dirty):
            await self._recall(ByteRange(number * SEGMENT_BYTES, number * SEGMENT_BYTES))
            record = encode_runs(self.map.segment(number))
            await self._shelf.put_record(MAP_RECORD, f"{self.source.key}/{number}", record)

    def __repr__(self) -> str:
        return f"FileReader({self.source.key[:16]}, {self.map!r}, {len(self._windows)} windows)"


def _joined(pieces: Sequence[Buffer], size: int) -> Buffer:
    """Pieces as one, in memory that is used again where that pays."""
    joined, at = new_buffer(size), 0
    for piece in pieces:
        joined[at : at + len(piece)] = piece
        at += len(piece)
    return joined


def _holds(span: ByteRange, offset: int) -> bool:
    return span.start <= offset < span.end


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
