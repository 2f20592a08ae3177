"""The tree of hashes.py built from left to right, with memory for its right edge only: a file of a million chunks is named while
its chunks pass by.

Each level keeps the nodes of its unfinished group. A group is finished by the node that ends it, becomes one node of the level
above, and is forgotten. Source: as hashes.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xetfs.protocol.hashes import (
    GROUP_MAX,
    HASH_BYTES,
    ZERO_HASH,
    FileId,
    MerkleHash,
    file_id_of_root,
    is_cut,
    node_hash,
)

_GROUP_MIN: Final = 3
"""A group of fewer nodes is not ended by a cut."""

_Node = tuple[MerkleHash, int]


class Fold:
    """Give it all leaves in order, then ask for the root or the file id. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._open: list[list[_Node]] = []
        self._passed: list[int] = []  # finished groups of each level

    def add(self, leaf: MerkleHash, size: int) -> None:
        """The next leaf and its size in bytes."""
        self._push(0, (leaf, size))

    def add_chunks(self, hashes: bytes, start: int, ends: Sequence[int]) -> None:
        """Many leaves: raw hashes back to back, the offset at which the first begins, and the offset at which each ends."""
        for i, end in enumerate(ends):
            self.add(MerkleHash(hashes[HASH_BYTES * i : HASH_BYTES * (i + 1)]), end - start)
            start = end

    def _push(self, level: int, node: _Node) -> None:
        if level == len(self._open):
            self._open.append([])
            self._passed.append(0)
        group = self._open[level]
        group.append(node)
        if len(group) == GROUP_MAX or (len(group) >= _GROUP_MIN and is_cut(node[0])):
            self._finish(level)

    def _finish(self, level: int) -> None:
        group, self._open[level] = self._open[level], []
        self._passed[level] += 1
        self._push(level + 1, (node_hash(group), sum(size for _, size in group)))

    def root(self) -> MerkleHash:
        """The root over all leaves; ZERO_HASH if there was none. Nothing can be added afterwards."""
        level = 0
        while level < len(self._open):
            group = self._open[level]
            if len(group) == 1 and not self._passed[level]:
                return group[0][0]
            if group:
                self._finish(level)
            level += 1
        return ZERO_HASH

    def file_id(self) -> FileId:
        """The name of the file of these chunks; as `root` otherwise."""
        return file_id_of_root(self.root()) if self._open else FileId(ZERO_HASH)
