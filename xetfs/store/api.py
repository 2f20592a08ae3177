"""What a store of blocks and records offers.

A *block* is a run of consecutive decoded chunks of one xorb. A store is asked for a chunk and answers with whatever block holds
it, however that block came to be. A *record* is a small immutable value under a kind and a key: file maps, directory listings,
resolved revisions.

All methods are synchronous. Those called `…_nowait` never wait for a disk, nor for a lock that is held while waiting for one, and
may be called on the event loop; all others belong in a worker thread, and may be called from several at once. No method raises
because the disk is full or broken: that is a miss, and shows in `statistics()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from xetfs.protocol.hashes import ChunkHash, XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.units import MIB

StoreState = Literal["ok", "failing", "probing"]
"""ok: in use. failing: left alone, everything is a miss. probing: one write is under way to see whether it works again."""

DISK_HANGS: Final = "the disk does not answer"
"""The failure of a store whose disk hangs."""
RECORD_BYTES_MAX: Final = 64 * MIB
"""Longest record; a listing of 100,000 files takes about 20 MB. A longer one is not kept."""


class Block(Protocol):
    """A block that can be read. Its bytes are those of its chunks back to back; offsets count from the first of them."""

    @property
    def xorb(self) -> XorbHash: ...

    @property
    def chunks(self) -> ChunkRange: ...

    @property
    def offsets(self) -> Sequence[int]:
        """len(chunks) + 1 of them: chunk chunks.start + i is the bytes [offsets[i], offsets[i + 1])."""

    @property
    def hashes(self) -> Sequence[ChunkHash]:
        """One for each chunk. A chunk's bytes are checked against its hash before they are first given out."""

    def raw_hashes(self, first: int, last: int) -> bytes:
        """The hashes of the block's chunks [first, last), counted from its own first chunk, back to back."""

    def read_nowait(self, start: int, end: int) -> bytes | bytearray | memoryview | None:
        """Bytes [start, end) of the block, or None if the disk must be waited for. Raises CorruptData as `read` does."""

    @property
    def at_hand(self) -> bool:
        """Whether asking the disk for the block's bytes ahead of a reader seems of no use: the last read, or a request made since
        then, did not have to wait. False for a block that was just opened."""

    def read(self, start: int, end: int) -> bytes | memoryview:
        """Bytes [start, end) of the block, exactly as many. May block.

        Raises CorruptData if a chunk under the range is not what its hash says or cannot be read at all; the block is of no use
        then and should be given to `ChunkStore.drop`. Raises ValueError if the range is not within the block.
        """

    def read_ahead(self, start: int, end: int) -> None:
        """Ask the disk for these bytes, which somebody will soon read; does not wait for them. For a worker thread."""

    def load(self) -> XorbBlock:
        """The whole block in memory, each chunk checked. May block. Raises CorruptData as `read` does."""


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """How a store stands. Sizes in bytes; `bytes` is what counts against `bytes_max`, the index included."""

    state: StoreState
    blocks_and_records: int
    bytes: int
    bytes_max: int
    open_blocks: int
    failure: str = ""
    """Why the state is not ok; empty when it is."""


class ChunkStore(Protocol):
    def find_nowait(self, xorb: XorbHash, chunk: int) -> Block | None:
        """A block that holds this chunk, if one is open already. None says nothing about what the store holds."""

    def find(self, xorb: XorbHash, chunk: int) -> Block | None:
        """A block that holds this chunk, opened, its header checked; None if there is none. A bad one is dropped and counted."""

    def held(self, xorb: XorbHash) -> Sequence[ChunkRange]:
        """The chunk ranges of all blocks of a xorb, by start; they may overlap. Any may be evicted a moment later."""

    def put(self, block: XorbBlock) -> None:
        """Keep a block, evicting what was not used for longest. Does nothing if all its chunks are held. The hashes of the chunks
        are taken as they are: whoever decoded the block has checked them."""

    def drop(self, block: Block) -> None:
        """Forget a block that was found to be bad."""

    def get_record(self, kind: str, key: str) -> bytes | None:
        """The record exactly as it was put, or None. A damaged one is dropped and counted."""

    def put_record(self, kind: str, key: str, value: bytes) -> None:
        """Keep a record in place of any earlier one; one longer than RECORD_BYTES_MAX is not kept, and counted as a failure.

        kind: letters, digits, '-' and '_'. key: any text.
        """

    def statistics(self) -> StoreStatistics: ...

    def disk_hangs(self, hangs: bool) -> None:
        """Take note that a call has not returned for too long, or that all such calls have returned. Never waits. While it hangs
        nothing else of the store is called but the `…_nowait` methods."""

    def close(self) -> None:
        """Give back what is held open. Blocks that were handed out stay readable until they are dropped by their users."""


def covered_by(wanted: ChunkRange, held: Iterable[ChunkRange]) -> bool:
    """Whether every chunk of `wanted` is in one of the ranges, which are sorted by start."""
    at = wanted.start
    for chunks in held:
        if chunks.start > at:
            return False
        at = max(at, chunks.end)
        if at >= wanted.end:
            return True
    return False
