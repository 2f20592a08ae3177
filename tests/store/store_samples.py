"""Blocks made of seeded bytes."""

from __future__ import annotations

import random
from itertools import accumulate

from xetfs.protocol.hashes import MerkleHash, XorbHash, chunk_hash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock


def xorb_named(number: int) -> XorbHash:
    return XorbHash(MerkleHash.from_raw(random.Random(number).randbytes(32)))


def make_block(number: int, first: int = 0, lengths: tuple[int, ...] = (1000, 70000, 1, 30000)) -> XorbBlock:
    """The block of xorb `number` with chunks of these lengths; the same arguments give the same bytes."""
    parts = [random.Random(f"{number} {first + i}").randbytes(length) for i, length in enumerate(lengths)]
    offsets = tuple(accumulate(lengths, initial=0))
    data = memoryview(b"".join(parts)).toreadonly()
    chunks = ChunkRange(first, first + len(lengths))
    return XorbBlock(xorb_named(number), chunks, data, offsets, tuple(chunk_hash(part) for part in parts))
