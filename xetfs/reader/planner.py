"""From a reconstruction to what must be fetched, and from decoded blocks to what is then known of the file. Pure.

Everything that a server claims about a window is checked here against the others of its claims and against the decoded chunks:
terms must cover the window and stay inside the file, and each must be exactly as long as its chunks.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ByteRange, ChunkRange
from xetfs.protocol.reconstruction import FetchInfo, Reconstruction, SignedUrl, Term
from xetfs.reader.filemap import Level, Run
from xetfs.store.api import Block


@dataclass(frozen=True, slots=True)
class PlacedTerm:
    """A term and the file offset at which it begins."""

    start: int
    term: Term


@dataclass(frozen=True, slots=True)
class Layout:
    """The terms of a window, each at its place; `covered` is what they make up: whole chunks, at least the window."""

    terms: tuple[PlacedTerm, ...]
    covered: ByteRange


def lay_out(reconstruction: Reconstruction, span: ByteRange, size: int) -> Layout:
    """Give each term its place in a file of `size` bytes, for the answer to a question about `span` (not empty).

    Raises ProtocolViolation if the terms begin before the file, leave a part of `span` uncovered, or reach past the file's end.
    """
    start = at = span.start - reconstruction.offset
    if at < 0:
        raise ProtocolViolation(f"the reconstruction of bytes {span.start}-{span.end} begins before the file")
    placed = []
    for term in reconstruction.terms:
        if at >= span.end:
            raise ProtocolViolation(f"the reconstruction of bytes {span.start}-{span.end} goes on past what was asked for")
        placed.append(PlacedTerm(at, term))
        at += term.length
    if at < span.end or at > size:
        raise ProtocolViolation(f"the reconstruction of bytes {span.start}-{span.end} covers {start}-{at} of {size}")
    return Layout(tuple(placed), ByteRange(start, at))


def chunks_of(layout: Layout) -> dict[XorbHash, list[ChunkRange]]:
    """The chunk ranges under a layout, for each xorb: sorted, without repetition, overlapping ones merged."""
    asked: dict[XorbHash, list[ChunkRange]] = {}
    for placed in layout.terms:
        asked.setdefault(placed.term.xorb, []).append(placed.term.chunks)
    for xorb, ranges in asked.items():
        ranges.sort()
        merged = [ranges[0]]
        for chunks in ranges[1:]:
            if chunks.start <= merged[-1].end:
                merged[-1] = ChunkRange(merged[-1].start, max(merged[-1].end, chunks.end))
            else:
                merged.append(chunks)
        asked[xorb] = merged
    return asked


@dataclass(frozen=True, slots=True)
class BlockFetch:
    """One block to fetch: a fetch info and the xorb that it belongs to."""

    xorb: XorbHash
    info: FetchInfo


def plan_fetches(reconstruction: Reconstruction, missing: dict[XorbHash, list[ChunkRange]]) -> dict[SignedUrl, list[BlockFetch]]:
    """The fetches that bring the missing chunks, by URL. A fetch is taken whole: its URL allows exactly its range."""
    plan: dict[SignedUrl, list[BlockFetch]] = {}
    for xorb, ranges in missing.items():
        wanted = iter(ranges)
        chunks = next(wanted, None)
        for info in reconstruction.fetches[xorb]:
            while chunks is not None and chunks.end <= info.chunks.start:
                chunks = next(wanted, None)
            if chunks is None:
                break
            if chunks.start < info.chunks.end:
                plan.setdefault(info.url, []).append(BlockFetch(xorb, info))
    return plan


def learn_runs(layout: Layout, block_of: Callable[[XorbHash, int], Block | None], level: Level) -> list[Run]:
    """What a layout says about the file once its blocks are at hand, at the given level.

    block_of(xorb, chunk): a block that holds that chunk.

    Raises CorruptData if a term's chunks are not together as long as the term says.
    """
    runs = []
    for placed in layout.terms:
        term = placed.term
        ends: array[int] = array("Q")
        hashes: list[bytes] = []
        at = placed.start
        chunk = term.chunks.start
        while chunk < term.chunks.end:
            block = block_of(term.xorb, chunk)
            if block is None:
                raise CorruptData(f"chunk {chunk} of xorb {term.xorb.hex()[:12]} is at hand no longer")
            first = chunk - block.chunks.start
            last = min(term.chunks.end, block.chunks.end) - block.chunks.start
            shift = at - block.offsets[first]
            ends.extend(shift + offset for offset in block.offsets[first + 1 : last + 1])
            hashes.extend(block.hashes[first:last])
            at = ends[-1]
            chunk = block.chunks.start + last
        if at - placed.start != term.length:
            raise CorruptData(
                f"chunks {term.chunks.start}-{term.chunks.end} of xorb {term.xorb.hex()[:12]} "
                f"are {at - placed.start} bytes long, not {term.length}"
            )
        runs.append(Run(placed.start, term.xorb, term.chunks, ends, b"".join(hashes), level))
    return runs


def missing_chunks(
    wanted: dict[XorbHash, list[ChunkRange]], held: Callable[[XorbHash], Sequence[ChunkRange]]
) -> dict[XorbHash, list[ChunkRange]]:
    """What of `wanted` is in none of the ranges that `held(xorb)` gives, sorted by start; xorbs of which nothing is missing left
    out."""
    missing: dict[XorbHash, list[ChunkRange]] = {}
    for xorb, ranges in wanted.items():
        gaps = list(gaps_in(ranges, held(xorb)))
        if gaps:
            missing[xorb] = gaps
    return missing


def gaps_in(ranges: Iterable[ChunkRange], held: Sequence[ChunkRange]) -> Iterator[ChunkRange]:
    """The parts of `ranges` that are in none of `held`, which is sorted by start."""
    for chunks in ranges:
        at = chunks.start
        for have in held:
            if have.end <= at:
                continue
            if have.start >= chunks.end:
                break
            if at < have.start:
                yield ChunkRange(at, have.start)
            at = have.end
        if at < chunks.end:
            yield ChunkRange(at, chunks.end)
