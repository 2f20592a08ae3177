"""Blocks that can be read: in memory, and in a file.

In memory (MemoryBlock) a block was checked by whoever decoded it.
"""

from __future__ import annotations

from collections.abc import Sequence

from xetfs.protocol.hashes import ChunkHash, XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock


class MemoryBlock:
    """A decoded block; its bytes are those of the XorbBlock, not a copy."""

    __slots__ = ("_data", "chunks", "hashes", "offsets", "xorb")

    def __init__(self, block: XorbBlock) -> None:
        self.xorb: XorbHash = block.xorb
        self.chunks: ChunkRange = block.chunks
        self.offsets: Sequence[int] = block.offsets
        self.hashes: Sequence[ChunkHash] = block.hashes
        self._data = block.data

    def read_nowait(self, start: int, end: int) -> memoryview:
        if not 0 <= start <= end <= len(self._data):
            raise ValueError(f"bytes {start}-{end} are not within {self!r}")
        return self._data[start:end]

    def read(self, start: int, end: int) -> memoryview:
        return self.read_nowait(start, end)

    def __repr__(self) -> str:
        return f"MemoryBlock({self.xorb.hex()[:12]}, {self.chunks.start}-{self.chunks.end}, {len(self._data)} bytes)"
