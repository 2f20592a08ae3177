"""How the bytes of a value file get to the disk.

Blocks are megabytes, written once, and what is read of them goes to the page cache of the file system above; through the page
cache of the disk they would be copied, and held, a second time. So large files are written past it where the disk is quick
enough to keep up: measured, that takes a fifth of the CPU time and twice the rate. A slow disk is left to the page cache, which
takes a burst at the speed of memory, and tried again now and then. Where direct writing is not to be had (tmpfs, some network
file systems) it is not tried again.

Called from one thread at a time.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

log = logging.getLogger(__name__)

DIRECT_BYTES_MIN: Final = 1024 * 1024
"""Shorter files are cheaper through the page cache: a direct write waits for the disk."""
SLOW_BYTES_S: Final = 128 * 1024 * 1024
"""A disk slower than this holds up a fast network."""
JUDGED_S: Final = 0.5
"""Time of writing after which the disk is judged. Not by each file: a thread that goes on after a write of milliseconds may wait
as long again for the interpreter, while the event loop is busy."""
BUFFERED_RUN: Final = 64
"""Large files that go through the page cache after the disk was found slow."""
PAGE_BYTES: Final = mmap.PAGESIZE
"""Address, length and place of a direct write are multiples of the disk's block; those of pages are that everywhere."""

_O_DIRECT: Final = getattr(os, "O_DIRECT", 0)


class Writer:
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buffered_left = 0
        self._direct_bytes = 0
        self._direct_s = 0.0
        self._direct_possible = bool(_O_DIRECT)

    def write(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        """Write buffers one after the other to a new, empty file; how many bytes that were. Raises OSError.

        A file is written past the page cache only if each of its parts but the last fills whole pages and the last begins on one.
        """
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        total = sum(map(len, views))
        if total >= DIRECT_BYTES_MIN and self._direct_possible and all(len(view) % PAGE_BYTES == 0 for view in views[:-1]):
            if not self._buffered_left:
                if self._write_direct(fd, views, total):
                    return total
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
            else:
                self._buffered_left -= 1
        _write_all(fd, views)
        return total

    def _write_direct(self, fd: int, views: Sequence[memoryview], total: int) -> bool:
        """Write whole pages past the page cache and the rest through it. False if this file system does not do that."""
        since = self._clock()
        whole = len(views[-1]) // PAGE_BYTES * PAGE_BYTES
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | _O_DIRECT)
            _write_all(fd, [*map(_aligned, views[:-1]), views[-1][:whole]])
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            self._direct_possible = False
            log.debug("the disk of the store takes no direct writes")
            return False
        finally:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        _write_all(fd, [views[-1][whole:]])
        self._judge(total, self._clock() - since)
        return True

    def _judge(self, written: int, took_s: float) -> None:
        """Take a direct write into account."""
        self._direct_bytes += written
        self._direct_s += took_s
        if self._direct_s >= JUDGED_S:
            if self._direct_bytes < SLOW_BYTES_S * self._direct_s:
                self._buffered_left = BUFFERED_RUN
            self._direct_bytes, self._direct_s = 0, 0.0


def _aligned(view: memoryview) -> memoryview:
    """A copy of a short part that begins on a page."""
    copy = mmap.mmap(-1, len(view))
    copy[:] = view
    return memoryview(copy)


def _write_all(fd: int, views: Sequence[memoryview]) -> None:
    left = [view for view in views if len(view)]
    while left:
        done = os.writev(fd, left)
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if done:
            left[0] = left[0][done:]
