"""Where a writer cuts files into chunks: at places that the content chooses, so that equal content gives equal chunks.

A gear hash runs over the bytes: shifted left by one and the byte's table entry added, modulo 2^64. A byte at which its upper 16
bits are zero ends a chunk, unless the chunk would be shorter than 8 KiB; at 128 KiB it ends in any case. Only the last 64 bytes
count, so the hash at a byte can be computed from these alone, for all bytes of a block at once: the hash over 2n bytes is that
over the last n plus that over the n before, shifted by n. The first bytes of a chunk, which cannot end it, are skipped.

Readers never need this: a file's hash depends on where its chunks were cut, not on why, and other writers may cut otherwise.

Source: Xet spec, "Content-defined chunking"; xet-core, deduplication/chunking.rs. The table, in gear_table.bin as 256 numbers of
eight bytes, little-endian, is the default one of the crate gearhash; it is random and cannot be computed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from xetfs.protocol.xorb import CHUNK_BYTES_MAX

CHUNK_BYTES_MIN: Final = 8 * 1024
"""Shortest chunk that content alone can cut; the last of a file may be shorter."""

_WINDOW = 64  # bytes that the hash depends on
_BLOCK = 16 * 1024  # bytes hashed at once: with 32 KiB the arrays are fresh from the system each time, at half the speed
_CUT_BELOW = np.uint64(1 << 48)


def chunk_ends(data: bytes | bytearray | memoryview) -> list[int]:
    """Where the chunks of `data`, a whole file, end. The last is its length; without data there is none."""
    chunker = Chunker()
    return chunker.feed(data) + chunker.finish()


class Chunker:
    """Finds the chunks of a file that comes in pieces of any size. Keeps no more than 63 bytes of it."""

    def __init__(self) -> None:
        self._size = 0  # bytes of the current chunk
        self._total = 0
        self._tail = b""

    def feed(self, data: bytes | bytearray | memoryview) -> list[int]:
        """Take the next bytes. Returns where chunks end in them, counted from the start of the file."""
        piece = np.frombuffer(self._tail + bytes(data), np.uint8)
        at = len(self._tail)
        ends = []
        while at < len(piece):
            step, ended = self._advance(piece, at)
            at += step
            self._total += step
            self._size += step
            if ended:
                ends.append(self._total)
                self._size = 0
        self._tail = piece[max(0, len(piece) - _WINDOW + 1) :].tobytes()
        return ends

    def finish(self) -> list[int]:
        """Where the last chunk ends, unless it has ended already."""
        return [self._total] if self._size else []

    def _advance(self, piece: npt.NDArray[np.uint8], at: int) -> tuple[int, bool]:
        """How many bytes from `at` can be passed at once, and whether a chunk ends there."""
        left = len(piece) - at
        if self._size < CHUNK_BYTES_MIN - 1:
            return min(left, CHUNK_BYTES_MIN - 1 - self._size), False
        count = min(left, _BLOCK, CHUNK_BYTES_MAX - self._size)
        hits = _hashes(piece[at - _WINDOW + 1 : at + count]) < _CUT_BELOW
        first = int(hits.argmax())
        if hits[first]:
            return first + 1, True
        return count, self._size + count == CHUNK_BYTES_MAX


def _hashes(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The hash at every byte that has 63 others before it."""
    hashes = _gear_table()[data]
    width = 1
    while width < _WINDOW:
        hashes = hashes[width:] + (hashes[:-width] << np.uint64(width))
        width *= 2
    return hashes


@cache
def _gear_table() -> npt.NDArray[np.uint64]:
    return np.frombuffer(Path(__file__).with_name("gear_table.bin").read_bytes(), "<u8").astype(np.uint64)
