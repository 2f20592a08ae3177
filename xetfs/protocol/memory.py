"""Memory for what is fetched and decoded, used again and again.

Such buffers are megabytes long and live for seconds. From the allocator they come out of heaps that fragment and are not given
back:
measured, a process that held 150 MB of them had grown to 550. And fresh memory costs a page fault for every page, as much time
as receiving into it. So each is an anonymous mapping in huge pages, and when its last view is gone a few are kept for the next
who asks. Callable from any thread: a view may die in whichever drops it last.
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
KEPT_BYTES_MAX: Final = 48 * 1024 * 1024
"""Bytes of unused mappings that are kept: a window's worth on the wire, and the same decoded, for a few connections."""


def new_buffer(size: int) -> memoryview:
    """`size` bytes that can be written, with any content; the memory is used anew when the last view of it is gone."""
    if size < MAPPED_BYTES_MIN:
        return memoryview(bytearray(size))
    rounded = _round_up(size)
    mapping = _kept.take(rounded) or _map(rounded)
    # A view cannot tell when its slices are gone, an object that they all refer to can: an array over the mapping.
    lease = _array_type(rounded).from_buffer(mapping)
    weakref.finalize(lease, _kept.give, mapping).atexit = False
    return memoryview(lease).cast("B")[:size]


class _Kept:
    """Mappings that nobody uses now, by size."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self._free: dict[int, list[mmap.mmap]] = {}

    def take(self, size: int) -> mmap.mmap | None:
        with self._lock:
            free = self._free.get(size)
            if not free:
                return None
            self._bytes -= size
            return free.pop()

    def give(self, mapping: mmap.mmap) -> None:
        size = len(mapping)
        with self._lock:
            if self._bytes + size <= KEPT_BYTES_MAX:
                self._bytes += size
                self._free.setdefault(size, []).append(mapping)


_kept: Final = _Kept()


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
    """The next power of two, or three quarters of it: few sizes, so that buffers fit again; at most a third is not used."""
    whole = 1 << (size - 1).bit_length()
    return whole * 3 // 4 if size <= whole * 3 // 4 else whole
