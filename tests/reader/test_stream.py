"""Streams: a range from its first byte to its last, at the pace of whoever takes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import pytest
import trio
import trio.testing
from conftest_reader import FakeCas, FakeFile, open_bench

from xetfs.errors import Unavailable
from xetfs.protocol.ranges import ByteRange
from xetfs.units import KIB, MIB

MakeFile = Callable[..., FakeFile]
SMALL = {"window_bytes_min": 64 * KIB, "window_bytes_max": 256 * KIB}


@pytest.fixture
def file(make_file: MakeFile) -> FakeFile:
    return make_file(400)  # 25 MB


@pytest.mark.parametrize("span", [(0, 1 << 40), (1, 5_000_001), (3_000_000, 3_000_001), (7, 7)])
@pytest.mark.parametrize("chunk_bytes", [64 * KIB, 1 * MIB])
async def test_the_bytes_in_order(cas: FakeCas, file: FakeFile, span: tuple[int, int], chunk_bytes: int) -> None:
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        for opened in (False, True):  # with and without a store that has them
            if opened:
                reader.open()
            pieces = [bytes(piece) async for piece in reader.stream(ByteRange(*span), chunk_bytes=chunk_bytes)]
            assert b"".join(pieces) == file.content[slice(*span)]
            assert all(0 < len(piece) <= chunk_bytes for piece in pieces)
        reader.close()


async def test_nothing_past_the_end_is_loaded(cas: FakeCas, file: FakeFile) -> None:
    async with open_bench(cas, **SMALL) as bench:
        reader = bench.reader(file)
        reader.open()
        end = 2_000_000
        async for _ in reader.stream(ByteRange(0, end)):
            await trio.testing.wait_all_tasks_blocked()
        reader.close()
        known = sum(run.end - run.start for run in reader.map.runs())
        assert known < end + 2 * 256 * KIB, "no more than the chunks at the end, and what a proof covers"


async def test_no_more_is_loaded_than_a_slow_taker_may_have_waiting(cas: FakeCas, file: FakeFile) -> None:
    ahead = 2 * MIB
    async with open_bench(cas, ahead_bytes_max=ahead, **SMALL) as bench:
        reader = bench.reader(file)
        reader.open()
        taken = 0
        async with aclosing(reader.stream(ByteRange(0, len(file.content)), chunk_bytes=128 * KIB)) as stream:
            async for piece in stream:
                taken += len(piece)
                await trio.testing.wait_all_tasks_blocked()  # nothing more comes by itself
                assert cas.fetched_bytes < taken + ahead + 4 * 256 * KIB
                if taken > 10_000_000:
                    break
        reader.close()


async def test_it_is_loaded_ahead_from_the_start(cas: FakeCas, file: FakeFile, autojump_clock: trio.testing.MockClock) -> None:
    """While the first piece is used, the next ones come: no reads in a row are needed to see where this goes."""
    cas.delay_s = 0.05
    async with open_bench(cas, verify="off") as bench:
        reader = bench.reader(file)
        reader.open()
        async with aclosing(reader.stream(ByteRange(0, 8_000_000))) as stream:
            first = len(await anext(stream))
            await trio.sleep(2)
            start, asked = trio.current_time(), len(cas.asked)
            rest = [len(piece) async for piece in stream]
        reader.close()
        assert first + sum(rest) == 8_000_000
        assert (trio.current_time() - start, len(cas.asked) - asked) == (0, 0)


async def test_a_stream_that_is_given_up_ends_what_nobody_waits_for(cas: FakeCas, file: FakeFile) -> None:
    async with open_bench(cas, **SMALL) as bench:
        reader = bench.reader(file)
        reader.open()
        async with aclosing(reader.stream(ByteRange(0, len(file.content)))) as stream:
            await anext(stream)
            cas.gate = trio.Event()  # what is on its way from here on hangs
            await trio.testing.wait_all_tasks_blocked()
            assert not reader.content.idle
        await trio.testing.wait_all_tasks_blocked()
        reader.close()
        await reader.content.flush()
        assert reader.content.idle


async def test_an_error_comes_after_the_pieces_that_are_right(cas: FakeCas, file: FakeFile) -> None:
    async with open_bench(cas, ahead_bytes_max=0, **SMALL) as bench:
        reader = bench.reader(file)
        taken = b""

        async def take() -> None:
            nonlocal taken
            async for piece in reader.stream(ByteRange(0, len(file.content)), chunk_bytes=256 * KIB):
                taken += piece
                if len(taken) > 3_000_000:
                    cas.fail_next = 1000

        with pytest.raises(Unavailable):
            await take()
        assert taken == file.content[: len(taken)]
        assert len(taken) > 3_000_000


async def test_what_is_evicted_is_fetched_again(cas: FakeCas, file: FakeFile) -> None:
    async with open_bench(cas, ahead_bytes_max=0) as bench:
        reader = bench.reader(file)
        span = ByteRange(0, 500_000)
        await reader.read(span)
        await bench.shelf.wait_written()
        fetched = cas.fetched_bytes
        await reader.evict()
        assert reader.read_nowait(span) is None
        assert await reader.read(span) == file.content[: span.end]
        assert cas.fetched_bytes >= 2 * fetched
        again = bench.reader(file)  # which knows what the store knows
        await again.read(span)
        assert cas.fetched_bytes == 2 * fetched
