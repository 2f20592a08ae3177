"""Where blocks are looked for: those just decoded, in memory; then the store on disk. And the way from the one to the other.

A block that was decoded stands on the shelf at once, so that readers need not wait for the disk. A single writer task hands it
to the store; from then on it may be dropped from memory, the least recently used first, as soon as the budget wants its bytes.
A block that is not written yet is not dropped: its bytes would have to be fetched again. A store that fails does not hold up
the way: it takes the block, counts a failure, and the block may be dropped like any other. A store whose disk hangs is left
alone (disk.py): blocks that wait to be written are given up, so that the memory goes to readers, and everything that is not in
memory is a miss.

All methods are for the event loop's thread; those that say so hop to a worker thread.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import trio

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.reader.budget import Budget
from xetfs.reader.disk import DiskCalls
from xetfs.store.api import DISK_HANGS, Block, ChunkStore, StoreStatistics
from xetfs.store.memory import MemoryBlock
from xetfs.units import MIB

log = logging.getLogger(__name__)

WRITE_BATCH = 8
"""Blocks that one hop to the writer thread stores: a hop costs 0.1 ms, a small block's write not much more."""
WRITE_BATCH_BYTES = 16 * MIB
"""Bytes that one hop stores, or one block that is larger. If the disk hangs, so much stays in memory that no budget counts."""
READ_BYTES_MAX = 32 * MIB
"""Blocks that were read and are written, kept in memory: the store and the kernel's cache have them too."""
LOADED_BYTES_MAX = 64 * MIB
"""Blocks of the store in memory that nobody has read yet. With more readers than that is enough for, the disk reads ahead into
the page cache for some of them."""
LOADED_SHARE_MIN = 0.5
"""Part of a block that must be wanted for the block to be loaded whole."""
DRAIN_TIMEOUT_S = 10.0
"""Longest that closing waits for blocks to be written; what is not written by then is fetched again one day."""


@dataclass(slots=True, eq=False)
class _Shelved:
    block: MemoryBlock
    source: XorbBlock
    bytes: int
    written: bool = False
    dropped: bool = False
    """Whether it turned out to be bad: not to be written, should that be still to come."""
    read: bool = False
    loaded: bool = False
    """Whether it came from the store, for somebody who has not read it yet."""


class Shelf:
    def __init__(self, store: ChunkStore, memory_bytes_max: int, *, patience_s: float) -> None:
        """patience_s: longest wait for the store's disk."""
        self.store = store
        self.disk = DiskCalls(patience_s, on_change=self._disk_changed)
        self.budget = Budget(memory_bytes_max, reclaim=self._reclaim)
        self._by_xorb: dict[XorbHash, list[_Shelved]] = {}
        self._unread: OrderedDict[_Shelved, None] = OrderedDict()
        self._read: OrderedDict[_Shelved, None] = OrderedDict()
        self._read_bytes = 0
        self._unwritten: deque[_Shelved] = deque()
        self._work = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._loading: dict[Block, trio.Event] = {}
        self._loaded_bytes = 0
        self._threads = trio.CapacityLimiter(4)
        self._loader_threads = trio.CapacityLimiter(2)
        self._writer_thread = trio.CapacityLimiter(1)

    # Looking for blocks

    def find_nowait(self, xorb: XorbHash, chunk: int) -> Block | None:
        """A block that holds this chunk and is in memory, or open and not about to be, for somebody who will read it."""
        entry = self._shelved(xorb, chunk)
        if entry is None:
            return self.store.find_nowait(xorb, chunk) if self._load_of(xorb, chunk) is None else None
        self._mark_read(entry)
        return entry.block

    async def find(self, xorb: XorbHash, chunk: int) -> Block | None:
        """A block that holds this chunk, wherever it is kept, for somebody who will read it. May hop to a thread."""
        loaded = self._load_of(xorb, chunk)
        if loaded is not None:
            await loaded.wait()
        return self.find_nowait(xorb, chunk) or await self._find_in_store(xorb, chunk)

    async def peek(self, xorb: XorbHash, chunk: int) -> Block | None:
        """The same for somebody who only wants to know what it holds, or that it is open."""
        entry = self._shelved(xorb, chunk)
        if entry is not None:
            return entry.block
        return self.store.find_nowait(xorb, chunk) or await self._find_in_store(xorb, chunk)

    async def open_ahead(self, xorb: XorbHash, chunk: int, amount: int, *, nursery: trio.Nursery) -> Block | None:
        """The same for somebody who will soon read `amount` bytes from the chunk on: what must be waited for begins to come.

        A block that is wanted for the most part is loaded into memory, in a task of `nursery`.
        """
        entry = self._shelved(xorb, chunk)
        if entry is not None:
            return entry.block
        block = self.store.find_nowait(xorb, chunk) or await self._find_in_store(xorb, chunk)
        if block is None or block.at_hand or block in self._loading:
            return block
        size, start = block.offsets[-1], block.offsets[chunk - block.chunks.start]
        end = min(start + amount, size)
        if end - start >= LOADED_SHARE_MIN * size and self._has_room_to_load(size):
            self._loading[block] = trio.Event()
            nursery.start_soon(self._load, block)
        else:
            await self.disk.run(block.read_ahead, None, self._threads, start, end)
        return block

    def _has_room_to_load(self, size: int) -> bool:
        budget = self.budget
        return self._loaded_bytes + size <= LOADED_BYTES_MAX and budget.held - self._read_bytes + size <= budget.limit

    async def _load(self, block: Block) -> None:
        """Put a block of the store on the shelf. Whoever waits for it meanwhile finds out by himself if it is bad."""
        size = block.offsets[-1]
        self.budget.add(size)
        self._loaded_bytes += size
        try:
            loaded = await self.disk.run(block.load, None, self._loader_threads)
            if loaded is not None:
                self._put_up(loaded, written=True).loaded = True
                self._loaded_bytes += size
        except CorruptData as exc:
            log.debug("a block was not loaded: %s", exc)
        finally:
            self._loaded_bytes -= size
            self.budget.subtract(size)
            self._loading.pop(block).set()

    def _load_of(self, xorb: XorbHash, chunk: int) -> trio.Event | None:
        """What tells that a block with this chunk has been loaded, if one is being loaded."""
        for block, loaded in self._loading.items():
            if block.xorb == xorb and block.chunks.start <= chunk < block.chunks.end:
                return loaded
        return None

    def _shelved(self, xorb: XorbHash, chunk: int) -> _Shelved | None:
        for entry in self._by_xorb.get(xorb, ()):
            chunks = entry.block.chunks
            if chunks.start <= chunk < chunks.end:
                return entry
        return None

    async def _find_in_store(self, xorb: XorbHash, chunk: int) -> Block | None:
        return await self.disk.run(self.store.find, None, self._threads, xorb, chunk)

    async def held(self, wanted: dict[XorbHash, list[ChunkRange]]) -> dict[XorbHash, list[ChunkRange]]:
        """Which of the wanted chunk ranges are held, in memory or in the store. One hop to a thread for all of them."""
        nothing: dict[XorbHash, list[ChunkRange]] = {xorb: [] for xorb in wanted}
        held = await self.disk.run(self._held_in_store, nothing, self._threads, wanted)
        for xorb, found in held.items():
            found.extend(entry.block.chunks for entry in self._by_xorb.get(xorb, ()))
            found.sort()
        return held

    def _held_in_store(self, wanted: dict[XorbHash, list[ChunkRange]]) -> dict[XorbHash, list[ChunkRange]]:
        return {xorb: list(self.store.held(xorb)) for xorb in wanted}

    async def read(self, block: Block, start: int, end: int) -> bytes | memoryview | None:
        """Bytes of a block that the disk must be waited for, or None if the disk does not answer. Raises CorruptData."""
        return await self.disk.run(block.read, None, self._threads, start, end)

    async def drop(self, block: Block) -> None:
        """Forget a block that is not what it should be, in memory and in the store."""
        entries = self._by_xorb.get(block.xorb, [])
        for entry in [entry for entry in entries if entry.block is block]:
            entry.dropped = True
            self._take_down(entry)
        await self.disk.run(self.store.drop, None, self._threads, block)

    async def records(self, kind: str, keys: Sequence[str]) -> list[bytes | None]:
        """Records of the store, None for each that it does not have. One hop to a thread."""

        def get() -> list[bytes | None]:
            return [self.store.get_record(kind, key) for key in keys]

        return await self.disk.run(get, [None] * len(keys), self._threads)

    async def put_record(self, kind: str, key: str, value: bytes) -> None:
        """Keep a record. One hop to a thread."""
        await self.disk.run(self.store.put_record, None, self._threads, kind, key, value)

    async def statistics(self) -> StoreStatistics:
        """How the store stands. One hop to a thread; while the disk hangs, that and no more."""
        silent = StoreStatistics("failing", 0, 0, 0, 0, DISK_HANGS)
        return await self.disk.run(self.store.statistics, silent, self._threads)

    async def drop_chunks(self, xorb: XorbHash, chunks: ChunkRange) -> None:
        """Drop all blocks that hold any of these chunks."""
        at = chunks.start
        while at < chunks.end:
            block = await self.peek(xorb, at)
            if block is None:
                at += 1
            else:
                await self.drop(block)

    # Taking blocks in

    def add(self, block: XorbBlock) -> None:
        """Put a decoded block on the shelf, and on its way into the store, unless its disk hangs.

        One that is there already is left: a fetch that failed half way may be made again.
        """
        if any(entry.block.chunks == block.chunks for entry in self._by_xorb.get(block.xorb, ())):
            return
        entry = self._put_up(block, written=self.disk.hangs)
        if entry.written:
            return
        self._unwritten.append(entry)
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._work.set()

    def _put_up(self, block: XorbBlock, *, written: bool) -> _Shelved:
        entry = _Shelved(MemoryBlock(block), block, len(block.data), written)
        entries = self._by_xorb.setdefault(block.xorb, [])
        entries.insert(bisect_right(entries, block.chunks.start, key=lambda other: other.block.chunks.start), entry)
        self._unread[entry] = None
        self.budget.add(entry.bytes)
        return entry

    def _mark_read(self, entry: _Shelved) -> None:
        if entry.read:
            self._read.move_to_end(entry)
            return
        entry.read = True
        self._forget_loaded(entry)
        del self._unread[entry]
        self._read[entry] = None
        self._read_bytes += entry.bytes
        self._trim(READ_BYTES_MAX)

    def _forget_loaded(self, entry: _Shelved) -> None:
        if entry.loaded:
            entry.loaded = False
            self._loaded_bytes -= entry.bytes

    def _trim(self, read_bytes_max: int) -> None:
        """Drop what was read and is written, the least recently used first, down to `read_bytes_max`."""
        excess = self._read_bytes - read_bytes_max
        if excess > 0:
            self.budget.subtract(self._drop_written(self._read, excess))

    def _drop_written(self, entries: OrderedDict[_Shelved, None], amount: int) -> int:
        """Drop written blocks from the front until `amount` bytes are gone; how many are."""
        victims: list[_Shelved] = []
        gone = 0
        for entry in entries:
            if gone >= amount:
                break
            if entry.written:
                victims.append(entry)
                gone += entry.bytes
        for entry in victims:
            self._remove(entry)
        return gone

    def _take_down(self, entry: _Shelved) -> None:
        if entry in self._read or entry in self._unread:
            self._remove(entry)
            self.budget.subtract(entry.bytes)

    def _remove(self, entry: _Shelved) -> None:
        if entry.read:
            del self._read[entry]
            self._read_bytes -= entry.bytes
        else:
            self._forget_loaded(entry)
            del self._unread[entry]
        entries = self._by_xorb[entry.block.xorb]
        entries.remove(entry)
        if not entries:
            del self._by_xorb[entry.block.xorb]

    def _reclaim(self, amount: int) -> int:
        """Drop written blocks until `amount` bytes are free: those that were read first."""
        gone = self._drop_written(self._read, amount)
        if gone < amount:
            gone += self._drop_written(self._unread, amount - gone)
        return gone

    def release_idle(self) -> None:
        """Drop all that is written: nobody has read for a while."""
        self.budget.subtract(self._reclaim(self.budget.held))

    async def run_writer(self) -> None:
        """Write blocks to the store as they come, until cancelled. Runs once, in the engine's nursery."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._unwritten:
                batch = self._next_batch()
                await self.disk.run(self._write, None, self._writer_thread, batch)
                self._forget_unwritten(batch)
            self._idle.set()

    def _next_batch(self) -> list[_Shelved]:
        batch: list[_Shelved] = []
        amount = 0
        while (
            self._unwritten and len(batch) < WRITE_BATCH and (not batch or amount + self._unwritten[0].bytes <= WRITE_BATCH_BYTES)
        ):
            batch.append(self._unwritten.popleft())
            amount += batch[-1].bytes
        return batch

    def _forget_unwritten(self, entries: Iterable[_Shelved]) -> None:
        """From now on these may be dropped from memory: they are written, or given up."""
        for entry in entries:
            entry.written = True
        self._trim(READ_BYTES_MAX)
        self.budget.wake()

    def _disk_changed(self, hangs: bool) -> None:
        self.store.disk_hangs(hangs)
        if hangs:
            given_up = len(self._unwritten)
            self._forget_unwritten(self._unwritten)
            self._unwritten.clear()
            if given_up:
                log.warning("blocks that were to be written are not kept on disk blocks=%d", given_up)

    def _write(self, batch: Sequence[_Shelved]) -> None:
        for entry in batch:
            if entry.dropped:
                continue
            try:
                self.store.put(entry.source)
                if entry.dropped:  # meanwhile; who drops it later finds it there
                    self.store.drop(entry.block)
            except Exception:  # a bug of the store's costs its block, and not the engine
                log.exception("a block could not be given to the store block=%r", entry.source)

    async def wait_written(self) -> None:
        """Wait until the store has been given all blocks, or they were given up."""
        while not self._idle.is_set():
            await self._idle.wait()

    async def drain(self) -> None:
        """Wait until all blocks are written, at most DRAIN_TIMEOUT_S."""
        with trio.move_on_after(DRAIN_TIMEOUT_S):
            await self._idle.wait()
        if self._unwritten:
            log.warning("closed before the store had taken all blocks blocks=%d", len(self._unwritten))

    def __repr__(self) -> str:
        return f"Shelf({len(self._read) + len(self._unread)} blocks in memory, {len(self._unwritten)} to write, {self.budget!r})"
