"""Range proofs of a file from its Merkle tree, computed once: a proof then costs a few dozen nodes rather than all of them.

A gap's summary consists of its open edges, level by level, and of what lies between them one level up. Where a group is certain
to begin or end, it does so in the whole tree too; so the nodes between the edges are a run of the tree's next level, and only
the edges are looked at. The answers are those of `protocol.proof.build_range_proof`, which works from the chunks alone.

Source: Xet spec, "File chunk hashes"; xet-core, merklehash, aggregated hashes of subtrees.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from xetfs.protocol.hashes import HASH_BYTES, MerkleHash, group_end, is_cut, node_hash
from xetfs.protocol.proof import proof_windows
from xetfs.protocol.ranges import ByteRange

_GAPS = range(3, 8)  # distances between three cuts after which grouping no longer depends on what came before
_GROUP_MAX = 9


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """All nodes of one level. cuts: which of them end a group wherever it began; groups: where groups begin, and the end."""

    hashes: bytes
    sizes: array[int]
    cuts: array[int]
    groups: array[int]

    def node(self, index: int) -> tuple[MerkleHash, int]:
        return MerkleHash.from_raw(self.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]), self.sizes[index]

    def nodes(self, start: int, end: int) -> list[tuple[MerkleHash, int]]:
        return [self.node(index) for index in range(start, end)]

    def first_certain(self, start: int, end: int) -> int | None:
        """Where, within [start, end), a group begins whatever precedes."""
        return _after_settling(self.cuts[place] for place in range(bisect_left(self.cuts, start), bisect_left(self.cuts, end)))

    def last_certain(self, start: int, end: int) -> int | None:
        places = range(bisect_left(self.cuts, end) - 1, bisect_left(self.cuts, start) - 1, -1)
        return _after_settling(self.cuts[place] for place in places)


def _after_settling(cuts: Iterator[int]) -> int | None:
    """The place after the middle one of the first three cuts at settling distances."""
    before: list[int] = []
    for cut in cuts:
        if len(before) == 2 and abs(before[1] - before[0]) in _GAPS and abs(cut - before[1]) in _GAPS:
            return before[1] + 1
        before = [*before[-1:], cut]
    return None


class ProofTree:
    """The Merkle tree of one file."""

    def __init__(self, leaves: Iterable[tuple[MerkleHash, int]]) -> None:
        """Hashes the whole tree: a second for a million chunks or so. For worker threads."""
        pairs = list(leaves)
        self._starts = array("q", accumulate((size for _, size in pairs), initial=0))
        self._levels: list[_Level] = []
        while True:
            level = _make_level(pairs)
            self._levels.append(level)
            if len(pairs) <= 1:
                break
            groups = [pairs[start:end] for start, end in pairwise(level.groups)]
            pairs = [(node_hash(group), sum(size for _, size in group)) for group in groups]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def prove(self, asked: Sequence[ByteRange]) -> dict[str, Any]:
        """The answer about byte ranges of the file, ready for JSON. Raises ValueError if no byte of it was asked for."""
        windows = proof_windows(self._starts, asked)
        edges = [0, *(edge for window in windows for edge in window), len(self)]
        gaps = [self._gap(start, end) if start < end else None for start, end in zip(edges[::2], edges[1::2], strict=True)]
        return {
            "totalChunks": len(self),
            "fileSize": self._starts[-1],
            "windows": [{"dirtyByteRange": [self._starts[start], self._starts[end]]} for start, end in windows],
            "hashRanges": gaps,
            "gapVerification": [],
        }

    def _gap(self, start: int, end: int) -> dict[str, Any]:
        """The summary of chunks [start, end)."""
        lefts: list[list[tuple[MerkleHash, int]]] = []
        rights: list[list[tuple[MerkleHash, int]]] = []
        at_start, at_end = start == 0, end == len(self)
        lower, upper = start, end  # the same chunks, as nodes of the level
        for level in self._levels:
            first = lower if at_start else level.first_certain(lower, upper)
            last = upper if at_end or first is None else level.last_certain(first, upper)
            if upper - lower <= 1 or first is None or last is None or first >= last:
                lefts.append(level.nodes(lower, upper))
                rights.append([])
                break
            lefts.append(level.nodes(lower, first))
            rights.append(level.nodes(last, upper))
            at_start, at_end = at_start and first == lower, at_end and last == upper
            lower, upper = bisect_left(level.groups, first), bisect_left(level.groups, last)
        flat = [node for nodes in (*lefts, *reversed(rights)) for node in nodes]
        return {
            "nodes": [{"hash": name.hex(), "size": size} for name, size in flat],
            "levels": [[len(left), len(right)] for left, right in zip(lefts, rights, strict=True)],
            "at_start": start == 0,
            "at_end": end == len(self),
        }


def _make_level(pairs: Sequence[tuple[MerkleHash, int]]) -> _Level:
    names = [name for name, _ in pairs]
    groups = array("q", [0])
    while groups[-1] < len(names):
        groups.append(groups[-1] + group_end(names[groups[-1] : groups[-1] + _GROUP_MAX]))
    cuts = array("q", (index for index, name in enumerate(names) if is_cut(name)))
    return _Level(b"".join(names), array("q", (size for _, size in pairs)), cuts, groups)
