"""Memory for what is fetched and decoded, used again and again.

Such buffers are megabytes long and live for seconds. From the allocator they come out of heaps that fragment and are not given
back: measured, a process that held 150 MB of them had grown to 550. And fresh memory costs a page fault for every page, as much
time as receiving into it. So they are stretches of one anonymous mapping in huge pages: the first that is free and long enough,
so that what was touched before is touched again. Callable from any thread: a view may die in whichever drops it last.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from bisect import insort
from collections import deque
from contextlib import suppress
from functools import cache
from typing import Any, Final

MAPPED_BYTES_MIN: Final = 256 * 1024
"""Shorter buffers are the allocator's business: a stretch is whole pages, and costs some microseconds."""
ARENA_BYTES: Final = 160 * 1024 * 1024
"""What a process at full speed has in use. What does not fit is a mapping of its own, given back when its last view is gone."""
STRETCH_STEP: Final = 64 * 1024
"""Length and place of a stretch are multiples of this: fewer gaps that fit nobody."""


def new_buffer(size: int) -> memoryview:
    """`size` bytes that can be written, with any content; the memory is used anew when the last view of it is gone.

    It begins on a page unless it is shorter than MAPPED_BYTES_MIN.
    """
    if size < MAPPED_BYTES_MIN:
        return memoryview(bytearray(size))
    length = -(-size // STRETCH_STEP) * STRETCH_STEP
    start = _arena.take(length)
    if start is None:
        return memoryview(_map(length))[:size]
    # A view cannot tell when its slices are gone, an object that they all refer to can: an array over the stretch.
    lease = _array_type(length).from_buffer(_arena.mapping, start)
    weakref.finalize(lease, _arena.give, start, length).atexit = False
    return memoryview(lease).cast("B")[:size]


def release_unused() -> None:
    """Give the memory that nobody uses now back to the system."""
    _arena.release_unused()


class Arena:
    """One mapping, of which stretches are taken and given back."""

    def __init__(self, size: int) -> None:
        self.mapping = _map(size)  # addresses only; memory comes as it is touched
        self._lock = threading.Lock()
        self._free = [(0, size)]  # (start, end) of stretches that nobody uses, in order, none beside another
        self._given: deque[tuple[int, int]] = deque()

    def take(self, length: int) -> int | None:
        """Where the first free stretch of this length begins; None if there is none."""
        with self._lock:
            self._collect()
            for i, (start, end) in enumerate(self._free):
                if end - start >= length:
                    self._free[i : i + 1] = [(start + length, end)] if end - start > length else []
                    return start
        return None

    def give(self, start: int, length: int) -> None:
        """Give a stretch back. Takes no lock: a view may die at any moment, also while this thread holds it."""
        self._given.append((start, start + length))

    def _collect(self) -> None:
        """Put what was given back among the free stretches."""
        while self._given:
            insort(self._free, self._given.popleft())
        joined: list[tuple[int, int]] = []
        for start, end in self._free:
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        self._free = joined

    def release_unused(self) -> None:
        with self._lock:
            self._collect()
            for start, end in self._free:
                self.mapping.madvise(mmap.MADV_DONTNEED, start, end - start)

    @property
    def unused_bytes(self) -> int:
        with self._lock:
            self._collect()
            return sum(end - start for start, end in self._free)


def _map(size: int) -> mmap.mmap:
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


@cache
def _array_type(size: int) -> Any:
    return ctypes.c_ubyte * size


_arena: Final = Arena(ARENA_BYTES)
