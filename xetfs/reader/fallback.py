"""Files in Xet through the Hub's resolve route, while the CAS is not to be had.

The Hub serves every file at `/resolve/`, by ranges, whether it is in Xet or not. A mirror may know nothing of Xet, a firewall may
block the CAS or the host that it sends to, a CAS may refuse a token: then the bytes come that way (as huggingface_hub takes them
when HF_HUB_DISABLE_XET is set). No part of what comes that way can be proven; a file that has become known whole is
checked against its SHA-256 (whole.py).

What counts: the CAS, its token or its data is refused or missing, or cannot be reached, or fails until the attempts are used up.
What does not: bytes, proofs or plans that are *wrong*. Whoever sends those could then choose the weaker check, so they fail the
read. With `--verify proof` there is no fallback, since nothing could be given out.

A detour lasts DETOUR_S: until then nobody waits for the CAS again. Then one window tries it, and the others follow if it works.

A file may be known partly in chunks of the CAS and partly in pieces of the resolve route. A chunk may end within a piece, and a
map holds no two answers about one byte. So pieces are cut where chunks are known, and where chunks arrive, pieces yield to them.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Final

import trio

from xetfs import telemetry
from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    CorruptData,
    NotFound,
    Offline,
    ProtocolViolation,
    RateLimited,
    Unavailable,
    XetfsError,
)
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.budget import Urgency
from xetfs.reader.filemap import FileMap, Level, Run, at_least_framing
from xetfs.reader.sources import Names, OnCovered, PlainSource, Source, Verify
from xetfs.telemetry import Counters

log = logging.getLogger(__name__)

DETOUR_S: Final = 300.0
"""How long the CAS is not asked again: at most one failing attempt in this time, and soon enough for an outage of minutes."""
TRIAL_S: Final = 30.0
"""How long one window has the trial to itself; it ends within the deadline of an operation."""
DETOURS_MAX: Final = 1000
"""Files, repos and servers that are remembered; beyond that the oldest are asked again."""
_FAILURES: Final = (AccessDenied, AuthRequired, NotFound, Offline, ProtocolViolation, RateLimited, Unavailable)
_OF_A_FILE: Final = (AccessDenied, NotFound, ProtocolViolation)


@dataclass(frozen=True, slots=True)
class Places:
    """What a failure may be about: this file, its repo, the CAS that the repo's token names (None before the first token)."""

    file: str
    repo: str
    cas: str | None


@dataclass(slots=True)
class _Detour:
    reason: str
    until_s: float


class Detours:
    """Which files, repos and servers are read through the resolve route, and until when. One per engine."""

    def __init__(self, *, xet: bool = True) -> None:
        """xet: False if the CAS is never to be asked."""
        self._xet = xet
        self._detours: dict[str, _Detour] = {}
        self._told: set[str] = set()

    def on(self, places: Places) -> bool:
        """Whether the resolve route is what is read now."""
        now = trio.current_time()
        return not self._xet or any(detour.until_s > now for detour in self._at(places))

    def take(self, places: Places) -> bool:
        """The same, for whoever loads a window next. When a detour is over, False is for one of them, who tries the CAS."""
        if self.on(places):
            return True
        for detour in self._at(places):
            detour.until_s = trio.current_time() + TRIAL_S
        return False

    def note_success(self, places: Places) -> None:
        """The CAS has served a window."""
        for place in (places.file, places.repo, places.cas):
            if place is not None and self._detours.pop(place, None) is not None:
                log.info("reading from the CAS again where=%s", place)

    def note_failure(self, places: Places, error: XetfsError) -> None:
        """The CAS has not served a window, and the resolve route has."""
        if not self._xet:
            return
        place = self._place_of(error, places)
        wait_s = error.retry_after_s if isinstance(error, RateLimited | Unavailable) else None
        self._detours.pop(place, None)
        self._detours[place] = _Detour(str(error), trio.current_time() + max(DETOUR_S, wait_s or 0.0))
        if len(self._detours) > DETOURS_MAX:
            del self._detours[next(iter(self._detours))]
        told = places.cas if place == places.cas and places.cas is not None else places.repo
        level = logging.DEBUG if told in self._told else logging.WARNING
        self._told.add(told)
        log.log(level, "not to be had from the CAS, read through the Hub instead, without proof where=%s: %s", place, error)

    def reasons(self) -> Mapping[str, str]:
        """For each file, repo and server that is read through the resolve route, why."""
        if not self._xet:
            return {"all": "Xet is disabled (HF_HUB_DISABLE_XET)"}
        now = trio.current_time()
        return {place: detour.reason for place, detour in self._detours.items() if detour.until_s > now}

    def _at(self, places: Places) -> list[_Detour]:
        found = (self._detours.get(place) for place in (places.file, places.repo, places.cas) if place is not None)
        return [detour for detour in found if detour is not None]

    def _place_of(self, error: XetfsError, places: Places) -> str:
        if places.cas is None:
            return places.repo
        return places.file if isinstance(error, _OF_A_FILE) else places.cas


@dataclass(slots=True)
class Pieces:
    """known: whether the map of a content may hold pieces."""

    known: bool = False


class FallbackSource:
    """A file in Xet: from the CAS, or through the Hub's resolve route while that is not to be had."""

    def __init__(
        self,
        xet: Source,
        plain: PlainSource,
        detours: Detours,
        places: Callable[[], Places],
        counters: Counters,
        *,
        size: int,
        verify: Verify,
        pieces: Pieces | None = None,
    ) -> None:
        """xet, plain: sources of the same file. places: what a failure now would be about. pieces: those of the content, which
        may have other sources."""
        self.key = xet.key
        self.names = xet.names
        self._xet = xet
        self._plain = plain
        self._detours = detours
        self._places = places
        self._counters = counters
        self._size = size
        self._verify = verify
        self._pieces = pieces or Pieces()

    def names_of(self, runs: Iterable[Run]) -> Names:
        """Without the file id if some of the runs are pieces: that one is the root over the chunks of the CAS."""
        if self._pieces.known and any(self._plain.made(run) for run in runs):
            return replace(self.names, file=None)
        return self.names

    def recall(self, runs: list[Run]) -> list[Run]:
        pieces = [run for run in runs if self._plain.made(run)]
        self._pieces.known = self._pieces.known or bool(pieces)
        chunks = [run for run in runs if not self._plain.made(run)] if pieces else runs
        return sorted([*self._plain.recall(pieces), *self._xet.recall(chunks)], key=lambda run: run.start)

    async def prepare(self) -> None:
        if not self._detours.on(self._places()):
            await self._xet.prepare()

    async def check_right(self) -> None:
        if self._detours.on(self._places()):
            return await self._plain.check_right()
        try:
            await self._xet.check_right()
        except _FAILURES as failure:
            try:
                await self._plain.check_right()
            except XetfsError:
                raise failure from None

    async def load(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        if self._detours.take(self._places()):
            return await self._load_plain(span, known, urgency, on_covered)
        try:
            runs = await self._load_xet(span, known, urgency, on_covered)
        except _FAILURES as exc:
            if self._verify == "proof" or (isinstance(exc, ProtocolViolation) and not exc.refused):
                raise
            if isinstance(exc, RateLimited) and not urgency.demand:
                raise  # nobody waits, so there is time to do what the server asks
            failure = exc
        else:
            self._detours.note_success(self._places())
            return runs
        try:
            runs = await self._load_plain(span, known, urgency, on_covered)
        except XetfsError as exc:
            raise _with_both(failure, exc) from None
        self._detours.note_failure(self._places(), failure)
        return runs

    async def _load_plain(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        """Load a part of `span`, from its start on: what an earlier mount left of it, or what is not known of it."""
        proven_only = self._verify == "proof"
        gaps = known.gaps(span, Level.FILE if proven_only else Level.RECALLED)
        if not gaps or gaps[0].start > span.start:
            left = ByteRange(span.start, gaps[0].start if gaps else span.end)
            on_covered(left)
            return known.within(left) if proven_only else at_least_framing(known.within(left))
        self._pieces.known = True
        runs = await self._plain.load(gaps[0], known, urgency, on_covered)
        self._counters.add(telemetry.READER_FALLBACK_WINDOWS)
        # Chunks may have become known meanwhile; those stay.
        return [part for run in runs for part in _outside(run, known.within(ByteRange(run.start, run.end)), Level.RECALLED)]

    async def _load_xet(self, span: ByteRange, known: FileMap, urgency: Urgency, on_covered: OnCovered) -> list[Run]:
        if not self._pieces.known:
            try:
                runs = await self._xet.load(span, known, urgency, on_covered)
            except CorruptData:
                if not self._pieces.known:
                    raise
            else:
                return self._over_pieces(runs, known) if self._pieces.known else runs
        # No proof and no plan knows of pieces.
        chunks = FileMap(self._size)
        chunks.add(run for run in known.runs() if not self._plain.made(run))
        before = chunks.runs()
        try:
            runs = await self._xet.load(span, chunks, urgency, on_covered)
        finally:
            for run in before:
                for gap in chunks.gaps(ByteRange(run.start, run.end)):
                    known.forget(gap)  # what it has found to be false
        return self._over_pieces(runs, known)

    def _over_pieces(self, runs: list[Run], known: FileMap) -> list[Run]:
        """Runs of chunks as they can be added to a map: pieces under them are forgotten, unless they are surer."""
        kept: list[Run] = []
        for run in runs:
            span = ByteRange(run.start, run.end)
            for piece in known.within(span):
                if self._plain.made(piece) and Level.FRAMING <= run.level >= piece.level:
                    known.forget(ByteRange(max(piece.start, run.start), min(piece.end, run.end)))
            kept += _outside(run, [piece for piece in known.within(span) if self._plain.made(piece)], Level.FRAMING)
        return kept


def _with_both(failure: XetfsError, of_hub: XetfsError) -> XetfsError:
    """The error of the CAS, which decides the errno, with that of the Hub in its message: either may be the one to mend."""
    both = copy(failure)
    both.message = f"{failure}; and through the Hub: {of_hub.message}"
    both.hint = of_hub.hint if of_hub.hint != failure.hint else ""
    return both


def _outside(run: Run, others: list[Run], level: Level) -> list[Run]:
    """The parts of a run none of whose chunks overlaps one of `others` (in order) of another xorb, as sure as `level`."""
    parts: list[Run] = []
    first, count = 0, len(run.ends)
    for other in others:
        if other.level < level or other.xorb == run.xorb or other.end <= run.chunk_start(first):
            continue
        until = min(bisect_right(run.ends, other.start), count)
        if first < until:
            parts.append(run.part(first, until))
        first = bisect_right(run.ends, other.end - 1) + 1
        if first >= count:
            return parts
    return [*parts, run.part(first, count)] if first else [run]
