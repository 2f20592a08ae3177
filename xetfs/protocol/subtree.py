"""Summaries of part of a file's Merkle tree: what is known of its root from some consecutive chunks alone.

How many nodes make a group is decided by the hashes themselves, so a part that does not begin at the start of the file cannot
know where groups begin until it has seen enough cuts. So a `Subtree` keeps, per level, the nodes at its left and right edge
whose group is still open; what lies between them was replaced by its parents, one level up. Joining two parts closes the groups
where they meet. Joining is not associative: two parts from the middle may lose their order. It is only ever done from the left.

Source: Xet spec, "Merkle tree" and "File chunk hashes"; xet-core, merklehash, aggregated hashes of subtrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from xetfs.errors import ProtocolViolation
from xetfs.protocol.hashes import MerkleHash, cuts_of, group_edges, parents_of
from xetfs.protocol.json_values import as_bool, as_int, as_list, as_object, shown

LEVELS_MAX: Final = 64
"""Levels of one summary: groups have at least three nodes but for the last, so 2^53 bytes make fewer than 40."""

_GAP_MIN, _GAP_MAX = 3, 7  # distances between three cuts after which grouping no longer depends on what came before
_WHAT = "range proof"


class Node:
    """A node of the tree: children if it was computed here, a place in the file if it is a chunk of a window."""

    __slots__ = ("children", "hash", "offset", "size")

    def __init__(self, hash_: MerkleHash, size: int, children: tuple[Node, ...] = (), offset: int = -1) -> None:
        self.hash = hash_
        self.size = size
        self.children = children
        self.offset = offset  # where the answer claims it to lie; -1 for all but the chunks of windows


@dataclass(frozen=True, slots=True, eq=False)
class Subtree:
    """Part of a tree: per level, chunks first, the nodes at its left and right edge whose groups are not known yet.

    at_start, at_end: whether the part reaches to the start or the end of the file.
    """

    levels: tuple[tuple[tuple[Node, ...], tuple[Node, ...]], ...]
    at_start: bool
    at_end: bool


def _split(nodes: Sequence[Node], at_start: bool, at_end: bool) -> tuple[Sequence[Node], list[Node], Sequence[Node]]:
    """Nodes of one level as prefix, parents of the groups that are certain, and suffix."""
    if len(nodes) <= 1:
        return nodes, [], ()
    cuts = cuts_of([node.hash for node in nodes])
    start: int | None = 0
    end: int | None = len(nodes)
    if not (at_start and at_end):
        start = 0 if at_start else _stable(_places(cuts, 0))
        if start is not None and not at_end:
            end = _stable(_places_backward(cuts, start))
    if start is None or end is None or start >= end:
        return nodes, [], ()
    grouped = nodes[start:end]
    sizes = [node.size for node in grouped]
    edges = group_edges(cuts[start:end])
    hashes = parents_of([node.hash for node in grouped], sizes, edges)
    parents = [
        Node(parent, sum(sizes[first:after]), tuple(grouped[first:after]))
        for parent, (first, after) in zip(hashes, pairwise(edges), strict=True)
    ]
    return nodes[:start], parents, nodes[end:]


def _places(cuts: bytes, start: int) -> Iterator[int]:
    """Where cuts are, from `start` on."""
    place = cuts.find(1, start)
    while place >= 0:
        yield place
        place = cuts.find(1, place + 1)


def _places_backward(cuts: bytes, start: int) -> Iterator[int]:
    """Where cuts are, from the last one down to `start`."""
    place = cuts.rfind(1, start)
    while place >= 0:
        yield place
        place = cuts.rfind(1, start, place)


def _stable(cuts: Iterable[int]) -> int | None:
    """The place after the middle one of the first three cuts that follow each other at the distances that settle the grouping."""
    for (p, q), (_, r) in pairwise(pairwise(cuts)):
        if _GAP_MIN <= abs(q - p) <= _GAP_MAX and _GAP_MIN <= abs(r - q) <= _GAP_MAX:
            return q + 1
    return None


class _Levels:
    """The levels of a subtree while it is made, from the chunks up."""

    def __init__(self, *, at_start: bool, at_end: bool) -> None:
        self._levels: list[tuple[tuple[Node, ...], tuple[Node, ...]]] = []
        self._flags = (at_start, at_end)
        self._at_start = at_start
        self._at_end = at_end

    def add(self, nodes: Sequence[Node]) -> list[Node]:
        """Note the open edges of the next level; return the parents of what lies between them, which go one level up."""
        left, parents, right = _split(nodes, self._at_start, self._at_end)
        self._levels.append((tuple(left), tuple(right)))
        self._at_start = self._at_start and not left  # an edge that is open below is open above
        self._at_end = self._at_end and not right
        return parents

    def finish(self, nodes: list[Node]) -> Subtree:
        """Go on with the nodes of the level above until nothing is left to group."""
        while len(nodes) > 1:
            nodes = self.add(nodes)
        if nodes:
            self._levels.append((tuple(nodes), ()))
        while self._levels and self._levels[-1] == ((), ()):
            self._levels.pop()
        return Subtree(tuple(self._levels), *self._flags)


def build(leaves: Sequence[Node], *, at_start: bool, at_end: bool) -> Subtree:
    """The summary of consecutive chunks."""
    levels = _Levels(at_start=at_start, at_end=at_end)
    return levels.finish(levels.add(leaves))


def join(before: Subtree, after: Subtree) -> Subtree:
    """The summary of two parts, the second following the first. Only ever for a first part that reaches to the start."""
    levels = _Levels(at_start=before.at_start, at_end=after.at_end)
    nodes: list[Node] = []
    for index in range(max(len(before.levels), len(after.levels))):
        ahead, behind = before.levels[index : index + 1], after.levels[index : index + 1]
        left = [node for side in ahead for edge in side for node in edge]
        right = [node for side in behind for edge in side for node in edge]
        nodes = levels.add([*left, *nodes, *right])
    return levels.finish(nodes)


def root_of(whole: Subtree) -> Node | None:
    """The one node that is left of a whole file; None if it is not whole or more is left."""
    nodes = [node for level in whole.levels for edge in level for node in edge]
    if whole.at_start and whole.at_end and len(nodes) == 1 and whole.levels[-1][0]:
        return nodes[0]
    return None


# On the wire


def parse_subtree(value: object, length: int, nodes_max: int) -> Subtree:
    """A summary of `length` bytes. Its flat list of nodes holds the left sides, going up, then the right sides, going down."""
    gap = as_object(value, f"{_WHAT}: gap")
    nodes = _parse_nodes(as_list(gap.get("nodes"), f"{_WHAT}: nodes", count_max=nodes_max), length)
    counts = []
    for level in as_list(gap.get("levels"), f"{_WHAT}: levels", count_max=LEVELS_MAX):
        pair = as_list(level, f"{_WHAT}: level", count_max=2)
        if len(pair) != 2:
            raise ProtocolViolation(f"{_WHAT}: a level is two counts of nodes")
        counts.append((as_int(pair[0], f"{_WHAT}: level", most=nodes_max), as_int(pair[1], f"{_WHAT}: level", most=nodes_max)))
    if sum(left + right for left, right in counts) != len(nodes) or sum(node.size for node in nodes) != length:
        raise ProtocolViolation(f"{_WHAT}: the nodes of a gap do not make up its levels or its {length} bytes")
    levels, start, end = [], 0, len(nodes)
    for left, right in counts:
        levels.append((tuple(nodes[start : start + left]), tuple(nodes[end - right : end])))
        start, end = start + left, end - right
    at_start = as_bool(gap.get("at_start"), f"{_WHAT}: at_start")
    return Subtree(tuple(levels), at_start, as_bool(gap.get("at_end"), f"{_WHAT}: at_end"))


def _parse_nodes(values: Sequence[object], size_max: int) -> list[Node]:
    texts: list[str] = []
    sizes: list[int] = []
    for value in values:
        node = as_object(value, f"{_WHAT}: node")
        text, size = node.get("hash"), node.get("size")
        if type(text) is not str:
            raise ProtocolViolation(f"{_WHAT}: not a hash: {shown(text)}")
        if type(size) is not int or not 0 < size <= size_max:
            raise ProtocolViolation(f"{_WHAT}: a node of {shown(size)} bytes in a gap of {size_max}")
        texts.append(text)
        sizes.append(size)
    return list(map(Node, MerkleHash.all_from_hex(texts), sizes))


def subtree_json(subtree: Subtree) -> dict[str, object]:
    """A summary as it goes over the wire."""
    lefts = [node for left, _ in subtree.levels for node in left]
    rights = [node for _, right in reversed(subtree.levels) for node in right]
    return {
        "nodes": [{"hash": node.hash.hex(), "size": node.size} for node in (*lefts, *rights)],
        "levels": [[len(left), len(right)] for left, right in subtree.levels],
        "at_start": subtree.at_start,
        "at_end": subtree.at_end,
    }
