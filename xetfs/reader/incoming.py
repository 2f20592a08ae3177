"""Blocks that are decoded while they arrive.

The bytes of a range are received in segments, each in a buffer of its own, which is decoded as soon as it is full: what is on the
wire takes memory for a segment or two, whatever the length of the range. A chunk that goes on in the next segment is put in front
of that. An attempt that has to begin anew skips what an earlier one has brought, and of two attempts side by side the first to
fill a segment hands it over; so nothing that was handed over is ever written to again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from xetfs.errors import CorruptData
from xetfs.protocol.memory import new_buffer
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import CHUNK_WIRE_BYTES_MAX, HEADER_BYTES, XorbBlock, decode_block, whole_chunks
from xetfs.reader.planner import BlockFetch
from xetfs.units import KIB, MIB

FRONT_BYTES: Final = HEADER_BYTES + CHUNK_WIRE_BYTES_MAX
"""Room in front of a segment for the beginning of a chunk."""
SEGMENT_BYTES: Final = 4 * MIB - FRONT_BYTES
"""Long enough that handing it to a thread and writing its block to the store cost little beside decoding it."""

_discarded = memoryview(bytearray(256 * KIB))


class Segment(NamedTuple):
    """Bytes of an incoming block: `buffer` from FRONT_BYTES on, if it is not the first segment."""

    block: IncomingBlock
    buffer: memoryview
    start: int
    end: int


class IncomingBlock:
    """A range of chunks on its way."""

    def __init__(self, fetch: BlockFetch, hand_over: Callable[[Segment], None]) -> None:
        self._fetch = fetch
        self._hand_over = hand_over
        self._received = 0
        self._chunk = fetch.info.chunks.start  # the next to decode
        self._cut = b""  # its beginning

    def __len__(self) -> int:
        return len(self._fetch.info.bytes)

    def segment_end(self, start: int) -> int:
        """Where the segment that begins at `start` ends; the last one may be half as long again."""
        end = start + SEGMENT_BYTES
        return end if len(self) - end > SEGMENT_BYTES // 2 else len(self)

    def wants(self, start: int) -> bool:
        """True if nobody has brought the segment that begins at `start`."""
        return start >= self._received

    def take(self, segment: Segment) -> None:
        if segment.start == self._received:
            self._received = segment.end
            self._hand_over(segment)

    def decode(self, segment: Segment) -> XorbBlock | None:
        """Decode the chunks that end in a segment, None if none does. For a worker thread; segments in order, each once.

        Raises CorruptData.
        """
        front = FRONT_BYTES - len(self._cut) if segment.start else 0
        if len(self._cut):
            segment.buffer[front:FRONT_BYTES] = self._cut
        wire, chunks = segment.buffer[front:], self._fetch.info.chunks
        if segment.end == len(self):
            return decode_block(self._fetch.xorb, ChunkRange(self._chunk, chunks.end), wire)
        count, used = whole_chunks(wire, chunks.end - 1 - self._chunk)
        self._cut = bytes(wire[used:])
        if len(self._cut) >= FRONT_BYTES:
            raise CorruptData(f"xorb {self._fetch.xorb.hex()[:12]}, chunk {self._chunk + count}: longer than a chunk may be")
        if not count:
            return None
        first, self._chunk = self._chunk, self._chunk + count
        return decode_block(self._fetch.xorb, ChunkRange(first, self._chunk), wire[:used])


class SegmentWriter:
    """Takes one attempt at a block (net/writers.py)."""

    def __init__(self, block: IncomingBlock) -> None:
        self._block = block
        self._at = 0
        self._begin(0)

    def _begin(self, start: int) -> None:
        self._start, self._end = start, self._block.segment_end(start)
        front = FRONT_BYTES if start else 0
        wanted = start < len(self._block) and self._block.wants(start)
        self._buffer = new_buffer(front + self._end - start) if wanted else None
        self._shift = front - start

    def __len__(self) -> int:
        return len(self._block)

    def room(self) -> memoryview:
        if self._buffer is None:
            return _discarded[: self._end - self._at]
        return self._buffer[self._at + self._shift :]

    def took(self, count: int) -> None:
        self._at += count
        if self._at == self._end:
            if self._buffer is not None:
                self._block.take(Segment(self._block, self._buffer, self._start, self._end))
            self._begin(self._end)
