"""Shards: which chunks of which xorbs a file is made of, and which chunks a xorb holds.

Everything is little-endian and comes in records of 48 bytes: a header; per file a head, its terms, for each term a verification
hash, and a SHA-256; a bookend; per xorb a head and its chunks; a bookend. A writer uploads just that. A stored shard has a footer
of 200 bytes, and before it tables to look hashes up, or none. Both are read by walking from the header, without the tables.

An answer to "who has this chunk?" is a shard without files. Its chunk hashes may be protected: replaced by their keyed hash, the
key being in the footer.

SHA-256 digests are written as if they were Merkle hashes, whose text form is the usual one: each 8-byte group reversed.

Source: Xet spec, "Shard"; xet-core, mdb_shard. Upload form, and order of SHA-256 bytes: as the reference client writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import HASH_BYTES, ZERO_HASH, ChunkHash, FileId, MerkleHash, XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import CHUNK_BYTES_MAX, XORB_CHUNKS_MAX

RECORD_BYTES: Final = 48
FOOTER_BYTES: Final = 200
NEVER_S: Final = 253_402_300_799
"""The end of the year 9999: an expiry that is never reached, and that no reader's arithmetic overflows on."""

_TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
_VERSION, _FOOTER_VERSION = 2, 1
_HEADER = struct.Struct("<32s2Q")
_RECORD = struct.Struct("<32s4I")  # a hash and four numbers, of which some kinds of record use fewer
_FOOTER = struct.Struct("<9Q32s2Q48x4Q")
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30
_BOOKEND = b"\xff" * HASH_BYTES + bytes(16)

_Fields = tuple[bytes, int, int, int, int]
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ShardTerm:
    """Chunks of one xorb that follow each other in a file. length: of all of them, decoded."""

    xorb: XorbHash
    chunks: ChunkRange
    length: int
    verification: MerkleHash | None


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file as its terms, all of them with a verification hash or none. sha256: the usual 32 bytes of the digest.

    The empty file has no terms, and a digest of zeros.
    """

    file: FileId
    terms: tuple[ShardTerm, ...]
    sha256: bytes | None

    def __post_init__(self) -> None:
        if len({term.verification is None for term in self.terms}) > 1:
            raise ValueError("all terms of a file have a verification hash, or none")
        if self.sha256 is not None and len(self.sha256) != HASH_BYTES:
            raise ValueError(f"a SHA-256 digest has {HASH_BYTES} bytes, not {len(self.sha256)}")


@dataclass(frozen=True, slots=True)
class ShardXorb:
    """A xorb as the hash and decoded length of each of its chunks."""

    xorb: XorbHash
    chunks: tuple[tuple[ChunkHash, int], ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """chunk_key: what the chunk hashes are protected with; None if they are what they seem."""

    files: tuple[ShardFile, ...]
    xorbs: tuple[ShardXorb, ...]
    chunk_key: bytes | None = None

    def __post_init__(self) -> None:
        if self.chunk_key is not None and len(self.chunk_key) != HASH_BYTES:
            raise ValueError(f"a key has {HASH_BYTES} bytes, not {len(self.chunk_key)}")


# Reading


def parse_shard(data: bytes | memoryview) -> Shard:
    """Read a whole shard, uploaded or stored. Raises CorruptData unless all of it is as it should be.

    Memory is bounded by the size of data. Not checked: any hash, and the tables of a stored shard.
    """
    if len(data) < RECORD_BYTES:
        raise CorruptData(f"a shard of {len(data)} bytes")
    tag, version, footer_bytes = _HEADER.unpack_from(data)
    if tag != _TAG or version != _VERSION or footer_bytes not in (0, FOOTER_BYTES) or len(data) < RECORD_BYTES + footer_bytes:
        raise CorruptData("not a shard, or of an unknown version")
    end = len(data) - footer_bytes
    records = _Records(memoryview(data)[:end])
    files, xorbs = [], []
    while (head := records.take_head()) is not None:
        files.append(_parse_file(head, records))
    xorbs_at = records.at
    while (head := records.take_head()) is not None:
        xorbs.append(_parse_xorb(head, records))
    if footer_bytes == 0 and records.at != end:
        raise CorruptData(f"a shard goes on for {end - records.at} bytes after its last record")
    return Shard(tuple(files), tuple(xorbs), _parse_footer(data, end, xorbs_at) if footer_bytes else None)


class _Records:
    """The records of a shard, taken one after another."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.at = RECORD_BYTES  # after the header

    def take(self, count: int) -> list[_Fields]:
        """The next records; their number, which comes from the shard, is held against what is left of it first."""
        end = self.at + RECORD_BYTES * count
        if end > len(self._data):
            raise CorruptData(f"a shard is cut short: {count} records at byte {self.at} of {len(self._data)}")
        records: list[_Fields] = list(_RECORD.iter_unpack(self._data[self.at : end]))
        self.at = end
        return records

    def take_head(self) -> _Fields | None:
        """The next record, or None if it is a bookend."""
        (head,) = self.take(1)
        return None if head[0] == _BOOKEND[:HASH_BYTES] else head


def _parse_file(head: _Fields, records: _Records) -> ShardFile:
    name, flags, count, _, _ = head
    if flags & ~(_HAS_VERIFICATION | _HAS_SHA256):
        raise CorruptData(f"a file in a shard has unknown flags {flags:#x}")
    if count == 0 and name != ZERO_HASH:
        raise CorruptData("a file in a shard has no terms, and is not the empty one")
    parts = records.take(count)
    proofs = records.take(count) if flags & _HAS_VERIFICATION else []
    terms = []
    for place, (xorb, _, length, start, end) in enumerate(parts):
        if not start < end <= XORB_CHUNKS_MAX or not end - start <= length <= (end - start) * CHUNK_BYTES_MAX:
            raise CorruptData(f"a term in a shard has {length} bytes in chunks {start}-{end}")
        verification = MerkleHash(proofs[place][0]) if proofs else None
        terms.append(ShardTerm(XorbHash(MerkleHash(xorb)), ChunkRange(start, end), length, verification))
    sha256 = bytes.fromhex(MerkleHash(records.take(1)[0][0]).hex()) if flags & _HAS_SHA256 else None
    return ShardFile(FileId(MerkleHash(name)), tuple(terms), sha256)


def _parse_xorb(head: _Fields, records: _Records) -> ShardXorb:
    name, _, count, length, _ = head
    chunks, at = [], 0
    for chunk, start, size, _, _ in records.take(count):
        if start != at or not 1 <= size <= CHUNK_BYTES_MAX:
            raise CorruptData(f"a xorb in a shard has a chunk of {size} bytes at {start}, where the last one ends at {at}")
        chunks.append((ChunkHash(MerkleHash(chunk)), size))
        at += size
    if at != length or not 1 <= count <= XORB_CHUNKS_MAX:
        raise CorruptData(f"a xorb in a shard has {count} chunks of {at} bytes and says {length}")
    return ShardXorb(XorbHash(MerkleHash(name)), tuple(chunks))


def _parse_footer(data: bytes | memoryview, at: int, xorbs_at: int) -> bytes | None:
    """The key that protects the chunk hashes, if there is one."""
    version, files_at, footer_xorbs_at, *_, key, _, _, _, _, _, footer_at = _FOOTER.unpack_from(data, at)
    if (version, files_at, footer_xorbs_at, footer_at) != (_FOOTER_VERSION, RECORD_BYTES, xorbs_at, at):
        raise CorruptData("the footer of a shard does not fit it")
    return None if key == ZERO_HASH else bytes(key)


# Writing


def encode_upload_shard(shard: Shard) -> bytes:
    """The form that a writer uploads: without footer and tables, files and xorbs in the order of their hashes.

    Raises ValueError unless every term has a verification hash: servers refuse a shard without.
    """
    if not all(term.verification is not None for file in shard.files for term in file.terms):
        raise ValueError("a shard for upload needs a verification hash for every term")
    if shard.chunk_key is not None:
        raise ValueError("a shard for upload has no protected hashes")
    files = b"".join(_encode_file(file) for file in _in_order(shard.files, lambda file: file.file))
    return _HEADER.pack(_TAG, _VERSION, 0) + files + _BOOKEND + _encode_xorbs(shard.xorbs) + _BOOKEND


def encode_dedup_shard(shard: Shard, *, created_s: int = 0, expires_s: int = NEVER_S) -> bytes:
    """The form that answers a question for a chunk: no files, a footer, and no tables. Times are in seconds since 1970.

    The places of the three tables must be given even so, and are where the footer begins: the reference client subtracts them
    from each other, and is aborted by what it gets from zeros. Raises ValueError if there are files.
    """
    if shard.files:
        raise ValueError("an answer about chunks has no files")
    sections = _BOOKEND + _encode_xorbs(shard.xorbs) + _BOOKEND
    xorbs_at, footer_at = RECORD_BYTES + len(_BOOKEND), RECORD_BYTES + len(sections)
    key = ZERO_HASH if shard.chunk_key is None else shard.chunk_key
    total = sum(size for xorb in shard.xorbs for _, size in xorb.chunks)
    places = (_FOOTER_VERSION, RECORD_BYTES, xorbs_at, footer_at, 0, footer_at, 0, footer_at, 0)
    footer = _FOOTER.pack(*places, key, created_s, expires_s, total, 0, total, footer_at)
    return _HEADER.pack(_TAG, _VERSION, FOOTER_BYTES) + sections + footer


def _in_order(items: Iterable[_Item], hash_of: Callable[[_Item], MerkleHash]) -> list[_Item]:
    """Sorted as the reference sorts hashes: by their four numbers, which is the order of their text forms."""
    return sorted(items, key=lambda item: hash_of(item).hex())


def _encode_file(file: ShardFile) -> bytes:
    flags = (_HAS_VERIFICATION if file.terms else 0) | (_HAS_SHA256 if file.sha256 is not None else 0)
    records = [_RECORD.pack(file.file, flags, len(file.terms), 0, 0)]
    records += [_RECORD.pack(term.xorb, 0, term.length, term.chunks.start, term.chunks.end) for term in file.terms]
    records += [_RECORD.pack(term.verification, 0, 0, 0, 0) for term in file.terms]
    if file.sha256 is not None:
        records.append(_RECORD.pack(MerkleHash.from_hex(file.sha256.hex()), 0, 0, 0, 0))
    return b"".join(records)


def _encode_xorbs(xorbs: Iterable[ShardXorb]) -> bytes:
    """Sizes on the wire are left zero, as the reference client leaves them."""
    records = []
    for xorb in _in_order(xorbs, lambda xorb: xorb.xorb):
        records.append(_RECORD.pack(xorb.xorb, 0, len(xorb.chunks), sum(size for _, size in xorb.chunks), 0))
        at = 0
        for chunk, size in xorb.chunks:
            records.append(_RECORD.pack(chunk, at, size, 0, 0))
            at += size
    return b"".join(records)
