"""Buffers for bytes on the wire, used again and again.

A fresh buffer of megabytes costs a page fault for each page that is received into it, as much CPU time as the receiving itself
(0.35 s per GB measured); one that was used before costs nothing. Event loop only.
"""

from __future__ import annotations

from typing import Final

from xetfs.protocol.memory import new_buffer

_SMALLEST: Final = 64 * 1024


class BufferPool:
    """Free buffers by size; sizes are powers of two and their halves between, so that at most a third is not used."""

    def __init__(self, kept_bytes_max: int) -> None:
        """kept_bytes_max: bytes of free buffers that are kept; what comes back beyond that is given to the system."""
        self._kept_max = kept_bytes_max
        self._kept = 0
        self._free: dict[int, list[memoryview]] = {}

    def take(self, size: int) -> memoryview:
        """A buffer of at least `size` bytes, with any content."""
        rounded = _round_up(size)
        free = self._free.get(rounded)
        if free:
            self._kept -= rounded
            return free.pop()
        return new_buffer(rounded)

    def give(self, buffer: memoryview) -> None:
        """Take back a buffer that nobody reads or writes any longer."""
        size = len(buffer)
        if self._kept + size <= self._kept_max:
            self._kept += size
            self._free.setdefault(size, []).append(buffer)


def _round_up(size: int) -> int:
    if size <= _SMALLEST:
        return _SMALLEST
    whole = 1 << (size - 1).bit_length()
    return whole * 3 // 4 if size <= whole * 3 // 4 else whole
