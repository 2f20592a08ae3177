"""Hashes of chunks, xorbs and files, their text form, and the Merkle tree that leads from the first to the others.

All are keyed BLAKE3; each use has a key of its own, so that a chunk can never pass for a node. A tree node commits to the
hashes and sizes of its children, in order. Which nodes form a group is decided by the hashes themselves, so that a change in a
file moves few groups.

Source: Xet spec, "Hashing" and "Merkle tree"; xet-core merklehash, data_hash.rs and aggregated_hashes.rs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NewType

from blake3 import blake3

from xetfs.errors import ProtocolViolation

HASH_BYTES: Final = 32
GROUP_NODES_MAX: Final = 9
"""Most children of a node."""

CHUNK_KEY: Final = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
NODE_KEY: Final = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
FILE_KEY: Final = bytes(32)
TERM_KEY: Final = bytes.fromhex("7f1857d6ce56ed66127ff913e7a5c3f3a4cd26d5b5db49e64124987f28fb94c3")

_TEXT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class MerkleHash(bytes):
    """32 raw bytes. The text form, in URLs, JSON and node texts, is that of four little-endian u64: not that of bytes.hex()."""

    __slots__ = ()

    @classmethod
    def from_hex(cls, text: object) -> MerkleHash:
        """Read the text form. Raises ProtocolViolation for anything but 64 hex digits (upper case is read, never written)."""
        if not isinstance(text, str) or not _TEXT.fullmatch(text.lower()):
            raise ProtocolViolation(f"not a hash: {text!r:.80}")
        return cls(_reorder(bytes.fromhex(text)))

    @classmethod
    def from_raw(cls, raw: bytes | bytearray | memoryview) -> MerkleHash:
        """Take 32 bytes as they are. Raises ProtocolViolation for another length."""
        if memoryview(raw).nbytes != HASH_BYTES:
            raise ProtocolViolation(f"a hash has {HASH_BYTES} bytes, not {memoryview(raw).nbytes}")
        return cls(raw)

    def hex(self, *_: object) -> str:
        """The text form."""
        return _reorder(self).hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()[:12]}…)"


FileId = NewType("FileId", MerkleHash)
XorbHash = NewType("XorbHash", MerkleHash)
ChunkHash = NewType("ChunkHash", MerkleHash)

ZERO_HASH: Final = MerkleHash(bytes(32))


def _reorder(raw: bytes) -> bytes:
    """Reverse each group of eight bytes: the step between raw and text, its own inverse."""
    return raw[7::-1] + raw[15:7:-1] + raw[23:15:-1] + raw[31:23:-1]


def chunk_hash(data: bytes | bytearray | memoryview) -> ChunkHash:
    """Hash of a chunk's decoded bytes."""
    return ChunkHash(MerkleHash(blake3(data, key=CHUNK_KEY).digest()))


def is_cut(node: bytes) -> bool:
    """Whether a node may end a group: the last u64 of its hash is a multiple of 4."""
    return node[24] & 3 == 0


def group_end(hashes: Sequence[bytes]) -> int:
    """How many of these nodes, which are all that are left of a level or at least nine of them, form the next group."""
    count = len(hashes)
    if count <= 2:
        return count
    most = min(GROUP_NODES_MAX, count)
    for i in range(2, most):
        if hashes[i][24] & 3 == 0:
            return i + 1
    return most


def node_hash(children: Iterable[tuple[MerkleHash, int]]) -> MerkleHash:
    """Hash of a node with these children, each a hash and the file bytes under it."""
    text = "".join([f"{_reorder(child).hex()} : {size}\n" for child, size in children])
    return MerkleHash(blake3(text.encode(), key=NODE_KEY).digest())


def merkle_root(leaves: Iterable[tuple[MerkleHash, int]]) -> MerkleHash:
    """Root over (hash, size) leaves in order; the leaf itself if there is one, ZERO_HASH if there is none."""
    nodes = list(leaves)
    if not nodes:
        return ZERO_HASH
    while len(nodes) > 1:
        hashes = [node[0] for node in nodes]
        parents = []
        at, count = 0, len(nodes)
        while at < count:
            end = at + group_end(hashes[at : at + GROUP_NODES_MAX])
            group = nodes[at:end]
            parents.append((node_hash(group), sum([size for _, size in group])))
            at = end
        nodes = parents
    return nodes[0][0]


def xorb_hash(leaves: Iterable[tuple[MerkleHash, int]]) -> XorbHash:
    """Name of a xorb with these chunks."""
    return XorbHash(merkle_root(leaves))


def file_id_of_root(root: MerkleHash) -> FileId:
    """Name of a file whose chunks have this root. An empty file has no chunks, and the zero hash for its name."""
    if root == ZERO_HASH:
        return FileId(ZERO_HASH)
    return FileId(MerkleHash(blake3(root, key=FILE_KEY).digest()))


def file_id(leaves: Iterable[tuple[MerkleHash, int]]) -> FileId:
    """Name of a file with these chunks, repeated ones repeated."""
    return file_id_of_root(merkle_root(leaves))


def term_verification_hash(chunk_hashes: Iterable[bytes]) -> MerkleHash:
    """What a writer puts beside each term in a shard, to show that it knows the chunks."""
    return MerkleHash(blake3(b"".join(chunk_hashes), key=TERM_KEY).digest())
