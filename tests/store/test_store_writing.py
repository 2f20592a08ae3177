"""Value files: the same bytes whichever way they take to the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from pathlib import Path

import pytest

from xetfs.protocol.memory import new_buffer
from xetfs.store import writing
from xetfs.store.writing import BUFFERED_RUN, DIRECT_BYTES_MIN, PAGE_BYTES, Writer

CONTENT = random.Random(1).randbytes(3 * 1024 * 1024)


class Clock:
    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def directly(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of writes that went past the page cache."""
    lengths: list[int] = []
    original = os.writev

    def writev(fd: int, views: list[memoryview]) -> int:
        done = original(fd, views)
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            lengths.append(done)
        return done

    monkeypatch.setattr(os, "writev", writev)
    return lengths


def write(writer: Writer, path: Path, length: int, head: bytes = b"h" * PAGE_BYTES) -> bytes:
    data = new_buffer(length)
    data[:] = CONTENT[:length]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        assert writer.write(fd, (head, data)) == len(head) + length
    finally:
        os.close(fd)
    assert path.read_bytes() == head + CONTENT[:length]
    return head + CONTENT[:length]


@pytest.mark.parametrize("length", [DIRECT_BYTES_MIN, DIRECT_BYTES_MIN + 1, 2 * DIRECT_BYTES_MIN - 1, len(CONTENT)])
def test_large_files_go_past_the_page_cache(tmp_path: Path, directly: list[int], length: int) -> None:
    write(Writer(clock=Clock(0)), tmp_path / "file", length)
    assert sum(directly) == (PAGE_BYTES + length) // PAGE_BYTES * PAGE_BYTES


def test_small_and_unaligned_files_do_not(tmp_path: Path, directly: list[int]) -> None:
    write(Writer(), tmp_path / "small", 4096)
    write(Writer(), tmp_path / "odd", len(CONTENT), head=b"odd")
    assert directly == []


def test_a_slow_disk_is_left_to_the_page_cache_for_a_while(tmp_path: Path, directly: list[int]) -> None:
    writer = Writer(clock=Clock(10))
    write(writer, tmp_path / "file", len(CONTENT))
    assert len(directly) == 1
    for _ in range(BUFFERED_RUN):
        write(writer, tmp_path / "file", DIRECT_BYTES_MIN)
    assert len(directly) == 1
    write(writer, tmp_path / "file", DIRECT_BYTES_MIN)
    assert len(directly) == 2


def test_a_write_that_was_held_up_says_nothing_about_the_disk(tmp_path: Path, directly: list[int]) -> None:
    clock = Clock(0.008)
    writer = Writer(clock=clock)
    for number in range(100):
        clock.step = 0.3 if number == 20 else 0.008
        write(writer, tmp_path / "file", len(CONTENT))
    assert len(directly) == 100


def test_a_disk_that_has_become_slow_is_noticed(tmp_path: Path, directly: list[int]) -> None:
    clock = Clock(0.008)
    writer = Writer(clock=clock)
    for _ in range(100):
        write(writer, tmp_path / "file", len(CONTENT))
    clock.step = 0.1
    for _ in range(20):
        write(writer, tmp_path / "file", len(CONTENT))
    assert 100 < len(directly) <= 110


def test_a_file_system_without_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = writing._write_all
    refusals = []

    def refusing(fd: int, views: list[memoryview]) -> None:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            original(fd, views[:1])
            refusals.append(1)
            raise OSError(errno.EINVAL, "not here")
        original(fd, views)

    monkeypatch.setattr(writing, "_write_all", refusing)
    writer = Writer()
    for _ in range(3):
        write(writer, tmp_path / "file", len(CONTENT))
    assert refusals == [1]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, views: list[memoryview]) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(writing, "_write_all", full)
    with pytest.raises(OSError, match="full"):
        write(Writer(), tmp_path / "file", len(CONTENT))
