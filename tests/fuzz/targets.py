"""What is fuzzed: everything that reads bytes from a network or a disk that others can write to.

A target takes any bytes. It returns when they were read or refused by an error of ours, and raises in every other case: for a
foreign exception, for more output than the input can stand for, for something that does not survive being written and read again.
Some targets take their first bytes as arguments, so that the fuzzer can choose these too.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.protocol.codec import Scheme
from xetfs.protocol.footer import XorbInfo, encode_footer, parse_footer
from xetfs.protocol.formats import probe
from xetfs.protocol.formats.shards import shards_of
from xetfs.protocol.hashes import ZERO_HASH, chunk_hash, file_id, xorb_hash
from xetfs.protocol.multipart import MultipartParser, parse_boundary, parse_content_range
from xetfs.protocol.names import RepoId
from xetfs.protocol.proof import build_range_proof, parse_range_proof, verify_range
from xetfs.protocol.ranges import ByteRange, ChunkRange, HttpRange
from xetfs.protocol.reconstruction import Reconstruction, parse_reconstruction
from xetfs.protocol.shard import (
    Shard,
    ShardFile,
    ShardTerm,
    ShardXorb,
    encode_dedup_shard,
    encode_upload_shard,
    parse_shard,
)
from xetfs.protocol.tree import (
    TreeEntry,
    parse_next_link,
    parse_repo_info,
    parse_resolve_headers,
    parse_tree_page,
    parse_xet_token,
)
from xetfs.protocol.xorb import CHUNK_BYTES_MAX, XorbBlock, decode_block, encode_chunk
from xetfs.reader.filemap import FileMap, Level, Run, decode_runs, encode_runs
from xetfs.repo.entries import EntriesBuilder, decode_entries
from xetfs.secret import Secret
from xetfs.store.blocks import encode_header, open_block

MAGNIFICATION_MAX: Final = 255
"""What LZ4 can make of a byte."""
_CHUNKS: Final = tuple(bytes([n]) * (500 * n) + bytes(range(256)) * n for n in range(1, 7))
_HASHES: Final = tuple(chunk_hash(chunk) for chunk in _CHUNKS)
_LEAVES: Final = tuple((name, len(chunk)) for name, chunk in zip(_HASHES, _CHUNKS, strict=True))
_XORB: Final = xorb_hash(_LEAVES)
_FILE: Final = file_id(_LEAVES)
_SIZE: Final = sum(map(len, _CHUNKS))


@dataclass(frozen=True)
class Target:
    """run: takes any bytes; whether they were accepted. seeds: good input to begin with. length_max: of what the fuzzer makes."""

    run: Callable[[bytes], bool]
    seeds: Callable[[], Iterator[bytes]]
    length_max: int = 4096


# --- from the CAS


def _read_reconstruction(data: bytes) -> bool:
    version = 1 if data[:1] == b"1" else 2
    with suppress(ProtocolViolation):
        found = parse_reconstruction(data[1:], version)
        assert len(found.terms) + sum(map(len, found.fetches.values())) <= len(data)
        _check_terms(found)
        return True
    return False


def _check_terms(found: Reconstruction) -> None:
    for term in found.terms:
        fetch = found.fetch_of(term)
        assert fetch.chunks.start <= term.chunks.start < term.chunks.end <= fetch.chunks.end
        assert "?" not in f"{fetch.url}{fetch.url!r}"
    assert not found.terms or 0 <= found.offset < found.terms[0].length


def _reconstructions() -> Iterator[bytes]:
    terms = [
        {"hash": _XORB.hex(), "unpacked_length": 5000, "range": {"start": 0, "end": 3}},
        {"hash": _XORB.hex(), "unpacked_length": 900, "range": {"start": 1, "end": 2}},
    ]
    old = {"range": {"start": 0, "end": 3}, "url": "http://a.example/x?sig=1", "url_range": {"start": 0, "end": 4000}}
    new = {"url": "http://a.example/x?sig=1", "ranges": [{"chunks": {"start": 0, "end": 3}, "bytes": {"start": 0, "end": 4000}}]}
    common = {"offset_into_first_range": 7, "terms": terms}
    yield b"1" + json.dumps({**common, "fetch_info": {_XORB.hex(): [old]}}).encode()
    yield b"2" + json.dumps({**common, "xorbs": {_XORB.hex(): [new]}}).encode()
    yield b"2" + json.dumps({"offset_into_first_range": 0, "terms": [], "xorbs": {}}).encode()


def _read_proof(data: bytes) -> bool:
    """A proof is believed only for the chunks that the file has there."""
    with suppress(ProtocolViolation, CorruptData):
        proof = parse_range_proof(data)
        places = {}
        at = 0
        for leaf in _LEAVES:
            places[at] = leaf
            at += leaf[1]
        windows = []
        for window in proof.windows:
            chunks = []
            at = window.start
            while at < window.end and at in places:
                chunks.append(places[at])
                at += places[at][1]
            windows.append(chunks)
        verify_range(proof, _FILE, _SIZE, windows)
        shifted = [[(chunk_hash(b"x"), length) for _, length in chunks] for chunks in windows]
        try:
            verify_range(proof, _FILE, _SIZE, shifted)
        except CorruptData:
            return True
        raise AssertionError("a proof was accepted for chunks of another content")
    return False


def _proofs() -> Iterator[bytes]:
    for asked in (
        [ByteRange(0, 1)],
        [ByteRange(3000, 3001)],
        [ByteRange(_SIZE - 1, _SIZE)],
        [ByteRange(0, 1), ByteRange(9000, 9001)],
    ):
        yield json.dumps(build_range_proof(_LEAVES, asked)).encode()


# --- from the transfer host


def _read_multipart(data: bytes) -> bool:
    """The first bytes: length of the pieces that the body comes in, and length of the content type before it."""
    step, head_length, body = data[:1], data[1:2], data[2:]
    head, body = body[: head_length[0] if head_length else 0], body[head_length[0] if head_length else 0 :]
    complete = False
    with suppress(ProtocolViolation):
        boundary = parse_boundary(head.decode("latin-1")) or "b"
        parser = MultipartParser(boundary, [HttpRange(0, 3), HttpRange(10, 19), HttpRange(20, 21)])
        size = (step[0] if step else 0) or 1
        given = 0
        for at in range(0, len(body), size):
            for piece in parser.feed(body[at : at + size]):
                span = (4, 10, 2)[piece.part]
                assert 0 <= piece.offset <= piece.offset + len(piece.data) <= span
                given += len(piece.data)
        assert given <= 16
        if parser.complete:
            assert given == 16
            parser.finish()
            complete = True
    with suppress(ProtocolViolation):
        parse_content_range(body[:200].decode("latin-1"))
    return complete


def _multiparts() -> Iterator[bytes]:
    head = b'multipart/byteranges; boundary="sep"'
    parts = ((b"0-3", b"abcd"), (b"10-19", b"0123456789"), (b"20-21", b"xy"))
    body = b"".join(b"\r\n--sep\r\nContent-Type: a/b\r\nContent-Range: bytes %b/100\r\n\r\n%b" % part for part in parts)
    for step in (1, 7, 255):
        yield bytes([step, len(head)]) + head + body + b"\r\n--sep--\r\n"
    yield bytes([9, 0]) + body.replace(b"sep", b"b") + b"\r\n--b--"


def _read_block(data: bytes) -> bool:
    """The first byte: how many chunks are expected."""
    count = (data[:1] or b"\0")[0] % 8 + 1
    wire = data[1:]
    with suppress(CorruptData):
        block = decode_block(_XORB, ChunkRange(3, 3 + count), memoryview(wire))
        assert len(block.data) <= min(MAGNIFICATION_MAX * len(wire), count * CHUNK_BYTES_MAX)
        assert len(block.hashes) == len(block.offsets) - 1 == count
        for index in range(3, 3 + count):
            assert chunk_hash(block.chunk(index)) == block.hashes[index - 3]
        return True
    return False


def _blocks() -> Iterator[bytes]:
    for scheme in Scheme:
        yield b"\0" + encode_chunk(_CHUNKS[0], scheme)
    yield b"\2" + b"".join(encode_chunk(chunk) for chunk in _CHUNKS[:3])


def _read_footer(data: bytes) -> bool:
    with suppress(CorruptData):
        info = parse_footer(data)
        if info is not None:
            assert len(info.hashes) * 36 <= len(data)
            if info.data_ends is not None:
                stored = bytes(info.wire_ends[-1]) + encode_footer(info)
                assert parse_footer(stored) == info
            return True
    return False


def _footers() -> Iterator[bytes]:
    ends, at = [], 0
    for chunk in _CHUNKS:
        at += len(chunk)
        ends.append(at)
    wire = tuple(20 * (number + 1) for number in range(len(_CHUNKS)))
    yield bytes(wire[-1]) + encode_footer(XorbInfo(_XORB, _HASHES, wire, tuple(ends)))


def _read_shard(data: bytes) -> bool:
    with suppress(CorruptData):
        shard = parse_shard(data)
        held = sum(1 + len(file.terms) for file in shard.files) + sum(1 + len(xorb.chunks) for xorb in shard.xorbs)
        assert held * 48 <= len(data)
        if shard.chunk_key is None and all(term.verification is not None for file in shard.files for term in file.terms):
            again = parse_shard(encode_upload_shard(shard))
            assert set(again.files) == set(shard.files)
            assert set(again.xorbs) == set(shard.xorbs)
        return True
    return False


def _shards() -> Iterator[bytes]:
    xorb = ShardXorb(_XORB, _LEAVES)
    term = ShardTerm(_XORB, ChunkRange(0, 3), 5000, ZERO_HASH)
    yield encode_upload_shard(Shard((ShardFile(_FILE, (term, term), bytes(32)),), (xorb,), None))
    yield encode_dedup_shard(Shard((), (xorb,), None))


# --- from the Hub


def _read_tree(data: bytes) -> bool:
    """All that the Hub says: a page, a link, a repo, a token, headers."""
    text = data.decode("latin-1")
    accepted = False
    with suppress(ProtocolViolation):
        assert len(parse_tree_page(data).entries) <= len(data)
        accepted = True
    with suppress(ProtocolViolation):
        accepted |= parse_next_link(text) is not None
    with suppress(ProtocolViolation):
        parse_repo_info(data, RepoId("model", "acme/demo"))
        accepted = True
    with suppress(ProtocolViolation):
        token = parse_xet_token(data, {})
        assert repr(token) == repr(replace(token, access_token=Secret("another")))
        accepted = True
    names = ("x-repo-commit", "etag", "x-linked-size", "x-linked-etag", "x-xet-hash", "link", "location", "content-length")
    with suppress(ProtocolViolation):
        parse_resolve_headers(dict(zip(names, text.split("\n"), strict=False)))
        accepted = True
    return accepted


def _trees() -> Iterator[bytes]:
    lfs = {"oid": "e3" * 32, "size": 1000, "pointerSize": 120}
    file = {"type": "file", "oid": "ab" * 20, "size": 1000, "path": "a/b.bin", "lfs": lfs, "xetHash": _FILE.hex()}
    last = {"id": "cd" * 20, "title": "t", "date": "2026-01-02T03:04:05.000Z"}
    yield json.dumps([{**file, "lastCommit": last}, {"type": "directory", "oid": "00" * 20, "size": 0, "path": "ü"}]).encode()
    yield b'<https://hub.example/api/models/a/b/tree/main?cursor=x>; rel="next", </b>; rel=last'
    yield json.dumps(
        {"id": "acme/demo", "sha": "ab" * 20, "lastModified": "2026-01-02T03:04:05.000Z", "private": False, "gated": "auto"}
    ).encode()
    yield b'{"casUrl": "https://cas.example", "accessToken": "word", "exp": 1900000000}'
    yield b"\n".join(
        (b"ab" * 20, b'W/"' + b"ab" * 20 + b'"', b"12", b'"' + b"e3" * 32 + b'"', _FILE.hex().encode(), b"</a>; rel=x", b"/b")
    )


# --- from the cache


def _read_map(data: bytes) -> bool:
    with suppress(CorruptData):
        runs = decode_runs(data, _SIZE)
        known = FileMap(_SIZE)
        known.add(runs)
        whole = known.runs()
        assert all(before.end <= after.start for before, after in pairwise(whole))
        assert encode_runs(decode_runs(encode_runs(whole), _SIZE)) == encode_runs(whole)
        return bool(whole)
    return False


def _maps() -> Iterator[bytes]:
    ends, at = array("Q"), 0
    for chunk in _CHUNKS:
        at += len(chunk)
        ends.append(at)
    run = Run(0, _XORB, ChunkRange(0, len(_CHUNKS)), ends, b"".join(_HASHES), Level.PROOF)
    yield encode_runs([run])
    yield encode_runs([run.part(0, 2), run.part(3, 5)])


def _read_block_file(data: bytes) -> bool:
    fd = os.memfd_create("block")
    os.write(fd, data)
    with suppress(CorruptData):
        block = open_block(fd, "block", _XORB, ChunkRange(0, 3))
        assert block.offsets[-1] <= len(data)
        with suppress(CorruptData):
            assert len(block.read(0, block.offsets[-1])) == block.offsets[-1]
            for number in range(3):
                chunk = block.read(block.offsets[number], block.offsets[number + 1])
                assert chunk_hash(chunk) == block.hashes[number]
            return True
    return False


def _block_files() -> Iterator[bytes]:
    offsets = [0]
    for chunk in _CHUNKS[:3]:
        offsets.append(offsets[-1] + len(chunk))
    data = b"".join(_CHUNKS[:3])
    block = XorbBlock(_XORB, ChunkRange(0, 3), memoryview(data), tuple(offsets), _HASHES[:3])
    yield encode_header(block) + data


# --- from files of others


_SUFFIXES: Final = ("safetensors", "gguf", "parquet", "pt")


def _read_layout(data: bytes) -> bool:
    """The first byte: which format the rest is named as."""
    content = data[1:]
    reader = probe(f"x.{_SUFFIXES[(data[:1] or b'0')[0] % len(_SUFFIXES)]}", len(content))
    assert reader is not None
    asked = 0
    while reader.wants is not None:
        wanted = reader.wants
        assert wanted.end <= len(content)
        asked += len(wanted)
        assert asked <= 4 * len(content) + 1024
        reader.feed(content[wanted.start : wanted.end])
    if reader.layout is None:
        return False
    assert all(unit.end <= len(content) for unit in reader.layout.units)
    return True


def _layouts() -> Iterator[bytes]:
    head = json.dumps({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}, "__metadata__": {"k": "v"}}).encode()
    yield b"\0" + len(head).to_bytes(8, "little") + head + bytes(9)
    pair = struct.pack("<Q1sII", 1, b"k", 4, 7)
    tensor = struct.pack("<Q1sIQIQ", 1, b"t", 1, 4, 0, 0)
    yield b"\1" + (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + pair + tensor).ljust(96, b"\0") + bytes(16)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("m/data.pkl"), b"pickled")
        archive.writestr(zipfile.ZipInfo("m/data/0"), bytes(64))
    yield b"\3" + file.getvalue()


def _read_index(data: bytes) -> bool:
    names = shards_of(data)
    assert sum(map(len, names)) <= len(data)
    assert len(set(names)) == len(names)
    assert all(name and "/" not in name for name in names)
    return bool(names)


def _indexes() -> Iterator[bytes]:
    places = {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors", "c.weight": "model-1.safetensors"}
    yield json.dumps({"metadata": {"total_size": 99}, "weight_map": places}).encode()
    yield json.dumps({"weight_map": {"a": "../x", "b": 1, "c": None, "d": "", "e": "ü"}}).encode()


# --- from the store


def _read_entries(data: bytes) -> bool:
    with suppress(CorruptData):
        found = decode_entries("folder", [data])
        assert all(found.entry(at).path.startswith("folder/") for at in range(len(found)))
        again = decode_entries("folder", found.encode())
        assert [again.entry(at) for at in range(len(again))] == [found.entry(at) for at in range(len(found))]
        return True
    return False


def _listings() -> Iterator[bytes]:
    builder = EntriesBuilder("folder")
    yield from builder.finish()[0].encode()
    builder.add("sub", TreeEntry("folder/sub", "directory", 0))
    builder.add("w.bin", TreeEntry("folder/w.bin", "file", 2**40, "ab" * 20, _FILE, bytes(32), 2**31))
    yield from builder.finish()[0].encode()


TARGETS: Final[dict[str, Target]] = {
    "reconstruction": Target(_read_reconstruction, _reconstructions),
    "proof": Target(_read_proof, _proofs),
    "multipart": Target(_read_multipart, _multiparts, 1024),
    "xorb": Target(_read_block, _blocks, 16384),
    "footer": Target(_read_footer, _footers),
    "shard": Target(_read_shard, _shards),
    "tree": Target(_read_tree, _trees),
    "filemap": Target(_read_map, _maps),
    "listing": Target(_read_entries, _listings),
    "formats": Target(_read_layout, _layouts),
    "index": Target(_read_index, _indexes),
    "blockfile": Target(_read_block_file, _block_files, 16384),
}
