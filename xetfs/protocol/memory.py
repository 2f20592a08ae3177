"""Memory for what is fetched and decoded, used again and again.

Such buffers are megabytes long and live for seconds. From the allocator they come out of heaps that fragment and are not given
back: measured, a process that held 150 MB of them had grown to 550. And fresh memory costs a page fault for every page, as much
time as receiving into it. So each is an anonymous mapping in huge pages, and when its last view is gone a few are kept for the
next who asks. Callable from any thread: a view may die in whichever drops it last.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from contextlib import suppress
from functools import cache
from typing import Any, Final

MAPPED_BYTES_MIN: Final = 256 * 1024
"""Shorter buffers are the allocator's business: a mapping costs system calls and whole pages."""
MAPPED_BYTES_MAX: Final = 160 * 1024 * 1024
"""Bytes of mappings, used and unused, up to which an unused one is kept: what a process at full speed has in use."""

FIT_MAX: Final = 1.5
"""How many times as large as needed an unused mapping may be that is taken: fresh memory costs more than memory held in vain."""


def new_buffer(size: int) -> memoryview:
    """`size` bytes that can be written, with any content; the memory is used anew when the last view of it is gone."""
    if size < MAPPED_BYTES_MIN:
        return memoryview(bytearray(size))
    mapping = _kept.take(_round_up(size))
    # A view cannot tell when its slices are gone, an object that they all refer to can: an array over the mapping.
    lease = _array_type(len(mapping)).from_buffer(mapping)
    weakref.finalize(lease, _kept.give, mapping).atexit = False
    return memoryview(lease).cast("B")[:size]


def release_unused() -> None:
    """Give the memory that nobody uses now back to the system."""
    _kept.clear()


class _Kept:
    """Mappings that nobody uses now, by size, and the count of all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mapped = 0
        self._free: dict[int, list[mmap.mmap]] = {}

    def take(self, size: int) -> mmap.mmap:
        with self._lock:
            fitting = min((other for other in self._free if size <= other <= FIT_MAX * size), default=0)
            if fitting:
                free = self._free[fitting]
                mapping = free.pop()
                if not free:
                    del self._free[fitting]
                return mapping
            self._mapped += size
        return _map(size)

    def give(self, mapping: mmap.mmap) -> None:
        with self._lock:
            if self._mapped <= MAPPED_BYTES_MAX:
                self._free.setdefault(len(mapping), []).append(mapping)
            else:
                self._mapped -= len(mapping)

    def clear(self) -> None:
        with self._lock:
            self._mapped -= self.unused_bytes
            self._free.clear()

    @property
    def unused_bytes(self) -> int:
        return sum(len(mapping) for free in self._free.values() for mapping in free)


def _map(size: int) -> mmap.mmap:
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


@cache
def _array_type(size: int) -> Any:
    return ctypes.c_ubyte * size


def _round_up(size: int) -> int:
    """The next multiple of an eighth of a power of two: few sizes, so that buffers fit again; at most an eighth is not used."""
    step = 1 << max((size - 1).bit_length() - 4, 12)
    return -(-size // step) * step


_kept: Final = _Kept()
