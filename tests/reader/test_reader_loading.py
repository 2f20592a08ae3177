"""Reading on through what the store on disk holds: its blocks are in memory before they are read, and each only once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from conftest_reader import Bench, FakeCas, FakeFile, open_bench

from xetfs import telemetry
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.reader import chains, shelf
from xetfs.reader.file import FileReader
from xetfs.settings import StoreSettings
from xetfs.store.blocks import DiskBlock
from xetfs.store.disk import DiskStore
from xetfs.telemetry import Counters
from xetfs.units import KIB, MIB

STEP = 256 * KIB
OpenBench = Callable[[], AsyncIterator[Bench]]


@pytest.fixture
def file(cas: FakeCas) -> FakeFile:
    """40 MiB in chunks of 64 KiB."""
    return cas.add_file([(cas.add_xorb([bytes([i, n]) * (32 * KIB) for i in range(160)]), 0, 160) for n in range(4)])


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files of blocks that were loaded."""
    names: list[str] = []
    original = DiskBlock.load

    def load(block: DiskBlock) -> XorbBlock:
        names.append(block.name)
        return original(block)

    monkeypatch.setattr(DiskBlock, "load", load)
    return names


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[], DiskStore]]:
    opened: list[DiskStore] = []

    def open_store() -> DiskStore:
        opened.append(DiskStore(StoreSettings(cache_dir=tmp_path / "cache", cache_free_share=0.0), Counters()))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@asynccontextmanager
async def bench_on(cas: FakeCas, store: DiskStore, file: FakeFile, **settings: object) -> AsyncIterator[tuple[Bench, FileReader]]:
    async with open_bench(cas, store, **settings) as bench:  # type: ignore[arg-type]  # any store will do
        reader = bench.reader(file)
        reader.open()
        yield bench, reader
        reader.close()
        await reader.content.flush()
        await bench.shelf.drain()


async def read_through(reader: FileReader, file: FakeFile, step: int = STEP) -> int:
    """Read the file from end to end and compare; how many reads had to wait."""
    waited = 0
    for at in range(0, len(file.content), step):
        data = reader.read_nowait(ByteRange(at, at + step))
        if data is None:
            waited += 1
            data = await reader.read(ByteRange(at, at + step))
        assert bytes(data) == file.content[at : at + step]
        for _ in range(10):
            await trio.lowlevel.checkpoint()
    return waited


async def fill(cas: FakeCas, store: DiskStore, file: FakeFile) -> None:
    async with bench_on(cas, store, file) as (_, reader):
        await read_through(reader, file)


async def test_who_reads_on_hardly_waits_and_nothing_is_loaded_twice(
    cas: FakeCas, file: FakeFile, stores: Callable[[], DiskStore], loads: list[str]
) -> None:
    await fill(cas, stores(), file)
    assert loads == []
    asked = len(cas.asked)
    async with bench_on(cas, stores(), file) as (bench, reader):
        waited = await read_through(reader, file)
        assert len(loads) == len(set(loads)) >= 3
        assert waited <= 10
        assert bench.shelf.budget.held <= shelf.READ_BYTES_MAX
    assert len(cas.asked) == asked


async def test_what_is_loaded_ahead_is_bounded(
    cas: FakeCas, file: FakeFile, stores: Callable[[], DiskStore], loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(cas, stores(), file)
    monkeypatch.setattr(shelf, "LOADED_BYTES_MAX", 12 * MIB)
    monkeypatch.setattr(chains, "HELD_AHEAD_BYTES", 64 * MIB)
    async with bench_on(cas, stores(), file) as (bench, reader):
        for at in range(0, 4 * MIB, STEP):
            await reader.read(ByteRange(at, at + STEP))
        await trio.testing.wait_all_tasks_blocked()
        assert loads
        assert bench.shelf.budget.held <= 12 * MIB + 10 * MIB  # and the block that is being read, as long as a xorb at most


async def test_how_far_ahead_is_loaded_is_bounded(
    cas: FakeCas, file: FakeFile, stores: Callable[[], DiskStore], loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(cas, stores(), file)
    monkeypatch.setattr(chains, "HELD_AHEAD_BYTES", 4 * MIB)
    async with bench_on(cas, stores(), file) as (bench, reader):
        for at in range(0, 4 * MIB, STEP):
            await reader.read(ByteRange(at, at + STEP))
        await trio.testing.wait_all_tasks_blocked()
        assert loads
        assert bench.shelf.budget.held <= 24 * MIB  # blocks are up to 16 MiB long


async def test_small_reads_here_and_there_load_nothing(
    cas: FakeCas, file: FakeFile, stores: Callable[[], DiskStore], loads: list[str]
) -> None:
    await fill(cas, stores(), file)
    async with bench_on(cas, stores(), file) as (bench, reader):
        for number in range(400):
            for at in (number * 7_654_321 % (38 * MIB), number * 7_654_321 % (38 * MIB) + MIB):
                assert bytes(await reader.read(ByteRange(at, at + 4 * KIB))) == file.content[at : at + 4 * KIB]
        await trio.testing.wait_all_tasks_blocked()
        assert bench.shelf.budget.held == 0
    assert loads == []


async def test_a_block_that_turns_out_bad_while_it_is_loaded_is_fetched_again(
    cas: FakeCas, file: FakeFile, stores: Callable[[], DiskStore], loads: list[str], tmp_path: Path
) -> None:
    await fill(cas, stores(), file)
    for path in (tmp_path / "cache").glob("??/*.val"):
        if path.stat().st_size > MIB:
            with path.open("r+b") as value:
                value.seek(-100_000, 2)
                value.write(b"bad")
    asked = len(cas.asked)
    async with bench_on(cas, stores(), file) as (bench, reader):
        await read_through(reader, file)
        assert bench.store.statistics().state == "ok"
    assert loads
    assert len(cas.asked) > asked
    assert bench.counters[telemetry.READER_CORRUPT_WINDOWS] == 0
