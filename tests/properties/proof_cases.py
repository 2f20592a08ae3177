"""Files as their chunks, and what a server may say of them: true answers, and true nodes dealt to the wrong places."""

import random
from typing import Any

from xetfs.protocol.hashes import ChunkHash, MerkleHash, file_id, file_id_of_root
from xetfs.protocol.proof import build_range_proof
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.subtree import Node, build, root_of, subtree_json

Leaf = tuple[ChunkHash, int]


class File:
    """A file as its chunks, with the tree over them and every place where a chunk begins."""

    def __init__(self, choose: random.Random, count: int) -> None:
        pool = [ChunkHash(MerkleHash.from_raw(choose.randbytes(32))) for _ in range(count)]
        if choose.random() < 0.2:  # data that repeats
            pool = [choose.choice(pool[:3]) for _ in pool]
        size_of = {chunk: choose.choice((choose.randint(1, 131072), choose.randint(20000, 100000))) for chunk in pool}
        self.leaves: list[Leaf] = [(chunk, size_of[chunk]) for chunk in pool]
        self.starts = [0]
        for _, length in self.leaves:
            self.starts.append(self.starts[-1] + length)
        self.size = self.starts[-1]
        self.file_id = file_id(self.leaves)
        self.index_at = {start: index for index, start in enumerate(self.starts)}
        whole = root_of(build([Node(*leaf) for leaf in self.leaves], at_start=True, at_end=True))
        assert whole is not None
        assert file_id_of_root(whole.hash) == self.file_id
        self.root = whole

    def holds(self, window: ByteRange, chunks: list[Leaf]) -> bool:
        start = self.index_at.get(window.start)
        return start is not None and self.leaves[start : start + len(chunks)] == chunks and bool(chunks)


class Case:
    """An answer and the chunks that go with it, windows in order."""

    def __init__(self, answer: dict[str, Any], chunks: list[list[Leaf]]) -> None:
        self.answer = answer
        self.chunks = chunks


def honest_case(choose: random.Random, file: File) -> Case:
    """A true answer, for windows by the server's rule or for any windows at all."""
    if choose.random() < 0.3:
        asked = [
            ByteRange(start, start + choose.randint(1, 5)) for start in choose.choices(range(file.size), k=choose.randint(1, 3))
        ]
        answer = build_range_proof(file.leaves, asked)
        windows: Any = answer["windows"]
        edges = [file.index_at[edge] for window in windows for edge in window["dirtyByteRange"]]
    else:
        count = min(2 * choose.randint(1, 3), (len(file.leaves) + 1) // 2 * 2)
        edges = sorted(choose.sample(range(len(file.leaves) + 1), count))
        answer = answer_for(file, edges)
    return Case(answer, [file.leaves[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)])


def answer_for(file: File, edges: list[int]) -> dict[str, Any]:
    gaps: list[Any] = []
    bounds = [0, *edges, len(file.leaves)]
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        nodes = [Node(*leaf) for leaf in file.leaves[start:end]]
        gaps.append(subtree_json(build(nodes, at_start=start == 0, at_end=end == len(file.leaves))) if nodes else None)
    places = [file.starts[edge] for edge in edges]
    windows = [{"dirtyByteRange": [a, b]} for a, b in zip(places[::2], places[1::2], strict=True)]
    return {"totalChunks": len(file.leaves), "fileSize": file.size, "windows": windows, "hashRanges": gaps, "gapVerification": []}


def forged_case(choose: random.Random, file: File) -> Case:
    """True nodes of the tree at their true levels, dealt to the wrong gaps, and the windows claimed where that makes them lie.

    The fold sorts nodes by level before it sorts them by gap, so the root may still come out right.
    """
    pieces: list[tuple[Node, int]] = []  # in true order: a node, and its level
    windows: list[list[Leaf]] = []
    opened = choose.randint(2, 4)
    stack: list[tuple[Node, int]] = [(file.root, depth_of(file.root))]
    while stack:
        node, level = stack.pop()
        if choose.random() < (0.8 if level > 1 else 0.3 if level == 1 and opened else 0):
            if level == 1:
                opened -= 1
                windows.append([(ChunkHash(child.hash), child.size) for child in node.children])
                pieces.append((node, -1))
            else:
                stack.extend((child, level - 1) for child in reversed(node.children))
        else:
            pieces.append((node, level))
    gaps: list[list[tuple[Node, int]]] = [[]]
    for node, level in pieces:
        if level < 0:
            gaps.append([])
        else:
            gaps[-1].append((node, level))
    for _ in range(choose.choice((1, 1, 1, 2, 3))):  # deal some of them wrongly, mostly over the window between two gaps
        giver = choose.randrange(len(gaps))
        taker = choose.choice((giver - 1, giver + 1, choose.randrange(len(gaps))))
        if gaps[giver] and giver != taker and 0 <= taker < len(gaps):
            near = 0 if taker < giver else -1
            moved = gaps[giver].pop(near)
            gaps[taker].insert(0 if near else len(gaps[taker]), moved)
    place, claimed, ranges = 0, [], []
    for index, gap in enumerate(gaps):
        place += sum(node.size for node, _ in gap)
        ranges.append(gap_json(gap, at_start=index == 0, at_end=index == len(gaps) - 1) if gap else None)
        if index < len(windows):
            end = place + sum(length for _, length in windows[index])
            claimed.append({"dirtyByteRange": [place, end]})
            place = end
    answer = {
        "totalChunks": len(file.leaves),
        "fileSize": file.size,
        "windows": claimed,
        "hashRanges": ranges,
        "gapVerification": [],
    }
    return Case(answer, windows)


def depth_of(node: Node) -> int:
    return 1 + depth_of(node.children[0]) if node.children else 0


def gap_json(gap: list[tuple[Node, int]], *, at_start: bool, at_end: bool) -> dict[str, Any]:
    nodes, levels = [], []
    for level in range(max(level for _, level in gap) + 1):
        here = [{"hash": node.hash.hex(), "size": node.size} for node, height in gap if height == level]
        nodes += here
        levels.append([len(here), 0])
    return {"nodes": nodes, "levels": levels, "at_start": at_start, "at_end": at_end}
