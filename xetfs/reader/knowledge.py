"""What is known of one file, in memory and in the store's records.

The map grows as windows are loaded. It is recalled from the store segment by segment, as far as somebody asks, and given back to
it now and then. Event loop only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ByteRange, ChunkRange
from xetfs.reader.filemap import SEGMENT_BYTES, FileMap, Level, Run, decode_runs, encode_runs
from xetfs.reader.planner import gaps_in
from xetfs.reader.shelf import Shelf
from xetfs.reader.sources import Source

log = logging.getLogger(__name__)

MAP_RECORD: Final = "map"
"""Kind of the store's records that hold file maps."""


class Knowledge:
    """The map of one file and its records."""

    def __init__(self, source: Source, size: int, shelf: Shelf, level_min: Level) -> None:
        """level_min: how sure something must be to be given out."""
        self.map = FileMap(size)
        self.level_min = level_min
        self._source = source
        self._size = size
        self._shelf = shelf
        self._loaded: set[int] = set()  # segments whose records have been looked for
        self._dirty: set[int] = set()  # segments that have changed since their records were written
        self._flushing = trio.Lock()

    @property
    def recalled(self) -> bool:
        """Whether anything was looked for in the store."""
        return bool(self._loaded)

    @property
    def dirty(self) -> bool:
        """Whether there is anything to flush."""
        return bool(self._dirty)

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of the file, so far as it was looked for."""
        return self.map.gaps(ByteRange(0, self._size), Level.CLAIMED) == [ByteRange(0, self._size)]

    def run_at(self, offset: int) -> Run | None:
        """The run that holds the byte at `offset`, if it is sure enough to be given out."""
        run = self.map.at(offset)
        return run if run is not None and run.level >= self.level_min else None

    def gaps(self, span: ByteRange) -> list[ByteRange]:
        """What of `span` is not known well enough to be given out."""
        return self.map.gaps(span, self.level_min)

    def take_in(self, runs: Sequence[Run]) -> None:
        """Add what was learnt."""
        try:
            self.map.add(runs)
        except CorruptData as exc:
            # What was known is no surer than what is new, or the new would have been refused: begin anew with that.
            log.warning("what was known of a file is contradicted, replaced file=%s: %s", self._source.key[:16], exc)
            for run in runs:
                self.map.forget(ByteRange(run.start, run.end))
            self.map.add(runs)
        self._dirty.update(run.start // SEGMENT_BYTES for run in runs)

    async def forget_unheld(self, span: ByteRange) -> None:
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

    async def recall(self, span: ByteRange) -> None:
        """Load what the store remembers of the map around `span`; a run may have begun in the segment before."""
        numbers = range(max(span.start // SEGMENT_BYTES - 1, 0), (max(span.end, 1) - 1) // SEGMENT_BYTES + 1)
        missing = [number for number in numbers if number not in self._loaded]
        if not missing:
            return
        records = await self._shelf.records(MAP_RECORD, [f"{self._source.key}/{number}" for number in missing])
        for number, record in zip(missing, records, strict=True):
            if record is not None and number not in self._loaded:
                try:
                    self.map.add(self._source.recall(decode_runs(record, self._size)))
                except CorruptData as exc:
                    log.warning("a file map in the store is not usable file=%s: %s", self._source.key[:16], exc)
            self._loaded.add(number)

    def disown(self) -> None:
        """Forget all that is known of the file, in the store too."""
        self.map.forget(ByteRange(0, self._size))
        segments = range(-(-self._size // SEGMENT_BYTES))
        self._loaded.update(segments)  # not to be recalled before the next flush has replaced it
        self._dirty.update(segments)

    async def flush(self) -> None:
        """Give what was learnt since the last flush to the store. One at a time: an older record must not replace a newer one,
        nor the last flush of all end before one that is under way."""
        async with self._flushing:
            for number in sorted(self._dirty):
                await self.recall(ByteRange(number * SEGMENT_BYTES, number * SEGMENT_BYTES))
                self._dirty.discard(number)  # what is learnt from here on is for the next
                record = encode_runs(self.map.segment(number))
                await self._shelf.put_record(MAP_RECORD, f"{self._source.key}/{number}", record)
