"""A disk that is full, read-only, failing or gone: nothing is raised, what can be read is read, and it recovers by itself.

The disks are small tmpfs mounts, made and unmounted here; tests run as root.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from store_samples import make_block, xorb_named

from xetfs import telemetry
from xetfs.errors import CorruptData
from xetfs.store.disk import DiskStore
from xetfs.store.health import PROBE_INTERVAL_S
from xetfs.store.values import ValueFiles
from xetfs.telemetry import Counters
from xetfs.units import MIB

OpenStore = Callable[..., DiskStore]


class Clock:
    """Stands until it is set forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mount_tmpfs(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts file systems under tmp_path; gives the directory."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        path = tmp_path / f"disk {len(mounted)}"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", path], check=True)
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        while os.path.ismount(path):
            subprocess.run(["umount", "-l", path], check=True)


def fill_disk(disk: Path) -> None:
    """Leave no block of a disk free."""
    with open(disk / "hog", "wb", buffering=0) as hog, contextlib.suppress(OSError):
        while True:
            hog.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0


def holds(store: DiskStore, number: int) -> bool:
    block = make_block(number)
    found = store.find(block.xorb, 1)
    return found is not None and bytes(found.read(900, 90_000)) == bytes(block.data[900:90_000])


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.root
def test_a_disk_filled_by_others_is_left_alone_until_it_has_room(
    mount_tmpfs: Callable[..., Path],
    open_store: OpenStore,
    clock: Clock,
    counters: Counters,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "xetfs.store")
    disk = mount_tmpfs("size=8m")
    store = open_store(cache_dir=disk / "cache", clock=clock)
    store.put(make_block(1))
    assert holds(store, 1)
    fill_disk(disk)
    for number in range(2, 8):
        store.put(make_block(number))
        store.put_record("map", f"{number}", bytes(50_000))
        assert not holds(store, number) or number == 2
        assert store.get_record("map", f"{number}") is None or number == 2
    full = store.statistics()
    assert full.state == "failing"
    assert full.failure
    assert counters[telemetry.STORE_FAILURES] >= 8
    (disk / "hog").unlink()
    store.put(make_block(20))
    assert not holds(store, 20)
    clock.now += PROBE_INTERVAL_S
    store.maintain()
    assert store.statistics().state == "ok"
    store.put(make_block(20))
    assert holds(store, 20)
    assert len(warnings_of(caplog)) == 1
    assert sum("works again" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.root
def test_a_store_that_fills_the_disk_itself_evicts_and_goes_on(
    mount_tmpfs: Callable[..., Path], open_store: OpenStore, counters: Counters
) -> None:
    disk = mount_tmpfs("size=6m")
    store = open_store(cache_dir=disk / "cache", cache_bytes_max=100 * MIB)
    for number in range(150):
        store.put(make_block(number))
        assert holds(store, number)
    assert store.statistics().state == "ok"
    assert counters[telemetry.STORE_EVICTED] > 80
    assert counters[telemetry.STORE_FAILURES] == 0


@pytest.mark.root
def test_the_share_of_the_disk_that_is_to_be_free_stays_free(mount_tmpfs: Callable[..., Path], open_store: OpenStore) -> None:
    disk = mount_tmpfs("size=8m")
    store = open_store(cache_dir=disk / "cache", cache_bytes_max=100 * MIB, cache_free_share=0.5)
    for number in range(60):
        store.put(make_block(number))
        status = os.statvfs(disk)
        assert status.f_bavail >= 0.5 * status.f_blocks - 200_000 / status.f_frsize
    assert holds(store, 59)
    assert store.statistics().bytes_max < 4.2 * MIB


@pytest.mark.root
def test_a_disk_without_inodes_left_evicts_for_them(
    mount_tmpfs: Callable[..., Path], open_store: OpenStore, counters: Counters
) -> None:
    disk = mount_tmpfs("size=64m,nr_inodes=320")  # of which 256 go to folders, one after the other
    store = open_store(cache_dir=disk / "cache")
    for number in range(500):
        store.put(make_block(number, 0, (100,)))
        assert store.find(xorb_named(number), 0) is not None
    assert os.statvfs(disk).f_ffree < 10
    assert store.statistics().state == "ok"
    folders = sum(path.is_dir() for path in (disk / "cache").iterdir())  # how many depends on random names
    assert 300 < 500 - (320 - folders) <= counters[telemetry.STORE_EVICTED] < 500


@pytest.mark.root
def test_a_disk_without_inodes_for_others_is_a_miss(
    mount_tmpfs: Callable[..., Path], open_store: OpenStore, clock: Clock
) -> None:
    disk = mount_tmpfs("size=64m,nr_inodes=40")
    store = open_store(cache_dir=disk / "cache", clock=clock)
    for number in range(60):
        if os.statvfs(disk).f_ffree:
            (disk / f"other {number}").touch()
    store.put(make_block(1))
    assert not holds(store, 1)
    assert store.statistics().state == "failing"
    for file in disk.glob("other *"):
        file.unlink()
    clock.now += PROBE_INTERVAL_S
    store.put(make_block(1))
    assert holds(store, 1)
    assert store.statistics().state == "ok"


@pytest.mark.root
def test_a_full_disk_at_the_start_is_no_reason_not_to_start(
    mount_tmpfs: Callable[..., Path], open_store: OpenStore, clock: Clock
) -> None:
    disk = mount_tmpfs("size=4m")
    (disk / "cache").mkdir(mode=0o700)
    fill_disk(disk)
    store = open_store(cache_dir=disk / "cache", clock=clock)
    store.put(make_block(1))
    assert not holds(store, 1)
    assert list(store.held(xorb_named(1))) == []
    assert store.statistics().state == "failing"
    (disk / "hog").unlink()
    clock.now += PROBE_INTERVAL_S
    store.maintain()
    store.put(make_block(1))
    assert holds(store, 1)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,bind,{options}", path], check=True)


@pytest.mark.root
def test_a_disk_that_turns_read_only_is_still_read(mount_tmpfs: Callable[..., Path], open_store: OpenStore, clock: Clock) -> None:
    disk = mount_tmpfs("size=16m")
    store = open_store(cache_dir=disk / "cache", clock=clock)
    store.put(make_block(1))
    store.put(make_block(2))
    store.put_record("map", "a", b"value")
    subprocess.run(["mount", "--bind", disk, disk], check=True)
    remount(disk, "ro")
    store.put(make_block(3))
    assert not holds(store, 3)
    assert holds(store, 1)
    assert holds(store, 2)
    assert store.get_record("map", "a") == b"value"
    assert store.statistics().state == "failing"
    assert "Read-only" in store.statistics().failure
    remount(disk, "rw")
    clock.now += PROBE_INTERVAL_S
    store.put(make_block(3))
    assert holds(store, 3)
    assert store.statistics().state == "ok"


@pytest.mark.root
def test_a_bad_block_that_cannot_be_removed_is_passed_over(
    mount_tmpfs: Callable[..., Path], open_store: OpenStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = mount_tmpfs("size=16m")
    store = open_store(cache_dir=disk / "cache", clock=clock)
    store.put(make_block(1))
    [file] = (disk / "cache").glob("??/*.val")
    os.truncate(file, 5000)
    subprocess.run(["mount", "--bind", disk, disk], check=True)
    remount(disk, "ro")
    index = store._backing.index
    assert index is not None
    monkeypatch.setattr(index, "change", failing(errno.EROFS))
    for _ in range(3):
        assert store.find(xorb_named(1), 0) is None
        assert list(store.held(xorb_named(1))) == []
    monkeypatch.undo()
    remount(disk, "rw")
    clock.now += PROBE_INTERVAL_S
    store.put(make_block(1))
    assert holds(store, 1)


def failing(code: int) -> Callable[..., object]:
    def fail(*args: object, **kwargs: object) -> object:
        raise OSError(code, os.strerror(code))

    return fail


def test_writes_that_fail_leave_no_file_and_recover(
    tmp_path: Path, open_store: OpenStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(clock=clock)
    store.put(make_block(1))
    writev = os.writev

    def cut(fd: int, parts: Sequence[memoryview]) -> int:
        if sum(len(part) for part in parts) > 50_000:
            return writev(fd, [parts[0][:10]])
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "writev", cut)
    for number in range(2, 12):
        store.put(make_block(number, 0, (131072,)))
        monkeypatch.setattr(os, "writev", failing(errno.EIO))
    assert store.statistics().state == "failing"
    assert holds(store, 1)
    assert len(list((tmp_path / "cache").glob("??/*.val"))) == 1
    monkeypatch.undo()
    clock.now += PROBE_INTERVAL_S - 1
    store.put(make_block(2))
    assert not holds(store, 2)
    clock.now += 1
    store.put(make_block(2))
    assert holds(store, 2)
    assert len(warnings_of(caplog)) == 1


def test_reads_that_fail_are_corrupt_data_and_the_block_can_be_put_again(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    store.put(make_block(1))
    found = store.find(xorb_named(1), 0)
    assert found is not None
    monkeypatch.setattr(os, "preadv", failing(errno.EIO))
    assert found.read_nowait(0, 10) is None
    with pytest.raises(CorruptData):
        found.read(0, 10)
    monkeypatch.setattr(os, "pread", failing(errno.EIO))
    store.drop(found)
    store.put(make_block(1))
    assert store.find(xorb_named(1), 0) is None
    monkeypatch.undo()
    store.put(make_block(1))
    assert holds(store, 1)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EAGAIN])
def test_a_block_that_cannot_be_read_without_waiting_is_read_with_waiting(
    code: int, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv = os.preadv

    def waits(fd: int, buffers: Sequence[bytearray], offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(code, os.strerror(code))
        return preadv(fd, buffers, offset)

    store = open_store()
    block = make_block(1)
    store.put(block)
    monkeypatch.setattr(os, "preadv", waits)
    found = store.find(block.xorb, 0)
    assert found is not None
    for start, end in [(0, 500), (500, 2000), (2000, 101001), (0, 101001), (5, 6)]:
        assert found.read_nowait(start, end) is None
        assert bytes(found.read(start, end)) == bytes(block.data[start:end])


def test_short_reads_are_continued(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset, flags=0: preadv(fd, [memoryview(buffers[0])[:7001]], offset))
    store = open_store()
    block = make_block(1)
    store.put(block)
    found = store.find(block.xorb, 0)
    assert found is not None
    assert found.read_nowait(0, 100_000) is None
    assert bytes(found.read(0, 100_000)) == bytes(block.data[:100_000])


def test_a_directory_deleted_under_the_store_is_made_again(tmp_path: Path, open_store: OpenStore, clock: Clock) -> None:
    store = open_store(clock=clock)
    store.put(make_block(1))
    store.put(make_block(2))
    opened = store.find(xorb_named(1), 0)
    assert opened is not None
    shutil.rmtree(tmp_path / "cache")
    assert store.find(xorb_named(2), 0) is None
    assert bytes(opened.read(0, 70_000)) == bytes(make_block(1).data[:70_000])
    store.put(make_block(3))
    assert holds(store, 3)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    store.put(make_block(1))
    assert holds(store, 1)
    assert store.statistics().blocks_and_records == 2


def test_a_directory_that_cannot_be_made_again_is_a_miss_until_it_can(
    tmp_path: Path, open_store: OpenStore, clock: Clock
) -> None:
    store = open_store(clock=clock)
    store.put(make_block(1))
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    store.put(make_block(2))
    assert not holds(store, 2)
    assert store.statistics().state == "failing"
    (tmp_path / "cache").unlink()
    clock.now += PROBE_INTERVAL_S
    store.maintain()
    assert store.statistics().state == "ok"
    store.put(make_block(2))
    assert holds(store, 2)


def test_an_index_locked_by_others_is_a_miss_and_no_failure_of_the_disk(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, counters: Counters
) -> None:
    store = open_store()
    store.put(make_block(1))
    index = store._backing.index
    assert index is not None
    with index.change() as connection:
        connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / "cache" / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.put(make_block(2))
    assert holds(store, 1)
    assert not holds(store, 2)
    assert counters[telemetry.STORE_FAILURES] == 1
    assert store.statistics().state == "ok"
    other.execute("ROLLBACK")
    other.close()
    store.put(make_block(2))
    assert holds(store, 2)
    assert len(list((tmp_path / "cache").glob("??/*.val"))) == 2


def test_short_descriptors_let_go_of_blocks(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    for number in range(10):
        store.put(make_block(number))
        assert holds(store, number)
    open_file = ValueFiles.open_file
    refused = []

    def open_once_full(values: ValueFiles, name: str) -> int:
        if not refused:
            refused.append(name)
            raise OSError(errno.EMFILE, "Too many open files")
        return open_file(values, name)

    monkeypatch.setattr(ValueFiles, "open_file", open_once_full)
    store.put(make_block(10))
    assert holds(store, 10)
    assert store.statistics().open_blocks == 6
