"""How a window of a Xet file is loaded, and proven.

Reconstruction and proof are asked for side by side, so that a cold read costs two round trips. With proof, a window is what the
proof covers: whole chunks, at least what was asked. How far that reaches is known only from the answer; so the reconstruction is
asked for SLACK_BYTES more than needed, and what that brings beyond the window is kept as a claim: the next window begins with
it. No byte of a claim is given out.

What an earlier mount has given out without proof and is still held costs the proof alone; if that is not to be had now, it is
served as it was then.

Its bytes come in parts (parts.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

import trio

from xetfs import telemetry
from xetfs.cas.client import CasClient
from xetfs.errors import (
    CorruptData,
    EntryNotFound,
    ProtocolViolation,
    XetfsError,
)
from xetfs.protocol.hashes import ChunkHash, FileId, MerkleHash
from xetfs.protocol.proof import RangeProof, verify_range
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.budget import Urgency
from xetfs.reader.fetcher import Fetcher
from xetfs.reader.filemap import HASH_BYTES, FileMap, Level, Run, at_least_framing
from xetfs.reader.flights import Flight
from xetfs.reader.parts import Part, Parts, subtract
from xetfs.reader.proofs import ProofPolicy
from xetfs.reader.shelf import Shelf
from xetfs.reader.sources import Names, OnCovered, Verify
from xetfs.telemetry import Counters
from xetfs.units import KIB, MIB

log = logging.getLogger(__name__)

SLACK_BYTES: Final = 224 * KIB
"""How much more than asked a proof's window usually covers: enough in two of three cases, and with the chunk that was asked for
still under 400 KB on the wire."""
SLACK_SHARE: Final = 32
SLACK_BYTES_MAX: Final = 1 * MIB
"""A long window takes one in so many bytes more, as the next one begins with them: enough in nearly all cases, and another
reconstruction and another fetch would be needed for what is missing."""
RESERVE_BYTES: Final = 256 * KIB
"""What lies behind that is asked for, too, when somebody waits, but fetched only if the proof reaches there: another question
costs less than another round trip."""
PROVEN_WINDOW_BYTES_MAX: Final = 64 * MIB
"""Largest window that is proven when proof is not insisted on. Data without content, such as zeros, is cut nowhere, and the
window of one byte of it reaches to the end of the file."""
RECALL_PATIENCE: Final = 1.5
"""Timeouts of a proof that a read waits for what is held already: for the proof, and for what its window covers beyond that."""


class XetSource:
    """A file in Xet."""

    def __init__(
        self,
        file: FileId,
        size: int,
        *,
        cas: CasClient,
        fetcher: Fetcher,
        shelf: Shelf,
        nursery: trio.Nursery,
        verify: Verify,
        policy: ProofPolicy,
        counters: Counters,
        names: Names | None = None,
    ) -> None:
        self.key = f"xet-{file.hex()}"
        self.names = names or Names(file)
        self._file = file
        self._size = size
        self._cas = cas
        self._shelf = shelf
        self._nursery = nursery
        self._verify = verify
        self._policy = policy
        self._counters = counters
        self._parts = Parts(self.key[:16], file, size, cas=cas, fetcher=fetcher, shelf=shelf, nursery=nursery, counters=counters)

    def names_of(self, runs: Iterable[Run]) -> Names:
        return self.names

    def recall(self, runs: list[Run]) -> list[Run]:
        return at_least_framing(runs) if self._verify == "off" else runs

    async def prepare(self) -> None:
        await self._cas.prepare()

    async def check_right(self) -> None:
        await self._cas.reconstruction(self._file, ByteRange(0, 1))

    async def load(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        load = {"auto": self._load_best, "proof": self._load_proven, "off": self._load_unproven}[self._verify]
        try:
            return await load(span, known, urgency, on_covered)
        except CorruptData as exc:
            self._counters.add(telemetry.READER_CORRUPT_WINDOWS)
            log.warning("corrupt data, fetching again file=%s bytes=%d-%d: %s", self.key[:16], span.start, span.end, exc)
        try:
            return await load(span, known, urgency, on_covered)
        except CorruptData:
            self._counters.add(telemetry.READER_CORRUPT_WINDOWS)
            raise

    async def _load_best(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        """Load a part of `span`, from its start on: one that is recalled throughout, or nowhere."""
        gaps = known.gaps(span, Level.RECALLED)
        recalled = ByteRange(span.start, gaps[0].start if gaps else span.end)
        if len(recalled):
            return await self._load_recalled(recalled, known, urgency, on_covered)
        if self._policy.admits(self._cas.origin, self._file):
            return await self._load_proven(gaps[0], known, urgency, on_covered)
        return await self._load_unproven(gaps[0], known, urgency, on_covered)

    async def _load_recalled(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        """Prove what is held without proof; serve it as it was left if there is no proof, or what it needs is not to be had."""
        as_it_is = at_least_framing(known.within(span))
        if self._policy.admits(self._cas.origin, self._file):
            try:
                with trio.fail_after(RECALL_PATIENCE * self._policy.timeout_s):
                    return await self._load_proven(span, known, urgency, on_covered, exact=True)
            except CorruptData:
                raise
            except (XetfsError, trio.TooSlowError) as exc:
                log.info("served as it was left, without proof file=%s: %s", self.key[:16], exc)
        on_covered(span)
        return as_it_is

    async def _load_unproven(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        with ExitStack() as joined:
            parts = self._parts.start(known.gaps(span, Level.FRAMING), Level.FRAMING, urgency, joined)
            for part in parts:
                await part.planned.wait()
            on_covered(ByteRange(parts[0].covered.start, parts[-1].covered.end) if parts else span)
            return [run for part in parts for run in await part.flight.wait()]

    async def _load_proven(
        self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered, *, exact: bool = False
    ) -> list[Run]:
        """exact: what lies behind `span` is not to be fetched unless the proof covers it."""
        slack_bytes = 0 if exact else max(SLACK_BYTES, min(len(span) // SLACK_SHARE, SLACK_BYTES_MAX))
        asked = ByteRange(span.start, min(span.end + slack_bytes, self._size))
        # What is known now, kept apart: while this waits, others may forget in `known` what is no longer held.
        scratch = FileMap(self._size)
        scratch.add(known.within(asked))
        with ExitStack() as joined:
            proving = Flight(self._nursery, partial(self._ask_for_proof, span))
            proving.join()
            joined.callback(proving.leave)
            parts = self._parts.start(scratch.gaps(asked), Level.CLAIMED, urgency, joined)
            if urgency.demand and not exact:
                self._parts.reserve(ByteRange(asked.end, min(asked.end + RESERVE_BYTES, self._size)), scratch, urgency, joined)
            proof = await proving.wait()
            if proof is None:
                return await self._do_without_proof(parts, scratch, on_covered)
            window = proof.windows[0]
            if len(window) > max(PROVEN_WINDOW_BYTES_MAX, 2 * len(span)) and self._verify == "auto":
                log.info("served without proof: its window is %d bytes long file=%s", len(window), self.key[:16])
                return await self._do_without_proof(parts, scratch, on_covered)
            on_covered(window)
            for part in parts:
                await part.planned.wait()
            scratch.add(known.within(window))
            rest = subtract(scratch.gaps(window), [part.covered for part in parts])
            parts += self._parts.start(rest, Level.CLAIMED, urgency, joined)
            runs = [run for part in parts for run in await part.flight.wait()]
        return await self._prove(proof, window, known, scratch, runs)

    async def _ask_for_proof(self, span: ByteRange) -> RangeProof | None:
        """Return a proof of one window that includes `span`. Without one: None in "auto", else its error."""

        async def question() -> RangeProof:
            proof = await self._cas.range_proof(self._file, span)
            _check_window(proof, span, self._size)
            return proof

        if self._verify == "auto":
            return await self._policy.ask(lambda: self._cas.origin, self._file, question)
        try:
            return await question()
        except EntryNotFound as exc:
            raise ProtocolViolation(f"no proof to be had: {exc}", hint="--verify auto takes what the server offers") from exc

    async def _do_without_proof(self, parts: Sequence[Part], scratch: FileMap, on_covered: OnCovered) -> list[Run]:
        """The runs of the parts, and those known before, as far as framing vouches for them."""
        for part in parts:
            await part.planned.wait()
        runs = scratch.runs()
        spans = [*(part.covered for part in parts), *(ByteRange(run.start, run.end) for run in runs)]
        on_covered(ByteRange(min(span.start for span in spans), max(span.end for span in spans)))
        runs += [run for part in parts for run in await part.flight.wait()]
        return at_least_framing(runs)

    async def _prove(
        self, proof: RangeProof, window: ByteRange, known: FileMap, scratch: FileMap, runs: Sequence[Run]
    ) -> list[Run]:
        """Check the chunks of a window against its proof: those just fetched, and those that were known before (scratch).

        Returns them as proven runs, and what goes beyond the window as it was. When the proof fails, the blocks and claims under
        the window are dropped, so that another attempt fetches them anew; then raises CorruptData.
        """
        doubtful = [run for run in (*scratch.within(window), *runs) if run.level < Level.FILE]
        try:
            scratch.add(runs)
            chunks = list(_chunks(scratch, window))
            await trio.to_thread.run_sync(verify_range, proof, self._file, self._size, [chunks])
        except CorruptData:
            for run in doubtful:
                known.forget(ByteRange(run.start, run.end))
                await self._shelf.drop_chunks(run.xorb, run.chunks)
            raise
        scratch.raise_to(Level.PROOF, window)
        return scratch.runs()


def _check_window(proof: RangeProof, span: ByteRange, size: int) -> None:
    """Raises ProtocolViolation unless a proof has one window, that includes `span`, within a file of `size` bytes."""
    if proof.file_size != size:
        raise ProtocolViolation(f"the range proof is about a file of {proof.file_size} bytes, not of {size}")
    if len(proof.windows) != 1 or not proof.covers(span):
        raise ProtocolViolation(f"the range proof of bytes {span.start}-{span.end} covers {proof.windows[0]}")


def _chunks(known: FileMap, window: ByteRange) -> Iterator[tuple[ChunkHash, int]]:
    """Hash and length of each chunk of a window that a map knows. Raises CorruptData where chunks and window do not meet."""
    at = window.start
    while at < window.end:
        run = known.at(at)
        first = run.position(at) if run is not None else 0
        if run is None or run.chunk_start(first) != at:
            raise CorruptData(f"no chunk begins at byte {at}, where the range proof has one")
        for i in range(first, len(run.ends)):
            if at >= window.end:
                break
            yield ChunkHash(MerkleHash(run.hashes[HASH_BYTES * i : HASH_BYTES * (i + 1)])), run.ends[i] - at
            at = run.ends[i]
    if at != window.end:
        raise CorruptData(f"a chunk crosses byte {window.end}, where the range proof ends its window")
