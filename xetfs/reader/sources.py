"""What loads the windows of a file; and how that is done for files that are not in Xet, through the Hub's resolve route.

A source brings blocks onto the shelf and says what was learnt: runs. Files that are not in Xet have no xorbs; they are cut into
pieces of a fixed size, and SEGMENT_PIECES of them stand under a made-up xorb hash, so that the store and the file map serve them
like all others.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

import trio
from blake3 import blake3

from xetfs import telemetry
from xetfs.errors import CorruptData, Evicted, ProtocolViolation
from xetfs.hub.client import HubClient
from xetfs.protocol.hashes import FileId, MerkleHash, XorbHash, chunk_hash
from xetfs.protocol.memory import new_buffer
from xetfs.protocol.names import CommitId, RepoId
from xetfs.protocol.ranges import ByteRange, ChunkRange
from xetfs.protocol.reconstruction import Term
from xetfs.protocol.tree import TreeEntry
from xetfs.protocol.xorb import CHUNK_BYTES_MAX, XorbBlock
from xetfs.reader.budget import Urgency
from xetfs.reader.filemap import FileMap, Level, Run, at_least_framing
from xetfs.reader.planner import Layout, PlacedTerm, chunks_of, learn_runs, missing_chunks
from xetfs.reader.shelf import Shelf
from xetfs.store.api import Block
from xetfs.telemetry import Counters
from xetfs.units import MIB

log = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 4
"""Times that a stretch is loaded because what the store listed of it was gone; more means that it keeps nothing."""
PIECE_BYTES: Final = CHUNK_BYTES_MAX
SEGMENT_PIECES: Final = 512
"""Pieces under one made-up xorb: 64 MiB, as in a real one."""
WHOLE_BYTES_MAX: Final = 32 * MIB
"""Plain git files up to this size are fetched whole and checked against their git id. The Hub takes no larger ones than 10 MB
today."""
_PIECES_KEY: Final = blake3(b"xetfs: xorb hash of the pieces of a file that is not in Xet").digest()


Verify = Literal["auto", "proof", "off"]


class BlocksGone(Exception):
    """The store has not what it listed a moment ago; asking again gives a true answer. Stays within this room."""


OnCovered = Callable[[ByteRange], None]


@dataclass(frozen=True, slots=True)
class Names:
    """What a file's whole content is known by; each may be missing. git_oid: "" for a file of which git has only a pointer."""

    file: FileId | None = None
    sha256: bytes | None = None
    git_oid: str = ""

    @classmethod
    def of(cls, entry: TreeEntry) -> Names:
        """What a listing says of a file."""
        is_pointer = entry.file_id is not None or entry.sha256 is not None
        return cls(entry.file_id, entry.sha256, "" if is_pointer else entry.oid)


def key_of(entry: TreeEntry, repo: RepoId, commit: CommitId) -> str:
    """Names the content of a file: equal for equal content, so that files share what is known of it."""
    if entry.file_id is not None and entry.size:
        return f"xet-{entry.file_id.hex()}"
    if entry.sha256 is not None:
        return f"lfs-{entry.sha256.hex()}"
    return f"git-{entry.oid or f'{repo}@{commit}/{entry.path}'}"


class Source(Protocol):
    """Where a file's bytes come from."""

    key: str
    """Names the content (see `key_of`)."""
    names: Names

    def names_of(self, runs: Iterable[Run]) -> Names:
        """The names that can be computed from these runs, which make up the whole file, and from their bytes."""
        ...

    def recall(self, runs: list[Run]) -> list[Run]:
        """Runs from the store's records at the level that they have now. Those that nothing vouches for come at Level.RECALLED;
        they stay there if `load` is to look for a proof before they are given out."""
        ...

    async def prepare(self) -> None:
        """Ask for what every load needs, if that is a request of its own. Raises nothing: a load will ask again."""
        ...

    async def check_right(self) -> None:
        """Return if the file may be read through this source, which its servers are asked. Raises the errors of `load`."""
        ...

    async def load(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        """Bring all of `span` (within the file, not empty) onto the shelf and say what was learnt.

        known: the file's map; what it knows of `span` is not fetched again. Claims that turn out false are forgotten in it,
        what is learnt is for the caller to add. on_covered is called as soon as it is known what will come. Bytes that are
        corrupt are fetched once more, then CorruptData is raised; other errors are those of cas/ and hub/.
        """
        ...


class PlainSource:
    """A file fetched in pieces through the Hub's resolve route: an LFS object, a plain git file, or a file in Xet that is not to
    be had from the CAS (fallback.py).

    Plain git files of up to WHOLE_BYTES_MAX are fetched whole and checked against their git id before a byte is given out.
    Others can be checked only when all of them has been read (whole.py); with `verify` at "proof" they are refused until then.
    """

    def __init__(
        self,
        entry: TreeEntry,
        hub: HubClient,
        repo: RepoId,
        commit: CommitId,
        shelf: Shelf,
        counters: Counters,
        *,
        verify: Verify = "auto",
    ) -> None:
        self.key = key_of(entry, repo, commit)
        self.names = replace(Names.of(entry), file=None)
        self._entry = entry
        self._hub = hub
        self._repo = repo
        self._commit = commit
        self._shelf = shelf
        self._counters = counters
        self._whole = entry.file_id is None and entry.sha256 is None and entry.size <= WHOLE_BYTES_MAX
        self._refused = verify == "proof" and not (self._whole and entry.oid)

    def names_of(self, runs: Iterable[Run]) -> Names:
        return self.names

    def recall(self, runs: list[Run]) -> list[Run]:
        return at_least_framing(runs)

    async def prepare(self) -> None:
        pass

    async def check_right(self) -> None:
        await self._hub.check_file(self._repo, self._commit, self._entry.path)

    async def load(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        size = self._entry.size
        if self._refused:
            raise ProtocolViolation(
                f"{self._repo}: no part of {self._entry.path} can be proven, as it does not come from a CAS",
                hint="'xetfs verify' checks it whole, and the next mount can read it then",
            )
        if self._whole:
            span = ByteRange(0, size)
        covered = ByteRange(span.start // PIECE_BYTES * PIECE_BYTES, min(-(-span.end // PIECE_BYTES) * PIECE_BYTES, size))
        on_covered(covered)
        return [run for stretch in self._free(covered, known) for run in await self._load_stretch(stretch, urgency)]

    def _free(self, covered: ByteRange, known: FileMap) -> list[ByteRange]:
        """What of `covered` is not known in other chunks than whole pieces, which these must not overlap."""
        free, at = [], covered.start
        for run in known.within(covered):
            if run.level >= Level.RECALLED and not self._is_whole_pieces(run):
                if at < run.start:
                    free.append(ByteRange(at, run.start))
                at = run.end
        return [*free, ByteRange(at, covered.end)] if at < covered.end else free

    async def _load_stretch(self, stretch: ByteRange, urgency: Urgency) -> list[Run]:
        layout = self._layout(stretch)
        wanted = chunks_of(layout)
        level = Level.FILE if self._whole and self._entry.oid else Level.FRAMING
        for _ in range(ATTEMPTS_MAX):
            held = await self._shelf.held(wanted)
            if missing_chunks(wanted, held.__getitem__):
                await self._fetch_checked(layout, urgency)
            with suppress(BlocksGone):
                return await learn(self._shelf, layout, wanted, level)
        raise Evicted(f"{self._repo}: {self._entry.path} was evicted before it could be read")

    def _layout(self, covered: ByteRange) -> Layout:
        """`covered` as terms: one for each made-up xorb that it touches, and one for a part of a piece at either end."""
        terms = []
        at = covered.start
        segment_bytes = SEGMENT_PIECES * PIECE_BYTES
        whole_end = covered.end if covered.end == self._entry.size else covered.end // PIECE_BYTES * PIECE_BYTES
        while at < covered.end:
            if at % PIECE_BYTES or at >= whole_end:
                end = min((at // PIECE_BYTES + 1) * PIECE_BYTES, covered.end)
                terms.append(PlacedTerm(at, Term(self._part_xorb(at, end), ChunkRange(0, 1), end - at)))
            else:
                segment = at // segment_bytes
                end = min((segment + 1) * segment_bytes, whole_end)
                first = (at - segment * segment_bytes) // PIECE_BYTES
                chunks = ChunkRange(first, first + -(-(end - at) // PIECE_BYTES))
                terms.append(PlacedTerm(at, Term(self._xorb(segment), chunks, end - at)))
            at = end
        return Layout(tuple(terms), covered)

    def made(self, run: Run) -> bool:
        """Whether a run is of pieces of this file, rather than of chunks that a CAS knows."""
        return self._is_whole_pieces(run) or (len(run.ends) == 1 and run.xorb == self._part_xorb(run.start, run.end))

    def _is_whole_pieces(self, run: Run) -> bool:
        return run.xorb == self._xorb(run.start // (SEGMENT_PIECES * PIECE_BYTES))

    def _xorb(self, segment: int) -> XorbHash:
        return self._made_up(str(segment))

    def _part_xorb(self, start: int, end: int) -> XorbHash:
        """That of a part of a piece, between chunks that came from elsewhere: of these bytes alone."""
        return self._made_up(f"{start}-{end}")

    def _made_up(self, what: str) -> XorbHash:
        return XorbHash(MerkleHash(blake3(f"{self.key} {what}".encode(), key=_PIECES_KEY).digest()))

    async def _fetch_checked(self, layout: Layout, urgency: Urgency) -> None:
        """Fetch a layout and put it on the shelf; what fails its check is fetched once more."""
        covered = layout.covered
        await self._shelf.budget.acquire(len(covered), urgency)
        try:
            data = new_buffer(len(covered))
            for last in (False, True):
                with self._shelf.budget.line.transfer(len(covered)):
                    await self._hub.fetch_file(self._repo, self._commit, self._entry.path, covered, self._entry.size, data)
                if not self._whole or not self._entry.oid or await trio.to_thread.run_sync(_git_oid, data) == self._entry.oid:
                    break
                self._counters.add(telemetry.READER_CORRUPT_WINDOWS)
                if last:
                    raise CorruptData(f"{self._repo}: {self._entry.path} does not have the content that its git id says")
                log.warning("corrupt data, fetching again repo=%s path=%r", self._repo, self._entry.path)
        finally:
            self._shelf.budget.release(len(covered))
        for block in await trio.to_thread.run_sync(_cut, layout, data.toreadonly()):
            self._shelf.add(block)


def _git_oid(data: memoryview) -> str:
    """The id that git gives to a file with this content."""
    digest = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest()


def _cut(layout: Layout, data: memoryview) -> list[XorbBlock]:
    """The bytes of a layout as one block for each of its made-up xorbs."""
    blocks = []
    for placed in layout.terms:
        at = placed.start - layout.covered.start
        part = data[at : at + placed.term.length]
        offsets = (*range(0, len(part), PIECE_BYTES), len(part))
        hashes = tuple(chunk_hash(part[i : i + PIECE_BYTES]) for i in range(0, len(part), PIECE_BYTES))
        blocks.append(XorbBlock(placed.term.xorb, placed.term.chunks, part, offsets, hashes))
    return blocks


async def learn(shelf: Shelf, layout: Layout, wanted: dict[XorbHash, list[ChunkRange]], level: Level) -> list[Run]:
    """Find the blocks under a layout, whose chunks are `wanted`, and learn its runs.

    Raises BlocksGone if the store turns out not to have what it listed: another attempt fetches it. Raises CorruptData if a block
    contradicts the layout; then the blocks are dropped.
    """
    blocks: dict[XorbHash, list[Block]] = {}
    gone = 0
    for xorb, ranges in wanted.items():
        found = blocks[xorb] = []
        for chunks in ranges:
            at = chunks.start
            while at < chunks.end:
                block = await shelf.peek(xorb, at)
                if block is None:  # listed, but evicted or bad; go on, so that all such are known as gone at the next attempt
                    gone += 1
                    at += 1
                    continue
                found.append(block)
                at = block.chunks.end
    if gone:
        raise BlocksGone(f"{gone} chunks are not where they were a moment ago")

    def block_of(xorb: XorbHash, chunk: int) -> Block | None:
        return next((block for block in blocks[xorb] if block.chunks.start <= chunk < block.chunks.end), None)

    try:
        return learn_runs(layout, block_of, level)
    except CorruptData:
        for found in blocks.values():
            for block in found:
                await shelf.drop(block)
        raise
