"""Xorbs: chunks of many files, compressed one by one and laid back to back.

A record is a header of eight bytes (version 0, length on the wire, scheme, decoded length; lengths of 24 bits, little-endian)
and as many bytes of payload. Only whole records are fetched, so a range of chunks must hold exactly these: a byte too many or too
few, or a chunk too many, is damage. A stored xorb may end in a footer (footer.py), which no fetch includes.

Decoding is work for a worker thread: all headers first, then one buffer for all chunks, and every chunk decoded to its place in
it and hashed there.

Source: Xet spec, "Xorb"; xet-core, xorb_chunk_format.rs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from xetfs.errors import CorruptData
from xetfs.protocol.codec import EXPANSION_MAX, Decompressor, choose_scheme, compress
from xetfs.protocol.codec import Scheme as Scheme
from xetfs.protocol.hashes import ChunkHash, XorbHash, chunk_hash, xorb_hash
from xetfs.protocol.memory import new_buffer
from xetfs.protocol.ranges import ChunkRange

HEADER_BYTES: Final = 8
CHUNK_BYTES_MAX: Final = 128 * 1024
"""Longest decoded chunk; writers cut at this length at the latest."""
CHUNK_WIRE_BYTES_MAX: Final = 2 * CHUNK_BYTES_MAX
"""Longest payload that readers accept, header not included."""
XORB_BYTES_MAX: Final = 64 * 1024 * 1024
"""Most bytes of chunks, decoded, that writers put into one xorb."""
XORB_CHUNKS_MAX: Final = 8192

FOOTER_TAG: Final = b"XETBLOB"
"""What a footer begins with, in place of a record; its first byte is no version of one."""

_HEADER = struct.Struct("<BHBBHB")  # 24-bit numbers as their lower two bytes and their highest
_SCHEMES = {scheme.value: scheme for scheme in Scheme}
_SCHEME_RUN = 32  # chunks for which the reference chooses once


@dataclass(frozen=True, slots=True, eq=False)
class XorbBlock:
    """Decoded consecutive chunks of one xorb.

    data: read-only, all chunks back to back. offsets: one more than chunks; chunk chunks.start + i is the bytes
    [offsets[i], offsets[i + 1]). hashes: one for each chunk, computed from its bytes.
    """

    xorb: XorbHash
    chunks: ChunkRange
    data: memoryview
    offsets: tuple[int, ...]
    hashes: tuple[ChunkHash, ...]

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.chunks) + 1 or len(self.hashes) != len(self.chunks):
            raise ValueError(f"{len(self.offsets)} offsets and {len(self.hashes)} hashes for {len(self.chunks)} chunks")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.data):
            raise ValueError(f"chunks from byte {self.offsets[0]} to {self.offsets[-1]} of {len(self.data)}")

    def chunk(self, index: int) -> memoryview:
        """The bytes of one chunk, by its index in the xorb. Raises ValueError if it is not held."""
        if not self.chunks.start <= index < self.chunks.end:
            raise ValueError(f"chunk {index} is not among {self.chunks.start}-{self.chunks.end} of xorb {self.xorb.hex()[:12]}")
        place = index - self.chunks.start
        return self.data[self.offsets[place] : self.offsets[place + 1]]


@dataclass(frozen=True, slots=True)
class _Record:
    """A header that was checked: what lies where, `start` and `end` being those of the payload."""

    scheme: Scheme
    start: int
    end: int
    length: int


def _read_header(wire: memoryview, at: int) -> _Record:
    """The record that begins at byte `at`. Raises CorruptData unless it lies within `wire` and its numbers are possible."""
    if len(wire) - at < HEADER_BYTES:
        raise CorruptData(f"a chunk header is cut short after {len(wire) - at} bytes")
    version, low, high, number, length_low, length_high = _HEADER.unpack_from(wire, at)
    stored, length = low | high << 16, length_low | length_high << 16
    if version != 0:
        if bytes(wire[at : at + len(FOOTER_TAG)]) == FOOTER_TAG:
            raise CorruptData("where a chunk should begin the footer of the xorb does")
        raise CorruptData(f"a chunk of unknown version {version}")
    scheme = _SCHEMES.get(number)
    if scheme is None:
        raise CorruptData(f"a chunk compressed in the unknown way {number}")
    if not 1 <= length <= CHUNK_BYTES_MAX or not 1 <= stored <= CHUNK_WIRE_BYTES_MAX:
        raise CorruptData(f"a chunk of {length} bytes, {stored} on the wire")
    if length > EXPANSION_MAX * stored or (scheme is Scheme.NONE and length != stored):
        raise CorruptData(f"{stored} bytes on the wire cannot hold a chunk of {length} ({scheme.name})")
    start = at + HEADER_BYTES
    if stored > len(wire) - start:
        raise CorruptData(f"a chunk of {stored} bytes on the wire is cut short after {len(wire) - start}")
    return _Record(scheme, start, start + stored, length)


def decode_chunk(data: memoryview) -> tuple[bytes, int]:
    """Decode the chunk that begins at data[0].

    data: at least one whole record; more may follow. Returns the chunk and the number of bytes consumed, header included.
    Raises CorruptData if a number in the header is not possible, data is too short, or the payload is not as long as it says.
    Not checked: the hash, which needs all chunks of the file or xorb.
    """
    record = _read_header(data, 0)
    out = bytearray(record.length)
    Decompressor().decode(record.scheme, data[record.start : record.end], memoryview(out))
    return bytes(out), record.end


def whole_chunks(wire: memoryview, count_max: int) -> tuple[int, int]:
    """How many whole records `wire` begins with, `count_max` at most, and how many bytes they take. Checks nothing else."""
    count = at = 0
    while count < count_max and len(wire) - at >= HEADER_BYTES:
        _, low, high, *_ = _HEADER.unpack_from(wire, at)
        end = at + HEADER_BYTES + (low | high << 16)
        if end > len(wire):
            break
        count, at = count + 1, end
    return count, at


def decode_block(xorb: XorbHash, chunks: ChunkRange, wire: memoryview) -> XorbBlock:
    """Decode what was fetched for a range of chunks, and hash every chunk.

    wire: the records of these chunks and nothing else, given away: where it can be written and no chunk is compressed, the block
    is made of it. Raises CorruptData if it is anything else, before it takes memory for what headers only claim: at most 255
    times the size of `wire`. For a worker thread. Not checked: that the hashes are those of the xorb.
    """
    records, at = [], 0
    for index in range(chunks.start, chunks.end):
        try:
            records.append(_read_header(wire, at))
        except CorruptData as error:
            raise CorruptData(f"xorb {xorb.hex()[:12]}, chunk {index}, byte {at} of the range: {error.message}") from None
        at = records[-1].end
    if at != len(wire):
        raise CorruptData(f"xorb {xorb.hex()[:12]}: chunks {chunks.start}-{chunks.end} end at byte {at} of {len(wire)} fetched")
    offsets = [0]
    for record in records:
        offsets.append(offsets[-1] + record.length)
    stored = not wire.readonly and all(record.scheme is Scheme.NONE for record in records)
    out = wire[: offsets[-1]] if stored else new_buffer(offsets[-1])  # chunks only move forward, each over what was read before
    decompressor, hashes = Decompressor(), []
    for place, record in enumerate(records):
        target = out[offsets[place] : offsets[place + 1]]
        try:
            decompressor.decode(record.scheme, wire[record.start : record.end], target)
        except CorruptData as error:
            raise CorruptData(f"xorb {xorb.hex()[:12]}, chunk {chunks.start + place}: {error.message}") from error
        hashes.append(chunk_hash(target))
    return XorbBlock(xorb, chunks, out.toreadonly(), tuple(offsets), tuple(hashes))


# Writing


def encode_chunk(data: bytes, scheme: Scheme | None = None) -> bytes:
    """One record. Without a scheme, chooses as the reference does; stores data that would not become shorter as it is.

    Raises ValueError unless data has 1 to CHUNK_BYTES_MAX bytes.
    """
    if not 1 <= len(data) <= CHUNK_BYTES_MAX:
        raise ValueError(f"a chunk has 1 to {CHUNK_BYTES_MAX} bytes, not {len(data)}")
    scheme = choose_scheme(data) if scheme is None else scheme
    payload = compress(data, scheme)
    if len(payload) >= len(data):
        scheme, payload = Scheme.NONE, data
    stored, length = len(payload), len(data)
    return _HEADER.pack(0, stored & 0xFFFF, stored >> 16, scheme, length & 0xFFFF, length >> 16) + payload


@dataclass(frozen=True, slots=True)
class EncodedXorb:
    """A xorb as it is uploaded, without a footer. Per chunk: its hash, its decoded length, and where its record ends."""

    xorb: XorbHash
    wire: bytes
    hashes: tuple[ChunkHash, ...]
    lengths: tuple[int, ...]
    wire_ends: tuple[int, ...]


def encode_xorb(chunks: Iterable[bytes], scheme: Scheme | None = None) -> EncodedXorb:
    """Put chunks into one xorb. Without a scheme, chooses by the first of every 32 chunks, as the reference does.

    Raises ValueError if there is no chunk, or more of them or of their bytes than a xorb takes.
    """
    records: list[bytes] = []
    hashes: list[ChunkHash] = []
    lengths: list[int] = []
    ends: list[int] = []
    chosen = scheme
    for index, chunk in enumerate(chunks):
        if scheme is None and index % _SCHEME_RUN == 0:
            chosen = choose_scheme(chunk)
        records.append(encode_chunk(chunk, chosen))
        hashes.append(chunk_hash(chunk))
        lengths.append(len(chunk))
        ends.append(len(records[-1]) + (ends[-1] if ends else 0))
    if not 1 <= len(records) <= XORB_CHUNKS_MAX or sum(lengths) > XORB_BYTES_MAX:
        raise ValueError(
            f"a xorb has 1 to {XORB_CHUNKS_MAX} chunks of {XORB_BYTES_MAX} bytes, not {len(records)} of {sum(lengths)}"
        )
    name = xorb_hash(zip(hashes, lengths, strict=True))
    return EncodedXorb(name, b"".join(records), tuple(hashes), tuple(lengths), tuple(ends))
