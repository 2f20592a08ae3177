"""Which blocks are open: a bounded set, the least recently used leave first.

`find` may be called on the event loop and takes no lock: it looks at tuples that are replaced, never changed. All else takes the
lock, which is held for dictionary operations only. Recency is a mark on each block; when room is needed, blocks are considered in
turn and marked ones get another round (the clock algorithm), so that a hit changes nothing but the mark.
"""

from __future__ import annotations

import threading
from bisect import bisect_right

from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.store.blocks import DiskBlock

_Blocks = tuple[tuple[int, ...], tuple[DiskBlock, ...]]
"""The blocks of one xorb: their first chunks, sorted, and the blocks in that order."""


class OpenBlocks:
    def __init__(self, handles_max: int) -> None:
        self._handles_max = handles_max
        self._lock = threading.Lock()
        self._by_xorb: dict[XorbHash, _Blocks] = {}
        self._order: dict[DiskBlock, None] = {}

    def find(self, xorb: XorbHash, chunk: int) -> DiskBlock | None:
        """An open block that holds this chunk."""
        found = self._by_xorb.get(xorb)
        if found is None:
            return None
        starts, blocks = found
        for i in range(bisect_right(starts, chunk) - 1, -1, -1):
            block = blocks[i]
            if chunk < block.chunks.end:
                block.recent = block.used = True
                return block
        return None

    def add(self, block: DiskBlock) -> None:
        """Take a block in, letting others go until it fits."""
        with self._lock:
            self._order[block] = None
            self._set_blocks(block.xorb, (*self._blocks(block.xorb), block))
            while len(self._order) > self._handles_max:
                oldest = next(iter(self._order))
                if oldest.recent and oldest is not block:
                    oldest.recent = False
                    del self._order[oldest]
                    self._order[oldest] = None
                else:
                    self._remove(oldest)

    def remove(self, block: DiskBlock) -> None:
        with self._lock:
            if block in self._order:
                self._remove(block)

    def remove_key(self, xorb: XorbHash, chunks: ChunkRange) -> None:
        """Let go of the block with exactly these chunks, if it is open."""
        with self._lock:
            for block in [block for block in self._blocks(xorb) if block.chunks == chunks]:
                self._remove(block)

    def remove_unlinked(self) -> None:
        """Let go of blocks whose files others have evicted: the open handle alone keeps their space on the disk."""
        for block in self.all():
            if block.is_unlinked:
                self.remove(block)

    def halve(self) -> None:
        """Let go of half of the blocks, the oldest: descriptors are short."""
        with self._lock:
            for block in list(self._order)[: (len(self._order) + 1) // 2]:
                self._remove(block)

    def clear(self) -> None:
        with self._lock:
            self._order = {}
            self._by_xorb = {}

    def all(self) -> list[DiskBlock]:
        with self._lock:
            return list(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"OpenBlocks({len(self)} of {self._handles_max})"

    def _blocks(self, xorb: XorbHash) -> tuple[DiskBlock, ...]:
        found = self._by_xorb.get(xorb)
        return found[1] if found is not None else ()

    def _set_blocks(self, xorb: XorbHash, blocks: tuple[DiskBlock, ...]) -> None:
        ordered = tuple(sorted(blocks, key=lambda block: block.chunks))
        if ordered:
            self._by_xorb[xorb] = (tuple(block.chunks.start for block in ordered), ordered)
        else:
            self._by_xorb.pop(xorb, None)

    def _remove(self, block: DiskBlock) -> None:
        del self._order[block]
        self._set_blocks(block.xorb, tuple(other for other in self._blocks(block.xorb) if other is not block))
