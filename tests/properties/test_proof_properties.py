"""Range proofs against a hostile server: whatever it answers, no chunk is accepted at a place where the file does not hold it.

The server of these tests knows the whole file and chooses both the answer and the chunks. The length of the run is set by
XETFS_FUZZ_CASES, its seed by XETFS_FUZZ_SEED; the seed of a run is printed.
"""

import copy
import json
import os
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.protocol.hashes import ChunkHash, FileId, MerkleHash, file_id, file_id_of_root
from xetfs.protocol.proof import build_range_proof, parse_range_proof, verify_range
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.subtree import Node, build, join, root_of, subtree_json

CASES = int(os.environ.get("XETFS_FUZZ_CASES", "20000"))
SEED = int(os.environ.get("XETFS_FUZZ_SEED", random.SystemRandom().randrange(2**32)))

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


# One lie at a time. Each changes the case in place; what it cannot be applied to it leaves alone.


def some_gap(choose: random.Random, case: Case) -> dict[str, Any] | None:
    gaps = [gap for gap in case.answer["hashRanges"] if gap is not None and gap["nodes"]]
    return choose.choice(gaps) if gaps else None


def change_node(choose: random.Random, case: Case, file: File) -> None:
    gap = some_gap(choose, case)
    if gap is not None:
        node = choose.choice(gap["nodes"])
        if choose.random() < 0.5:
            node["hash"] = choose.choice((choose.choice(file.leaves)[0].hex(), choose.randbytes(32).hex(), "", 5))
        else:
            size = node["size"] if isinstance(node["size"], int) else 1
            node["size"] = choose.choice(
                (size - 1, size + 1, size + 512, 0, -size, 2**63, 2**64 + 1, 10**30, True, 1.5, "1", None)
            )


def shift_sizes(choose: random.Random, case: Case, file: File) -> None:
    """Keep the sum of a gap, change what makes it up."""
    gap = some_gap(choose, case)
    if gap is not None and len(gap["nodes"]) > 1:
        one, other = choose.sample(gap["nodes"], 2)
        if isinstance(one["size"], int) and isinstance(other["size"], int):
            step = choose.randint(1, 4096)
            one["size"], other["size"] = one["size"] + step, other["size"] - step


def change_order(choose: random.Random, case: Case, file: File) -> None:
    gap = some_gap(choose, case)
    if gap is not None:
        nodes = gap["nodes"]
        a, b = choose.randrange(len(nodes)), choose.randrange(len(nodes))
        match choose.randrange(4):
            case 0:
                nodes[a], nodes[b] = nodes[b], nodes[a]
            case 1:
                nodes.insert(a, copy.deepcopy(nodes[b]))
            case 2:
                del nodes[a]
            case _:
                nodes.reverse()


def change_levels(choose: random.Random, case: Case, file: File) -> None:
    gap = some_gap(choose, case)
    if gap is not None and gap["levels"]:
        levels = gap["levels"]
        match choose.randrange(6):
            case 0:
                levels.insert(choose.randint(0, len(levels)), [0, 0])
            case 1:
                a, b = choose.choice(levels), choose.choice(levels)
                i, j = choose.randrange(2), choose.randrange(2)
                if isinstance(a[i], int) and isinstance(b[j], int):
                    a[i], b[j] = a[i] - 1, b[j] + 1
            case 2:
                choose.shuffle(levels)
            case 3:
                choose.choice(levels).reverse()
            case 4:
                levels.append([0, 0])
            case _:
                choose.choice(levels)[choose.randrange(2)] = choose.choice((-1, 2**70, True, 0.5, None))


def change_flags(choose: random.Random, case: Case, file: File) -> None:
    gap = some_gap(choose, case)
    if gap is not None:
        gap[choose.choice(("at_start", "at_end"))] = choose.choice((True, False, 1, None))


def change_gaps(choose: random.Random, case: Case, file: File) -> None:
    gaps = case.answer["hashRanges"]
    a, b = choose.randrange(len(gaps)), choose.randrange(len(gaps))
    match choose.randrange(4):
        case 0:
            gaps[a], gaps[b] = gaps[b], gaps[a]
        case 1:
            gaps[a] = copy.deepcopy(gaps[b])
        case 2:
            gaps[a] = None
        case _:
            if isinstance(gaps[a], dict) and isinstance(gaps[b], dict) and gaps[a]["nodes"]:  # one node moves to another gap
                node = gaps[a]["nodes"].pop()
                gaps[b]["nodes"].insert(0, node)


def change_windows(choose: random.Random, case: Case, file: File) -> None:
    windows = case.answer["windows"]
    window = choose.choice(windows)["dirtyByteRange"]
    match choose.randrange(4):
        case 0:
            window[choose.randrange(2)] = choose.choice((choose.choice(file.starts), -1, True, 0.0, 2**64, window[0] + 1))
        case 1:
            choose.shuffle(windows)
        case 2:
            windows.append(copy.deepcopy(choose.choice(windows)))
        case _:  # the whole window elsewhere, with its length kept
            step = choose.choice(file.starts) - window[0]
            window[0], window[1] = window[0] + step, window[1] + step


def change_chunks(choose: random.Random, case: Case, file: File) -> None:
    """Deliver other genuine chunks of the file than those of the window."""
    place = choose.randrange(len(case.chunks))
    start, count = choose.randrange(len(file.leaves)), max(1, len(case.chunks[place]) + choose.randint(-1, 1))
    match choose.randrange(3):
        case 0:
            case.chunks[place] = file.leaves[start : start + count]
        case 1:
            choose.shuffle(case.chunks)
        case _:
            case.chunks[place] = case.chunks[place][::-1]


def change_totals(choose: random.Random, case: Case, file: File) -> None:
    name = choose.choice(("fileSize", "totalChunks"))
    case.answer[name] = choose.choice((file.size + 1, 0, -1, 2**64, True, 1.0, None, len(file.leaves)))


LIES = (
    change_node, shift_sizes, change_order, change_levels, change_flags,
    change_gaps, change_windows, change_chunks, change_totals,
)  # fmt: skip


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
