"""Proof that decoded chunks are what a file holds at a given place, without the rest of the file.

A file id is the root of a Merkle tree over the file's chunks. For a byte range the CAS answers with *windows* (whole chunks that
include the range) and, for the gaps before, between and after them, a summary: the nodes of the tree that can be computed from
the gap alone. The reader hashes the chunks of the windows, joins gap, window, gap, … from the left, and must get the file id.

The root proves that every node lies somewhere in the file's tree. It does not prove where: a summary that claims its nodes to be
of a higher level than they are can be grouped in front of a window that it follows, with the root and every sum of sizes still
right. So the nodes keep their children while joining, and at the end the tree is walked: sizes are committed by the hashes, so
each window's chunks must turn up in order exactly at the offset that the answer claims.

Source: Xet spec, "File chunk hashes" and "Merkle tree"; xet-core, merklehash aggregated hashes and subtrees. The walk is our own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.protocol.hashes import ChunkHash, FileId, MerkleHash, file_id_of_root
from xetfs.protocol.json_values import as_int, as_list, as_object, load_json
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.subtree import Node, Subtree, build, join, parse_subtree, root_of, subtree_json

WINDOWS_MAX: Final = 64
"""Windows of one answer: a reader asks for one or a few ranges at once."""
NODES_MAX: Final = 64 * 1024
"""Nodes of all gaps together. Ordinary data needs about ten per level and side; data that repeats has no place to cut, and a gap
of it is a list of all its chunks: this many are 8 GiB of it, and take a third of a second to join."""
_STABLE_BYTES_MIN, _STABLE_BYTES_MAX = 16_384, 122_880  # a chunk well inside its limits was cut by its content
_WHAT = "range proof"


@dataclass(frozen=True, slots=True, eq=False)
class RangeProof:
    """A claim about a file: windows and gaps that fill it without overlap. Nothing is proven before `verify_range`.

    windows: in file order, none empty. gaps: one more than windows: before, between and after them; None where nothing is.
    total_chunks: only a claim, never proven.
    """

    windows: tuple[ByteRange, ...]
    gaps: tuple[Subtree | None, ...]
    total_chunks: int
    file_size: int

    def covers(self, span: ByteRange) -> bool:
        """Whether one window includes the part of `span` that lies within the file."""
        wanted = span.clip(self.file_size)
        return any(window.start <= wanted.start and wanted.end <= window.end for window in self.windows)


# Reading an answer


def parse_range_proof(body: bytes) -> RangeProof:
    """Read the answer of `/v2/file-chunk-hashes/…`. Raises ProtocolViolation unless it is of one piece (see RangeProof)."""
    answer = as_object(load_json(body, _WHAT), _WHAT)
    size = as_int(answer.get("fileSize"), f"{_WHAT}: fileSize", least=1)
    total_chunks = as_int(answer.get("totalChunks"), f"{_WHAT}: totalChunks", least=1, most=size)
    windows = tuple(_parse_window(w) for w in as_list(answer.get("windows"), f"{_WHAT}: windows", count_max=WINDOWS_MAX))
    gaps = as_list(answer.get("hashRanges"), f"{_WHAT}: hashRanges", count_max=WINDOWS_MAX + 1)
    if not windows or len(gaps) != len(windows) + 1:
        raise ProtocolViolation(f"{_WHAT}: {len(gaps)} gaps around {len(windows)} windows")
    budget = NODES_MAX
    subtrees: list[Subtree | None] = []
    edges = [0, *(edge for window in windows for edge in (window.start, window.end)), size]
    for index, gap in enumerate(gaps):
        length = edges[2 * index + 1] - edges[2 * index]
        if length < 0 or (gap is None) != (length == 0):
            raise ProtocolViolation(f"{_WHAT}: the windows do not lie in order within {size} bytes, or a gap is missing")
        subtree = None if gap is None else parse_subtree(gap, length, budget)
        if subtree is not None:
            budget -= _node_count(subtree)
            if subtree.at_start is not (index == 0) or subtree.at_end is not (index == len(windows)):
                raise ProtocolViolation(f"{_WHAT}: gap {index} of {len(gaps)} is not where it says to be in the file")
        subtrees.append(subtree)
    return RangeProof(windows, tuple(subtrees), total_chunks, size)


def _parse_window(value: object) -> ByteRange:
    window = as_object(value, f"{_WHAT}: window")
    edges = as_list(window.get("dirtyByteRange"), f"{_WHAT}: dirtyByteRange", count_max=2)
    if len(edges) != 2:
        raise ProtocolViolation(f"{_WHAT}: a window is a start and an end")
    start = as_int(edges[0], f"{_WHAT}: window start")
    return ByteRange(start, as_int(edges[1], f"{_WHAT}: window end", least=start + 1))


def _node_count(subtree: Subtree) -> int:
    return sum(len(left) + len(right) for left, right in subtree.levels)


# Checking it


def verify_range(proof: RangeProof, file: FileId, size: int, window_chunks: Sequence[Sequence[tuple[ChunkHash, int]]]) -> None:
    """Return if the chunks of all windows are what the file holds there; raise otherwise.

    size: of the file, from a source other than the proof. window_chunks: hash and decoded length of each chunk, for each window
    of the proof, as computed from the data that is to be released.
    Raises ProtocolViolation if the proof is about a file of another size, CorruptData if chunks and proof do not lead to `file`
    or the chunks lie elsewhere in it. Pure; takes about 1 ms for ordinary proofs.
    """
    if proof.file_size != size:
        raise ProtocolViolation(f"{_WHAT}: it is about {proof.file_size} bytes, the file has {size}")
    if len(window_chunks) != len(proof.windows):
        raise ValueError(f"chunks of {len(window_chunks)} windows, the proof has {len(proof.windows)}")
    parts, chunks = [], []
    for index, (window, pairs) in enumerate(zip(proof.windows, window_chunks, strict=True)):
        leaves = _place(window, pairs)
        chunks += leaves
        gap, following = proof.gaps[index], proof.gaps[index + 1]
        if gap is not None:
            parts.append(gap)
        at_start = index == 0 and gap is None
        parts.append(build(leaves, at_start=at_start, at_end=index == len(proof.windows) - 1 and following is None))
    if proof.gaps[-1] is not None:
        parts.append(proof.gaps[-1])
    whole = parts[0]
    for part in parts[1:]:
        whole = join(whole, part)
    root = root_of(whole)
    if root is None or file_id_of_root(root.hash) != file:
        raise CorruptData(f"the chunks at {_shown_windows(proof)} do not belong to the file {file.hex()[:12]}")
    _walk(root, chunks, proof)


def _place(window: ByteRange, pairs: Iterable[tuple[ChunkHash, int]]) -> list[Node]:
    """The chunks of a window as leaves that know where they must lie. Raises CorruptData if they do not fill it."""
    leaves = []
    offset = window.start
    for chunk, length in pairs:
        if length <= 0:
            raise CorruptData(f"{_WHAT}: an empty chunk at byte {offset}")
        leaves.append(Node(chunk, length, offset=offset))
        offset += length
    if offset != window.end:
        raise CorruptData(f"{_WHAT}: the chunks at byte {window.start} end at {offset}, their window at {window.end}")
    return leaves


def _walk(root: Node, chunks: list[Node], proof: RangeProof) -> None:
    """Read the true offset of every window's chunk off the tree. Raises CorruptData unless all are where they claim to be."""
    offset, seen = 0, 0
    stack = [root]
    while stack:
        node = stack.pop()
        if node.children:
            stack.extend(reversed(node.children))
            continue
        if node.offset >= 0:
            if seen >= len(chunks) or node is not chunks[seen] or node.offset != offset:
                break
            seen += 1
        offset += node.size
    if stack or seen != len(chunks) or offset != proof.file_size:
        raise CorruptData(f"the chunks at {_shown_windows(proof)} lie elsewhere in the file than the range proof claims")


def _shown_windows(proof: RangeProof) -> str:
    return ", ".join(f"{window.start}-{window.end}" for window in proof.windows[:4])


# Making it


def build_range_proof(leaves: Sequence[tuple[MerkleHash, int]], asked: Sequence[ByteRange]) -> dict[str, object]:
    """The answer that a CAS gives about byte ranges of a file, ready for `json.dumps`.

    leaves: hash and length of every chunk of the file. Raises ValueError if no byte of the file was asked for.
    """
    starts = [0]
    for _, length in leaves:
        starts.append(starts[-1] + length)
    windows = proof_windows(starts, asked)
    gaps = []
    edges = [0, *(edge for window in windows for edge in window), len(leaves)]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        nodes = [Node(chunk, length) for chunk, length in leaves[start:end]]
        gaps.append(build(nodes, at_start=start == 0, at_end=end == len(leaves)) if nodes else None)
    return {
        "totalChunks": len(leaves),
        "fileSize": starts[-1],
        "windows": [{"dirtyByteRange": [starts[start], starts[end]]} for start, end in windows],
        "hashRanges": [subtree_json(gap) if gap is not None else None for gap in gaps],
        "gapVerification": [],  # for writers
    }


def proof_windows(starts: Sequence[int], asked: Sequence[ByteRange]) -> list[tuple[int, int]]:
    """Chunk ranges [start, end) of the windows. starts: where each chunk begins, and at last the size of the file.

    A window goes on after its byte range until two chunks in a row were cut by their content: where a writer that changes the
    range would cut again as before. Windows that overlap are merged; windows that only touch stay apart, as in the answers of
    xet-client's `build_file_chunk_hashes_response`. Raises ValueError if no byte of the file was asked for.
    """
    count = len(starts) - 1
    windows: list[tuple[int, int]] = []
    for span in sorted(span.clip(starts[-1]) for span in asked):
        if not len(span):
            continue
        first, end = bisect_right(starts, span.start) - 1, bisect_left(starts, span.end)
        stable = 0
        while end < count and stable < 2:
            stable = stable + 1 if _STABLE_BYTES_MIN <= starts[end + 1] - starts[end] < _STABLE_BYTES_MAX else 0
            end += 1
        if windows and first < windows[-1][1]:
            windows[-1] = (windows[-1][0], max(end, windows[-1][1]))
        else:
            windows.append((first, end))
    if not windows:
        raise ValueError("no byte of the file was asked for")
    return windows
