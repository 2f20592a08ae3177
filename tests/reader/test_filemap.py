"""FileMap against a plain table of what is known at each chunk."""

from __future__ import annotations

import random
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import MerkleHash, XorbHash
from xetfs.protocol.ranges import ByteRange, ChunkRange
from xetfs.reader.filemap import HASH_BYTES, FileMap, Level, Run, decode_runs, encode_runs

XORB = XorbHash(MerkleHash(bytes(range(32))))


class Chunks:
    """A file cut in chunks; run(first, last) is what is true of chunks [first, last)."""

    def __init__(self, lengths: list[int]) -> None:
        self.edges = [0]
        for length in lengths:
            self.edges.append(self.edges[-1] + length)
        self.count = len(lengths)
        self.size = self.edges[-1]

    def run(self, first: int, last: int, level: Level) -> Run:
        hashes = b"".join(i.to_bytes(HASH_BYTES, "little") for i in range(first, last))
        return Run(self.edges[first], XORB, ChunkRange(first, last), array("Q", self.edges[first + 1 : last + 1]), hashes, level)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Chunks, list[tuple[str, int, int, Level]]]:
    chunks = Chunks(draw(st.lists(st.integers(1, 50), min_size=1, max_size=30)))
    steps = []
    for _ in range(draw(st.integers(1, 15))):
        first = draw(st.integers(0, chunks.count - 1))
        last = draw(st.integers(first + 1, chunks.count))
        steps.append((draw(st.sampled_from(["add", "add", "add", "forget", "raise"])), first, last, draw(st.sampled_from(Level))))
    return chunks, steps


@given(histories())
def test_a_map_knows_what_it_was_told(history: tuple[Chunks, list[tuple[str, int, int, Level]]]) -> None:
    chunks, steps = history
    known: dict[int, Level] = {}
    file_map = FileMap(chunks.size)
    for step, first, last, level in steps:
        span = ByteRange(chunks.edges[first], chunks.edges[last])
        if step == "add":
            file_map.add([chunks.run(first, last, level)])
            for i in range(first, last):
                known[i] = max(level, known.get(i, level))
        elif step == "raise":
            file_map.raise_to(level, span)
            for i in range(first, last):
                if i in known:
                    known[i] = max(level, known[i])
        else:
            file_map.forget(span)
            for i in range(first, last):
                known.pop(i, None)
    for i in range(chunks.count):
        for offset in (chunks.edges[i], chunks.edges[i + 1] - 1):
            run = file_map.at(offset)
            assert (run is not None) == (i in known)
            if run is not None:
                position = run.position(offset)
                assert run.level == known[i]
                assert run.chunks.start + position == i
                assert run.chunk_start(position) == chunks.edges[i]
                assert run.hashes_of(position, position + 1) == i.to_bytes(HASH_BYTES, "little")
    for level in Level:
        missing = {
            offset
            for i in range(chunks.count)
            if i not in known or known[i] < level
            for offset in range(chunks.edges[i], chunks.edges[i + 1])
        }
        gaps = file_map.gaps(ByteRange(0, chunks.size), level)
        assert {offset for gap in gaps for offset in range(gap.start, gap.end)} == missing
        assert all(before.end < after.start for before, after in pairwise(gaps))
    again = FileMap(chunks.size)
    again.add(decode_runs(encode_runs(file_map.runs()), chunks.size))
    assert encode_runs(again.runs()) == encode_runs(file_map.runs())


def test_contradictions_are_refused() -> None:
    chunks = Chunks([10, 10, 10, 10])
    other = Chunks([15, 5, 20])
    file_map = FileMap(40)
    file_map.add([chunks.run(1, 3, Level.FRAMING)])
    with pytest.raises(CorruptData, match="disagree"):
        file_map.add([other.run(0, 3, Level.FRAMING)])


def test_records_of_another_kind_are_refused() -> None:
    chunks = Chunks([10, 20, 30])
    record = encode_runs([chunks.run(0, 3, Level.PROOF)])
    rng = random.Random(5)
    for cut in range(1, len(record)):
        with pytest.raises(CorruptData):
            decode_runs(record[:cut], 60)
    with pytest.raises(CorruptData):
        decode_runs(record, 59)
    for _ in range(2000):
        garbage = bytearray(record)
        garbage[rng.randrange(len(garbage))] = rng.randrange(256)
        try:
            runs = decode_runs(bytes(garbage), 60)
        except CorruptData:
            continue
        assert all(run.ends[-1] <= 60 for run in runs)


def test_chunks_that_cannot_be_recorded_again_are_refused() -> None:
    record = bytearray(encode_runs([Chunks([10, 20, 30]).run(0, 3, Level.PROOF)]))
    first_chunk = slice(8 + 1 + 32, 8 + 1 + 32 + 4)
    record[first_chunk] = (2**32 - 3).to_bytes(4, "little")
    (run,) = decode_runs(bytes(record), 60)
    assert encode_runs([run]) == bytes(record)
    record[first_chunk] = (2**32 - 2).to_bytes(4, "little")
    with pytest.raises(CorruptData, match="malformed"):
        decode_runs(bytes(record), 60)


def test_segments_hold_the_runs_that_start_in_them() -> None:
    step = 48 * 1024 * 1024
    chunks = Chunks([step] * 5)
    file_map = FileMap(chunks.size)
    file_map.add([chunks.run(i, i + 1, Level.PROOF) for i in range(5)])
    assert [[run.start // step for run in file_map.segment(number)] for number in range(4)] == [[0, 1], [2], [3], [4]]


def test_gaps_end_with_the_file() -> None:
    known = FileMap(100)
    assert known.gaps(ByteRange(40, 60_000)) == [ByteRange(40, 100)]
    assert known.gaps(ByteRange(100, 60_000)) == known.gaps(ByteRange(500, 60_000)) == []
