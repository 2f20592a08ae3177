"""Blocks read whole: the same bytes past the page cache and through it, checked either way."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import make_block

from xetfs.errors import CorruptData
from xetfs.protocol.memory import MAPPED_BYTES_MIN
from xetfs.store import whole
from xetfs.store.disk import DiskStore
from xetfs.store.memory import MemoryStore
from xetfs.store.whole import read_whole
from xetfs.store.writing import PAGE_BYTES
from xetfs.telemetry import Counters
from xetfs.units import KIB, MIB

CONTENT = random.Random(1).randbytes(3 * MIB + 5)
BLOCK = make_block(1, 3, (64 * KIB,) * 20 + (777,))


@pytest.fixture
def directly(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of reads that went past the page cache."""
    lengths: list[int] = []
    original = os.preadv

    def preadv(fd: int, views: list[memoryview], *arguments: int) -> int:
        got = original(fd, views, *arguments)
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            lengths.append(got)
        return got

    monkeypatch.setattr(os, "preadv", preadv)
    return lengths


@pytest.fixture(params=[False, True], ids=["on disk", "in the page cache"])
def cached(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(whole, "_in_page_cache", lambda *_: request.param)
    return bool(request.param)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[bytes], int]:
    def make(content: bytes) -> int:
        (tmp_path / "file").write_bytes(content)
        return os.open(tmp_path / "file", os.O_RDONLY)

    return make


@pytest.mark.parametrize("size", [1, PAGE_BYTES, MAPPED_BYTES_MIN, MIB - 1, MIB, len(CONTENT) - PAGE_BYTES])
def test_all_bytes_are_right_whichever_way_they_come(
    make_file: Callable[[bytes], int], directly: list[int], cached: bool, size: int
) -> None:
    fd = make_file(CONTENT[: PAGE_BYTES + size])
    data, was_cached = read_whole(fd, PAGE_BYTES, size)
    os.close(fd)
    assert bytes(data) == CONTENT[PAGE_BYTES : PAGE_BYTES + size]
    assert was_cached is cached
    assert sum(directly) in (0, size)
    assert bool(directly) <= (not cached and size >= MAPPED_BYTES_MIN)


def test_what_is_on_disk_alone_is_read_past_the_page_cache(
    tmp_path: Path, directly: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "_in_page_cache", lambda *_: False)
    (tmp_path / "file").write_bytes(CONTENT)
    try:
        os.close(os.open(tmp_path / "file", os.O_RDONLY | os.O_DIRECT))
        expected = [len(CONTENT)]
    except OSError:
        expected = []  # a file system that does not do that
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    assert bytes(read_whole(fd, 0, len(CONTENT))[0]) == CONTENT
    os.close(fd)
    assert directly == expected


def test_a_file_system_without_direct_reads(make_file: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def refuse(path: str, flags: int, *arguments: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return original(path, flags, *arguments)

    monkeypatch.setattr(whole, "_in_page_cache", lambda *_: False)
    fd = make_file(CONTENT)
    monkeypatch.setattr(os, "open", refuse)
    assert bytes(read_whole(fd, 0, len(CONTENT))[0]) == CONTENT
    os.close(fd)


def test_a_file_that_ends_early_gives_what_it_has(make_file: Callable[[bytes], int], cached: bool) -> None:
    fd = make_file(CONTENT[:MIB])
    assert bytes(read_whole(fd, 0, 2 * MIB)[0]) == CONTENT[:MIB]
    os.close(fd)


def test_a_loaded_block_is_the_block_that_was_put(open_store: Callable[..., DiskStore], counters: Counters, cached: bool) -> None:
    for store in (MemoryStore(counters), open_store()):
        store.put(BLOCK)
        found = store.find(BLOCK.xorb, 3)
        assert found is not None
        loaded = found.load()
        assert (loaded.xorb, loaded.chunks, loaded.offsets, loaded.hashes) == (
            BLOCK.xorb,
            BLOCK.chunks,
            BLOCK.offsets,
            BLOCK.hashes,
        )
        assert loaded.data == BLOCK.data
        assert loaded.data.readonly


def test_a_block_is_at_hand_once_it_is_or_was_asked_for(open_store: Callable[..., DiskStore], cached: bool) -> None:
    store = open_store()
    store.put(BLOCK)
    found = store.find(BLOCK.xorb, 3)
    assert found is not None
    assert not found.at_hand
    found.load()
    assert found.at_hand == cached
    found.read_ahead(0, 100_000)
    assert found.at_hand


def test_a_block_that_must_be_waited_for_is_not_at_hand(
    open_store: Callable[..., DiskStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    store.put(BLOCK)
    found = store.find(BLOCK.xorb, 3)
    assert found is not None
    data = found.read(0, len(BLOCK.data))  # now it is in the page cache, and checked
    assert data == BLOCK.data
    assert found.read_nowait(5, 100_000) == BLOCK.data[5:100_000]
    found.read_ahead(0, 5)
    original = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: original(*arguments) // 2)
    assert found.read_nowait(5, 100_000) is None
    assert not found.at_hand


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_block_is_not_loaded(open_store: Callable[..., DiskStore], tmp_path: Path, cached: bool, damage: str) -> None:
    store = open_store()
    store.put(BLOCK)
    found = store.find(BLOCK.xorb, 3)
    assert found is not None
    (file,) = (tmp_path / "cache").glob("??/*.val")
    if damage == "cut":
        os.truncate(file, file.stat().st_size - 1)
    else:
        with file.open("r+b") as value:
            value.seek(-1, os.SEEK_END)
            value.write(bytes([BLOCK.data[-1] ^ 1]))
    with pytest.raises(CorruptData):
        found.load()
    assert not found.at_hand


def test_the_page_cache_is_recognised(make_file: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch) -> None:
    fd = make_file(CONTENT)
    os.pread(fd, len(CONTENT), 0)
    assert read_whole(fd, 0, len(CONTENT))[1]
    monkeypatch.setattr(os, "preadv", _would_block(os.preadv))
    assert not read_whole(fd, 0, len(CONTENT))[1]
    os.close(fd)


def _would_block(original: Callable[..., int]) -> Callable[..., int]:
    """A page cache that lacks the second half of a file."""

    def preadv(fd: int, views: list[memoryview], at: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT and at >= len(CONTENT) // 2:
            raise BlockingIOError
        return original(fd, views, at, flags)

    return preadv
