"""Readers on lines of every kind, in the time of a clock that jumps: how much of a line they fill, and how long anybody waits.

The line delays each answer, and carries so much for one connection and so much for all.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate, groupby, pairwise

import pytest
import trio
from conftest_reader import FakeCas, FakeFile, LineCas, add_file, open_bench

from xetfs.protocol.ranges import ByteRange
from xetfs.reader.file import FileReader
from xetfs.reader.line import (
    ARRIVALS,
    PART_BYTES_MAX,
    PART_BYTES_MIN,
    PART_S,
    TRANSFERS_UNKNOWN,
    UNDER_WAY_BYTES_FIRST,
    UNDER_WAY_BYTES_MIN,
    UNDER_WAY_S,
    TransferLine,
)
from xetfs.reader.parts import EARLY_PARTS, cut_up
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import Counters
from xetfs.units import KIB, MIB

CHUNK = 57 * KIB
PAGE = 4 * KIB
READ = MIB
"""What the kernel asks for at a time; two such requests are under way for one sequential reader."""


async def read_through(cas: LineCas, file: FakeFile) -> float:
    """Read a file from end to end as `cat` does through the kernel; the share of the line that it took."""
    size = len(file.content)
    async with open_bench(cas, MemoryStore(Counters())) as bench:
        reader = bench.reader(file)
        reader.open()
        began = trio.current_time()
        for start in range(0, size, READ):
            span, following = ByteRange(start, min(start + READ, size)), ByteRange(start + READ, start + 2 * READ)
            data = reader.read_nowait(span)
            if following.end <= size:
                reader.read_nowait(following)
            assert (await reader.read(span) if data is None else data) == file.content[span.start : span.end]
        seconds = trio.current_time() - began
        assert bench.shelf.budget.held_most <= bench.settings.reader.memory_bytes_max + 8 * MIB  # what is being decoded
        reader.close()
    assert cas.fetched_bytes <= 1.025 * size
    return size / seconds / cas.total_bytes_s


@pytest.mark.parametrize(
    ("connection_bytes_s", "total_bytes_s", "latency_s", "questions_gb", "requests_gb"),
    [(600e6, 1e9, 0.0005, 110, 195), (25e6, 250e6, 0.04, 260, 490)],
    ids=["near", "far"],
)
async def test_a_long_read_asks_the_cas_seldom(
    connection_bytes_s: float,
    total_bytes_s: float,
    latency_s: float,
    questions_gb: int,
    requests_gb: int,
    autojump_clock: object,
) -> None:
    """Reconstructions and proofs, and all requests, of 250 MiB; in longer reads the first, short windows count for less."""
    cas = LineCas(connection_bytes_s=connection_bytes_s, total_bytes_s=total_bytes_s, latency_s=latency_s)
    file = add_file(cas, random.Random(9).randbytes(250 * MIB))
    share = await read_through(cas, file)
    questions, gb = cas.count("reconstruction") + cas.count("proof"), len(file.content) / 1e9
    assert questions / gb <= questions_gb
    assert (questions + cas.requests) / gb <= requests_gb
    assert share >= 0.7


async def test_a_far_line_is_filled_after_a_few_round_trips(autojump_clock: object) -> None:
    """230 MB take 0.92 s at 250 MB/s; the first byte comes after two round trips, and it takes three more to fill the line."""
    cas = LineCas()
    assert await read_through(cas, add_file(cas, random.Random(9).randbytes(4000 * CHUNK))) >= 0.7


PAGES_AROUND = 64


async def copy_mapped(reader: FileReader, size: int, pages: Iterable[int], cached: set[int]) -> None:
    """Touch pages of a mapping. The kernel reads as much before as after one that is not cached, as far as that is not either."""
    for page in pages:
        if page not in cached:
            first = max(page - PAGES_AROUND, 0)
            around = [at for at in range(first, min(first + 2 * PAGES_AROUND, -(-size // PAGE))) if at not in cached]
            for _, numbered in groupby(enumerate(around), lambda pair: pair[1] - pair[0]):
                run = [at for _, at in numbered]
                span = ByteRange(run[0] * PAGE, min((run[-1] + 1) * PAGE, size))
                if reader.read_nowait(span) is None:
                    await reader.read(span)
            cached.update(around)


@pytest.mark.parametrize(("direction", "late_s"), [(1, 0.70), (-1, 0.55)], ids=["forward", "backward"])
async def test_a_model_is_copied_little_later_than_a_far_line_brings_it(
    direction: int, late_s: float, autojump_clock: object
) -> None:
    """A tensor of 64 MiB and 20 of 8 MiB, each copied through a mapping: 235 MB, which take 0.94 s at 250 MB/s. What comes on top
    is the way to the first byte of the header and of the first tensors, 0.1 to 0.2 s each, before it is known what is wanted."""
    lengths = [64 * MIB, *[8 * MIB] * 20]
    edges = [0, *accumulate(lengths)]
    text = json.dumps(
        {
            f"{i}": {"dtype": "U8", "shape": [edges[i + 1] - edges[i]], "data_offsets": edges[i : i + 2]}
            for i in range(len(lengths))
        }
    ).encode()
    content = len(text).to_bytes(8, "little") + text + random.Random(3).randbytes(edges[-1])
    cas = LineCas()
    file = add_file(cas, content)
    async with open_bench(cas, MemoryStore(Counters())) as bench:
        reader = bench.reader(file, "model.safetensors")
        reader.open()
        began = trio.current_time()
        cached: set[int] = set()
        await copy_mapped(reader, len(content), [0], cached)
        for start, end in pairwise(edges):
            first, last = ((8 + len(text) + at) // PAGE for at in (start, end - 1))
            await copy_mapped(reader, len(content), [first, last, *range(first, last + 1)[::direction]], cached)
        seconds = trio.current_time() - began
        reader.close()
    assert seconds - edges[-1] / cas.total_bytes_s <= late_s
    assert cas.fetched_bytes <= 1.025 * edges[-1]


@pytest.mark.parametrize("bytes_s", [200e3, 1e6, 5e6])
async def test_a_slow_line_is_filled_and_no_read_comes_too_late(bytes_s: float, autojump_clock: object) -> None:
    """Whatever is loaded ahead shares the line with what is waited for, and all that is waited for has 27 seconds."""
    cas = LineCas(connection_bytes_s=bytes_s, total_bytes_s=bytes_s)
    assert await read_through(cas, add_file(cas, random.Random(9).randbytes(800 * CHUNK))) >= 0.9


async def test_a_read_here_and_there_does_not_wait_for_what_is_loaded_ahead(autojump_clock: object) -> None:
    """On a line of 1 MB/s, while another program reads through a file."""
    cas = LineCas(connection_bytes_s=1e6, total_bytes_s=1e6)
    file, other = add_file(cas, random.Random(9).randbytes(800 * CHUNK)), add_file(cas, random.Random(9).randbytes(100 * CHUNK))
    async with open_bench(cas, MemoryStore(Counters())) as bench, trio.open_nursery() as nursery:
        through, here = bench.reader(file), bench.reader(other)

        async def read_on() -> None:
            for start in range(0, 12 * MIB, READ):
                await through.read(ByteRange(start, start + READ))

        through.open()
        here.open()
        nursery.start_soon(read_on)
        await trio.sleep(10)
        began = trio.current_time()
        await here.read(ByteRange(2 * MIB, 2 * MIB + 4096))
        assert trio.current_time() - began < 8
        nursery.cancel_scope.cancel()


async def test_parts_are_as_long_as_what_comes_in_a_moment(autojump_clock: object) -> None:
    line = TransferLine()
    assert line.part_bytes == PART_BYTES_MIN
    with line.transfer(8 * MIB):
        await trio.sleep(PART_S)
    assert line.part_bytes == pytest.approx(8 * MIB, rel=0.01)
    with line.transfer(64 * MIB):
        await trio.sleep(PART_S)
    assert line.part_bytes == PART_BYTES_MAX
    for _ in range(1000):
        with line.transfer(8 * MIB):
            await trio.sleep(2 * PART_S)
    assert line.part_bytes == PART_BYTES_MIN


async def test_a_line_is_full_when_as_much_is_under_way_as_it_brings_in_some_seconds(autojump_clock: object) -> None:
    line = TransferLine()
    assert not line.full(UNDER_WAY_BYTES_FIRST - 1)
    assert line.full(UNDER_WAY_BYTES_FIRST)
    with line.transfer(MIB):
        for _ in range(20):
            with line.transfer(10 * MIB):
                await trio.sleep(1)
        assert not line.full(round(0.9 * UNDER_WAY_S * 10 * MIB))
        assert line.full(round(1.1 * UNDER_WAY_S * 10 * MIB))
    await trio.sleep(1000)
    with line.transfer(MIB):
        assert line.full(UNDER_WAY_BYTES_FIRST)  # what was so long ago says little


async def test_a_line_carries_after_a_pause_what_it_carried_before(autojump_clock: object) -> None:
    """A time in which nobody asked for anything says nothing about the line."""
    line = TransferLine()
    for _ in range(4):
        with line.transfer(10 * MIB):
            await trio.sleep(1)
        await trio.sleep(5)
    with line.transfer(MIB):
        assert not line.full(round(0.9 * UNDER_WAY_S * 10 * MIB))
        assert line.full(round(1.1 * UNDER_WAY_S * 10 * MIB))
        for _ in range(ARRIVALS):
            with line.transfer(10 * KIB):
                await trio.sleep(1)
        assert line.full(UNDER_WAY_BYTES_MIN)


async def test_a_line_that_became_slow_is_known_as_such_though_nothing_comes_side_by_side(autojump_clock: object) -> None:
    line = TransferLine()
    for size in (100 * MIB, *[100 * KIB] * ARRIVALS):
        with line.transfer(size):
            await trio.sleep(1)
        await trio.sleep(5)
    assert line.full(UNDER_WAY_BYTES_MIN)


async def test_transfers_that_fail_are_no_reason_to_go_on_believing_in_a_line(autojump_clock: object) -> None:
    line = TransferLine()
    with line.transfer(10 * MIB):
        await trio.sleep(1)
    for _ in range(20):
        with suppress(OSError), line.transfer(10 * MIB):
            await trio.sleep(10)
            raise OSError("gone")
        await trio.sleep(20)
    with line.transfer(MIB):
        assert line.full(UNDER_WAY_BYTES_FIRST)


async def test_an_early_window_comes_over_as_many_connections_as_make_it_faster(autojump_clock: object) -> None:
    line, window = TransferLine(), [ByteRange(0, 7 * MIB)]
    assert len(list(cut_up(window, line))) == TRANSFERS_UNKNOWN
    with line.transfer(10 * MIB):
        await trio.sleep(1)
    assert len(list(cut_up(window, line))) == EARLY_PARTS
    assert len(list(cut_up([ByteRange(0, 2 * MIB)], line))) == 2
    near = TransferLine()
    with near.transfer(10 * MIB):
        await trio.sleep(0.02)
    assert list(cut_up(window, near)) == window


async def test_what_is_left_of_a_file_is_loaded_ahead_though_the_reader_is_slow(cas: FakeCas, autojump_clock: object) -> None:
    """When more is known ahead of it than is opened ahead, and nothing new is wanted up to the end of the file."""
    file = add_file(cas, random.Random(9).randbytes(100 * MIB))
    cas.delay_s = 0.01
    async with open_bench(cas, MemoryStore(Counters())) as bench:
        reader = bench.reader(file)
        reader.open()
        waited = 0
        for start in range(0, 100 * MIB, READ):
            span = ByteRange(start, start + READ)
            if (data := reader.read_nowait(span)) is None:
                waited += start >= 16 * MIB
                data = await reader.read(span)
            assert data == file.content[start : start + READ]
            await trio.sleep(0.1)
        assert waited == 0
        reader.close()
