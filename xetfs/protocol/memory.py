"""Memory for blocks.

A block is megabytes long and lives for seconds. From the allocator such buffers come out of heaps that fragment and are not
given back:
measured, a process that held 150 MB of them had grown to 550. An anonymous mapping of its own is gone the moment its last view
is, and in huge pages it costs one page fault for 2 MiB instead of 512.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Final

MAPPED_BYTES_MIN: Final = 256 * 1024
"""Shorter buffers are the allocator's business: a mapping costs two system calls and whole pages."""


def new_buffer(size: int) -> memoryview:
    """`size` zero bytes that can be written; given back to the system when the last view of them is gone."""
    if size < MAPPED_BYTES_MIN:
        return memoryview(bytearray(size))
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(mapping)
