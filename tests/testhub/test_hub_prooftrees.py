"""The quick way to a range proof agrees with the plain one, whatever the file and the ranges."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xetfs.protocol.hashes import MerkleHash
from xetfs.protocol.proof import build_range_proof
from xetfs.protocol.ranges import ByteRange
from xetfs.testhub.prooftrees import ProofTree


def make_leaves(chance: random.Random, count: int, cut_share: float) -> list[tuple[MerkleHash, int]]:
    """Chunks whose hashes end groups with a probability of their own, so that rare groupings occur."""
    leaves = []
    for _ in range(count):
        name = bytearray(chance.randbytes(32))
        name[24] = (name[24] & ~3) | (0 if chance.random() < cut_share else 1)
        leaves.append((MerkleHash.from_raw(bytes(name)), chance.choice((1, 9_000, 20_000, 60_000, 131_072))))
    return leaves


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 900),
    cut_share=st.sampled_from([0.0, 0.1, 0.25, 0.4, 1.0]),
    spans=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 3_000_000)), min_size=1, max_size=4),
)
def test_both_ways_agree(seed: int, count: int, cut_share: float, spans: list[tuple[float, int]]) -> None:
    leaves = make_leaves(random.Random(seed), count, cut_share)
    size = sum(length for _, length in leaves)
    asked = [ByteRange(int(place * (size - 1)), int(place * (size - 1)) + length) for place, length in spans]
    assert ProofTree(leaves).prove(asked) == build_range_proof(leaves, asked)


def test_one_byte_of_a_large_file() -> None:
    leaves = make_leaves(random.Random(1), 20_000, 0.25)
    tree = ProofTree(leaves)
    size = sum(length for _, length in leaves)
    for place in (0, size // 3, size // 2, size - 1):
        asked = [ByteRange(place, place + 1)]
        assert tree.prove(asked) == build_range_proof(leaves, asked)


def test_nothing_was_asked_for() -> None:
    with pytest.raises(ValueError, match="no byte"):
        ProofTree(make_leaves(random.Random(1), 3, 0.25)).prove([ByteRange(10**9, 10**9 + 1)])
