"""The bytes of a xorb from a signed URL, put where they belong as they arrive.

A signed URL allows exactly the ranges it was given for: an attempt that broke off is therefore repeated whole, not resumed.
Several ranges go in one request; a server that answers that with something else than multipart/byteranges is asked for one range
at a time from then on. A request that takes unusually long gets a second one beside it. A transfer host knows nothing of Hubs and
repos, so its statuses are not believed to speak of them: a 404 or 416 is no end of file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from xetfs.cas.facts import Fact, ServerFacts
from xetfs.errors import ProtocolViolation, SignedUrlExpired, Unavailable, XetfsError
from xetfs.net.bodies import take_range
from xetfs.net.client import HttpClient
from xetfs.net.download import Download
from xetfs.net.failures import error_of_status, is_retried_status
from xetfs.net.origins import Origin
from xetfs.protocol.multipart import MultipartParser, parse_boundary
from xetfs.protocol.ranges import HttpRange
from xetfs.protocol.reconstruction import SignedUrl
from xetfs.settings import KIB
from xetfs.telemetry import CAS_FETCH_BYTES, CAS_FETCHES

log = logging.getLogger(__name__)

Part = tuple[HttpRange, memoryview]

RANGES_MAX: Final = 256
"""Ranges of one request: they take 5 KiB of header, and common servers take 8."""
FRAME_BYTES_MAX: Final = 1 * KIB
"""Bytes of boundary and headers allowed for each part of a multipart body."""


async def fetch_parts(http: HttpClient, facts: ServerFacts, url: SignedUrl, parts: Sequence[Part]) -> None:
    """Fill each part's buffer, which is as long as its range. Ranges may not overlap. After an error the buffers are undefined.

    Raises SignedUrlExpired (403), Unavailable, RateLimited, ProtocolViolation.
    """
    for span, into in parts:
        if len(span) != len(into):
            raise ValueError(f"{len(into)} bytes of room for {span}")
    origin = Origin(url.scheme, url.host, url.port)
    if 1 < len(parts) <= RANGES_MAX and not facts.holds(origin, Fact.SINGLE_RANGES):
        length = sum(len(span) for span, _ in parts)
        if await http.retrying(lambda number: http.hedged(origin, length, lambda: _fetch_multipart(http, url, parts, number))):
            return
        facts.note(origin, Fact.SINGLE_RANGES)
        log.debug("asking for one range at a time from now on: origin=%s", origin)
    await _fetch_each(http, url, origin, parts)


async def _fetch_each(http: HttpClient, url: SignedUrl, origin: Origin, parts: Sequence[Part]) -> None:
    """One request per part, side by side as far as the origin's places go. The first error ends the others."""

    async def fetch_one(part: Part) -> None:
        await http.retrying(lambda number: http.hedged(origin, len(part[0]), lambda: _fetch_single(http, url, part, number)))

    if len(parts) == 1:
        await fetch_one(parts[0])
        return
    failures: list[XetfsError] = []

    async def fetch(part: Part) -> None:
        try:
            await fetch_one(part)
        except XetfsError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for part in parts:
            nursery.start_soon(fetch, part)
    if failures:
        raise failures[0]


async def _fetch_single(http: HttpClient, url: SignedUrl, part: Part, number: int) -> None:
    span, into = part
    what = f"bytes {span} of a xorb at {url.host}"
    http.counters.add(CAS_FETCHES)
    async with http.stream(url.reveal(), what, headers={"range": f"bytes={span}"}, attempt=number) as download:
        _check_status(download)
        await take_range(download, span.to_bytes(), None, into)
    http.counters.add(CAS_FETCH_BYTES, len(into))


async def _fetch_multipart(http: HttpClient, url: SignedUrl, parts: Sequence[Part], number: int) -> bool:
    """One attempt at all parts in one request. False if the server does not do that."""
    spans = [span for span, _ in parts]
    what = f"{len(spans)} ranges of a xorb at {url.host}"
    http.counters.add(CAS_FETCHES)
    headers = {"range": "bytes=" + ",".join(map(str, spans))}
    async with http.stream(url.reveal(), what, headers=headers, attempt=number) as download:
        if download.status in (400, 416, 501):  # some servers refuse several ranges rather than ignore them
            return False
        _check_status(download)
        boundary = parse_boundary(download.headers.get("content-type", "")) if download.status == 206 else None
        if boundary is None:
            return False
        await _take_multipart(download, MultipartParser(boundary, spans), [into for _, into in parts])
    http.counters.add(CAS_FETCH_BYTES, sum(len(into) for _, into in parts))
    return True


async def _take_multipart(download: Download, parser: MultipartParser, buffers: Sequence[memoryview]) -> None:
    room = sum(map(len, buffers)) + FRAME_BYTES_MAX * (len(buffers) + 1)
    while data := await download.receive():
        room -= len(data)
        if room < 0:
            raise ProtocolViolation(f"{download.what}: the body is longer than its parts")
        for piece in parser.feed(data):
            buffers[piece.part][piece.offset : piece.offset + len(piece.data)] = piece.data
    if not parser.complete:
        raise Unavailable(f"{download.what}: the body ended early")
    parser.finish()


def _check_status(download: Download) -> None:
    if download.status in (200, 206):
        return
    if download.status == 403:
        raise SignedUrlExpired(f"{download.what}: the signed URL is not valid any more (403)")
    if is_retried_status(download.status):
        raise error_of_status(download.status, download.headers, download.what)
    raise ProtocolViolation(f"{download.what}: refused ({download.status})")
