"""Xorbs of any chunks come back; anything else is refused in one way, within bounds."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import CorruptData
from xetfs.protocol.chunking import CHUNK_BYTES_MIN, Chunker, chunk_ends
from xetfs.protocol.footer import XorbInfo, encode_footer, parse_footer
from xetfs.protocol.hashes import MerkleHash, chunk_hash, file_id, group_end, merkle_root, node_hash, xorb_hash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import CHUNK_BYTES_MAX, Scheme, decode_block, decode_chunk, encode_chunk, encode_xorb


@st.composite
def contents(draw: st.DrawFn, size_max: int = 300_000) -> bytes:
    """Data of some length: noise, runs, repeating patterns, or several of these; only its seed is drawn, for it may be long."""
    choose = random.Random(draw(st.integers(0, 2**32)))
    parts = []
    left = draw(st.one_of(st.integers(0, 300), st.integers(0, size_max)))
    while left:
        size = min(left, choose.randint(1, size_max))
        pattern = choose.randbytes(choose.choice((1, 1, 2, 4, 251, size)))
        parts.append((pattern * (size // len(pattern) + 1))[:size])
        left -= size
    return b"".join(parts)


chunks = st.lists(contents(5000).filter(len), min_size=1, max_size=6)
schemes = st.sampled_from([None, *Scheme])


@given(contents(), schemes, st.integers(0, 5000))
def test_any_file_comes_back(data: bytes, scheme: Scheme | None, first: int) -> None:
    parts = [data[start:end] for start, end in pairwise([0, *chunk_ends(data)])]
    if not parts:
        assert data == b""
        return
    xorb = encode_xorb(parts, scheme)
    block = decode_block(xorb.xorb, ChunkRange(first, first + len(parts)), memoryview(xorb.wire))
    assert bytes(block.data) == data
    assert [bytes(block.chunk(index)) for index in range(first, first + len(parts))] == parts
    assert file_id(zip(block.hashes, xorb.lengths, strict=True)) == file_id((chunk_hash(part), len(part)) for part in parts)


@given(contents(), st.integers(0, 2**32))
def test_cuts_do_not_depend_on_the_pieces(data: bytes, seed: int) -> None:
    choose, chunker, at = random.Random(seed), Chunker(), 0
    ends = []
    while at < len(data):
        size = choose.choice((choose.randint(0, 200), choose.randint(1, 20_000), 150_000))
        ends += chunker.feed(data[at : at + size])
        at += size
    assert ends + chunker.finish() == chunk_ends(data)
    lengths = [end - start for start, end in pairwise([0, *chunk_ends(data)])]
    assert sum(lengths) == len(data)
    assert all(CHUNK_BYTES_MIN <= length <= CHUNK_BYTES_MAX for length in lengths[:-1])
    assert all(1 <= length <= CHUNK_BYTES_MAX for length in lengths)


@given(chunks, schemes)
def test_records_can_be_read_one_by_one(parts: list[bytes], scheme: Scheme | None) -> None:
    wire, at = b"".join(encode_chunk(part, scheme) for part in parts), 0
    for part in parts:
        chunk, used = decode_chunk(memoryview(wire)[at:])
        assert chunk == part
        at += used
    assert at == len(wire)


def decode_or_refuse(wire: bytes, count: int) -> None:
    """Whatever is decoded is of one piece; whatever is not is CorruptData."""
    try:
        block = decode_block(xorb_hash([]), ChunkRange(0, count), memoryview(wire))
    except CorruptData:
        return
    assert len(block.data) == block.offsets[-1] <= 255 * len(wire)
    assert [chunk_hash(block.chunk(index)) for index in range(count)] == list(block.hashes)


@given(st.binary(max_size=400), st.integers(1, 9))
def test_garbage_is_refused(wire: bytes, count: int) -> None:
    decode_or_refuse(wire, count)


@given(st.binary(min_size=1, max_size=300), st.sampled_from(list(Scheme)), st.integers(0, CHUNK_BYTES_MAX), st.booleans())
def test_garbage_behind_a_good_header_is_refused(payload: bytes, scheme: Scheme, length: int, frame: bool) -> None:
    payload = bytes.fromhex("04224d18604082") + payload if frame else payload
    length = len(payload) if scheme is Scheme.NONE else min(length, 255 * len(payload))
    decode_or_refuse(b"\0" + len(payload).to_bytes(3, "little") + bytes([scheme]) + length.to_bytes(3, "little") + payload, 1)


@given(st.data(), chunks, schemes)
def test_damage_is_refused_or_decodes_to_something_whole(data: st.DataObject, parts: list[bytes], scheme: Scheme | None) -> None:
    wire = bytearray(encode_xorb(parts, scheme).wire)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wire) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "drop", "insert"]))
        if kind == "flip":
            wire[at] ^= data.draw(st.integers(1, 255))
        elif kind == "cut" and at:
            del wire[at:]
        elif kind == "drop" and len(wire) > 1:
            del wire[at]
        else:
            wire[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    decode_or_refuse(bytes(wire), len(parts))


@given(chunks, schemes, st.data())
def test_footers_come_back_or_are_refused(parts: list[bytes], scheme: Scheme | None, data: st.DataObject) -> None:
    xorb = encode_xorb(parts, scheme)
    ends = tuple(sum(xorb.lengths[: count + 1]) for count in range(len(parts)))
    info = XorbInfo(xorb.xorb, xorb.hashes, xorb.wire_ends, ends)
    stored = bytearray(xorb.wire + encode_footer(info))
    assert parse_footer(bytes(stored)) == info
    stored[data.draw(st.integers(len(xorb.wire), len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = parse_footer(bytes(stored))
    except CorruptData:
        return
    assert other is None or len(other.hashes) == len(parts)


@given(st.binary(max_size=100), st.sampled_from([b"\0", b"\1", b"\2"]))
def test_no_garbage_is_a_footer(garbage: bytes, version: bytes) -> None:
    assert parse_footer(garbage) is None
    body = b"XETBLOB" + version + garbage
    with pytest.raises(CorruptData):
        parse_footer(body + len(body).to_bytes(4, "little"))


@given(st.integers(0, 2**32), st.integers(0, 80), st.sampled_from([0, 1, 2, 3, 4, 255]))
def test_trees_of_any_cuts_follow_the_rule(seed: int, count: int, mask: int) -> None:
    choose = random.Random(seed)
    level = []
    for _ in range(count):
        raw = bytearray(choose.randbytes(32))
        raw[24] &= mask  # from every node a cut to none
        level.append((MerkleHash.from_raw(bytes(raw)), choose.randint(1, CHUNK_BYTES_MAX)))
    root = merkle_root(level)
    while len(level) > 1:
        parents = []
        while level:
            end = group_end([node for node, _ in level])
            assert 1 <= end <= 9
            parents.append((node_hash(level[:end]), sum(size for _, size in level[:end])))
            level = level[end:]
        level = parents
    assert root == (level[0][0] if level else bytes(32))
