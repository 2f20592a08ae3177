import struct
from dataclasses import replace

import pytest
from vector_files import FILES, VECTORS, xof

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import ZERO_HASH, ChunkHash, FileId, MerkleHash, XorbHash, chunk_hash, file_id, term_verification_hash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.shard import (
    FOOTER_BYTES,
    RECORD_BYTES,
    Shard,
    ShardFile,
    ShardTerm,
    ShardXorb,
    encode_dedup_shard,
    encode_upload_shard,
    parse_shard,
)

UPLOADED = bytes.fromhex(VECTORS["objects"]["shard_one_byte_upload_form_hex"])
STORED = bytes.fromhex(VECTORS["objects"]["shard_one_byte_file_stored_hex"])
BOOKEND = b"\xff" * 32 + bytes(16)
# Where the parts of the two lie: file head, term, verification, SHA-256, bookend, xorb head, chunk, bookend, footer
FILE, TERM, VERIFICATION, SHA256, FILES_END, XORB, CHUNK, XORBS_END, END = range(RECORD_BYTES, 10 * RECORD_BYTES, RECORD_BYTES)


def name(seed: str) -> MerkleHash:
    return MerkleHash.from_raw(xof(seed, 32))


def term(xorb: str, start: int, end: int, length: int) -> ShardTerm:
    return ShardTerm(XorbHash(name(xorb)), ChunkRange(start, end), length, name(f"{xorb} {start} {end}"))


def xorb(seed: str, *lengths: int) -> ShardXorb:
    return ShardXorb(XorbHash(name(seed)), tuple((ChunkHash(name(f"{seed} {i}")), length) for i, length in enumerate(lengths)))


def by_hash(shard: Shard) -> Shard:
    def key(value: MerkleHash) -> tuple[int, ...]:
        return struct.unpack("<4Q", value)

    files, xorbs = sorted(shard.files, key=lambda f: key(f.file)), sorted(shard.xorbs, key=lambda x: key(x.xorb))
    return replace(shard, files=tuple(files), xorbs=tuple(xorbs))


SHARD = Shard(
    (
        ShardFile(FileId(name("f")), (term("x", 0, 3, 9000), term("y", 1, 2, 131072), term("x", 0, 1, 1)), xof("sha", 32)),
        ShardFile(FileId(name("g")), (term("y", 0, 8192, 8192),), None),
        ShardFile(FileId(ZERO_HASH), (), bytes(32)),
    ),
    (xorb("x", 1, 8998, 1), xorb("y", 5, 131072), xorb("z", 7)),
)


def test_the_shard_of_the_reference() -> None:
    file = next(file for file in FILES if file["name"] == "one")
    leaf = chunk_hash(xof("one", 1))
    expected = Shard(
        (
            ShardFile(
                file_id([(leaf, 1)]),
                (ShardTerm(XorbHash(leaf), ChunkRange(0, 1), 1, term_verification_hash([leaf])),),
                bytes.fromhex(file["sha256"]),
            ),
        ),
        (ShardXorb(XorbHash(leaf), ((leaf, 1),)),),
    )
    assert parse_shard(UPLOADED) == parse_shard(memoryview(STORED)) == expected
    assert encode_upload_shard(expected) == UPLOADED


def test_upload_form_round_trip() -> None:
    assert parse_shard(encode_upload_shard(SHARD)) == by_hash(SHARD)
    assert parse_shard(encode_upload_shard(Shard((), ()))) == Shard((), ())


@pytest.mark.parametrize("key", [None, xof("key", 32)])
def test_dedup_form_round_trip(key: bytes | None) -> None:
    shard = replace(SHARD, files=(), chunk_key=key)
    assert parse_shard(encode_dedup_shard(shard)) == by_hash(shard)


def test_the_footer_of_the_dedup_form_points_at_itself() -> None:
    encoded = encode_dedup_shard(Shard((), SHARD.xorbs), created_s=5, expires_s=6)
    at = len(encoded) - FOOTER_BYTES
    assert encoded[40:48] == struct.pack("<Q", FOOTER_BYTES)
    numbers = struct.unpack_from("<9Q32x2Q48x4Q", encoded, at)
    total = sum(length for xorb in SHARD.xorbs for _, length in xorb.chunks)
    assert numbers == (1, RECORD_BYTES, 2 * RECORD_BYTES, at, 0, at, 0, at, 0, 5, 6, total, 0, total, at)
    assert encoded[RECORD_BYTES : 2 * RECORD_BYTES] == encoded[at - RECORD_BYTES : at] == BOOKEND


def test_a_stored_shard_may_have_tables() -> None:
    """The full form: entries of 12, 12 and 16 bytes between the sections and the footer, which tells where."""
    at = len(STORED) - FOOTER_BYTES
    tables = [bytes(12), bytes(12), bytes(16)]
    places = [at, 1, at + 12, 1, at + 24, 1]
    footer = struct.pack("<9Q", 1, RECORD_BYTES, XORB, *places) + STORED[at + 72 : -8] + struct.pack("<Q", at + 40)
    assert parse_shard(STORED[:at] + b"".join(tables) + footer) == parse_shard(STORED)


def test_files_without_verification_are_read_but_not_uploaded() -> None:
    bare = bytearray(UPLOADED[:VERIFICATION] + UPLOADED[SHA256:])
    bare[FILE + 35] ^= 0x80
    shard = parse_shard(bytes(bare))
    assert shard.files[0].terms[0].verification is None
    assert shard.files[0].sha256 == parse_shard(UPLOADED).files[0].sha256
    with pytest.raises(ValueError):
        encode_upload_shard(shard)


def test_files_without_sha256() -> None:
    bare = bytearray(UPLOADED[:SHA256] + UPLOADED[FILES_END:])
    bare[FILE + 35] ^= 0x40
    shard = parse_shard(bytes(bare))
    assert shard.files == (replace(parse_shard(UPLOADED).files[0], sha256=None),)
    assert encode_upload_shard(shard) == bytes(bare)


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError):
        encode_dedup_shard(SHARD)
    with pytest.raises(ValueError):
        encode_upload_shard(replace(SHARD, chunk_key=bytes(32)))
    with pytest.raises(ValueError):
        replace(SHARD, chunk_key=bytes(31))
    with pytest.raises(ValueError):
        replace(SHARD.files[0], sha256=bytes(20))
    with pytest.raises(ValueError):
        replace(SHARD.files[0], terms=(term("x", 0, 1, 1), replace(term("x", 0, 1, 1), verification=None)))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"h"),
        (31, b"\0"),
        (32, b"\1"),
        (40, b"\1"),
        (40, struct.pack("<Q", FOOTER_BYTES)),
        (FILE + 32, b"\1"),
        (FILE + 35, b"\0"),
        (FILE + 36, b"\0"),
        (FILE + 36, b"\2"),
        (FILE + 36, b"\xff\xff\xff\xff"),
        (TERM + 36, b"\0"),
        (TERM + 36, b"\1\0\2"),
        (TERM + 40, b"\1"),
        (TERM + 44, b"\0"),
        (TERM + 44, b"\xff\xff\xff\xff"),
        (XORB + 36, b"\0"),
        (XORB + 36, b"\2"),
        (XORB + 36, b"\xff\xff\xff\xff"),
        (XORB + 40, b"\2"),
        (CHUNK + 32, b"\1"),
        (CHUNK + 36, b"\0"),
        (CHUNK + 36, b"\1\0\2"),
        (XORBS_END, b"\0"),
    ],
)
def test_shards_that_cannot_be_are_refused(at: int, value: bytes) -> None:
    with pytest.raises(CorruptData):
        parse_shard(UPLOADED[:at] + value + UPLOADED[at + len(value) :])


@pytest.mark.parametrize("at", [0, 8, 16, 192])
def test_footers_that_do_not_fit_are_refused(at: int) -> None:
    damaged = bytearray(STORED)
    damaged[END + at] ^= 1
    with pytest.raises(CorruptData):
        parse_shard(bytes(damaged))


@pytest.mark.parametrize("whole", [UPLOADED, STORED], ids=["uploaded", "stored"])
def test_every_cut_and_every_tail_is_noticed(whole: bytes) -> None:
    for end in range(len(whole)):
        with pytest.raises(CorruptData):
            parse_shard(whole[:end])
    for tail in (b"\0", bytes(RECORD_BYTES), BOOKEND):
        with pytest.raises(CorruptData):
            parse_shard(whole + tail)
