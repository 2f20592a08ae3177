"""Blocks that are decoded while they arrive: in segments, by one attempt or several."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import CorruptData
from xetfs.net.writers import write
from xetfs.protocol.ranges import ChunkRange, HttpRange
from xetfs.protocol.reconstruction import FetchInfo, SignedUrl
from xetfs.protocol.xorb import EncodedXorb, Scheme, XorbBlock, encode_xorb
from xetfs.reader import incoming
from xetfs.reader.incoming import FRONT_BYTES, IncomingBlock, Segment, SegmentWriter
from xetfs.reader.planner import BlockFetch
from xetfs.units import KIB

SEGMENT = 300 * KIB


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "SEGMENT_BYTES", SEGMENT)


def make_xorb(count: int, scheme: Scheme | None = None) -> tuple[EncodedXorb, list[bytes]]:
    rng = random.Random(count)
    chunks = [rng.randbytes(rng.randrange(8 * KIB, 64 * KIB)) + bytes(rng.randrange(64 * KIB)) for _ in range(count)]
    return encode_xorb(chunks, scheme), chunks


class Arrival:
    def __init__(self, xorb: EncodedXorb, wire: bytes | None = None) -> None:
        self.wire = memoryview(xorb.wire if wire is None else wire)
        self.segments: list[Segment] = []
        info = FetchInfo(
            ChunkRange(0, len(xorb.hashes)), SignedUrl("https://transfer.example/x"), HttpRange(0, len(self.wire) - 1)
        )
        self.block = IncomingBlock(BlockFetch(xorb.xorb, info), self.segments.append)

    def decode(self) -> list[XorbBlock]:
        decoded = [self.block.decode(segment) for segment in self.segments]
        return [block for block in decoded if block is not None]


def check(blocks: Sequence[XorbBlock], xorb: EncodedXorb, chunks: Sequence[bytes]) -> None:
    assert b"".join(bytes(block.data) for block in blocks) == b"".join(chunks)
    assert [name for block in blocks for name in block.hashes] == list(xorb.hashes)
    assert blocks[0].chunks.start == 0
    assert [block.chunks.end for block in blocks] == [block.chunks.start for block in blocks[1:]] + [len(chunks)]


@pytest.mark.parametrize("scheme", [Scheme.NONE, Scheme.LZ4, None])
@pytest.mark.parametrize("count", [1, 3, 9, 60])
def test_chunks_that_cross_segments_are_whole(count: int, scheme: Scheme | None) -> None:
    xorb, chunks = make_xorb(count, scheme)
    arrival = Arrival(xorb)
    write(SegmentWriter(arrival.block), arrival.wire)
    blocks = arrival.decode()
    check(blocks, xorb, chunks)
    assert len(blocks) >= len(xorb.wire) // SEGMENT / 2


def test_no_segment_waits_for_the_rest_of_the_block() -> None:
    xorb, chunks = make_xorb(60)
    arrival = Arrival(xorb)
    writer = SegmentWriter(arrival.block)
    write(writer, arrival.wire[: 2 * SEGMENT + 1])
    assert [segment.start for segment in arrival.segments] == [0, SEGMENT]
    blocks = arrival.decode()
    assert b"".join(chunks).startswith(b"".join(bytes(block.data) for block in blocks))
    assert sum(len(block.data) for block in blocks) > 1.5 * SEGMENT


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 700 * KIB)), max_size=12))
def test_attempts_that_begin_anew_or_run_side_by_side_bring_each_byte_once(steps: list[tuple[int, int]]) -> None:
    """steps: which attempt goes on, and by how many bytes; the first one is then brought to its end."""
    xorb, chunks = make_xorb(30)
    arrival = Arrival(xorb)
    writers, places = [SegmentWriter(arrival.block) for _ in range(4)], [0] * 4
    for which, length in (*steps, (0, len(arrival.wire))):
        end = min(places[which] + length, len(arrival.wire))
        write(writers[which], arrival.wire[places[which] : end])
        places[which] = end
    check(arrival.decode(), xorb, chunks)


def test_what_was_handed_over_is_not_written_to_again() -> None:
    xorb, chunks = make_xorb(30, Scheme.NONE)
    arrival = Arrival(xorb)
    first, second = SegmentWriter(arrival.block), SegmentWriter(arrival.block)
    room = second.room()  # a request beside the first waits for its bytes
    write(first, arrival.wire)
    blocks = arrival.decode()
    room[:] = bytes(len(room))
    check(blocks, xorb, chunks)


@pytest.mark.parametrize("at", [0, 3 * SEGMENT // 2, -40 * KIB])
def test_a_header_that_cannot_be_is_corrupt_wherever_it_is(at: int) -> None:
    xorb, _ = make_xorb(30, Scheme.NONE)
    wire = bytearray(xorb.wire)
    start = next(end for end in (0, *xorb.wire_ends) if end >= at % len(wire))
    wire[start : start + 8] = b"\x00\xff\xff\xff\x00\xff\xff\xff"
    arrival = Arrival(xorb, bytes(wire))
    write(SegmentWriter(arrival.block), arrival.wire)
    with pytest.raises(CorruptData):
        arrival.decode()


def test_a_chunk_too_few_is_corrupt() -> None:
    xorb, _ = make_xorb(30)
    arrival = Arrival(xorb, xorb.wire[: xorb.wire_ends[-2]])
    write(SegmentWriter(arrival.block), arrival.wire)
    with pytest.raises(CorruptData):
        arrival.decode()


def test_room_in_front_of_a_segment_takes_the_beginning_of_any_chunk() -> None:
    assert FRONT_BYTES < incoming.SEGMENT_BYTES
