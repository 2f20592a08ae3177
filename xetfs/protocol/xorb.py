"""Xorbs: chunk records back to back, and blocks of decoded chunks.

A record is a header of eight bytes (version 0, stored length, scheme, decoded length) and the stored bytes. A reader asks for
byte
ranges that hold whole records, and gets a `XorbBlock`: it knows whose chunks it holds and gives out no others. Decoding checks
framing and lengths, and computes the hash of every chunk; whether the hashes are the right ones is for others to say.

Source: Xet spec, "Xorb", chunk header structure and limits; xet-core xorb_object/xorb_chunk_format.rs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from xetfs.errors import CorruptData
from xetfs.protocol.codec import Buffer, choose_scheme, compress, decompress_into
from xetfs.protocol.codec import Scheme as Scheme
from xetfs.protocol.hashes import ChunkHash, XorbHash, chunk_hash
from xetfs.protocol.ranges import ChunkRange

CHUNK_BYTES_MAX: Final = 128 * 1024
CHUNK_WIRE_BYTES_MAX: Final = 256 * 1024
"""Most stored bytes of a chunk that a reader takes."""
XORB_BYTES_MAX: Final = 64 * 1024 * 1024
"""Most decoded bytes of a xorb."""
XORB_CHUNKS_MAX: Final = 8192
HEADER_BYTES: Final = 8

_FOOTER_MAGIC = b"XETBLOB"


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """stored_length: bytes that follow the header. length: of the decoded chunk."""

    stored_length: int
    scheme: Scheme
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class XorbBlock:
    """Decoded consecutive chunks of one xorb.

    data: read-only, all chunks back to back. offsets: one more than chunks; chunk `chunks.start + i` is
    data[offsets[i]:offsets[i + 1]]. hashes: one for each chunk, computed from the data.
    """

    xorb: XorbHash
    chunks: ChunkRange
    data: memoryview
    offsets: tuple[int, ...]
    hashes: tuple[ChunkHash, ...]

    def __post_init__(self) -> None:
        count = len(self.chunks)
        if len(self.hashes) != count or len(self.offsets) != count + 1 or self.offsets[0] or self.offsets[-1] != len(self.data):
            raise ValueError(f"{len(self.hashes)} hashes and {len(self.data)} bytes do not make {self.chunks}")

    def chunk(self, index: int) -> memoryview:
        """The bytes of one chunk, by its index in the xorb. Raises ValueError for a chunk that is not here."""
        if not self.chunks.start <= index < self.chunks.end:
            raise ValueError(f"chunk {index} is not in {self!r}")
        i = index - self.chunks.start
        return self.data[self.offsets[i] : self.offsets[i + 1]]

    def __repr__(self) -> str:
        return f"XorbBlock({self.xorb.hex()[:12]}, {self.chunks.start}-{self.chunks.end}, {len(self.data)} bytes)"


def parse_chunk_header(data: Buffer, at: int = 0) -> ChunkHeader:
    """Read the header at data[at]. Raises CorruptData if it is cut short or says what no chunk can be."""
    if len(data) - at < HEADER_BYTES:
        raise CorruptData(f"a chunk header is cut short after {len(data) - at} bytes")
    header = bytes(data[at : at + HEADER_BYTES])
    if header[:7] == _FOOTER_MAGIC:
        raise CorruptData("the end of the xorb comes where a chunk should be")
    if header[0]:
        raise CorruptData(f"a chunk of unknown version {header[0]}")
    stored, length = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
    if header[4] > Scheme.BITSLICE_LZ4:
        raise CorruptData(f"a chunk of unknown scheme {header[4]}")
    if not 1 <= length <= CHUNK_BYTES_MAX or not 1 <= stored <= CHUNK_WIRE_BYTES_MAX:
        raise CorruptData(f"a chunk of {length} bytes stored in {stored}")
    if header[4] == Scheme.NONE and stored != length:
        raise CorruptData(f"a chunk stored as it is has {stored} bytes for {length}")
    return ChunkHeader(stored, Scheme(header[4]), length)


def decode_chunk(data: memoryview) -> tuple[bytes, int]:
    """Decode the chunk that begins at data[0].

    data: at least one whole record; more may follow. Returns the chunk and the number of bytes consumed, header included.
    Raises CorruptData. Checked: framing and length. Not checked: the hash, which needs to be known from elsewhere.
    """
    header = parse_chunk_header(data)
    end = HEADER_BYTES + header.stored_length
    if len(data) < end:
        raise CorruptData(f"a chunk is cut short after {len(data)} of {end} bytes")
    out = bytearray(header.length)
    decompress_into(data[HEADER_BYTES:end], header.scheme, memoryview(out))
    return bytes(out), end


def decode_block(xorb: XorbHash, chunks: ChunkRange, wire: memoryview) -> XorbBlock:
    """Decode the records of `chunks`, which `wire` holds exactly: no more and no fewer.

    Reads all headers first, so that memory is taken once, and only for records that are there: at most CHUNK_BYTES_MAX for each.
    Raises CorruptData. For worker threads: what takes time here lets others run.
    """
    headers: list[ChunkHeader] = []
    at = 0
    for _ in range(len(chunks)):
        header = parse_chunk_header(wire, at)
        at += HEADER_BYTES + header.stored_length
        if at > len(wire):
            raise CorruptData(f"chunk {chunks.start + len(headers)} of xorb {xorb.hex()[:12]} is cut short")
        headers.append(header)
    if at != len(wire):
        raise CorruptData(f"{len(wire) - at} bytes too many after the chunks of xorb {xorb.hex()[:12]}")
    offsets = [0]
    for header in headers:
        offsets.append(offsets[-1] + header.length)
    out = memoryview(bytearray(offsets[-1]))
    hashes = []
    at = 0
    for header, start, end in zip(headers, offsets, offsets[1:], strict=False):
        at += HEADER_BYTES
        piece = out[start:end]
        decompress_into(wire[at : at + header.stored_length], header.scheme, piece)
        hashes.append(chunk_hash(piece))
        at += header.stored_length
    return XorbBlock(xorb, chunks, out.toreadonly(), tuple(offsets), tuple(hashes))


def encode_chunk(data: Buffer, scheme: Scheme | None = None) -> bytes:
    """The record of a chunk. scheme None chooses one; whatever does not get smaller by it is stored as it is.

    Raises ValueError for a length that no chunk can have.
    """
    if not 1 <= len(data) <= CHUNK_BYTES_MAX:
        raise ValueError(f"a chunk has 1 to {CHUNK_BYTES_MAX} bytes, not {len(data)}")
    chosen = choose_scheme(data) if scheme is None else scheme
    stored = compress(data, chosen)
    if chosen is not Scheme.NONE and len(stored) >= len(data):
        chosen, stored = Scheme.NONE, bytes(data)
    return b"\0" + len(stored).to_bytes(3, "little") + bytes([chosen]) + len(data).to_bytes(3, "little") + stored


@dataclass(frozen=True, slots=True, eq=False)
class EncodedXorb:
    """wire: the records, without a footer. ends: for each chunk, where its record ends in it. leaves: hash and length of each."""

    wire: bytes
    ends: tuple[int, ...]
    leaves: tuple[tuple[ChunkHash, int], ...]


def encode_xorb(chunks: Iterable[Buffer], scheme: Scheme | None = None) -> EncodedXorb:
    """Chunks as the body of a xorb, as writers upload it."""
    wire = bytearray()
    ends, leaves = [], []
    for chunk in chunks:
        wire += encode_chunk(chunk, scheme)
        ends.append(len(wire))
        leaves.append((chunk_hash(chunk), len(chunk)))
    return EncodedXorb(bytes(wire), tuple(ends), tuple(leaves))
