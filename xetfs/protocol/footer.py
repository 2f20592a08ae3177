"""The footer of a stored xorb: what its chunks hash to and where they end, so that ranges can be offered without decoding.

It lies behind the records and ends with its own length as a 32-bit number, which does not count itself. Format 1 is three tagged
parts (name, hashes, bounds); format 0 is one, and lacks the decoded ends. Xorbs are uploaded without a footer, and stores append
one; 16 bytes of it are reserved and may differ between copies of the same xorb.

Source: Xet spec, "Xorb"; xet-core, xorb_object_format.rs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import HASH_BYTES, ChunkHash, MerkleHash, XorbHash
from xetfs.protocol.xorb import CHUNK_BYTES_MAX, CHUNK_WIRE_BYTES_MAX, FOOTER_TAG, HEADER_BYTES, XORB_CHUNKS_MAX

_TAG_0, _TAG_1 = FOOTER_TAG + b"\0", FOOTER_TAG + b"\1"
_HASHES_TAG, _BOUNDS_TAG = b"XBLBHSH\0", b"XBLBBND\1"
_RESERVED_BYTES = 16
_NUMBER = struct.Struct("<I")
_NAME_BYTES = len(_TAG_1) + HASH_BYTES
_FIXED_BYTES = {_TAG_0: _NAME_BYTES + 4 + _RESERVED_BYTES, _TAG_1: _NAME_BYTES + 2 * 12 + 12 + _RESERVED_BYTES}
_CHUNK_BYTES = {_TAG_0: 4 + HASH_BYTES, _TAG_1: 2 * 4 + HASH_BYTES}


@dataclass(frozen=True, slots=True)
class XorbInfo:
    """What a footer tells. Per chunk: its hash, where its record ends, and where it ends decoded (None in format 0)."""

    xorb: XorbHash
    hashes: tuple[ChunkHash, ...]
    wire_ends: tuple[int, ...]
    data_ends: tuple[int, ...] | None

    def __post_init__(self) -> None:
        """Raises CorruptData unless the ends are those of as many possible chunks."""
        count = len(self.hashes)
        if not 1 <= count <= XORB_CHUNKS_MAX:
            raise CorruptData(f"a xorb of {count} chunks")
        _check_ends(self.wire_ends, count, HEADER_BYTES + 1, HEADER_BYTES + CHUNK_WIRE_BYTES_MAX)
        if self.data_ends is not None:
            _check_ends(self.data_ends, count, 1, CHUNK_BYTES_MAX)


def _check_ends(ends: Sequence[int], count: int, least: int, most: int) -> None:
    if len(ends) != count or not all(least <= end - start <= most for start, end in pairwise((0, *ends))):
        raise CorruptData(f"the footer of a xorb gives ends that {count} chunks cannot have")


def parse_footer(stored: bytes | memoryview) -> XorbInfo | None:
    """Read the footer that `stored`, a whole object at rest, ends with; None if it has none.

    The records before it are not looked at. Raises CorruptData if the footer contradicts itself or does not fit the object.
    """
    if len(stored) < _NUMBER.size:
        return None
    (length,) = _NUMBER.unpack_from(stored, len(stored) - _NUMBER.size)
    start = len(stored) - _NUMBER.size - length
    tag = bytes(stored[start : start + len(_TAG_1)]) if start >= 0 else b""
    if tag[: len(FOOTER_TAG)] != FOOTER_TAG:
        return None
    if tag not in _FIXED_BYTES:
        raise CorruptData(f"the footer of a xorb has the unknown format {tag[-1]}")
    body = memoryview(stored)[start : start + length]
    count, rest = divmod(length - _FIXED_BYTES[tag], _CHUNK_BYTES[tag])
    if count < 1 or rest or _read_numbers(body, _NAME_BYTES + (len(_HASHES_TAG) if tag == _TAG_1 else 0), 1) != (count,):
        raise CorruptData(f"the footer of a xorb has {length} bytes, which do not fit its number of chunks")
    info = _parse_1(body, count) if tag == _TAG_1 else _parse_0(body, count)
    if info.wire_ends[-1] != start:
        raise CorruptData(f"the chunks of a xorb end at byte {start}, its footer says {info.wire_ends[-1]}")
    return info


def _parse_0(body: memoryview, count: int) -> XorbInfo:
    ends_at = _NAME_BYTES + 4
    return XorbInfo(_read_name(body), _read_hashes(body, ends_at + 4 * count, count), _read_numbers(body, ends_at, count), None)


def _parse_1(body: memoryview, count: int) -> XorbInfo:
    hashes_at = _NAME_BYTES + 12
    bounds_at = hashes_at + HASH_BYTES * count
    ends_at = bounds_at + 12
    tail_at = ends_at + 8 * count
    tags = bytes(body[_NAME_BYTES : _NAME_BYTES + 8]), bytes(body[bounds_at : bounds_at + 8])
    numbers = (*_read_numbers(body, bounds_at + 8, 1), *_read_numbers(body, tail_at, 3))
    if tags != (_HASHES_TAG, _BOUNDS_TAG) or numbers != (count, *_tail(count)):
        raise CorruptData("the parts of the footer of a xorb are not where they should be")
    wire_ends, data_ends = _read_numbers(body, ends_at, count), _read_numbers(body, ends_at + 4 * count, count)
    return XorbInfo(_read_name(body), _read_hashes(body, hashes_at, count), wire_ends, data_ends)


def _tail(count: int) -> tuple[int, int, int]:
    """Chunks, and the way from the end of the footer back to its hashes and to its bounds."""
    bounds = 12 + 8 * count + 12 + _RESERVED_BYTES
    return count, 12 + HASH_BYTES * count + bounds, bounds


def _read_name(body: memoryview) -> XorbHash:
    return XorbHash(MerkleHash.from_raw(body[len(_TAG_1) : _NAME_BYTES]))


def _read_hashes(body: memoryview, at: int, count: int) -> tuple[ChunkHash, ...]:
    places = range(at, at + HASH_BYTES * count, HASH_BYTES)
    return tuple(ChunkHash(MerkleHash.from_raw(body[place : place + HASH_BYTES])) for place in places)


def _read_numbers(body: memoryview, at: int, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{count}I", body, at)


def encode_footer(info: XorbInfo) -> bytes:
    """The footer in format 1, its length included, for appending to the records. Raises ValueError without decoded ends."""
    if info.data_ends is None:
        raise ValueError("format 1 of the footer needs to know where chunks end when decoded")
    count = len(info.hashes)
    head = _TAG_1 + info.xorb + _HASHES_TAG + _NUMBER.pack(count) + b"".join(info.hashes)
    bounds = _BOUNDS_TAG + struct.pack(f"<{1 + 2 * count}I", count, *info.wire_ends, *info.data_ends)
    body = head + bounds + struct.pack("<3I", *_tail(count)) + bytes(_RESERVED_BYTES)
    return body + _NUMBER.pack(len(body))
