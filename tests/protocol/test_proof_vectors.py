"""Range proofs that nobody here made: the answers of Hugging Face's own code to 96 files and ranges.

range_proof_vectors.json holds what `xet-client` 1.8.0 answers to `/v2/file-chunk-hashes`, whose source calls it a mirror of the
server's. scripts/witness asks the same code thousands of times more.
"""

from __future__ import annotations

import copy
import json
import random
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.protocol.hashes import ChunkHash, FileId, MerkleHash, file_id
from xetfs.protocol.proof import build_range_proof, parse_range_proof, verify_range
from xetfs.protocol.ranges import ByteRange
from xetfs.testhub.prooftrees import ProofTree

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "range_proof_vectors.json").read_text())["cases"]
Leaves = list[tuple[ChunkHash, int]]
NUMBERED = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}, {len(case['chunks'])} chunks")


def leaves_of(case: dict[str, Any]) -> Leaves:
    return [(ChunkHash(MerkleHash.from_hex(text)), length) for text, length in case["chunks"]]


def asked_of(case: dict[str, Any]) -> list[ByteRange]:
    return [ByteRange(start, end) for start, end in case["ranges"]]


def verify(answer: object, case: dict[str, Any], leaves: Leaves) -> None:
    """Parse an answer and check the true chunks of its windows against the true file id."""
    proof = parse_range_proof(json.dumps(answer).encode())
    starts = list(accumulate((length for _, length in leaves), initial=0))
    windows = [
        [leaf for start, leaf in zip(starts, leaves, strict=False) if window.start <= start < window.end]
        for window in proof.windows
    ]
    verify_range(proof, FileId(MerkleHash.from_hex(case["file_id"])), starts[-1], windows)


@NUMBERED
def test_every_answer_of_the_reference_is_accepted(case: dict[str, Any]) -> None:
    leaves = leaves_of(case)
    assert file_id(leaves).hex() == case["file_id"]
    verify(case["answer"], case, leaves)
    proof = parse_range_proof(json.dumps(case["answer"]).encode())
    assert all(proof.covers(asked) for asked in asked_of(case))


@NUMBERED
def test_the_reference_is_answered_word_for_word(case: dict[str, Any]) -> None:
    """By the plain way and by the test hub's."""
    leaves = leaves_of(case)
    assert build_range_proof(leaves, asked_of(case)) == case["answer"]
    assert ProofTree(leaves).prove(asked_of(case)) == case["answer"]


def test_windows_that_touch_stay_two() -> None:
    touching = [case for case in CASES if any(a == b for (_, a), (b, _) in pairwise(_windows(case)))]
    assert len(touching) >= 3
    for case in touching:
        index = next(i for i, ((_, a), (b, _)) in enumerate(pairwise(_windows(case)), 1) if a == b)
        assert case["answer"]["hashRanges"][index] is None


def _windows(case: dict[str, Any]) -> list[tuple[int, int]]:
    return [(start, end) for start, end in (window["dirtyByteRange"] for window in case["answer"]["windows"])]


@NUMBERED
def test_an_answer_with_one_thing_altered_is_refused(case: dict[str, Any]) -> None:
    leaves = leaves_of(case)
    chance = random.Random(case["file_id"])
    for alter in (_another_hash, _another_size, _a_node_less, _a_window_moved, _a_level_up):
        answer = copy.deepcopy(case["answer"])
        if alter(answer, chance):
            assert answer != case["answer"], alter
            with pytest.raises((CorruptData, ProtocolViolation)):
                verify(answer, case, leaves)


@NUMBERED
def test_chunks_that_are_not_the_files_are_refused(case: dict[str, Any]) -> None:
    leaves = leaves_of(case)
    start = case["answer"]["windows"][0]["dirtyByteRange"][0]
    starts = list(accumulate((length for _, length in leaves), initial=0))
    index = starts.index(start)
    raw = bytearray(leaves[index][0])
    raw[0] ^= 1
    forged = [*leaves[:index], (ChunkHash(MerkleHash.from_raw(bytes(raw))), leaves[index][1]), *leaves[index + 1 :]]
    with pytest.raises(CorruptData):
        verify(case["answer"], case, forged)


# Ways to alter an answer; each returns whether there was anything to alter.


def _gaps(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [gap for gap in answer["hashRanges"] if gap is not None]


def _another_hash(answer: dict[str, Any], chance: random.Random) -> bool:
    nodes = [node for gap in _gaps(answer) for node in gap["nodes"]]
    if nodes:
        node = chance.choice(nodes)
        node["hash"] = ("1" if node["hash"][0] == "0" else "0") + node["hash"][1:]
    return bool(nodes)


def _another_size(answer: dict[str, Any], chance: random.Random) -> bool:
    """One node is a byte longer and another a byte shorter, so that the gap is as long as before."""
    gaps = [gap for gap in _gaps(answer) if len(gap["nodes"]) > 1 and any(node["size"] > 1 for node in gap["nodes"])]
    if gaps:
        nodes = chance.choice(gaps)["nodes"]
        shorter = chance.choice([node for node in nodes if node["size"] > 1])
        longer = chance.choice([node for node in nodes if node is not shorter])
        shorter["size"] -= 1
        longer["size"] += 1
    return bool(gaps)


def _a_node_less(answer: dict[str, Any], chance: random.Random) -> bool:
    gaps = [gap for gap in _gaps(answer) if gap["levels"][0][0] > 1]
    if gaps:
        gap = chance.choice(gaps)
        removed = gap["nodes"].pop(0)
        gap["levels"][0][0] -= 1
        gap["nodes"][0]["size"] += removed["size"]
    return bool(gaps)


def _a_window_moved(answer: dict[str, Any], chance: random.Random) -> bool:
    """By the size of a node of the gap before it, which goes behind it: all sums stay right."""
    before, after = answer["hashRanges"][0], answer["hashRanges"][1]
    if before is None or after is None or len(before["nodes"]) < 2:
        return False
    level = next(index for index, (left, right) in enumerate(before["levels"]) if left + right)
    at = sum(before["levels"][0][:1]) - 1 if before["levels"][0][0] else 0
    if level or not before["levels"][0][0]:
        return False
    moved = before["nodes"].pop(at)
    before["levels"][0][0] -= 1
    after["nodes"].insert(0, moved)
    after["levels"][0][0] += 1
    window = answer["windows"][0]["dirtyByteRange"]
    answer["windows"][0]["dirtyByteRange"] = [window[0] - moved["size"], window[1] - moved["size"]]
    return True


def _a_level_up(answer: dict[str, Any], chance: random.Random) -> bool:
    """The nodes of a gap claim to be one level higher than they are."""
    gaps = [gap for gap in _gaps(answer) if sum(map(sum, gap["levels"])) > 1]
    if gaps:
        chance.choice(gaps)["levels"].insert(0, [0, 0])
    return bool(gaps)
