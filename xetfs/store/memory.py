"""Blocks in memory, and a store of them: the whole contract without a disk.

One lock guards everything and is held for dictionary operations only, so the `…_nowait` methods may take it too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from xetfs import telemetry
from xetfs.protocol.hashes import ChunkHash, XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.store.api import RECORD_BYTES_MAX, Block, StoreStatistics, covered_by
from xetfs.store.blocks import HASH_BYTES
from xetfs.telemetry import Counters
from xetfs.units import GIB

_BlockKey = tuple[XorbHash, ChunkRange]
_RecordKey = tuple[str, str]


class MemoryBlock:
    """A decoded block, checked by whoever decoded it; its bytes are those of the XorbBlock, not a copy."""

    __slots__ = ("_block", "_data", "_raw_hashes", "chunks", "hashes", "offsets", "xorb")

    at_hand: Final = True

    def __init__(self, block: XorbBlock) -> None:
        self._block = block
        self.xorb: XorbHash = block.xorb
        self.chunks: ChunkRange = block.chunks
        self.offsets: Sequence[int] = block.offsets
        self.hashes: Sequence[ChunkHash] = block.hashes
        self._data: memoryview = block.data
        self._raw_hashes = b"".join(block.hashes)

    def raw_hashes(self, first: int, last: int) -> bytes:
        return self._raw_hashes[HASH_BYTES * first : HASH_BYTES * last]

    def read_nowait(self, start: int, end: int) -> memoryview:
        if not 0 <= start <= end <= len(self._data):
            raise ValueError(f"bytes {start}-{end} are not within {self!r}")
        return self._data[start:end]

    def read(self, start: int, end: int) -> memoryview:
        return self.read_nowait(start, end)

    def read_ahead(self, start: int, end: int) -> None:
        """It is at hand."""

    def load(self) -> XorbBlock:
        return self._block

    def __repr__(self) -> str:
        return f"MemoryBlock({self.xorb.hex()[:12]}, {self.chunks.start}-{self.chunks.end}, {len(self._data)} bytes)"


class MemoryStore:
    def __init__(self, counters: Counters, *, bytes_max: int = GIB) -> None:
        self._counters = counters
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._by_xorb: dict[XorbHash, list[MemoryBlock]] = {}
        self._items: OrderedDict[_BlockKey | _RecordKey, MemoryBlock | bytes] = OrderedDict()
        self._bytes = 0

    def find_nowait(self, xorb: XorbHash, chunk: int) -> Block | None:
        with self._lock:
            for block in self._by_xorb.get(xorb, ()):
                if block.chunks.start <= chunk < block.chunks.end:
                    self._items.move_to_end((xorb, block.chunks))
                    return block
        return None

    def find(self, xorb: XorbHash, chunk: int) -> Block | None:
        block = self.find_nowait(xorb, chunk)
        self._counters.add(telemetry.STORE_MISSES if block is None else telemetry.STORE_HITS)
        return block

    def held(self, xorb: XorbHash) -> Sequence[ChunkRange]:
        with self._lock:
            return self._held(xorb)

    def _held(self, xorb: XorbHash) -> list[ChunkRange]:
        return sorted(block.chunks for block in self._by_xorb.get(xorb, ()))

    def put(self, block: XorbBlock) -> None:
        with self._lock:
            if covered_by(block.chunks, self._held(block.xorb)) or len(block.data) > self._bytes_max:
                return
            kept = MemoryBlock(block)
            self._by_xorb.setdefault(block.xorb, []).append(kept)
            self._keep((block.xorb, block.chunks), kept)
        self._counters.add(telemetry.STORE_WRITTEN_BYTES, len(block.data))

    def drop(self, block: Block) -> None:
        with self._lock:
            if (block.xorb, block.chunks) in self._items:
                self._remove((block.xorb, block.chunks))
        self._counters.add(telemetry.STORE_CORRUPT)

    def get_record(self, kind: str, key: str) -> bytes | None:
        with self._lock:
            value = self._items.get((kind, key))
            if not isinstance(value, bytes):
                return None
            self._items.move_to_end((kind, key))
            return value

    def put_record(self, kind: str, key: str, value: bytes) -> None:
        if len(value) > min(RECORD_BYTES_MAX, self._bytes_max):
            self._counters.add(telemetry.STORE_FAILURES)
            return
        with self._lock:
            if (kind, key) in self._items:
                self._remove((kind, key))
            self._keep((kind, key), value)

    def _keep(self, key: _BlockKey | _RecordKey, value: MemoryBlock | bytes) -> None:
        """Take an item in, evicting the least recently used ones until it fits."""
        self._bytes += _size(value)
        self._items[key] = value
        while self._bytes > self._bytes_max:
            self._remove(next(iter(self._items)))
            self._counters.add(telemetry.STORE_EVICTED)

    def _remove(self, key: _BlockKey | _RecordKey) -> None:
        value = self._items.pop(key)
        self._bytes -= _size(value)
        if isinstance(value, MemoryBlock):
            blocks = self._by_xorb[value.xorb]
            blocks.remove(value)
            if not blocks:
                del self._by_xorb[value.xorb]

    def statistics(self) -> StoreStatistics:
        with self._lock:
            blocks = sum(isinstance(value, MemoryBlock) for value in self._items.values())
            return StoreStatistics("ok", len(self._items), self._bytes, self._bytes_max, blocks)

    def disk_hangs(self, hangs: bool) -> None:
        """Nothing: there is no disk."""

    def close(self) -> None:
        with self._lock:
            self._items.clear()
            self._by_xorb.clear()
            self._bytes = 0

    def __repr__(self) -> str:
        return f"MemoryStore({self.statistics()})"


def _size(value: MemoryBlock | bytes) -> int:
    return len(value) if isinstance(value, bytes) else value.offsets[-1]
