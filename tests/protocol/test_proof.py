import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.protocol.hashes import ChunkHash, FileId, MerkleHash, chunk_hash, file_id, merkle_root
from xetfs.protocol.proof import NODES_MAX, WINDOWS_MAX, build_range_proof, parse_range_proof, verify_range
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.subtree import Node, build, join, root_of, subtree_json

VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text())
Leaves = list[tuple[ChunkHash, int]]


def xof(seed: str, length: int) -> bytes:
    return blake3(seed.encode()).digest(length=length)


def vector_leaves(count: int) -> Leaves:
    stream = xof("leaves", 40 * count)
    return [
        (
            ChunkHash(MerkleHash.from_raw(stream[40 * i : 40 * i + 32])),
            1 + int.from_bytes(stream[40 * i + 32 : 40 * i + 36], "little") % 131072,
        )
        for i in range(count)
    ]


def vector_chunks(tag: str, count: int) -> Leaves:
    stream = xof(tag, 4 * count)
    lengths = [200 + int.from_bytes(stream[4 * i : 4 * i + 4], "little") % 800 for i in range(count)]
    return [(chunk_hash(xof(f"{tag}/{i}", length)), length) for i, length in enumerate(lengths)]


def encode(answer: object) -> bytes:
    return json.dumps(answer).encode()


def chunks_of(leaves: Leaves, windows: tuple[ByteRange, ...]) -> list[Leaves]:
    """The chunks that lie in each window."""
    found: list[Leaves] = []
    for window in windows:
        start, inside = 0, []
        for leaf in leaves:
            if window.start <= start < window.end:
                inside.append(leaf)
            start += leaf[1]
        found.append(inside)
    return found


def verify(answer: object, leaves: Leaves) -> None:
    proof = parse_range_proof(encode(answer))
    size = sum(length for _, length in leaves)
    verify_range(proof, file_id(leaves), size, chunks_of(leaves, proof.windows))


@pytest.mark.parametrize("case", VECTORS["subtree"]["cases"], ids=lambda case: str(case["n"]))
def test_subtree_vectors(case: dict[str, Any]) -> None:
    leaves = vector_leaves(case["n"])
    nodes = [Node(*leaf) for leaf in leaves]
    edges = [0, *case["cuts"], case["n"]]
    parts = [build(nodes[a:b], at_start=a == 0, at_end=b == case["n"]) for a, b in pairwise(edges)]
    for part, expected in zip(parts, case["parts"], strict=True):
        text = json.dumps(subtree_json(part), separators=(",", ":"))
        assert subtree_json(part)["levels"] == expected["levels"]
        assert blake3(text.encode()).hexdigest() == expected["json_blake3"]
    if "middle_json" in case:
        assert subtree_json(parts[1]) == case["middle_json"]
    whole = parts[0]
    for part in parts[1:]:
        whole = join(whole, part)
    root = root_of(whole)
    assert root is not None
    assert root.hash.hex() == case["root"] == merkle_root(leaves).hex()
    assert root.size == sum(length for _, length in leaves)


def test_the_honest_vector_is_accepted() -> None:
    vector = VECTORS["range_proof"]["honest"]
    leaves = vector_chunks(vector["tag"], vector["n"])
    assert file_id(leaves).hex() == vector["file_hash"]
    proof = parse_range_proof(encode(vector["response"]))
    windows = [leaves[a:b] for a, b in vector["window_chunk_indices"]]
    assert windows == chunks_of(leaves, proof.windows)
    verify_range(proof, file_id(leaves), proof.file_size, windows)


def test_the_position_attack_is_refused() -> None:
    vector = VECTORS["range_proof"]["position_attack"]
    leaves = vector_chunks(vector["tag"], vector["response"]["totalChunks"])
    proof = parse_range_proof(encode(vector["response"]))
    windows = [leaves[a:b] for a, b in vector["window_chunk_indices"]]
    with pytest.raises(CorruptData, match="elsewhere"):  # so the root was right: only the walk tells
        verify_range(proof, FileId(MerkleHash.from_hex(vector["file_hash"])), proof.file_size, windows)


def test_a_window_without_stable_chunks_runs_to_the_end() -> None:
    vector = VECTORS["range_proof"]["server_window_runs_to_eof"]
    leaves = vector_chunks(vector["tag"], 60)
    assert build_range_proof(leaves, [ByteRange(*vector["ask"])])["windows"] == vector["windows"]


SAMPLE = vector_leaves(300)
SIZE = sum(length for _, length in SAMPLE)
ANSWER: dict[str, Any] = build_range_proof(SAMPLE, [ByteRange(SIZE // 3, SIZE // 3 + 5), ByteRange(SIZE // 2, SIZE // 2 + 5)])


def test_what_is_built_is_accepted() -> None:
    verify(ANSWER, SAMPLE)
    assert len(ANSWER["windows"]) == 2
    proof = parse_range_proof(encode(ANSWER))
    assert proof.covers(ByteRange(SIZE // 3, SIZE // 3 + 5))
    assert not proof.covers(ByteRange(SIZE // 3, SIZE // 2))
    assert not proof.covers(ByteRange(0, 1))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 60])
def test_windows_at_the_edges_of_a_file(count: int) -> None:
    leaves = vector_leaves(count)
    size = sum(length for _, length in leaves)
    for span in (ByteRange(0, 1), ByteRange(size - 1, size), ByteRange(0, size), ByteRange(size // 2, 10 * size)):
        answer = build_range_proof(leaves, [span])
        verify(answer, leaves)
        assert parse_range_proof(encode(answer)).covers(span)


def test_windows_end_after_two_stable_chunks_and_merge_where_they_overlap() -> None:
    lengths = [20_000, 130_000, 20_000, 130_000, 20_000, 20_000, 20_000, 20_000, 122_880, 16_383, 16_384, 122_879, 5]
    leaves = [(chunk_hash(bytes([i])), length) for i, length in enumerate(lengths)]
    starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]

    def windows(*asked: ByteRange) -> list[list[int]]:
        answer: Any = build_range_proof(leaves, asked)
        verify(answer, leaves)
        return [[starts.index(edge) for edge in window["dirtyByteRange"]] for window in answer["windows"]]

    def chunks(first: int, last: int) -> ByteRange:
        return ByteRange(starts[first], starts[last] + 1)

    assert windows(chunks(0, 0)) == [[0, 6]]
    assert windows(chunks(7, 7)) == [[7, 12]]
    assert windows(chunks(7, 7), chunks(0, 0)) == [[0, 6], [7, 12]]
    assert windows(chunks(6, 6), chunks(0, 0)) == [[0, 6], [6, 12]]
    assert windows(chunks(5, 5), chunks(0, 0)) == [[0, 8]]
    assert windows(chunks(4, 4), chunks(0, 0)) == [[0, 7]]
    assert windows(chunks(12, 12), ByteRange(7, 7)) == [[12, 13]]


def test_no_byte_asked_for_is_no_proof() -> None:
    for asked in ([], [ByteRange(5, 5)], [ByteRange(SIZE, SIZE + 1)]):
        with pytest.raises(ValueError):
            build_range_proof(SAMPLE, asked)


def test_other_chunks_than_the_files_are_refused() -> None:
    proof = parse_range_proof(encode(ANSWER))
    windows = chunks_of(SAMPLE, proof.windows)
    (first, length), (second, other_length) = windows[0][:2]
    forged = [
        [(chunk_hash(b"x"), length), *windows[0][1:]],
        [(second, other_length), (first, length), *windows[0][2:]],
        [(first, other_length), (second, length), *windows[0][2:]],
        [(first, length + other_length), *windows[0][2:]],
        windows[0][1:],
        [*windows[0], (first, length)],
        [(first, 0), *windows[0]],
        [],
    ]
    for chunks in forged:
        with pytest.raises(CorruptData):
            verify_range(proof, file_id(SAMPLE), SIZE, [chunks, windows[1]])
    with pytest.raises(CorruptData):
        verify_range(proof, file_id(SAMPLE[1:]), SIZE, windows)
    with pytest.raises(ProtocolViolation):
        verify_range(proof, file_id(SAMPLE), SIZE - 1, windows)
    with pytest.raises(ValueError):
        verify_range(proof, file_id(SAMPLE), SIZE, windows[:1])


def test_nothing_proves_the_zero_hash() -> None:
    for gaps in ([None, None], [{"nodes": [], "levels": [], "at_start": True, "at_end": True}, None]):
        answer = {"totalChunks": 0, "fileSize": 0, "windows": [{"dirtyByteRange": [0, 0]}], "hashRanges": gaps}
        with pytest.raises(ProtocolViolation):
            parse_range_proof(encode(answer))


def test_a_proof_can_be_used_again() -> None:
    proof = parse_range_proof(encode(ANSWER))
    for _ in range(2):
        verify_range(proof, file_id(SAMPLE), SIZE, chunks_of(SAMPLE, proof.windows))


NODE = ("hashRanges", 0, "nodes", 0)
FIRST: dict[str, Any] = ANSWER["hashRanges"][0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("fileSize",), SIZE + 1),
        (("fileSize",), True),
        (("fileSize",), float(SIZE)),
        (("fileSize",), str(SIZE)),
        (("fileSize",), 0),
        (("totalChunks",), 0),
        (("totalChunks",), SIZE + 1),
        (("totalChunks",), None),
        (("windows",), []),
        (("windows",), ANSWER["windows"][:1]),
        (("windows",), ANSWER["windows"][::-1]),
        (("windows",), ANSWER["windows"][:1] * (WINDOWS_MAX + 1)),
        (("windows", 0), [1, 2]),
        (("windows", 0, "dirtyByteRange"), [1]),
        (("windows", 0, "dirtyByteRange", 0), ANSWER["windows"][0]["dirtyByteRange"][0] + 1),
        (("windows", 0, "dirtyByteRange", 0), -1),
        (("windows", 0, "dirtyByteRange", 1), True),
        (("windows", 1, "dirtyByteRange", 1), SIZE + 5),
        (("hashRanges",), ANSWER["hashRanges"][:2]),
        (("hashRanges", 0), None),
        (("hashRanges", 1), None),
        (("hashRanges", 0), []),
        (("hashRanges", 0, "at_start"), False),
        (("hashRanges", 0, "at_start"), 1),
        (("hashRanges", 0, "at_end"), True),
        (("hashRanges", 1, "at_start"), True),
        (("hashRanges", 2, "at_end"), False),
        (("hashRanges", 0, "levels"), FIRST["levels"][1:]),
        (("hashRanges", 0, "levels"), [[0, 0]] * 65),
        (("hashRanges", 0, "levels", 0), [len(FIRST["nodes"])]),
        (("hashRanges", 0, "levels", 0, 0), -1),
        (("hashRanges", 0, "levels", 0, 0), False),
        (("hashRanges", 0, "levels", 0, 0), 2**70),
        (("hashRanges", 0, "nodes"), FIRST["nodes"][1:]),
        (("hashRanges", 0, "nodes"), FIRST["nodes"][:1] * (NODES_MAX + 1)),
        ((*NODE, "size"), 0),
        ((*NODE, "size"), -5),
        ((*NODE, "size"), True),
        ((*NODE, "size"), 1.0),
        ((*NODE, "size"), 2**64),
        ((*NODE, "hash"), "00"),
        ((*NODE, "hash"), None),
        ((*NODE, "hash"), "g" * 64),
    ],
)
def test_answers_that_are_not_of_one_piece_are_refused(path: tuple[Any, ...], value: object) -> None:
    answer = copy.deepcopy(ANSWER)
    place: Any = answer
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ProtocolViolation):
        parse_range_proof(encode(answer))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b"[" * 100_000, encode(ANSWER)[:-1], encode(ANSWER) + b"x"])
def test_what_is_no_proof_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_range_proof(body)
