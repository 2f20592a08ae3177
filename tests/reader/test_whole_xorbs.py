"""Xorbs that become known whole without proofs: what is raised, what is not, and what that does not say."""

from __future__ import annotations

import random

import pytest
import trio.testing
from conftest_reader import Bench, FakeCas, open_bench

from xetfs import telemetry
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import Level
from xetfs.reader.whole import BATCH_CHUNKS, WholeChecker

CHUNK_BYTES = 10_000
SMALL_WINDOWS = {
    "window_bytes_min": CHUNK_BYTES,
    "window_bytes_max": CHUNK_BYTES,
    "ahead_bytes_max": CHUNK_BYTES,
    "verify": "off",  # a proof that is asked for, and may not come, brings more than what is read
}


@pytest.fixture
def proofless(cas: FakeCas) -> FakeCas:
    """A CAS without proofs and with two xorbs, of 10 and of 6 chunks."""
    cas.proofless = True
    chance = random.Random(3)
    for count in (10, 6):
        cas.add_xorb([chance.randbytes(CHUNK_BYTES) for _ in range(count)])
    return cas


async def consider(bench: Bench, reader: FileReader, whole: WholeChecker | None = None) -> None:
    (whole or WholeChecker(bench.shelf, bench.nursery, bench.counters)).consider(reader.content)
    await trio.testing.wait_all_tasks_blocked()


async def read(reader: FileReader, first: int, last: int) -> bytes:
    """Chunks [first, last) of the file."""
    return bytes(await reader.read(ByteRange(first * CHUNK_BYTES, last * CHUNK_BYTES)))


def levels(reader: FileReader) -> list[tuple[int, int, Level]]:
    """What is known, in chunks of the file."""
    return [(run.start // CHUNK_BYTES, run.end // CHUNK_BYTES, run.level) for run in reader.map.runs()]


def level_at(reader: FileReader, chunk: int) -> Level | None:
    run = reader.map.at(chunk * CHUNK_BYTES)
    return run.level if run is not None else None


async def test_a_whole_xorb_is_raised_and_nothing_else(proofless: FakeCas) -> None:
    file = proofless.add_file([(0, 0, 10), (1, 0, 6)])
    async with open_bench(proofless, **SMALL_WINDOWS) as bench:
        reader = bench.reader(file)
        whole = WholeChecker(bench.shelf, bench.nursery, bench.counters)
        for first in (0, 3, 6):
            await read(reader, first, first + 3)
            await consider(bench, reader, whole)
            assert reader.map.level == Level.FRAMING
        await read(reader, 9, 12)
        asked = len(proofless.asked)
        await consider(bench, reader, whole)
        assert [level_at(reader, chunk) for chunk in range(10)] == [Level.XORB] * 10
        assert level_at(reader, 11) == reader.map.level == Level.FRAMING
        assert bench.counters[telemetry.READER_XORBS_RIGHT] == 1
        assert len(proofless.asked) == asked
        assert await read(reader, 0, 12) == file.content[: 12 * CHUNK_BYTES]


async def test_what_is_known_whole_is_raised_as_a_file(proofless: FakeCas) -> None:
    file = proofless.add_file([(0, 0, 10), (1, 0, 6)])
    async with open_bench(proofless, **SMALL_WINDOWS) as bench:
        reader = bench.reader(file)
        await read(reader, 0, 10)
        await consider(bench, reader)
        await read(reader, 10, 16)
        await consider(bench, reader)
        assert {run.level for run in reader.map.runs()} == {Level.FILE}


async def test_chunks_may_come_in_any_order_and_several_times(proofless: FakeCas) -> None:
    file = proofless.add_file([(0, 4, 10), (1, 2, 5), (0, 0, 7), (0, 3, 4)])
    async with open_bench(proofless, **SMALL_WINDOWS) as bench:
        reader = bench.reader(file)
        await read(reader, 0, 6)
        await consider(bench, reader)
        assert reader.map.level == Level.FRAMING
        await read(reader, 9, 17)
        await consider(bench, reader)
        assert {run.level for run in reader.map.runs()} == {Level.XORB}


async def test_a_part_of_a_xorb_stays_as_it_is(proofless: FakeCas) -> None:
    file = proofless.add_file([(0, 0, 9), (1, 1, 6), (0, 0, 1)])
    async with open_bench(proofless, **SMALL_WINDOWS) as bench:
        reader = bench.reader(file)
        await read(reader, 0, 14)
        await consider(bench, reader)
        assert reader.map.level == Level.FRAMING
        assert bench.counters[telemetry.READER_XORBS_RIGHT] == 0


async def test_a_wrong_chunk_makes_no_whole_xorb(proofless: FakeCas) -> None:
    """The server calls other content by the name of the xorb."""
    file = proofless.add_file([(0, 0, 10), (1, 0, 6)])
    lie = proofless.xorbs[proofless.add_xorb([bytes([number]) * CHUNK_BYTES for number in range(10)])]
    proofless.xorbs[0].wire, proofless.xorbs[0].ends = lie.wire, lie.ends
    async with open_bench(proofless, **SMALL_WINDOWS) as bench:
        reader = bench.reader(file)
        assert await read(reader, 0, 10) != file.content[: 10 * CHUNK_BYTES]
        await consider(bench, reader)
        assert reader.map.level == Level.FRAMING
        assert bench.counters[telemetry.READER_XORBS_RIGHT] == 0


async def test_a_whole_xorb_says_nothing_of_where_its_chunks_belong(proofless: FakeCas) -> None:
    true = proofless.add_file([(0, 0, 10), (1, 0, 6)])
    proofless.files[true.id] = proofless.add_file([(0, 5, 10), (0, 0, 5), (1, 0, 6)])
    async with open_bench(proofless, **SMALL_WINDOWS) as bench:
        reader = bench.reader(true)
        assert await read(reader, 0, 10) != true.content[: 10 * CHUNK_BYTES]
        await consider(bench, reader)
        assert reader.map.level == Level.XORB
        await read(reader, 10, 16)
        await consider(bench, reader)
        assert bench.counters[telemetry.READER_WHOLE_WRONG] == 1
        assert reader.map.runs() == []


async def test_it_is_not_enough_where_proof_is_asked_for(proofless: FakeCas) -> None:
    file = proofless.add_file([(0, 0, 10), (1, 0, 6)])
    async with open_bench(proofless, **SMALL_WINDOWS) as bench:
        reader = bench.reader(file)
        await read(reader, 0, 10)
        await consider(bench, reader)
        runs = reader.map.runs()
        assert {run.level for run in runs} == {Level.XORB}
        async with open_bench(proofless, bench.store, verify="proof") as strict:
            other = strict.reader(file)
            other.content.adopt(runs)
            assert other.read_nowait(ByteRange(0, 10)) is None
            assert reader.read_nowait(ByteRange(0, 10)) == file.content[:10]


async def test_a_large_xorb_is_folded_in_steps(cas: FakeCas) -> None:
    cas.proofless = True
    count = BATCH_CHUNKS * 2 + 10
    cas.add_xorb([number.to_bytes(4, "big") * 3 for number in range(count)])
    cas.add_xorb([b"another"])
    file = cas.add_file([(0, 0, count), (1, 0, 1)])
    async with open_bench(cas, window_bytes_min=1000, window_bytes_max=12 * count, ahead_bytes_max=0) as bench:
        reader = bench.reader(file)
        for at in range(0, 12 * count, 1000):
            await reader.read(ByteRange(at, min(at + 1000, 12 * count)))
        reader.map.forget(ByteRange(12 * count, reader.size))
        await consider(bench, reader)
        assert reader.map.level == Level.XORB
