"""The bytes of a xorb from a signed URL, put where they belong as they arrive.

A signed URL allows exactly the ranges it was given for: an attempt that broke off is therefore repeated whole, not resumed. The
ranges of one URL are asked for side by side, each by a request of its own. By choice (`Settings.multirange`) they go in one
request, but then exactly as they were signed, and only where a server answers that as it should: it is tried by one request at a
time, and a server that refuses it, ignores it or garbles it is asked range by range for a while. A request that takes unusually
long gets a second one beside it.

A transfer host knows nothing of Hubs and repos, so its statuses are not believed to speak of them: a 404 or 416 is no end of
file. What a refusal means is decided in cas/refusals.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from xetfs.cas.facts import Fact, ServerFacts
from xetfs.cas.refusals import refusal_of
from xetfs.errors import ProtocolViolation, Unavailable, XetfsError
from xetfs.net.bodies import take_range
from xetfs.net.client import HttpClient
from xetfs.net.download import Download
from xetfs.net.failures import error_of_status, is_retried_status
from xetfs.net.origins import Origin
from xetfs.net.writers import Writer, write
from xetfs.protocol.multipart import MultipartParser, parse_boundary
from xetfs.protocol.ranges import HttpRange
from xetfs.protocol.reconstruction import SignedUrl
from xetfs.telemetry import CAS_FETCH_BYTES, CAS_FETCHES
from xetfs.units import KIB

log = logging.getLogger(__name__)

Part = tuple[HttpRange, Callable[[], Writer]]
"""A range, and what makes a writer for each attempt at it, as long as the range."""

RANGES_MAX: Final = 256
"""Ranges of one request: they take 5 KiB of header, and common servers take 8."""
FRAME_BYTES_MAX: Final = 1 * KIB
"""Bytes of boundary and headers allowed for each part of a multipart body."""
TRIAL_S: Final = 60.0
"""After this a first request for several ranges that has not ended no longer keeps others from trying."""


async def fetch_parts(http: HttpClient, facts: ServerFacts, url: SignedUrl, parts: Sequence[Part]) -> None:
    """Fill a writer of each part. Ranges may not overlap. After an error, or where a second request was sent beside a slow one,
    some of the writers were not filled.

    Raises SignedUrlExpired, AccessDenied, Unavailable, RateLimited, ProtocolViolation.
    """
    fetch = _Fetch(http, facts, url)
    if http.settings.net.multirange and fetch.may_ask_together(parts):
        await fetch.together(parts)
    else:
        await fetch.each(parts)
    facts.forget(fetch.origin, Fact.REFUSES_URLS)


class _Fetch:
    """The ranges of one URL that are asked for at once."""

    def __init__(self, http: HttpClient, facts: ServerFacts, url: SignedUrl) -> None:
        self.origin = Origin(url.scheme, url.host, url.port)
        self._http = http
        self._facts = facts
        self._url = url

    # Range by range

    async def each(self, parts: Sequence[Part]) -> None:
        """One request per part, side by side, no more than there may be connections. The first error ends the others."""
        if len(parts) == 1:
            await self._one(parts[0])
            return
        failures: list[XetfsError] = []
        waiting = iter(parts)

        async def work(scope: trio.CancelScope) -> None:
            try:
                for part in waiting:
                    await self._one(part)
            except XetfsError as error:
                failures.append(error)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(min(len(parts), self._http.settings.net.connections_max)):
                nursery.start_soon(work, nursery.cancel_scope)
        if failures:
            raise failures[0]

    async def _one(self, part: Part) -> None:
        await self._http.retrying(lambda number: self._attempt_one(part, number), origin=self.origin, length=len(part[0]))

    async def _attempt_one(self, part: Part, number: int) -> None:
        span, make_writer = part
        what = f"bytes {span} of a xorb at {self._url.host}"
        self._http.counters.add(CAS_FETCHES)
        headers = {"range": f"bytes={span}"}
        async with self._http.stream(self._url.reveal(), what, headers=headers, attempt=number) as download:
            _check_retried(download)
            if download.status not in (200, 206):
                raise await refusal_of(download, self._url, self._facts)
            await take_range(download, span.to_bytes(), None, make_writer())
        self._http.counters.add(CAS_FETCH_BYTES, len(span))

    # All ranges in one request

    def may_ask_together(self, parts: Sequence[Part]) -> bool:
        """True if the parts are exactly what the URL was signed for, and the server is not known to refuse that."""
        signed = self._url.ranges
        if not 1 < len(signed) <= RANGES_MAX or {span for span, _ in parts} != set(signed):
            return False
        if self._facts.holds(self.origin, Fact.SEVERAL_RANGES):
            return True
        return not any(self._facts.holds(self.origin, fact) for fact in (Fact.SINGLE_RANGES, Fact.TRIES_SEVERAL))

    async def together(self, parts: Sequence[Part]) -> None:
        """One request for all parts; range by range if the server does not answer that as it should.

        The first range goes alone then: it tells a server that refuses several ranges from a URL that it refuses.
        """
        if await self._try_together(parts):
            return
        await self.each(parts[:1])
        self._facts.forget(self.origin, Fact.SEVERAL_RANGES)
        if self._facts.note(self.origin, Fact.SINGLE_RANGES):
            log.info("several ranges in one request are refused, asking for one at a time: server=%s", self.origin)
        await self.each(parts[1:])

    async def _try_together(self, parts: Sequence[Part]) -> bool:
        length = sum(len(span) for span, _ in parts)
        places = dict(parts)
        ordered = [(span, places[span]) for span in self._url.ranges]
        self._facts.note(self.origin, Fact.TRIES_SEVERAL, lifetime_s=TRIAL_S)
        try:
            good = await self._http.retrying(
                lambda number: self._attempt_together(ordered, number), origin=self.origin, length=length
            )
        except ProtocolViolation as error:
            log.debug("several ranges in one request are garbled: %s", error)
            return False
        finally:
            self._facts.forget(self.origin, Fact.TRIES_SEVERAL)
        if good:
            self._facts.note(self.origin, Fact.SEVERAL_RANGES)
        return good

    async def _attempt_together(self, parts: Sequence[Part], number: int) -> bool:
        """One attempt at all parts in one request. False if the server refuses that, or answers otherwise than in parts."""
        spans = [span for span, _ in parts]
        what = f"{len(spans)} ranges of a xorb at {self._url.host}"
        self._http.counters.add(CAS_FETCHES)
        headers = {"range": "bytes=" + ",".join(map(str, spans))}
        async with self._http.stream(self._url.reveal(), what, headers=headers, attempt=number) as download:
            _check_retried(download)
            boundary = parse_boundary(download.headers.get("content-type", "")) if download.status == 206 else None
            if boundary is None:
                return False
            await _take_multipart(download, MultipartParser(boundary, spans), [make_writer() for _, make_writer in parts])
        self._http.counters.add(CAS_FETCH_BYTES, sum(len(span) for span, _ in parts))
        return True


async def _take_multipart(download: Download, parser: MultipartParser, writers: Sequence[Writer]) -> None:
    room = sum(map(len, writers)) + FRAME_BYTES_MAX * (len(writers) + 1)
    while data := await download.receive():
        room -= len(data)
        if room < 0:
            raise ProtocolViolation(f"{download.what}: the body is longer than its parts")
        for piece in parser.feed(data):
            write(writers[piece.part], piece.data)  # the pieces of a part come in order
    if not parser.complete:
        raise Unavailable(f"{download.what}: the body ended early")
    parser.finish()


def _check_retried(download: Download) -> None:
    if is_retried_status(download.status):
        raise error_of_status(download.status, download.headers, download.what)
