"""Hashes, trees and range proofs agree with Hugging Face's own code, whatever the file and whoever makes the proof."""

from __future__ import annotations

import copy
import json
import os
import random
from itertools import accumulate, pairwise
from typing import Any, Final

import pytest
from altered_proofs import ALTERATIONS, a_window_moved
from witness_programs import Oracle

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.protocol.hashes import ChunkHash, MerkleHash, chunk_hash, file_id, merkle_root, xorb_hash
from xetfs.protocol.proof import build_range_proof, parse_range_proof, verify_range
from xetfs.protocol.ranges import ByteRange
from xetfs.testhub.prooftrees import ProofTree

pytestmark = pytest.mark.witness

FILES: Final = int(os.environ.get("XETFS_WITNESS_FILES", "2000"))
KINDS: Final = ("ordinary", "repeated", "tiny chunks", "never a cut", "always a cut", "forced sizes")
Leaves = list[tuple[ChunkHash, int]]


def make_leaves(chance: random.Random, kind: str) -> Leaves:
    count = min(chance.choice((1, 2, 3, 9, 10, 30, 100, 400, chance.randint(1, 1500))), 1500)
    cut = {"never a cut": 1, "always a cut": 0}.get(kind)
    leaves = []
    for _ in range(count):
        name = bytearray(chance.randbytes(32))
        if cut is not None:  # the byte that decides whether a group ends here
            name[24] = (name[24] & ~3) | cut
        size = {"tiny chunks": chance.randint(1, 20_000), "forced sizes": chance.choice((131_072, 65_536, 8_192))}
        leaves.append((ChunkHash(MerkleHash.from_raw(bytes(name))), size.get(kind, chance.randint(8_192, 131_072))))
    if kind == "repeated":
        few = leaves[:3]
        leaves = [chance.choice(few) for _ in leaves]
    return leaves


def make_ranges(chance: random.Random, starts: list[int]) -> list[ByteRange]:
    """In order and apart, as their code takes them; often at chunk borders, and so near that windows touch."""
    edges: set[int] = set()
    for _ in range(2 * chance.choice((1, 1, 1, 2, 3, 6))):
        place = chance.choice(starts) if chance.random() < 0.5 else chance.randrange(starts[-1] + 1)
        edges |= {place, min(place + chance.choice((1, 4096, 300_000)), starts[-1])}
    ordered = sorted(edges)
    return [ByteRange(a, b) for a, b in list(pairwise(ordered))[::2]][:32] or [ByteRange(0, 1)]


def on_the_wire(leaves: Leaves) -> list[tuple[str, int]]:
    return [(name.hex(), size) for name, size in leaves]


def windows_of(answer: dict[str, Any], leaves: Leaves, starts: list[int]) -> list[Leaves]:
    index_at = {start: index for index, start in enumerate(starts)}
    edges = [window["dirtyByteRange"] for window in answer["windows"]]
    return [leaves[index_at.get(start, 0) : index_at.get(end, 0)] for start, end in edges]


def accepted(answer: dict[str, Any], leaves: Leaves, starts: list[int]) -> bool:
    try:
        proof = parse_range_proof(json.dumps(answer).encode())
        verify_range(proof, file_id(leaves), starts[-1], windows_of(answer, leaves, starts))
    except (CorruptData, ProtocolViolation):
        return False
    return True


def folded_by_them(oracle: Oracle, answer: dict[str, Any], leaves: Leaves, starts: list[int]) -> str:
    """The root that their code comes to from gaps and windows."""
    windows = windows_of(answer, leaves, starts)
    parts: list[dict[str, Any]] = []
    for index, (gap, window) in enumerate(zip(answer["hashRanges"], [*windows, None], strict=True)):
        if gap is not None:
            parts.append(gap)
        if window is not None:
            first, last = answer["windows"][index]["dirtyByteRange"]
            parts.append({"chunks": on_the_wire(window), "at_start": first == 0, "at_end": last == starts[-1]})
    return str(oracle.ask({"ask": "fold", "parts": parts})["root"])


def test_range_proofs_agree_both_ways(oracle: Oracle, tally: list[str]) -> None:
    seed = int(os.environ.get("XETFS_WITNESS_SEED", "0")) or random.randrange(2**32)
    print(f"XETFS_WITNESS_SEED={seed}")
    chance = random.Random(seed)
    altered = touching = 0
    for number in range(FILES):
        kind = KINDS[number % len(KINDS)]
        leaves = make_leaves(chance, kind)
        starts = list(accumulate((size for _, size in leaves), initial=0))
        asked = make_ranges(chance, starts)
        chunks = on_the_wire(leaves)
        ids = oracle.ask({"ask": "file", "chunks": chunks})
        assert ids == {"file": file_id(leaves).hex(), "xorb": xorb_hash(leaves).hex()}
        theirs = oracle.ask({"ask": "proof", "chunks": chunks, "ranges": [(span.start, span.end) for span in asked]})["proof"]
        assert build_range_proof(leaves, asked) == theirs
        assert ProofTree(leaves).prove(asked) == theirs
        if len(theirs["windows"]) <= 64:  # more than a reader asks for, and takes
            assert accepted(theirs, leaves, starts)
            assert folded_by_them(oracle, theirs, leaves, starts) == merkle_root(leaves).hex()
        touching += any(a["dirtyByteRange"][1] == b["dirtyByteRange"][0] for a, b in pairwise(theirs["windows"]))
        for alter in ALTERATIONS:
            lie = copy.deepcopy(theirs)
            if alter is a_window_moved and kind == "repeated":  # among equal chunks a moved window may be just as true
                continue
            if alter(lie, chance):
                altered += 1
                assert not accepted(lie, leaves, starts), alter
    assert touching
    tally.append(
        f"range proofs: {FILES} files, {touching} with windows that touch; all equal and accepted, {altered} altered ones refused"
    )


def test_chunks_have_the_same_hash(oracle: Oracle, tally: list[str]) -> None:
    chance = random.Random(5)
    for length in (0, 1, 31, 64, 1024, 1025, 65_536, 131_072):
        data = chance.randbytes(length)
        assert oracle.ask({"ask": "chunk", "data": data.hex()})["hash"] == chunk_hash(data).hex()
    tally.append("chunk hashes: 8 lengths agree")
