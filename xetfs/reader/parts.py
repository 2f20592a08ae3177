"""The parts in which a window of a Xet file is fetched, side by side.

A part is one flight: a reconstruction, and the fetches that it names. A signed URL allows exactly the ranges that were
answered, so what is to come over a connection of its own needs a question of its own. Parts belong to the file: a window that
needs what another one has under way joins it. Event loop only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

import trio

from xetfs import telemetry
from xetfs.cas.client import CasClient
from xetfs.errors import Evicted, SignedUrlExpired
from xetfs.protocol.hashes import FileId
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.budget import Urgency
from xetfs.reader.fetcher import Fetcher
from xetfs.reader.filemap import FileMap, Level, Run
from xetfs.reader.flights import Flight
from xetfs.reader.line import TransferLine
from xetfs.reader.planner import chunks_of, lay_out, missing_chunks, plan_fetches
from xetfs.reader.shelf import Shelf
from xetfs.reader.sources import ATTEMPTS_MAX, BlocksGone, learn
from xetfs.telemetry import Counters
from xetfs.units import MIB

log = logging.getLogger(__name__)

EARLY_BYTES: Final = 8 * MIB
EARLY_PARTS: Final = 4
"""A window shorter than that is one of the first of a reader, who waits for it: it comes over as many connections."""
EARLY_PART_BYTES_MIN: Final = 1 * MIB
EARLY_PART_S: Final = 0.05
"""But each has this much to do, or a near line would carry the chunks at the edges of parts twice for nothing."""
URL_REFRESHES_MAX: Final = 3
"""How often a part's signed URLs are asked for again when they expired: under way they may, in a slow transfer."""
DOUBTFUL_REFRESHES_MAX: Final = 1
"""The same when nothing says that they expired: one that is refused when fresh is refused for another reason."""


class Part:
    """A stretch of a window on its way. covered: what it brings, whole chunks, right once `planned` is set. It is
    fetched once it is `wanted`."""

    flight: Flight[list[Run]]

    def __init__(self, span: ByteRange, level: Level, urgency: Urgency) -> None:
        self.span = span
        self.level = level
        self.urgency = urgency
        self.covered = span
        self.planned = trio.Event()
        self.wanted = trio.Event()


class Parts:
    """Those of one file that are under way."""

    def __init__(
        self,
        name: str,
        file: FileId,
        size: int,
        *,
        cas: CasClient,
        fetcher: Fetcher,
        shelf: Shelf,
        nursery: trio.Nursery,
        counters: Counters,
    ) -> None:
        """name: of the file, for messages and the log."""
        self._name = name
        self._file = file
        self._size = size
        self._cas = cas
        self._fetcher = fetcher
        self._shelf = shelf
        self._nursery = nursery
        self._counters = counters
        self._parts: list[Part] = []

    def reserve(self, span: ByteRange, known: FileMap, urgency: Urgency, joined: ExitStack) -> None:
        """Plan what is unknown at the beginning of `span`, unless that is under way, until `joined` is closed."""
        gaps = subtract(known.gaps(span, Level.CLAIMED), sorted(part.covered for part in self._parts))
        if gaps and gaps[0].start == span.start:
            part = self._start_part(gaps[0], Level.CLAIMED, urgency)
            part.flight.join()
            joined.callback(part.flight.leave)

    def start(self, gaps: Sequence[ByteRange], level: Level, urgency: Urgency, joined: ExitStack) -> list[Part]:
        """The parts that bring the gaps, joined until `joined` is closed: those that another window has under way, such as what
        it asked beyond its proof, and new ones for the rest. In the order of what they cover.

        What one of those brings that is not planned yet may turn out to be longer, by a part of a chunk at either end.
        """
        parts = [part for part in self._parts if part.level == level and not part.flight.ended and _touches(part.covered, gaps)]
        rest = subtract(gaps, sorted(part.covered for part in parts))
        parts.extend(self._start_part(span, level, urgency) for span in cut_up(rest, self._shelf.budget.line))
        for part in parts:
            part.wanted.set()
            part.flight.join()
            joined.callback(part.flight.leave)
            if urgency.demand and not part.urgency.demand:
                part.urgency.demand = True
                self._shelf.budget.wake()
        return sorted(parts, key=lambda part: part.covered)

    def _start_part(self, span: ByteRange, level: Level, urgency: Urgency) -> Part:
        part = Part(span, level, urgency)
        part.flight = Flight(self._nursery, partial(self._bring, part), on_end=lambda: self._parts.remove(part))
        self._parts.append(part)
        return part

    async def _bring(self, part: Part) -> list[Run]:
        """The work of a part: the blocks under it are on the shelf when it ends."""
        refused = 0
        try:
            for _ in range(ATTEMPTS_MAX + URL_REFRESHES_MAX):
                reconstruction = await self._cas.reconstruction(self._file, part.span)
                layout = lay_out(reconstruction, part.span, self._size)
                part.covered = layout.covered
                part.planned.set()
                wanted = chunks_of(layout)
                await part.wanted.wait()
                held = await self._shelf.held(wanted)
                missing = missing_chunks(wanted, held.__getitem__)
                try:
                    await self._fetcher.fetch(self._cas, plan_fetches(reconstruction, missing), part.urgency)
                    return await learn(self._shelf, layout, wanted, part.level)
                except BlocksGone as exc:
                    log.debug("looking again file=%s: %s", self._name, exc)
                except SignedUrlExpired as exc:
                    refused += 1
                    if refused > (URL_REFRESHES_MAX if exc.certain else DOUBTFUL_REFRESHES_MAX):
                        raise self._cas.refuse_for_good(exc) from None
                    self._counters.add(telemetry.CAS_URL_REFRESHES)
                    log.info("asking for fresh transfer URLs file=%s bytes=%s: %s", self._name, part.span, exc)
        finally:
            part.planned.set()
        raise Evicted(f"bytes {part.span.start}-{part.span.end} of {self._name} were evicted before they could be read")


def cut_up(gaps: Sequence[ByteRange], line: TransferLine) -> Iterator[ByteRange]:
    """Gaps in parts, those of one gap about equally long: several connections share a large window, and an early one."""
    for gap in gaps:
        count = max(1, round(len(gap) / line.part_bytes))
        if len(gap) < EARLY_BYTES <= line.window_bytes_max:
            count = max(count, min(EARLY_PARTS, len(gap) // EARLY_PART_BYTES_MIN, line.transfers_of(EARLY_PART_S, len(gap))))
        for i in range(count):
            yield ByteRange(gap.start + len(gap) * i // count, gap.start + len(gap) * (i + 1) // count)


def _touches(span: ByteRange, gaps: Sequence[ByteRange]) -> bool:
    return any(span.start < gap.end and gap.start < span.end for gap in gaps)


def subtract(gaps: Sequence[ByteRange], covered: Sequence[ByteRange]) -> list[ByteRange]:
    """What of `gaps` lies in none of `covered`, which is in order."""
    rest = []
    for gap in gaps:
        at = gap.start
        for span in covered:
            if at < span.start < gap.end:
                rest.append(ByteRange(at, span.start))
            if span.start < gap.end:
                at = max(at, span.end)
        if at < gap.end:
            rest.append(ByteRange(at, gap.end))
    return rest
