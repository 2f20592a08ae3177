"""A disk that hangs: calls of the store that do not return cost the cache, and not the reads.

The clock is set forward by hand: it stands while a call hangs, and so do the limits of all others.
"""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from flat_settings import flat_settings, open_engine
from store_samples import make_block

from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.reader.budget import Urgency
from xetfs.reader.shelf import Shelf
from xetfs.store.api import DISK_HANGS, Block
from xetfs.store.memory import MemoryBlock, MemoryStore
from xetfs.telemetry import Counters
from xetfs.testhub import open_test_hub
from xetfs.units import MIB

PATIENCE_S = 5.0
DEMAND = Urgency(demand=True)


class Disk:
    """hang() makes whatever touches it wait in its thread, until answer()."""

    def __init__(self) -> None:
        self._answers = threading.Event()
        self._answers.set()
        self._entered = threading.Semaphore(0)

    def touch(self) -> None:
        if not self._answers.is_set():
            self._entered.release()
            assert self._answers.wait(100)

    def hang(self) -> None:
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    async def wait_touched(self) -> None:
        """Wait until one more thread hangs."""
        await trio.to_thread.run_sync(self._entered.acquire)


class HangingBlock(MemoryBlock):
    """A block of the store, which the page cache does not have."""

    def __init__(self, block: XorbBlock, disk: Disk) -> None:
        super().__init__(block)
        self._disk = disk

    def read_nowait(self, start: int, end: int) -> None:
        return None

    def read(self, start: int, end: int) -> memoryview:
        self._disk.touch()
        return super().read_nowait(start, end)


class HangingStore(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(Counters())
        self.disk = disk
        self.told: list[bool] = []

    def find(self, xorb: object, chunk: int) -> Block | None:
        self.disk.touch()
        return super().find_nowait(xorb, chunk)  # type: ignore[arg-type]

    def find_nowait(self, xorb: object, chunk: int) -> Block | None:
        return None

    def held(self, xorb: object) -> object:  # type: ignore[override]
        self.disk.touch()
        return super().held(xorb)  # type: ignore[arg-type]

    def put(self, block: XorbBlock) -> None:
        self.disk.touch()
        super().put(block)

    def get_record(self, kind: str, key: str) -> bytes | None:
        self.disk.touch()
        return super().get_record(kind, key)

    def statistics(self) -> object:  # type: ignore[override]
        self.disk.touch()
        return super().statistics()

    def disk_hangs(self, hangs: bool) -> None:
        self.told.append(hangs)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.answer()


@asynccontextmanager
async def open_shelf(disk: Disk) -> AsyncIterator[tuple[Shelf, HangingStore]]:
    store = HangingStore(disk)
    shelf = Shelf(store, MIB, patience_s=PATIENCE_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shelf.run_writer)
        yield shelf, store
        disk.answer()
        nursery.cancel_scope.cancel()


async def come_back(shelf: Shelf, disk: Disk) -> None:
    disk.answer()
    while shelf.disk.hangs:
        await trio.lowlevel.checkpoint()


async def test_a_write_that_hangs_gives_its_memory_to_readers(disk: Disk, mock_clock: trio.testing.MockClock) -> None:
    async with open_shelf(disk) as (shelf, store):
        disk.hang()
        blocks = [make_block(number) for number in range(15)]
        for block in blocks:
            shelf.add(block)
        await disk.wait_touched()
        assert shelf.budget.held > MIB
        mock_clock.jump(PATIENCE_S)
        await shelf.wait_written()
        await shelf.budget.acquire(MIB, DEMAND)  # would wait for ever
        shelf.budget.release(MIB)
        assert store.told == [True]
        statistics = await shelf.statistics()
        assert (statistics.state, statistics.failure) == ("failing", DISK_HANGS)

        shelf.add(blocks[0])  # what comes meanwhile is served from memory, and not waited for
        found = await shelf.find(blocks[0].xorb, 0)
        assert found is not None
        assert found.read(0, 1000) == blocks[0].data[:1000]
        await shelf.wait_written()
        await shelf.budget.acquire(MIB, DEMAND)
        shelf.budget.release(MIB)

        await come_back(shelf, disk)
        assert store.told == [True, False]
        shelf.add(make_block(20))
        await shelf.wait_written()
        assert store.held(make_block(20).xorb)
        assert (await shelf.statistics()).state == "ok"


CALLS: dict[str, tuple[Callable[[Shelf], object], object]] = {
    "find": (lambda shelf: shelf.find(make_block(1).xorb, 0), None),
    "peek": (lambda shelf: shelf.peek(make_block(1).xorb, 0), None),
    "held": (lambda shelf: shelf.held({make_block(1).xorb: []}), {make_block(1).xorb: []}),
    "records": (lambda shelf: shelf.records("kind", ["a", "b"]), [None, None]),
    "read": (lambda shelf: shelf.read(HangingBlock(make_block(1), shelf.store.disk), 0, 10), None),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize(("call", "missing"), CALLS.values(), ids=CALLS.keys())
async def test_a_read_that_hangs_is_a_miss_and_the_next_at_once(
    disk: Disk, mock_clock: trio.testing.MockClock, call: Callable[[Shelf], object], missing: object
) -> None:
    async with open_shelf(disk) as (shelf, store):
        store.put(make_block(1))
        store.put_record("kind", "a", b"value")
        good = await call(shelf)  # type: ignore[misc]
        assert good != missing
        disk.hang()
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await call(shelf))  # type: ignore[misc]

        async with trio.open_nursery() as nursery:
            for _ in range(6):  # two more than there are threads
                nursery.start_soon(ask)
            for _ in range(4):
                await disk.wait_touched()
            mock_clock.jump(PATIENCE_S)
        assert answers == [missing] * 6
        assert await call(shelf) == missing  # type: ignore[misc]  # the clock stands
        await come_back(shelf, disk)
        again = await call(shelf)  # type: ignore[misc]
        assert type(again) is type(good)
        assert again != missing


async def test_a_cancelled_caller_waits_for_a_write_no_longer_than_that(disk: Disk, mock_clock: trio.testing.MockClock) -> None:
    async with open_shelf(disk) as (shelf, _):
        disk.hang()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shelf.put_record, "kind", "key", b"value")
            shelf.add(make_block(1))
            await disk.wait_touched()
            nursery.cancel_scope.cancel()
            mock_clock.jump(PATIENCE_S)
        mock_clock.jump(PATIENCE_S)
        await shelf.drain()


# A real one


@contextmanager
def ext4(path: Path) -> Iterator[Path]:
    """A file system of its own, which can be frozen: whatever writes to it then waits in the kernel and cannot be killed."""
    image, mounted = path / "image", path / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    try:
        mounted.chmod(0o700)
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.mark.root
async def test_reads_go_on_from_the_network_while_a_real_disk_hangs(tmp_path: Path) -> None:
    files = {f"{number}.bin": random.Random(number).randbytes(300_000) for number in range(8)}
    with ext4(tmp_path) as disk:
        async with open_test_hub(tmp_path / "hub") as hub:
            hub.storage.commit_files(hub.storage.create_repo("model", "acme/demo"), files)
            settings = flat_settings(endpoint=hub.endpoint, cache_dir=disk / "cache", disk_timeout_s=0.5, memory_bytes_max=MIB)
            async with open_engine(settings) as engine:
                view = await engine.open_repo(RepoRef.parse("acme/demo"))

                async def read(name: str) -> bytes:
                    reader = view.open_file(await view.lookup(view.root, name))
                    try:
                        return bytes(await reader.read(ByteRange(0, reader.size)))
                    finally:
                        reader.close()

                assert await read("0.bin") == files["0.bin"]
                subprocess.run(["fsfreeze", "-f", disk], check=True)
                try:
                    for name, content in files.items():
                        assert await read(name) == content
                    assert (await engine.statistics()).store.failure == DISK_HANGS
                finally:
                    subprocess.run(["fsfreeze", "-u", disk], check=True)
                with trio.fail_after(60):
                    while (await engine.statistics()).store.state != "ok":
                        await trio.sleep(0.05)
                assert await read("7.bin") == files["7.bin"]
