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
from altered_proofs import ALTERATIONS

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
    for alter in ALTERATIONS:
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
