"""The tree built from left to right is the tree."""

from __future__ import annotations

from array import array
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from xetfs.protocol.fold import Fold
from xetfs.protocol.hashes import ChunkHash, MerkleHash, chunk_hash, file_id, merkle_root


def leaf(number: int, cut: bool) -> ChunkHash:
    """A hash that ends a group or does not, as is wanted."""
    raw = bytearray(chunk_hash(number.to_bytes(8, "little")))
    raw[24] = raw[24] & ~3 if cut else raw[24] | 1
    return ChunkHash(MerkleHash(raw))


leaves = st.lists(st.tuples(st.booleans(), st.integers(1, 1 << 17)), max_size=400).map(
    lambda drawn: [(leaf(number, cut), size) for number, (cut, size) in enumerate(drawn)]
)


@given(leaves)
def test_it_has_the_root_of_the_tree(pairs: list[tuple[ChunkHash, int]]) -> None:
    fold = Fold()
    for name, size in pairs:
        fold.add(name, size)
    assert fold.root() == merkle_root(pairs)


@given(leaves, st.integers(0, 1 << 40))
def test_many_at_once_are_as_one_by_one(pairs: list[tuple[ChunkHash, int]], start: int) -> None:
    fold = Fold()
    ends = array("Q", accumulate((size for _, size in pairs), initial=start))[1:]
    half = len(pairs) // 2
    hashes = b"".join(name for name, _ in pairs)
    fold.add_chunks(hashes[: 32 * half], start, ends[:half])
    fold.add_chunks(hashes[32 * half :], ends[half - 1] if half else start, ends[half:])
    assert fold.file_id() == file_id(pairs)
