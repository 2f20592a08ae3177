"""Blocks in files, and the form of such a file.

A file holds one block and says whose it is, so that no file can stand in for another:

    magic and version       8 bytes     "XETFSBK1"
    xorb hash              32 bytes
    first chunk, end        2 x u32     little endian, half open
    chunk lengths           n x u32
    chunk hashes            n x 32 bytes
    checksum               32 bytes     BLAKE3 of all the above, under a key of its own
    zeros                               up to the next page
    data                                the chunks back to back; nothing may follow

The header is checked when the file is opened, and the file's size against it. The chunks are checked one by one, each when it is
first read through this opening; from then on reads give exactly the bytes asked for. What happens to the file's bytes on the disk
after that, within the life of one handle, is the kernel's page cache's word against ours: it is not checked again.

A DiskBlock may be read by several threads at once, without a lock. Its descriptor is closed when the last reference to it is
gone, never while somebody could be reading: a descriptor closed too early could by then be another file's.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, overload

from blake3 import blake3

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import ChunkHash, MerkleHash, XorbHash, chunk_hash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock
from xetfs.store.whole import read_whole
from xetfs.store.writing import PAGE_BYTES

_MAGIC: Final = b"XETFSBK1"
_FIXED: Final = struct.Struct("<8s32sII")
HASH_BYTES: Final = 32
_CHECKSUM_KEY: Final = blake3(b"xetfs: checksum of a block file's header").digest()
_FIRST_READ_BYTES: Final = 16384
"""Covers the header of a block of 450 chunks, about 28 MiB of data; a longer one is read in a second step."""
_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)
_AHEAD_BYTES: Final = 8 * 1024 * 1024
"""How much the kernel is asked to read ahead for somebody who reads on: a usual block."""


class _HashTable(Sequence[ChunkHash]):
    """Hashes back to back, cut out when asked for: hundreds of open blocks would otherwise hold a hundred thousand objects."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw) // HASH_BYTES

    @overload
    def __getitem__(self, index: int) -> ChunkHash: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ChunkHash]: ...
    def __getitem__(self, index: int | slice) -> ChunkHash | Sequence[ChunkHash]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index] * HASH_BYTES
        return ChunkHash(MerkleHash(self._raw[at : at + HASH_BYTES]))


class DiskBlock:
    """A block in a file that is open. Made by `open_block`."""

    __slots__ = (
        "_base",
        "_close",
        "_fd",
        "_next",
        "_raw_hashes",
        "_size",
        "_verified",
        "_whole",
        "at_hand",
        "chunks",
        "hashes",
        "name",
        "offsets",
        "recent",
        "used",
        "xorb",
    )

    def __init__(
        self, fd: int, name: str, xorb: XorbHash, chunks: ChunkRange, offsets: Sequence[int], hashes: bytes, base: int
    ) -> None:
        self._fd = fd
        self._close: Callable[[int], None] = os.close  # the module may be gone when the interpreter ends
        self.name = name
        self.xorb = xorb
        self.chunks = chunks
        self.offsets = offsets
        self.hashes: Sequence[ChunkHash] = _HashTable(hashes)
        self._raw_hashes = hashes
        self._base = base
        self._size = offsets[-1]
        self._verified = bytearray(len(chunks))
        self._whole = False
        self._next = -1
        self.at_hand = False
        self.recent = True
        """Used since its place among the open blocks was last considered (handles.py)."""
        self.used = False
        """Used since the index was last told (disk.py)."""

    def raw_hashes(self, first: int, last: int) -> bytes:
        return self._raw_hashes[HASH_BYTES * first : HASH_BYTES * last]

    def read_nowait(self, start: int, end: int) -> bytes | bytearray | memoryview | None:
        if not _NOWAIT:
            return None
        if not (0 <= start <= end <= self._size and (self._whole or self._is_checked(start, end))):
            data = self._read(start, end, _NOWAIT)
            self.at_hand = data is not None
            return data
        buffer = bytearray(end - start)  # the way of nearly all reads: one call of the system, and little else
        try:
            if os.preadv(self._fd, (buffer,), self._base + start, _NOWAIT) == end - start:
                self.at_hand = True
                return buffer
        except OSError:
            pass
        self.at_hand = False
        return None

    def read(self, start: int, end: int) -> bytes | memoryview:
        data = self._read(start, end, 0)
        if data is None:
            raise CorruptData(f"{self!r} cannot be read from the disk as far as byte {end}")
        if start == self._next and end < self._size:
            os.posix_fadvise(self._fd, self._base + end, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        self._next = end
        return data

    def read_ahead(self, start: int, end: int) -> None:
        os.posix_fadvise(self._fd, self._base + start, end - start, os.POSIX_FADV_WILLNEED)
        self.at_hand = True

    def load(self) -> XorbBlock:
        try:
            data, is_cached = read_whole(self._fd, self._base, self._size)
        except OSError as exc:
            raise CorruptData(f"{self!r} cannot be read from the disk: {exc.strerror}") from exc
        if len(data) < self._size:
            raise CorruptData(f"{self!r} ends after {len(data)} bytes")
        offsets, hashes = tuple(self.offsets), tuple(self.hashes)
        for i, expected in enumerate(hashes):
            if chunk_hash(data[offsets[i] : offsets[i + 1]]) != expected:
                raise CorruptData(f"chunk {self.chunks.start + i} in {self!r} is not what its hash says")
        if is_cached:
            self._verified[:] = b"\1" * len(self._verified)
            self._whole = self.at_hand = True
        return XorbBlock(self.xorb, self.chunks, data.toreadonly(), offsets, hashes)

    def _read(self, start: int, end: int, flags: int) -> bytes | memoryview | None:
        if not 0 <= start <= end <= self._size:
            raise ValueError(f"bytes {start}-{end} are not within {self!r}")
        if self._whole or self._is_checked(start, end):
            return self._pread(start, end, flags)
        return self._read_checked(start, end, flags)

    def _is_checked(self, start: int, end: int) -> bool:
        """Whether all chunks under these bytes have been checked."""
        offsets = self.offsets
        first = bisect_right(offsets, start, 0, len(self._verified))
        last = first if end <= offsets[first] else bisect_left(offsets, end, first)
        return self._verified.find(0, first - 1, last) < 0

    def _read_checked(self, start: int, end: int, flags: int) -> memoryview | None:
        """Read the whole of the chunks under these bytes, check those that have not been, give out the bytes asked for."""
        first = bisect_right(self.offsets, start) - 1
        last = bisect_left(self.offsets, end, first)
        low, high = self.offsets[first], self.offsets[last]
        data = self._pread(low, high, flags)
        if data is None:
            return None
        for i in range(first, last):
            if not self._verified[i]:
                if chunk_hash(data[self.offsets[i] - low : self.offsets[i + 1] - low]) != self.hashes[i]:
                    raise CorruptData(f"chunk {self.chunks.start + i} in {self!r} is not what its hash says")
                self._verified[i] = 1
        if 0 not in self._verified:
            self._whole = True
        return data[start - low : end - low]

    def _pread(self, start: int, end: int, flags: int) -> memoryview | None:
        """The bytes, or None if they could not all be had: by the flags, by an error, or because the file ends early."""
        view = memoryview(bytearray(end - start))
        done = 0
        try:
            while done < len(view):
                got = os.preadv(self._fd, (view[done:] if done else view,), self._base + start + done, flags)
                if got <= 0 or (flags and got < len(view)):
                    return None
                done += got
        except OSError:
            return None
        return view

    @property
    def is_unlinked(self) -> bool:
        """Whether the file has been evicted, so that only this handle keeps its space."""
        return os.fstat(self._fd).st_nlink == 0

    def __del__(self) -> None:
        self._close(self._fd)

    def __repr__(self) -> str:
        return f"DiskBlock({self.xorb.hex()[:12]}, {self.chunks.start}-{self.chunks.end}, {self._size} bytes)"


def encode_header(block: XorbBlock) -> bytes:
    """What stands before a block's data in its file."""
    lengths = [end - start for start, end in zip(block.offsets, block.offsets[1:], strict=False)]
    head = b"".join(
        (
            _FIXED.pack(_MAGIC, block.xorb, block.chunks.start, block.chunks.end),
            struct.pack(f"<{len(lengths)}I", *lengths),
            *block.hashes,
        )
    )
    return (head + blake3(head, key=_CHECKSUM_KEY).digest()).ljust(_data_start(len(lengths)), b"\0")


def _header_bytes(chunks: int) -> int:
    return _FIXED.size + chunks * (4 + HASH_BYTES) + HASH_BYTES


def _data_start(chunks: int) -> int:
    return -(-_header_bytes(chunks) // PAGE_BYTES) * PAGE_BYTES


def open_block(fd: int, name: str, xorb: XorbHash, chunks: ChunkRange) -> DiskBlock:
    """The block in a file that was opened for reading; owns `fd` from now on, also when it raises.

    name: what the index calls the file. Raises CorruptData if the file is not exactly this block's, OSError if it cannot be read.
    """
    try:
        size = os.fstat(fd).st_size
        header_bytes, data_start = _header_bytes(len(chunks)), _data_start(len(chunks))
        head = os.pread(fd, max(_FIRST_READ_BYTES, data_start), 0)
        head, zeros = head[:header_bytes], head[header_bytes:data_start]
        if len(head) < header_bytes or head[: _FIXED.size] != _FIXED.pack(_MAGIC, xorb, chunks.start, chunks.end):
            raise CorruptData(f"{name} is not the file of chunks {chunks.start}-{chunks.end} of xorb {xorb.hex()[:12]}")
        if blake3(head[:-HASH_BYTES], key=_CHECKSUM_KEY).digest() != head[-HASH_BYTES:] or any(zeros):
            raise CorruptData(f"the header of {name} is damaged")
        table_end = _FIXED.size + 4 * len(chunks)
        offsets = _offsets(head[_FIXED.size : table_end])
        if data_start + offsets[-1] != size:
            raise CorruptData(f"{name} has {size} bytes in place of {data_start + offsets[-1]}")
        return DiskBlock(fd, name, xorb, chunks, offsets, head[table_end:-HASH_BYTES], data_start)
    except BaseException:
        os.close(fd)
        raise


def _offsets(lengths: bytes) -> array[int]:
    counts = array("I", lengths)
    if sys.byteorder == "big":
        counts.byteswap()
    return array("Q", accumulate(counts, initial=0))
