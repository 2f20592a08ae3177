"""Round trips that a read waits for: two, wherever it is and however far its proof reaches."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from conftest_reader import FakeCas, FakeFile, LineCas, add_file, open_bench

from xetfs.protocol.ranges import ByteRange
from xetfs.reader.xet_source import RESERVE_BYTES, SLACK_BYTES
from xetfs.units import KIB, MIB

MakeFile = Callable[..., FakeFile]
CHUNK = 128 * KIB


def long_proofs(cas: FakeCas, chunks_long: int) -> FakeFile:
    """A file whose proof windows reach over `chunks_long` chunks: after any of the longest size they go on."""
    sizes = [CHUNK if i % chunks_long < chunks_long - 2 else 64 * KIB for i in range(20 * chunks_long)]
    rng = random.Random(3)
    chunks = [rng.randbytes(size) for size in sizes]
    return cas.add_file([(cas.add_xorb(chunks[i : i + 300]), 0, len(chunks[i : i + 300])) for i in range(0, len(chunks), 300)])


async def cost(cas: FakeCas, file: FakeFile, start: int) -> tuple[float, int]:
    """Round trips and bytes of a read of a page, with nothing held."""
    cas.delay_s = 1.0
    before = cas.fetched_bytes
    async with open_bench(cas) as bench:
        began = trio.current_time()
        data = await bench.reader(file).read(ByteRange(start, start + 4096))
        assert bytes(data) == file.content[start : start + 4096]
        return trio.current_time() - began, cas.fetched_bytes - before


async def test_a_proof_that_reaches_past_what_is_asked_for_costs_no_round_trip(cas: FakeCas, autojump_clock: object) -> None:
    file = long_proofs(cas, 5)
    costs = [await cost(cas, file, place * 512 * KIB) for place in (1, 5, 9)]
    assert [trips for trips, _ in costs] == [2, 2, 2]
    assert all(SLACK_BYTES + 192 * KIB < moved < SLACK_BYTES + RESERVE_BYTES + 3 * CHUNK for _, moved in costs)


async def test_what_is_kept_in_reserve_is_not_fetched_without_need(
    cas: FakeCas, make_file: MakeFile, autojump_clock: object
) -> None:
    file = make_file(300)
    costs = sorted([await cost(cas, file, place * 700_000) for place in range(1, 24)])
    assert {trips for trips, _ in costs} <= {2, 3}
    assert sum(trips == 2 for trips, _ in costs) >= 20
    assert sorted(moved for _, moved in costs)[12] < 400_000


async def test_opening_a_file_that_nobody_has_read_gets_ready_for_it(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(20)
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        reader.open()
        await trio.testing.wait_all_tasks_blocked()
        assert (cas.prepared, cas.asked) == (1, [])
        await reader.read(ByteRange(0, 4096))
        reader.open()
        reader.close()
        reader.close()
        await reader.content.flush()
        again = bench.reader(file)
        again.open()
        await trio.testing.wait_all_tasks_blocked()
        assert cas.prepared == 1
        again.close()


async def test_a_bug_while_getting_ready_costs_nothing(
    cas: FakeCas, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def prepare() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(cas, "prepare", prepare)
    file = make_file(20)
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        reader.open()
        await trio.testing.wait_all_tasks_blocked()
        assert bytes(await reader.read(ByteRange(0, 10))) == file.content[:10]
        reader.close()
    assert "preparing file=" in caplog.text


@pytest.mark.parametrize(
    ("size", "trips", "requests"), [(MIB, 2, 3), (5 * MIB, 3, 6), (10 * MIB, 3, 6), (30 * MIB, 3, 10), (100 * MIB, 5, 20)]
)
async def test_a_file_read_through_costs_a_few_round_trips(size: int, trips: int, requests: int, autojump_clock: object) -> None:
    """Over a link of 20 ms and 400 MB/s that is known already, by a program that is answered before it asks for more."""
    cas = LineCas(connection_bytes_s=400e6, total_bytes_s=400e6, latency_s=0.02)
    known, file = (add_file(cas, random.Random(4).randbytes(length)) for length in (3 * MIB, size))
    async with open_bench(cas) as bench:
        for each in (known, file):
            asked, began = len(cas.asked) + cas.requests, trio.current_time()
            reader = bench.reader(each)
            reader.open()
            for start in range(0, len(each.content), MIB):
                span = ByteRange(start, min(start + MIB, len(each.content)))
                data = reader.read_nowait(span)
                assert (await reader.read(span) if data is None else data) == each.content[span.start : span.end]
            reader.close()
    transfer_s, seconds = size / cas.total_bytes_s, trio.current_time() - began
    assert seconds - transfer_s <= trips * cas.latency_s
    assert seconds <= 1.6 * (2 * cas.latency_s + transfer_s)
    assert len(cas.asked) + cas.requests - asked <= requests
    assert cas.fetched_bytes <= 1.025 * (size + len(known.content))
