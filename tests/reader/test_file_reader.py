"""FileReader over a CAS in memory: right bytes, and no more asked than needed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import trio
import trio.testing
from conftest_reader import Bench, FakeCas, FakeFile, open_bench

from xetfs.errors import AccessDenied, CorruptData, ProtocolViolation, Unavailable
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ByteRange, ChunkRange
from xetfs.reader.budget import Urgency
from xetfs.reader.filemap import FileMap, Level, Run
from xetfs.reader.xet_source import XetSource
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import READER_CORRUPT_WINDOWS, Counters
from xetfs.units import KIB, MIB

MakeFile = Callable[..., FakeFile]


async def read(bench: Bench, file: FakeFile, start: int, end: int) -> bytes:
    return bytes(await bench.reader(file).read(ByteRange(start, end)))


@pytest.mark.parametrize("verify", ["auto", "proof", "off"])
async def test_reads_any_range(cas: FakeCas, make_file: MakeFile, verify: str) -> None:
    file = make_file(60)
    size = len(file.content)
    rng = random.Random(7)
    async with open_bench(cas, verify=verify) as bench:
        reader = bench.reader(file)
        for _ in range(60):
            start = rng.randrange(size)
            end = start + rng.choice([1, 100, 4096, 131072, 1 << 20])
            data = reader.read_nowait(ByteRange(start, end))
            if data is None:
                data = await reader.read(ByteRange(start, end))
            assert bytes(data) == file.content[start:end]
        assert bytes(await reader.read(ByteRange(size, size + 10))) == b""
        assert bytes(await reader.read(ByteRange(size - 1, size + 10))) == file.content[-1:]


async def test_a_second_pass_asks_for_nothing(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(40)
    size = len(file.content)
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        for start in range(0, size, 100_000):
            await reader.read(ByteRange(start, start + 100_000))
        asked, fetched = len(cas.asked), len(cas.fetched)
        for start in range(size - 7777, 0, -7777):
            data = reader.read_nowait(ByteRange(start, start + 7777))
            assert data is not None
            assert bytes(data) == file.content[start : start + 7777]
        assert (len(cas.asked), len(cas.fetched)) == (asked, fetched)


async def test_a_cold_read_takes_two_round_trips(cas: FakeCas, make_file: MakeFile, autojump_clock: object) -> None:
    file = make_file(400)
    cas.delay_s = 1.0
    windows = []
    async with open_bench(cas) as bench:
        for i in range(20):
            start = (i * 2 + 1) * len(file.content) // 41
            began = trio.current_time()
            assert await read(bench, file, start, start + 4096) == file.content[start : start + 4096]
            windows.append(round(trio.current_time() - began))
    assert sorted(windows)[len(windows) * 8 // 10] == 2
    assert max(windows) <= 3


async def test_sequential_reading_moves_hardly_more_than_the_file(
    cas: FakeCas, make_file: MakeFile, autojump_clock: object
) -> None:
    file = make_file(1500)
    cas.delay_s = 0.01
    size = len(file.content)
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        reader.open()
        for start in range(0, size, 131072):
            data = await reader.read(ByteRange(start, start + 131072))
            assert bytes(data) == file.content[start : start + 131072]
        reader.close()
    assert cas.fetched_bytes <= 1.01 * sum(len(xorb.wire) for xorb in cas.xorbs)


async def test_readers_of_the_same_bytes_share_one_fetch(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(10)
    async with open_bench(cas, verify="off") as bench:
        reader = bench.reader(file)
        results = []

        async def one() -> None:
            results.append(bytes(await reader.read(ByteRange(5000, 9000))))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        assert results == [file.content[5000:9000]] * 20
        assert (len(cas.asked), cas.requests) == (1, 1)


async def test_two_files_share_chunks(cas: FakeCas, make_file: MakeFile) -> None:
    first = make_file(50)
    second = cas.add_file([(0, 10, 40)])
    async with open_bench(cas) as bench:
        await read(bench, first, 0, len(first.content))
        fetched = len(cas.fetched)
        assert await read(bench, second, 0, len(second.content)) == second.content
        assert len(cas.fetched) == fetched


async def test_the_last_reader_to_leave_ends_the_fetch(cas: FakeCas, make_file: MakeFile, autojump_clock: object) -> None:
    file = make_file(10)
    cas.gate = trio.Event()
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope(), trio.CancelScope()]

            async def one(scope: trio.CancelScope) -> None:
                with scope:
                    await reader.read(ByteRange(0, 100))

            for scope in scopes:
                nursery.start_soon(one, scope)
            await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert cas.cancelled == 0
            scopes[1].cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert cas.cancelled == 1
        cas.gate.set()
        await trio.sleep(2)
        assert bytes(await reader.read(ByteRange(0, 100))) == file.content[:100]
        assert bench.shelf.budget.held <= sum(len(chunk) for chunk in [file.content])


async def test_expired_urls_are_asked_for_again(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(10)
    cas.expire_next = 2
    async with open_bench(cas, verify="off") as bench:
        assert await read(bench, file, 0, 5000) == file.content[:5000]
    assert len(cas.asked) == 3


async def test_urls_that_stay_refused_end_in_an_error(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(10)
    cas.expire_next = 99
    async with open_bench(cas) as bench:
        with pytest.raises(AccessDenied):
            await read(bench, file, 0, 5000)


async def test_a_failed_place_answers_at_once_for_a_moment(cas: FakeCas, make_file: MakeFile, autojump_clock: object) -> None:
    file = make_file(10)
    cas.fail_next = 1
    async with open_bench(cas, verify="off") as bench:
        reader = bench.reader(file)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await reader.read(ByteRange(0, 5000))
        assert cas.requests == 1
        await trio.sleep(2)
        assert bytes(await reader.read(ByteRange(0, 5000))) == file.content[:5000]


@pytest.mark.parametrize("verify", ["auto", "proof"])
async def test_a_wrong_byte_is_never_given_out(cas: FakeCas, make_file: MakeFile, verify: str) -> None:
    file = make_file(20)
    cas.xorbs[0].wire[40_000] ^= 1
    async with open_bench(cas, verify=verify) as bench:
        reader = bench.reader(file)
        with pytest.raises(CorruptData):
            await reader.read(ByteRange(30_000, 50_000))
        assert len([1 for kind, _ in cas.asked if kind == "proof"]) == 2


async def test_a_wrong_byte_is_fetched_again(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(20)
    cas.xorbs[0].wire[40_000] ^= 1
    original = cas.fetch

    async def fetch_once_wrong(url: object, parts: object) -> None:
        await original(url, parts)  # type: ignore[arg-type]
        cas.xorbs[0].wire[40_000] ^= 1
        cas.fetch = original  # type: ignore[method-assign]

    cas.fetch = fetch_once_wrong  # type: ignore[assignment, method-assign]
    async with open_bench(cas) as bench:
        assert await read(bench, file, 30_000, 50_000) == file.content[30_000:50_000]


async def test_without_proofs_auto_serves_and_proof_refuses(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(20)
    cas.proofless = True
    async with open_bench(cas, verify="auto") as bench:
        reader = bench.reader(file)
        assert bytes(await reader.read(ByteRange(0, 5000))) == file.content[:5000]
        assert {run.level for run in reader.map.runs()} == {Level.FRAMING}
    async with open_bench(cas, verify="proof") as bench:
        with pytest.raises(ProtocolViolation, match="no proof"):
            await read(bench, file, 0, 5000)


async def test_a_proof_does_not_miss_what_is_forgotten_while_it_is_asked_for(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(60)
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        await reader.read(ByteRange(500_000, 1_000_000))
        known = reader.map.runs()
        results = []

        async def read_around() -> None:
            results.append(bytes(await reader.read(ByteRange(300_000, 510_000))))

        cas.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_around)
            await trio.testing.wait_all_tasks_blocked()
            for run in known:
                reader.map.forget(ByteRange(run.start, run.end))
            cas.gate.set()
        assert results == [file.content[300_000:510_000]]
        assert bench.counters[READER_CORRUPT_WINDOWS] == 0


async def test_what_was_learnt_outlives_the_reader(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(60)
    store = MemoryStore(Counters())
    async with open_bench(cas, store) as bench:
        reader = bench.reader(file)
        await reader.read(ByteRange(0, len(file.content)))
        await reader.content.flush()
        await bench.shelf.drain()
    asked = len(cas.asked)
    async with open_bench(cas, store) as bench:
        assert await read(bench, file, 0, len(file.content)) == file.content
    assert len(cas.asked) == asked


async def test_a_store_smaller_than_the_file(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(300)
    store = MemoryStore(Counters(), bytes_max=2 * MIB)
    async with open_bench(cas, store, memory_bytes_max=4 * MIB, window_bytes_max=MIB) as bench:
        reader = bench.reader(file)
        reader.open()
        for _ in range(2):
            for start in range(0, len(file.content), 128 * KIB):
                data = await reader.read(ByteRange(start, start + 128 * KIB))
                assert bytes(data) == file.content[start : start + 128 * KIB]
        reader.close()
        assert bench.shelf.budget.held_most <= 8 * MIB


async def test_terms_that_repeat_and_go_backwards(cas: FakeCas) -> None:
    rng = random.Random(3)
    first = cas.add_xorb([rng.randbytes(rng.randrange(1, 20_000)) for _ in range(50)])
    second = cas.add_xorb([bytes(131072)])
    terms = []
    for _ in range(400):
        if rng.random() < 0.3:
            terms.append((second, 0, 1))
        else:
            start = rng.randrange(49)
            terms.append((first, start, rng.randrange(start + 1, 50)))
    file = cas.add_file(terms)
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        for _ in range(30):
            start = rng.randrange(len(file.content))
            end = start + rng.randrange(1, 3 * MIB)
            assert bytes(await reader.read(ByteRange(start, end))) == file.content[start:end]


async def test_a_reader_that_is_closed_stops_loading_ahead(cas: FakeCas, make_file: MakeFile, autojump_clock: object) -> None:
    file = make_file(800)
    cas.delay_s = 0.05
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        reader.open()
        for start in range(0, 4 * MIB, 131072):
            await reader.read(ByteRange(start, start + 131072))
        cas.gate = trio.Event()
        for start in range(4 * MIB, 5 * MIB, 131072):
            bench.nursery.start_soon(reader.read, ByteRange(start, start + 1))
        await trio.sleep(1)
        assert not reader.content.idle
        reader.close()
        bench.nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert reader.content.idle or not cas.gate.is_set()


async def test_a_source_that_does_not_bring_what_it_is_asked_for_ends_in_an_error(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(10)
    async with open_bench(cas) as bench:
        reader = bench.reader(file)

        async def bring_nothing(*_: object) -> list[object]:
            await trio.lowlevel.checkpoint()
            return []

        reader.source.load = bring_nothing  # type: ignore[assignment, method-assign]
        with pytest.raises(CorruptData):
            await reader.read(ByteRange(0, 100))


async def test_a_store_with_bugs_costs_a_block_and_not_the_engine(
    cas: FakeCas, make_file: MakeFile, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryStore):
        def put(self, block: object) -> None:
            raise RuntimeError("a bug")

    file = make_file(30)
    async with open_bench(cas, Broken(Counters())) as bench:
        assert await read(bench, file, 0, len(file.content)) == file.content
        await bench.shelf.drain()
    assert "could not be given to the store" in caplog.text


async def test_what_was_evicted_is_asked_for_in_large_pieces(cas: FakeCas, autojump_clock: object) -> None:
    """A file of many terms whose blocks are gone costs about as much as it did when it was new, not a question for each term."""
    rng = random.Random(8)
    xorb = cas.add_xorb([rng.randbytes(8192) for _ in range(500)])
    order = rng.sample(range(500), 500)
    file = cas.add_file([(xorb, chunk, chunk + 1) for chunk in order])
    cas.delay_s = 0.001
    store = MemoryStore(Counters(), bytes_max=MIB)
    async with open_bench(cas, store, memory_bytes_max=MIB) as bench:
        reader = bench.reader(file)
        reader.open()
        costs = []
        for _ in range(3):
            before = len(cas.asked)
            for start in range(0, len(file.content), 128 * KIB):
                data = await reader.read(ByteRange(start, start + 128 * KIB))
                assert bytes(data) == file.content[start : start + 128 * KIB]
            costs.append(len(cas.asked) - before)
        reader.close()
    assert max(costs[1:]) <= 2 * costs[0] + 40, costs


async def test_what_is_learnt_anew_is_not_forgotten_by_who_asked_before(
    cas: FakeCas, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readers find that blocks are gone. The one that is slow to ask what is held does not undo what the other has loaded."""
    file = make_file(12)
    store = MemoryStore(Counters())
    async with open_bench(cas, store, verify="off") as bench:
        reader = bench.reader(file)
        await reader.read(ByteRange(0, len(file.content)))
        await bench.shelf.drain()
        bench.shelf.release_idle()
        store.close()  # which leaves it empty
        answered, go_on = trio.Event(), trio.Event()
        held = bench.shelf.held

        async def slow_held(wanted: dict[XorbHash, list[ChunkRange]]) -> dict[XorbHash, list[ChunkRange]]:
            answer = await held(wanted)
            if not answered.is_set():
                answered.set()
                await go_on.wait()
            return answer

        monkeypatch.setattr(bench.shelf, "held", slow_held)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read, ByteRange(0, 1000))
            await answered.wait()
            assert bytes(await reader.read(ByteRange(0, 1000))) == file.content[:1000]
            learnt = reader.map.at(0)
            assert learnt is not None
            go_on.set()
        assert reader.map.at(0) is learnt


async def test_readahead_that_moves_and_never_comes_by_is_not_waited_for_without_end(
    cas: FakeCas, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Without a caller's deadline: every front but the mount reads so."""
    file = make_file(200)
    load = XetSource.load

    async def creep(
        self: XetSource, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: Callable[[ByteRange], None]
    ) -> list[Run]:
        if urgency.demand:
            return await load(self, span, known, urgency, on_covered)
        await trio.sleep(1)
        on_covered(ByteRange(span.start, span.start + 1))
        return []

    async def read_at(start: int) -> None:
        assert bytes(await reader.read(ByteRange(start, start + 128 * KIB))) == file.content[start : start + 128 * KIB]

    async with open_bench(cas, window_bytes_max=256 * KIB) as bench:
        reader = bench.reader(file)
        reader.open()
        for at in range(0, 4 * MIB, 128 * KIB):
            await read_at(at)
        monkeypatch.setattr(XetSource, "load", creep)
        begin = trio.current_time()
        await read_at(6 * MIB)
        assert 0 < trio.current_time() - begin <= 2 * bench.settings.net.stall_timeout_s
        reader.close()


async def test_a_front_without_a_kernel_may_wait_as_long_as_it_takes(
    cas: FakeCas, make_file: MakeFile, autojump_clock: trio.testing.MockClock
) -> None:
    file = make_file(20)
    cas.delay_s = 600.0
    async with open_bench(cas, operation_deadline_s=math.inf, proof_timeout_s=math.inf) as bench:
        assert await read(bench, file, 30_000, 50_000) == file.content[30_000:50_000]
    assert trio.current_time() >= 2 * cas.delay_s
