"""What the store may use: never more than its limit by more than a block, hot data stays, few descriptors."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import make_block, xorb_named

from xetfs import telemetry
from xetfs.errors import CorruptData
from xetfs.protocol.ranges import ChunkRange
from xetfs.store import blocks
from xetfs.store.disk import DiskStore
from xetfs.store.handles import OpenBlocks
from xetfs.telemetry import Counters
from xetfs.units import KIB, MIB

OpenStore = Callable[..., DiskStore]


def disk_use(cache: Path) -> int:
    """Bytes of the value files and the index, as files; the log of SQLite is bounded by itself."""
    return sum(file.stat().st_size for file in (*cache.glob("??/*.val"), cache / "cache.db"))


def test_the_limit_holds_whatever_is_put(tmp_path: Path, open_store: OpenStore) -> None:
    limit = 2 * MIB
    store = open_store(cache_bytes_max=limit)
    rng = random.Random(11)
    largest = 400_000
    for number in range(200):
        if rng.random() < 0.3:
            store.put_record("map", f"{number}", bytes(rng.choice((10, 5_000, 100_000))))
        else:
            store.put(make_block(number, 0, (rng.randrange(1, 131072),) * rng.randrange(1, 4)))
        assert disk_use(tmp_path / "cache") <= limit + largest
        assert store.statistics().bytes <= limit
    assert store.statistics().bytes > limit // 2


@pytest.mark.parametrize("handles_max", [4, 256])
def test_hot_blocks_stay_while_a_scan_goes_by(handles_max: int, open_store: OpenStore) -> None:
    store = open_store(cache_bytes_max=4 * MIB, handles_max=handles_max)
    hot = [make_block(number, 0, (100_000,)) for number in range(15)]
    for block in hot:
        store.put(block)
    rng = random.Random(5)
    hits = asked = 0
    for number in range(100, 300):
        store.put(make_block(number, 0, (100_000,)))
        for block in rng.sample(hot, 3):
            asked += 1
            if store.find(block.xorb, 0) is not None:
                hits += 1
            else:
                store.put(block)
    assert hits / asked >= 0.9


def test_a_limit_that_was_lowered_is_kept_from_the_next_start(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store(cache_bytes_max=8 * MIB)
    for number in range(60):
        store.put(make_block(number))
    store.close()
    smaller = open_store(cache_bytes_max=1 * MIB)
    smaller.maintain()
    assert disk_use(tmp_path / "cache") <= 1 * MIB


def test_open_blocks_are_bounded_and_their_descriptors_given_back(open_store: OpenStore) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store = open_store(handles_max=10)
    own = len(os.listdir("/proc/self/fd"))
    for number in range(40):
        store.put(make_block(number))
        assert store.find(xorb_named(number), 0) is not None
        assert store.statistics().open_blocks <= 10
    assert len(os.listdir("/proc/self/fd")) <= own + 10
    store.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_evicted_block_is_let_go_of_unless_somebody_reads_it(open_store: OpenStore, counters: Counters) -> None:
    store = open_store(cache_bytes_max=1 * MIB)
    block = make_block(1)
    store.put(block)
    reading = store.find(block.xorb, 0)
    assert reading is not None
    for number in range(2, 40):
        store.put(make_block(number))
    assert counters[telemetry.STORE_EVICTED] > 25
    assert store.find_nowait(block.xorb, 0) is None
    assert bytes(reading.read(0, len(block.data))) == bytes(block.data)


def test_a_block_evicted_by_another_store_is_let_go_of(open_store: OpenStore) -> None:
    store = open_store()
    store.put(make_block(1))
    assert store.find(xorb_named(1), 0) is not None
    other = open_store()
    found = other.find(xorb_named(1), 0)
    assert found is not None
    other.drop(found)
    assert store.find_nowait(xorb_named(1), 0) is not None
    store.maintain()
    assert store.find_nowait(xorb_named(1), 0) is None


def test_each_chunk_is_checked_once_for_each_opening(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    chunk_hash = blocks.chunk_hash
    monkeypatch.setattr(blocks, "chunk_hash", lambda data: (checked.append(len(data)), chunk_hash(data))[1])
    store = open_store()
    block = make_block(1, 0, (1000, 2000, 3000, 4000))
    store.put(block)
    found = store.find(block.xorb, 0)
    assert found is not None
    found.read(1500, 1600)
    assert checked == [2000]
    found.read(500, 1500)
    assert checked == [2000, 1000]
    found.read(2999, 6001)
    assert checked == [2000, 1000, 3000, 4000]
    found.read(0, 10_000)
    assert found.read_nowait(0, 10_000) is not None
    assert len(checked) == 4


def test_a_bad_chunk_does_not_stop_the_others_of_its_block(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store()
    block = make_block(1, 0, (1000, 2000, 3000))
    store.put(block)
    [file] = (tmp_path / "cache").glob("??/*.val")
    data = bytearray(file.read_bytes())
    data[-4000] ^= 1
    file.write_bytes(data)
    found = store.find(block.xorb, 0)
    assert found is not None
    assert bytes(found.read(0, 1000)) == bytes(block.data[:1000])
    assert bytes(found.read(3000, 6000)) == bytes(block.data[3000:])
    for _ in range(2):
        with pytest.raises(CorruptData):
            found.read(999, 1001)


def test_open_blocks_keep_those_in_use(open_store: OpenStore) -> None:
    store = open_store()
    opened = []
    for number in range(8):
        store.put(make_block(number))
        block = store.find(xorb_named(number), 0)
        assert block is not None
        opened.append(block)
    kept = OpenBlocks(4)
    for block in opened[:4]:
        block.recent = False
        kept.add(block)
    assert kept.find(xorb_named(0), 3) is opened[0]
    opened[4].recent = False
    kept.add(opened[4])
    assert [kept.find(xorb_named(number), 0) is not None for number in range(5)] == [True, False, True, True, True]
    kept.remove_key(xorb_named(3), ChunkRange(0, 4))
    assert kept.find(xorb_named(3), 0) is None
    kept.halve()
    assert len(kept) == 1


def test_a_find_among_many_open_blocks_of_one_xorb(open_store: OpenStore) -> None:
    store = open_store()
    for first in range(0, 200, 2):
        store.put(make_block(1, first, (64,)))
    store.put(make_block(1, 50, (64,) * 10))
    for chunk in range(200):
        assert (store.find(xorb_named(1), chunk) is not None) == (chunk % 2 == 0 or 50 <= chunk < 60)
    for chunk in range(200):
        assert (store.find_nowait(xorb_named(1), chunk) is not None) == (chunk % 2 == 0 or 50 <= chunk < 60)


def test_records_in_use_outlive_blocks_that_are_not(open_store: OpenStore) -> None:
    store = open_store(cache_bytes_max=1 * MIB)
    for number in range(10):
        store.put_record("tree", f"{number}", bytes(20 * KIB if number % 2 else 100))
    for number in range(60):
        store.put(make_block(number))
        for key in range(10):
            assert store.get_record("tree", f"{key}") is not None
