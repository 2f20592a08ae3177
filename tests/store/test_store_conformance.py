"""What every store offers, asked of each of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from store_samples import make_block, xorb_named

from xetfs import telemetry
from xetfs.protocol.ranges import ChunkRange
from xetfs.store.api import RECORD_BYTES_MAX, ChunkStore
from xetfs.store.disk import DiskStore
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import Counters
from xetfs.units import KIB, MIB

MakeStore = Callable[[int], ChunkStore]


@pytest.fixture(params=["memory", "disk"])
def make_store(request: pytest.FixtureRequest, counters: Counters, open_store: Callable[..., DiskStore]) -> Iterator[MakeStore]:
    """Makes a store with this many bytes."""
    if request.param == "memory":
        yield lambda bytes_max: MemoryStore(counters, bytes_max=bytes_max)
    else:
        yield lambda bytes_max: open_store(cache_bytes_max=bytes_max)


@pytest.fixture
def store(make_store: MakeStore) -> ChunkStore:
    return make_store(64 * MIB)


def test_an_empty_store_holds_nothing(store: ChunkStore, counters: Counters) -> None:
    assert store.find_nowait(xorb_named(1), 0) is None
    assert store.find(xorb_named(1), 0) is None
    assert list(store.held(xorb_named(1))) == []
    assert store.get_record("map", "a") is None
    assert store.statistics().state == "ok"
    assert counters[telemetry.STORE_MISSES] == 1


def test_a_block_is_found_by_each_of_its_chunks_and_no_other(store: ChunkStore) -> None:
    block = make_block(1, first=5)
    store.put(block)
    for chunk in range(5, 9):
        found = store.find(block.xorb, chunk)
        assert found is not None
        assert (found.xorb, found.chunks) == (block.xorb, block.chunks)
        assert tuple(found.offsets) == block.offsets
        assert tuple(found.hashes) == block.hashes
        assert tuple(found.hashes[1:3]) == block.hashes[1:3]
    assert store.find(block.xorb, 4) is None
    assert store.find(block.xorb, 9) is None
    assert store.find(xorb_named(2), 5) is None


def test_any_range_of_a_block_reads_as_it_was_put(store: ChunkStore) -> None:
    block = make_block(1)
    store.put(block)
    found = store.find(block.xorb, 0)
    assert found is not None
    rng = random.Random(7)
    edges = [0, 1, 999, 1000, 1001, 70999, 71000, 71001, 101000, 101001]
    ranges = [(a, b) for a in edges for b in edges if a <= b]
    ranges += [tuple(sorted(rng.randrange(len(block.data) + 1) for _ in range(2))) for _ in range(300)]
    rng.shuffle(ranges)
    for start, end in ranges:
        assert bytes(found.read(start, end)) == bytes(block.data[start:end])
        inline = found.read_nowait(start, end)
        assert inline is None or bytes(inline) == bytes(block.data[start:end])


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, 101002)])
def test_a_range_outside_a_block_is_refused(store: ChunkStore, start: int, end: int) -> None:
    store.put(make_block(1))
    found = store.find(xorb_named(1), 0)
    assert found is not None
    with pytest.raises(ValueError):
        found.read(start, end)


def test_a_block_that_was_found_is_open_and_found_without_waiting(store: ChunkStore) -> None:
    block = make_block(1)
    store.put(block)
    assert store.find(block.xorb, 2) is not None
    found = store.find_nowait(block.xorb, 1)
    assert found is not None
    assert found.chunks == block.chunks


def test_overlapping_blocks_cover_what_any_of_them_covers(store: ChunkStore) -> None:
    for first, count in [(10, 4), (0, 3), (2, 9), (30, 1), (12, 8)]:
        store.put(make_block(1, first, (100,) * count))
    covered = {*range(20), 30}
    for chunk in range(40):
        found = store.find(xorb_named(1), chunk)
        assert (found is not None) == (chunk in covered), chunk
        if found is not None:
            at = 100 * (chunk - found.chunks.start)
            assert bytes(found.read(at, at + 100)) == bytes(make_block(1, chunk, (100,)).data)


def test_a_block_whose_chunks_are_all_held_is_not_kept_again(store: ChunkStore) -> None:
    store.put(make_block(1, 0, (100,) * 4))
    store.put(make_block(1, 4, (100,) * 4))
    store.put(make_block(1, 2, (100,) * 4))
    assert list(store.held(xorb_named(1))) == [ChunkRange(0, 4), ChunkRange(4, 8)]
    store.put(make_block(1, 7, (100,) * 2))
    assert list(store.held(xorb_named(1))) == [ChunkRange(0, 4), ChunkRange(4, 8), ChunkRange(7, 9)]


def test_a_dropped_block_is_not_found_but_can_be_put_again(store: ChunkStore, counters: Counters) -> None:
    block = make_block(1)
    store.put(block)
    found = store.find(block.xorb, 0)
    assert found is not None
    store.drop(found)
    assert store.find(block.xorb, 0) is None
    assert list(store.held(block.xorb)) == []
    assert counters[telemetry.STORE_CORRUPT] == 1
    store.put(block)
    again = store.find(block.xorb, 0)
    assert again is not None
    assert bytes(again.read(0, 10)) == bytes(block.data[:10])


def test_a_block_that_was_handed_out_stays_readable(store: ChunkStore) -> None:
    block = make_block(1)
    store.put(block)
    found = store.find(block.xorb, 0)
    assert found is not None
    store.drop(found)
    store.close()
    assert bytes(found.read(500, 90000)) == bytes(block.data[500:90000])


@pytest.mark.parametrize("size", [0, 1, 1000, 16 * KIB, 16 * KIB + 1, 3 * MIB])
def test_a_record_comes_back_exactly(store: ChunkStore, size: int) -> None:
    value = random.Random(size).randbytes(size)
    store.put_record("tree", "owner/name@é\udc80\n/../x", value)
    assert store.get_record("tree", "owner/name@é\udc80\n/../x") == value
    assert store.get_record("map", "owner/name@é\udc80\n/../x") is None
    assert store.get_record("tree", "owner/name") is None


def test_a_record_takes_the_place_of_the_one_before(store: ChunkStore) -> None:
    for size in (100, 50_000, 60_000, 7):
        store.put_record("map", "a", bytes([size & 255]) * size)
        assert store.get_record("map", "a") == bytes([size & 255]) * size


def test_a_record_that_is_too_long_is_not_kept(store: ChunkStore, counters: Counters) -> None:
    store.put_record("map", "a", bytes(RECORD_BYTES_MAX + 1))
    assert store.get_record("map", "a") is None
    assert counters[telemetry.STORE_FAILURES] == 1


def test_what_was_not_used_for_longest_is_evicted(make_store: MakeStore, counters: Counters) -> None:
    store = make_store(2 * MIB)
    store.put_record("map", "small and old", b"value")
    for number in range(40):
        store.put(make_block(number, 0, (100_000,)))
        assert store.find(xorb_named(0), 0) is not None
        assert store.get_record("map", "small and old") == b"value"
        assert store.statistics().bytes <= 2 * MIB
    assert store.find(xorb_named(1), 0) is None
    assert store.find(xorb_named(39), 0) is not None
    assert counters[telemetry.STORE_EVICTED] >= 19


def test_a_block_larger_than_the_store_is_not_kept(make_store: MakeStore) -> None:
    store = make_store(1 * MIB)
    store.put(make_block(1, 0, (100_000,)))
    store.put(make_block(2, 0, (131072,) * 9))
    assert store.find(xorb_named(2), 0) is None
    assert store.find(xorb_named(1), 0) is not None


def test_many_threads_find_and_put_at_once(make_store: MakeStore) -> None:
    store = make_store(3 * MIB)
    wrong: list[str] = []
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        start.wait()
        for _ in range(150):
            number = rng.randrange(12)
            block = make_block(number, 0, (300_000 // 4,) * 4)
            found = store.find_nowait(block.xorb, 1) or store.find(block.xorb, 1)
            if found is None:
                store.put(block)
            elif bytes(found.read(10, 250_000)) != bytes(block.data[10:250_000]):
                wrong.append(f"xorb {number}")
            if rng.random() < 0.05 and found is not None:
                store.drop(found)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, seed) for seed in range(4)]:
            done.result()
    assert wrong == []
    assert store.statistics().state == "ok"
