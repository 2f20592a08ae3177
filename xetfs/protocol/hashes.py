"""Hashes of chunks, xorbs and files, and the tree that leads from one to the other.

Every hash is a keyed BLAKE3 of 32 bytes. As text, in URLs, JSON and inside the nodes of the tree, each 8-byte group is reversed:
the reference prints a hash as four little-endian numbers. Shards and footers hold it raw.

The tree is built level by level from `(hash, size)` pairs. A group of nodes ends at the first node, from the third on, whose
hash is a *cut* (its last number is a multiple of four), and at the ninth at the latest; what is left when one or two nodes remain
is a group as well, even of one. A parent hashes one line of text per child. So equal runs of chunks give equal subtrees, wherever
they lie. A tree of one leaf is that leaf, and a tree of none is zero.

Source: Xet spec, "Hashing methods" (chunk, xorb, file and term verification hashes); xet-core, merklehash.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NewType

from blake3 import blake3

from xetfs.errors import ProtocolViolation

HASH_BYTES: Final = 32
GROUP_MAX: Final = 9
"""Most children of one node of the tree."""

_CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
_FILE_KEY = bytes(HASH_BYTES)
_TERM_KEY = bytes.fromhex("7f1857d6ce56ed66127ff913e7a5c3f3a4cd26d5b5db49e64124987f28fb94c3")
_TEXT_DIGITS = 2 * HASH_BYTES
_TEXTS = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_CUT_BYTE = 24  # the lowest byte of the last of the four numbers
_IS_CUT = bytes(byte & 3 == 0 for byte in range(256))  # for bytes.translate


class MerkleHash(bytes):
    """32 raw bytes. `hex()` is the text that URLs and JSON carry, unlike that of other bytes; `from_hex` is its inverse."""

    __slots__ = ()

    @classmethod
    def from_hex(cls, text: str) -> MerkleHash:
        """Read the text form. Raises ProtocolViolation unless it is 64 hex digits."""
        if len(text) != _TEXT_DIGITS or _TEXTS.fullmatch(text) is None:
            raise ProtocolViolation(f"not a hash: {text!r:.80}")
        return cls(_reversed_groups(bytes.fromhex(text)))

    @classmethod
    def all_from_hex(cls, texts: Sequence[str]) -> list[MerkleHash]:
        """Read many at once, which takes half of the time."""
        digits = "".join(texts)
        if set(map(len, texts)) - {_TEXT_DIGITS} or _TEXTS.fullmatch(digits) is None:
            return [cls.from_hex(text) for text in texts]  # one of them is none, and says so
        raw = _reversed_groups(bytes.fromhex(digits))
        return [cls(raw[at : at + HASH_BYTES]) for at in range(0, len(raw), HASH_BYTES)]

    @classmethod
    def from_raw(cls, raw: bytes | memoryview) -> MerkleHash:
        """Take 32 bytes as they lie in shards and footers. Raises ValueError for any other number of bytes."""
        if len(raw) != HASH_BYTES:
            raise ValueError(f"a hash has {HASH_BYTES} bytes, not {len(raw)}")
        return cls(raw)

    def hex(self) -> str:  # type: ignore[override]  # bytes.hex takes separators, which have no meaning here
        return _reversed_groups(self).hex()

    def __repr__(self) -> str:
        return f"MerkleHash({self.hex()})"

    def __str__(self) -> str:
        return self.hex()


FileId = NewType("FileId", MerkleHash)
XorbHash = NewType("XorbHash", MerkleHash)
ChunkHash = NewType("ChunkHash", MerkleHash)

ZERO_HASH: Final = MerkleHash(bytes(HASH_BYTES))
"""Names the empty file, and is the root of a tree without leaves."""


def chunk_hash(data: bytes | bytearray | memoryview) -> ChunkHash:
    """The hash of one decoded chunk. Lets other threads run while it computes."""
    return ChunkHash(MerkleHash(blake3(data, key=_CHUNK_KEY).digest()))


def term_verification_hash(chunk_hashes: Iterable[ChunkHash]) -> MerkleHash:
    """What a writer puts into a shard to show that it holds the chunks of a term."""
    return MerkleHash(blake3(b"".join(chunk_hashes), key=_TERM_KEY).digest())


def xorb_hash(leaves: Iterable[tuple[MerkleHash, int]]) -> XorbHash:
    """The name of a xorb of these chunks: `(hash, decoded length)` of each, in order."""
    return XorbHash(merkle_root(leaves))


def file_id(leaves: Iterable[tuple[MerkleHash, int]]) -> FileId:
    """The name of a file of these chunks: `(hash, decoded length)` of each, in file order, repeated ones repeated."""
    pairs = list(leaves)
    return file_id_of_root(merkle_root(pairs)) if pairs else FileId(ZERO_HASH)


def file_id_of_root(root: MerkleHash) -> FileId:
    """The name of a file that has chunks, by the root over them. The empty file has none: it is named ZERO_HASH by rule."""
    return FileId(MerkleHash(blake3(root, key=_FILE_KEY).digest()))


# The tree


def is_cut(node: MerkleHash) -> bool:
    """Whether a group ends with this node, if it is at least the third of it."""
    return _IS_CUT[node[_CUT_BYTE]] == 1


def group_end(nodes: Sequence[MerkleHash]) -> int:
    """How many of the nodes that are left on a level make the next group; the first nine suffice to tell. 0 if none is left."""
    return _group_end(bytes(node[_CUT_BYTE] for node in nodes[:GROUP_MAX]).translate(_IS_CUT), 0)


def node_hash(children: Iterable[tuple[MerkleHash, int]]) -> MerkleHash:
    """The hash of the parent of these nodes. Its size, the sum of theirs, is committed by the hash of *its* parent."""
    return _hash_lines([f"{child.hex()} : {size}\n" for child, size in children])


def merkle_root(leaves: Iterable[tuple[MerkleHash, int]]) -> MerkleHash:
    """The root over `(hash, size)` leaves; of a single leaf its hash, of none ZERO_HASH. 100,000 leaves take about 0.1 s."""
    pairs = list(leaves)
    nodes = [node for node, _ in pairs]
    sizes = [size for _, size in pairs]
    while len(nodes) > 1:
        edges = group_edges(cuts_of(nodes))
        nodes = parents_of(nodes, sizes, edges)
        sizes = [sum(sizes[start:end]) for start, end in pairwise(edges)]
    return nodes[0] if nodes else ZERO_HASH


def cuts_of(nodes: Iterable[MerkleHash]) -> bytes:
    """1 for each node that is a cut, 0 for the others."""
    return b"".join(nodes)[_CUT_BYTE::HASH_BYTES].translate(_IS_CUT)


def parents_of(nodes: Sequence[MerkleHash], sizes: Sequence[int], edges: Sequence[int]) -> list[MerkleHash]:
    """The hashes of the parents of a level's nodes; edges: as `group_edges` gives them."""
    lines = [f"{text} : {size}\n" for text, size in zip(_texts(b"".join(nodes)), sizes, strict=True)]
    return [_hash_lines(lines[start:end]) for start, end in pairwise(edges)]


def group_edges(cuts: bytes) -> list[int]:
    """Where the groups of a level begin, and at last its length. cuts: as `cuts_of` gives them."""
    edges = [0]
    while edges[-1] < len(cuts):
        edges.append(_group_end(cuts, edges[-1]))
    return edges


def _group_end(cuts: bytes, start: int) -> int:
    end = min(start + GROUP_MAX, len(cuts))
    cut = cuts.find(1, start + 2, end)
    return end if cut < 0 else cut + 1


def _texts(raw: bytes) -> list[str]:
    """The text forms of hashes that lie back to back: all at once, for `MerkleHash.hex` costs more than the hashing."""
    digits = _reversed_groups(raw).hex()
    return [digits[at : at + _TEXT_DIGITS] for at in range(0, len(digits), _TEXT_DIGITS)]


def _reversed_groups(raw: bytes) -> bytes:
    """Each 8 bytes in reverse."""
    numbers = array("Q", raw)
    numbers.byteswap()
    return numbers.tobytes()


def _hash_lines(lines: list[str]) -> MerkleHash:
    return MerkleHash(blake3("".join(lines).encode("ascii"), key=_NODE_KEY).digest())
