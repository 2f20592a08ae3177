"""What is known of a file: which chunk of which xorb stands at which offset.

A map is a list of runs that do not overlap, sorted by where they start. It grows as windows are loaded and never shrinks; a
file's content never changes under its id. Chunk lengths and hashes come from decoded chunks, so a map says no more than
was seen: a hash in it is what the bytes at that place must have, wherever they are read from later.

Maps are kept in the store as one record for each stretch of SEGMENT_BYTES of a file, so that a record stays small and writing
one does not cost more as the file grows. A run belongs to the segment in which it starts.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from operator import lt
from typing import Final

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import MerkleHash, XorbHash
from xetfs.protocol.ranges import ByteRange, ChunkRange

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""About a thousand chunks: 40 KB of record."""

HASH_BYTES: Final = 32


class Level(IntEnum):
    """How sure it is that a chunk stands where a run says. Higher is surer."""

    CLAIMED = 0
    """A server says so, and a proof is still to come. Never given out."""
    RECALLED = 1
    """It was given out by an earlier mount at a level below FILE. Not given out before a proof has been asked for."""
    FRAMING = 2
    """A server says so, lengths agree, and it offers no proof."""
    XORB = 3
    """The same, and the chunk is the one of its xorb: all of that together have its hash."""
    FILE = 4
    """All chunks of the file together have the hash, or the content the digest, that the file is known by."""
    PROOF = 5
    """A Merkle proof leads from the chunk to the file id."""


def level_name(level: Level | None) -> str:
    """As it is shown: proof, file, xorb, framing; none while nothing is known."""
    return level.name.lower() if level is not None else "none"


_HEAD: Final = struct.Struct("<QB32sII")
CHUNK_INDEX_MAX: Final = 1 << 32
"""No chunk of a record has this index or a higher one: a run of it can be divided anywhere and recorded again."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Consecutive chunks of one xorb at one place of a file."""

    start: int
    """File offset of the first chunk."""
    xorb: XorbHash
    chunks: ChunkRange
    ends: array[int]
    """File offset at which each chunk ends; as many as chunks. An array of u64: a map of a large file has millions."""
    hashes: bytes
    """Raw chunk hashes, HASH_BYTES each, back to back."""
    level: Level

    @property
    def end(self) -> int:
        return self.ends[-1]

    def position(self, offset: int) -> int:
        """Which of the run's chunks (0 is the first) holds the byte at this file offset; it lies within the run."""
        return bisect_right(self.ends, offset)

    def chunk_start(self, position: int) -> int:
        """File offset at which the run's chunk `position` begins."""
        return self.ends[position - 1] if position else self.start

    def part(self, first: int, last: int) -> Run:
        """The run of this one's chunks [first, last)."""
        return Run(
            self.chunk_start(first),
            self.xorb,
            ChunkRange(self.chunks.start + first, self.chunks.start + last),
            self.ends[first:last],
            self.hashes_of(first, last),
            self.level,
        )

    def hashes_of(self, first: int, last: int) -> bytes:
        """Raw hashes of the run's chunks [first, last)."""
        return self.hashes[HASH_BYTES * first : HASH_BYTES * last]


class FileMap:
    """Runs of one file. Event loop only."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.changes = 0
        """Grows whenever a run comes or goes: who looks at a map from time to time can tell whether there is anything new."""
        self._starts: list[int] = []
        self._runs: list[Run] = []

    def at(self, offset: int) -> Run | None:
        """The run that holds the byte at `offset`, or None if nothing is known of it."""
        i = bisect_right(self._starts, offset) - 1
        if i < 0:
            return None
        run = self._runs[i]
        return run if offset < run.ends[-1] else None

    def next_start(self, offset: int) -> int:
        """Where the next run at or after `offset` begins; the file's size if there is none."""
        i = bisect_right(self._starts, offset - 1)
        return self._starts[i] if i < len(self._starts) else self.size

    def add(self, runs: Iterable[Run]) -> None:
        """Take in what was learnt. What is known already stays, unless the new knowledge is surer.

        Raises CorruptData if a chunk boundary falls inside a known chunk: then one of the two answers was false.
        """
        for run in runs:
            self._add(run)

    def forget(self, span: ByteRange) -> None:
        """Drop what is known of the chunks that `span` touches: their bytes turned out to be wrong or are not held any longer."""
        i = max(bisect_right(self._starts, span.start) - 1, 0)
        while i < len(self._runs) and self._starts[i] < span.end:
            run = self._runs[i]
            if run.end <= span.start:
                i += 1
                continue
            del self._starts[i], self._runs[i]
            self.changes += 1
            first = run.position(max(span.start, run.start))
            last = bisect_left(run.ends, span.end) + 1
            for part in ((0, first), (last, len(run.ends))):
                if part[0] < part[1]:
                    self._insert(run.part(*part))
                    i += 1

    def _add(self, run: Run) -> None:
        self._yield_to(run)
        position, count = 0, len(run.ends)
        while position < count:
            begin = run.chunk_start(position)
            known = self.at(begin)
            if known is not None:
                position = self._skip(run, known.end)
                continue
            limit = self.next_start(begin)
            stop = bisect_right(run.ends, limit)
            if stop <= position:
                raise CorruptData(f"two answers disagree on the chunk at byte {begin} of a file")
            self._insert(run.part(position, stop) if (position, stop) != (0, count) else run)
            position = stop

    @staticmethod
    def _skip(run: Run, known_end: int) -> int:
        """The run's first chunk after what is known until `known_end`, which must be a boundary of the run too."""
        after = bisect_right(run.ends, known_end)
        if after < len(run.ends) and run.chunk_start(after) != known_end:
            raise CorruptData(f"two answers disagree on the chunk at byte {run.chunk_start(after)} of a file")
        return after

    def _yield_to(self, run: Run) -> None:
        """Make room for a run where only less sure ones stand."""
        at = run.start
        while at < run.end:
            known = self.at(at)
            if known is not None and known.level < run.level:
                self.forget(ByteRange(max(known.start, run.start), min(known.end, run.end)))
            at = known.end if known is not None else max(self.next_start(at), at + 1)

    def _insert(self, run: Run) -> None:
        """Put a run where nothing is known."""
        i = bisect_right(self._starts, run.start)
        self.changes += 1
        self._starts.insert(i, run.start)
        self._runs.insert(i, run)

    def raise_to(self, level: Level, span: ByteRange) -> None:
        """Make all that is known within `span`, which lies on chunk boundaries, as sure as `level`; what is surer stays so."""
        raised = []
        for run in self.within(span):
            if run.level < level:
                first = run.position(max(span.start, run.start))
                raised.append(replace(run.part(first, bisect_right(run.ends, span.end)), level=level))
        self.add(raised)

    @property
    def level(self) -> Level | None:
        """How sure all is that may be given out of the file: the least of its levels; None while that is nothing."""
        return min((run.level for run in self._runs if run.level >= Level.FRAMING), default=None)

    def is_complete(self, level: Level) -> bool:
        """Whether the whole file is known at `level` or above. Quick to say no while little is."""
        at = 0
        while at < self.size:
            run = self.at(at)
            if run is None or run.level < level:
                return False
            at = run.end
        return True

    def runs(self) -> list[Run]:
        """All runs, in order."""
        return list(self._runs)

    def segment(self, number: int) -> list[Run]:
        """The runs that start within segment `number`."""
        first = bisect_right(self._starts, number * SEGMENT_BYTES - 1)
        last = bisect_right(self._starts, (number + 1) * SEGMENT_BYTES - 1)
        return self._runs[first:last]

    def gaps(self, span: ByteRange, level: Level = Level.CLAIMED) -> list[ByteRange]:
        """The parts of `span`, as far as the file goes, of which nothing is known at `level` or above, in order, none beside
        another."""
        found: list[ByteRange] = []
        span = span.clip(self.size)
        at = span.start
        while at < span.end:
            known = self.at(at)
            end = min(known.end if known is not None else self.next_start(at), span.end)
            if known is None or known.level < level:
                if found and found[-1].end == at:
                    found[-1] = ByteRange(found[-1].start, end)
                else:
                    found.append(ByteRange(at, end))
            at = end
        return found

    def within(self, span: ByteRange) -> list[Run]:
        """The runs that touch `span`, whole, in order."""
        first = bisect_right(self._starts, span.start) - 1
        if first < 0 or self._runs[first].end <= span.start:
            first += 1
        return self._runs[first : bisect_left(self._starts, span.end)]

    def __repr__(self) -> str:
        known = sum(run.end - run.start for run in self._runs)
        return f"FileMap({len(self._runs)} runs, {known} of {self.size} bytes)"


def at_least_framing(runs: Iterable[Run]) -> list[Run]:
    """Runs as they can be given out without a proof; what is surer stays so."""
    return [run if run.level >= Level.FRAMING else replace(run, level=Level.FRAMING) for run in runs]


def encode_runs(runs: Iterable[Run]) -> bytes:
    """Runs as a record of the store, which guards it against change; `decode_runs` is the inverse, but that what nothing vouches
    for is not told apart.

    For each run: start u64, level u8, xorb hash, first chunk u32, number n of chunks u32, n ends u64, n hashes; little-endian.
    """
    parts: list[bytes] = []
    for run in runs:
        level = run.level if run.level >= Level.FILE else min(run.level, Level.RECALLED)
        parts.append(_HEAD.pack(run.start, level, run.xorb, run.chunks.start, len(run.chunks)))
        parts.append(run.ends.tobytes())
        parts.append(run.hashes)
    return b"".join(parts)


def decode_runs(record: bytes, size: int) -> list[Run]:
    """Runs from a record about a file of `size` bytes; those that nothing vouches for come at Level.RECALLED.

    Raises CorruptData if it is no such record.
    """
    runs: list[Run] = []
    at = 0
    while at < len(record):
        if len(record) - at < _HEAD.size:
            raise CorruptData("a file map in the store is cut short")
        start, level, xorb, first, count = _HEAD.unpack_from(record, at)
        at += _HEAD.size
        hashes_at = at + 8 * count
        until = hashes_at + HASH_BYTES * count
        if level > max(Level) or count == 0 or until > len(record) or first + count > CHUNK_INDEX_MAX:
            raise CorruptData("a file map in the store is malformed")
        ends = array("Q", record[at:hashes_at])
        if ends[0] <= start or ends[-1] > size or not all(map(lt, ends, ends[1:])):
            raise CorruptData("a file map in the store gives impossible offsets")
        chunks = ChunkRange(first, first + count)
        runs.append(Run(start, XorbHash(MerkleHash(xorb)), chunks, ends, record[hashes_at:until], Level(level)))
        at = until
    return runs
