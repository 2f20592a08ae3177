"""Whole files and whole xorbs: what can be checked only once all of one is known.

Where a server offers no proofs, and for LFS files, a part of a file is as sure as its framing. When the whole file has become
known, piece by piece, its name can be computed: the file id from the chunk hashes in its map, the SHA-256 or git id from its
bytes, as far as all of them are held. If it is the right one, all of the map is raised to Level.FILE. If not, everything that led
to it is forgotten and dropped, so that the next reader fetches it anew; what programs have read until then was wrong, which is
logged as an error.

Of a file that is not known whole, a xorb may be: its hash is the root over all its chunks. Nobody says how many they are, so each
time that more are known from the first on, without a gap, their root is compared. If it is the hash, the chunks are those of that
xorb (Level.XORB), though that the file has them there is still the server's word; if not, there may be more of them.

The checks run in the background, one at a time, a piece for each hop to a thread of their own; they fetch nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Literal
from weakref import WeakKeyDictionary

import trio

from xetfs import telemetry
from xetfs.detached import run_detached
from xetfs.errors import CorruptData
from xetfs.protocol.fold import Fold
from xetfs.protocol.hashes import XorbHash
from xetfs.reader.content import FileContent
from xetfs.reader.filemap import HASH_BYTES, Level, Run
from xetfs.reader.shelf import Shelf
from xetfs.reader.sources import Names
from xetfs.store.api import Block
from xetfs.telemetry import Counters

log = logging.getLogger(__name__)

PIECE_CHUNKS: Final = 16
"""Chunks that are read and hashed in one hop: 1 to 2 MiB, a few milliseconds."""
BATCH_CHUNKS: Final = 2048
"""Chunk hashes that are folded in one hop: a few milliseconds, in which the interpreter is busy."""

NameKind = Literal["file_id", "sha256", "git_oid"]


class Digest:
    """The names of a file's content, computed while its runs and its bytes pass by, in order.

    sha256: compute that of a file in Xet too, when it is known; of others it is always computed.
    Methods are for one thread at a time.
    """

    def __init__(self, names: Names, size: int, *, sha256: bool) -> None:
        self._names = names
        self._fold = Fold() if names.file is not None else None
        wanted = names.sha256 is not None and (sha256 or names.file is None)
        self._sha256 = hashlib.sha256() if wanted else None
        header = b"blob %d\0" % size
        self._git = hashlib.sha1(header, usedforsecurity=False) if names.git_oid else None

    @property
    def needs_bytes(self) -> bool:
        return self._sha256 is not None or self._git is not None

    def add_runs(self, runs: Sequence[Run]) -> None:
        if self._fold is not None:
            _fold_runs(self._fold, runs)

    def add_bytes(self, data: bytes | bytearray | memoryview) -> None:
        for digest in (self._sha256, self._git):
            if digest is not None:
                digest.update(data)

    def add_block(self, block: Block, start: int, end: int) -> None:
        """Bytes [start, end) of a block. Raises CorruptData."""
        self.add_bytes(block.read(start, end))

    def verdicts(self) -> dict[NameKind, bool]:
        """For each name that was computed whether it is the right one. Ends the computing."""
        found: dict[NameKind, bool] = {}
        if self._fold is not None:
            found["file_id"] = self._fold.file_id() == self._names.file
        if self._sha256 is not None:
            found["sha256"] = self._sha256.digest() == self._names.sha256
        if self._git is not None:
            found["git_oid"] = self._git.hexdigest() == self._names.git_oid
        return found


class WholeChecker:
    def __init__(self, shelf: Shelf, nursery: trio.Nursery, counters: Counters) -> None:
        self._shelf = shelf
        self._nursery = nursery
        self._counters = counters
        self._seen: WeakKeyDictionary[FileContent, int] = WeakKeyDictionary()
        self._tried: WeakKeyDictionary[FileContent, dict[XorbHash, int]] = WeakKeyDictionary()
        """How many chunks of a xorb were known when its root was compared last."""
        self._due: set[FileContent] = set()
        self._one_at_a_time = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    def consider(self, content: FileContent) -> None:
        """Start a check in the background of what has become known whole since this was last called."""
        known = content.map
        if self._seen.get(content) == known.changes or content in self._due:
            return
        self._seen[content] = known.changes
        if not content.size:
            return
        if not known.is_complete(Level.FRAMING):
            tried = self._tried.setdefault(content, {})
            found = {xorb: runs for xorb, runs in whole_xorbs(known.runs()).items() if runs[-1].chunks.end != tried.get(xorb)}
            if found and content.source.names_of(known.runs()).file is not None:
                self._start(content, partial(self.check_xorbs, content, found))
        elif not known.is_complete(Level.FILE):
            self._start(content, partial(self.check, content))

    def _start(self, content: FileContent, check: Callable[[], Awaitable[object]]) -> None:
        self._due.add(content)
        what = f"checking a whole file={content.source.key[:16]}"
        run_detached(self._nursery, partial(self._check_in_turn, content, check), what)

    async def _check_in_turn(self, content: FileContent, check: Callable[[], Awaitable[object]]) -> None:
        try:
            async with self._one_at_a_time:
                await check()
        finally:
            self._due.discard(content)

    async def check_xorbs(self, content: FileContent, found: Mapping[XorbHash, Sequence[Run]]) -> None:
        """Compare the roots of these runs, which are all that is known of each xorb, with the xorbs' hashes, and raise those that
        are right."""
        for xorb, runs in found.items():
            self._tried.setdefault(content, {})[xorb] = runs[-1].chunks.end
            fold = Fold()
            for batch in _batches(runs):
                await trio.to_thread.run_sync(_fold_runs, fold, batch, limiter=self._thread)
            if await trio.to_thread.run_sync(fold.root, limiter=self._thread) != xorb:
                continue
            self._counters.add(telemetry.READER_XORBS_RIGHT)
            log.debug("a whole xorb has its hash xorb=%s chunks=%d", xorb.hex()[:12], runs[-1].chunks.end)
            hashes = b"".join(run.hashes for run in runs)
            content.adopt([replace(run, level=Level.XORB) for run in content.map.runs() if _is_proven(run, xorb, hashes)])

    async def check(self, content: FileContent) -> bool | None:
        """Whether a file that is known whole is what its name says; None if that cannot be told: it has no name, or its bytes are
        needed and not all held. Its map, and what is held, follow from the answer."""
        runs = content.map.runs()
        digest = Digest(content.source.names_of(runs), content.size, sha256=False)
        if digest.needs_bytes:
            if not await self._feed_bytes(digest, runs):
                return None
        else:
            await self._feed_runs(digest, runs)
        verdicts = await trio.to_thread.run_sync(digest.verdicts, limiter=self._thread)
        if not verdicts:
            return None
        if all(verdicts.values()):
            self._counters.add(telemetry.READER_WHOLE_RIGHT)
            log.info("a whole file is what its name says file=%s", content.source.key[:16])
            accept(content, runs)
            return True
        self._counters.add(telemetry.READER_WHOLE_WRONG)
        log.error(
            "a whole file is not what its name says, dropped: what was read of it until now was wrong file=%s wrong=%s",
            content.source.key[:16],
            ",".join(kind for kind, right in verdicts.items() if not right),
        )
        await reject(content, runs, self._shelf)
        return False

    async def _feed_runs(self, digest: Digest, runs: Sequence[Run]) -> None:
        for batch in _batches(runs):
            await trio.to_thread.run_sync(digest.add_runs, batch, limiter=self._thread)

    async def _feed_bytes(self, digest: Digest, runs: Sequence[Run]) -> bool:
        """Whether all bytes were held, and held right."""
        for run in runs:
            position = 0
            while position < len(run.ends):
                chunk = run.chunks.start + position
                block = await self._shelf.peek(run.xorb, chunk)
                if block is None:
                    return False
                first = chunk - block.chunks.start
                count = min(PIECE_CHUNKS, len(run.ends) - position, len(block.chunks) - first)
                if b"".join(block.hashes[first : first + count]) != run.hashes_of(position, position + count):
                    return False
                start, end = block.offsets[first], block.offsets[first + count]

                def add(block: Block = block, start: int = start, end: int = end) -> bool:
                    digest.add_block(block, start, end)
                    return True

                try:
                    if not await self._shelf.disk.run(add, False, self._thread):
                        return False
                except CorruptData as exc:
                    log.warning("dropped a bad block, found by the check of a whole file: %s", exc)
                    await self._shelf.drop(block)
                    return False
                position += count
        return True


def whole_xorbs(runs: Sequence[Run]) -> dict[XorbHash, list[Run]]:
    """For each xorb that some of these runs take at framing, and whose chunks they have from the first on without a gap: runs of
    just these chunks, in order."""
    by_xorb: dict[XorbHash, list[Run]] = {run.xorb: [] for run in runs if run.level == Level.FRAMING}
    for run in runs:
        if run.xorb in by_xorb and run.level >= Level.FRAMING:
            by_xorb[run.xorb].append(run)
    chains = {xorb: _chain(of_xorb) for xorb, of_xorb in by_xorb.items()}
    return {xorb: chain for xorb, chain in chains.items() if chain is not None}


def _chain(runs: Sequence[Run]) -> list[Run] | None:
    """Runs of one xorb put in the order of its chunks, each chunk once; None if one is missing."""
    chain: list[Run] = []
    known = 0
    for run in sorted(runs, key=lambda run: run.chunks):
        if run.chunks.start > known:
            return None
        if run.chunks.end > known:
            chain.append(run.part(known - run.chunks.start, len(run.ends)))
            known = run.chunks.end
    return chain


def _is_proven(run: Run, xorb: XorbHash, hashes: bytes) -> bool:
    """Whether a run is of chunks of a xorb whose hashes are known, all of them and in order."""
    return (
        run.xorb == xorb
        and run.level == Level.FRAMING
        and (run.hashes == hashes[HASH_BYTES * run.chunks.start : HASH_BYTES * run.chunks.end])
    )


def _batches(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Runs of about BATCH_CHUNKS chunks together."""
    batch: list[Run] = []
    chunks = 0
    for run in runs:
        batch.append(run)
        chunks += len(run.ends)
        if chunks >= BATCH_CHUNKS:
            yield batch
            batch, chunks = [], 0
    yield batch


def _fold_runs(fold: Fold, runs: Iterable[Run]) -> None:
    for run in runs:
        fold.add_chunks(run.hashes, run.start, run.ends)


def accept(content: FileContent, runs: Sequence[Run]) -> None:
    """Raise runs that together gave a file's name."""
    content.adopt([replace(run, level=Level.FILE) for run in runs if run.level < Level.FILE])


async def reject(content: FileContent, runs: Sequence[Run], shelf: Shelf) -> None:
    """Forget a file whose runs together gave another name, and drop the bytes of those that nothing else vouches for."""
    content.disown()
    for run in runs:
        if run.level < Level.FILE:
            await shelf.drop_chunks(run.xorb, run.chunks)
