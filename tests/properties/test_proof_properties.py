"""Range proofs against a hostile server: whatever it answers, no chunk is accepted at a place where the file does not hold it.

The server of these tests knows the whole file and chooses both the answer and the chunks. The length of the run is set by
XETFS_FUZZ_CASES, its seed by XETFS_FUZZ_SEED; the seed of a run is printed.
"""

import json
import os
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_cases import Case, File, forged_case, honest_case
from proof_lies import LIES

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.protocol.hashes import ChunkHash, FileId, MerkleHash
from xetfs.protocol.proof import build_range_proof, parse_range_proof, verify_range
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.subtree import Node, build, join, root_of

CASES = int(os.environ.get("XETFS_FUZZ_CASES", "20000"))
SEED = int(os.environ.get("XETFS_FUZZ_SEED", random.SystemRandom().randrange(2**32)))


def judge(file: File, case: Case) -> str:
    """What becomes of a case: "accepted" only if it is true; fails if a lie is accepted."""
    try:
        proof = parse_range_proof(json.dumps(case.answer).encode())
        if len(proof.windows) != len(case.chunks):
            return "refused: windows"  # the reader decodes one list of chunks for each window of the proof
        verify_range(proof, file.file_id, file.size, case.chunks)
    except ProtocolViolation:
        return "refused: protocol"
    except CorruptData as error:
        return "refused: place" if "elsewhere" in str(error) else "refused: root"
    assert all(file.holds(window, chunks) for window, chunks in zip(proof.windows, case.chunks, strict=True)), (
        "a lie was accepted"
    )
    return "accepted"


@pytest.mark.timeout(3600)
def test_no_lie_is_accepted() -> None:
    print(f"XETFS_FUZZ_SEED={SEED} XETFS_FUZZ_CASES={CASES}")
    choose = random.Random(SEED)
    outcomes: Counter[str] = Counter()
    file = File(choose, 40)
    for number in range(CASES):
        if number % 50 == 0:
            file = File(choose, choose.choice((1, 2, 3, 5, 12, 30, 60, 120)))
        if choose.random() < 0.3 and file.root.children:
            case, kind = forged_case(choose, file), "dealt"
        else:
            case, kind = honest_case(choose, file), "mutated"
            for lie in choose.choices(LIES, k=choose.choice((1, 1, 1, 2, 3))):
                lie(choose, case, file)
        if case.chunks:
            outcomes[f"{kind} {judge(file, case)}"] += 1
    print(dict(sorted(outcomes.items())))
    # The lies are of the kinds that they are meant to be: some have the root right and only the place wrong.
    for outcome in ("mutated refused: protocol", "mutated refused: root", "dealt refused: root", "dealt refused: place"):
        assert outcomes[outcome], outcome
    assert outcomes["mutated accepted"]  # a lie that changes nothing


@given(st.integers(0, 2**32), st.integers(1, 400))
@settings(max_examples=60)
def test_every_honest_answer_is_accepted(seed: int, count: int) -> None:
    choose = random.Random(seed)
    file = File(choose, count)
    for _ in range(3):
        case = honest_case(choose, file)
        assert judge(file, case) == "accepted"


@given(st.integers(0, 2**32), st.integers(1, 300), st.lists(st.floats(0, 1), max_size=5))
@settings(max_examples=60)
def test_joining_from_the_left_gives_the_root(seed: int, count: int, cuts: list[float]) -> None:
    file = File(random.Random(seed), count)
    nodes = [Node(*leaf) for leaf in file.leaves]
    edges = sorted({0, count, *(int(cut * count) for cut in cuts)})
    parts = [build(nodes[a:b], at_start=a == 0, at_end=b == count) for a, b in pairwise(edges)]
    whole = parts[0]
    for part in parts[1:]:
        whole = join(whole, part)
    root = root_of(whole)
    assert root is not None
    assert (root.hash, root.size) == (file.root.hash, file.size)


@given(st.binary(max_size=300))
def test_garbage_is_a_protocol_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_range_proof(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = ("totalChunks", "fileSize", "windows", "hashRanges")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, JSON)), st.sampled_from(KEYS), JSON)
def test_json_of_any_shape_is_a_protocol_violation(noise: dict[str, Any], key: str, value: object) -> None:
    file = FileId(MerkleHash.from_raw(bytes(32)))
    honest = build_range_proof([(ChunkHash(MerkleHash.from_raw(bytes(32))), 5), (ChunkHash(file), 7)], [ByteRange(0, 1)])
    for answer in (noise, {**honest, key: value}):
        try:
            proof = parse_range_proof(json.dumps(answer).encode())
        except ProtocolViolation:
            continue
        with pytest.raises((CorruptData, ProtocolViolation)):
            verify_range(proof, file, 12, [[] for _ in proof.windows])
