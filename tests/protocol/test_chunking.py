import hashlib
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from vector_files import FILES, VECTORS, content, xof

import xetfs.protocol
from xetfs.protocol.chunking import CHUNK_BYTES_MIN, Chunker, chunk_ends
from xetfs.protocol.hashes import chunk_hash, file_id, merkle_root, term_verification_hash, xorb_hash
from xetfs.protocol.xorb import CHUNK_BYTES_MAX


def feed_in_pieces(data: bytes, size: int) -> list[int]:
    chunker = Chunker()
    ends = [end for at in range(0, len(data), size) for end in chunker.feed(data[at : at + size])]
    return ends + chunker.finish()


def test_the_gear_table_is_the_published_one() -> None:
    table = (Path(xetfs.protocol.__file__).parent / "gear_table.bin").read_bytes()
    gear = VECTORS["gear"]
    assert hashlib.sha256(table).hexdigest() == gear["sha256_le"]
    assert blake3(table).hexdigest() == gear["blake3_le"]
    numbers = struct.unpack("<256Q", table)
    assert [f"{number:#018x}" for number in (*numbers[:2], *numbers[-2:])] == [*gear["first2"], *gear["last2"]]
    assert (gear["min"], gear["max"]) == (CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file["name"])
def test_files_are_cut_and_hashed_as_by_the_reference(file: dict[str, Any]) -> None:
    data = content(file["name"])
    ends = chunk_ends(data)
    assert len(ends) == file["chunks"]
    assert ends[: len(file["ends_head"])] == file["ends_head"]
    assert ends[-len(file["ends_tail"]) :] == file["ends_tail"]
    assert blake3(struct.pack(f"<{len(ends)}I", *ends)).hexdigest() == file["ends_u32le_blake3"]
    leaves = [(chunk_hash(data[start:end]), end - start) for start, end in pairwise([0, *ends])]
    assert blake3(b"".join(name for name, _ in leaves)).hexdigest() == file["chunk_hashes_raw_blake3"]
    assert [name.hex() for name, _ in leaves[:1]] == [name for name in [file["first_chunk"]] if name]
    assert merkle_root(leaves).hex() == file["root"]
    assert file_id(leaves).hex() == file["file_hash"]
    at = 0
    for index, (xorb, start, end, length) in enumerate(file["terms"]):
        part = leaves[at : at + end - start]
        at += end - start
        assert sum(size for _, size in part) == length
        if index < len(file["term_hashes"]):  # of files of many terms only those of the first are given
            assert term_verification_hash(name for name, _ in part).hex() == file["term_hashes"][index]
        if end - start == file["xorbs"][xorb]["chunks"]:
            assert xorb_hash(part).hex() == xorb


@pytest.mark.parametrize("name", ["max+1", "max+1r", "min", "128k+8k", "f32-odd"])
@pytest.mark.parametrize("size", [1021, 8191, 8192, 16385, 131071, 131072, 10**9])
def test_pieces_of_any_size_give_the_same_cuts(name: str, size: int) -> None:
    data = content(name)[:600_000]
    assert feed_in_pieces(data, size) == chunk_ends(data)


def test_bytes_one_by_one_give_the_same_cuts() -> None:
    data = xof("one by one", 9000)
    assert feed_in_pieces(data, 1) == chunk_ends(data) == [9000]


def test_cuts_depend_on_nothing_before_the_chunk() -> None:
    data = content("f32-odd")
    first, second, third = chunk_ends(data)[:3]
    assert chunk_ends(data[first:])[:2] == [second - first, third - first]


def test_no_data_is_no_chunk() -> None:
    chunker = Chunker()
    assert chunker.feed(b"") == chunker.finish() == chunk_ends(memoryview(b"")) == []


def test_a_cut_at_the_end_leaves_no_empty_chunk() -> None:
    data = content("f32-odd")
    first = chunk_ends(data)[0]
    assert chunk_ends(data[:first]) == [first]
    chunker = Chunker()
    assert chunker.feed(data[:first]) == [first]
    assert chunker.finish() == []
