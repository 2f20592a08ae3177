"""The body of an answer, while it comes.

It is taken piece by piece, or filled into a buffer, by the one task that asked for it, inside the `async with` of its request.
Silence, or a trickle, for much longer than usual is given up (net/latency.py) and reported to the pool, whose idle connections
may be as dead. What is left unread when the request ends is read if it is short; otherwise its connection is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import httpx
import trio

from xetfs.errors import ProtocolViolation, TimedOut, Unavailable, XetfsError
from xetfs.net.failures import error_of_exception
from xetfs.net.http1 import Body
from xetfs.net.latency import Kind
from xetfs.net.pool import OriginPool
from xetfs.net.writers import Writer, write
from xetfs.telemetry import NET_BYTES, Counters

TRICKLE_BYTES_MIN: Final = 4096
"""Bytes that must come within the time of a stall; a server that sends one byte a second stalls no less than a silent one."""
REST_BYTES_MAX: Final = 64 * 1024
REST_TIMEOUT_S: Final = 1.0
"""What of an unwanted body is read to save a connection: less than a new one, and its TLS handshake, would cost."""


class Download:
    """The body of one streamed answer, to be taken by one task, once. Status and headers are there at once."""

    def __init__(
        self,
        response: httpx.Response,
        url: str,
        what: str,
        pool: OriginPool,
        kind: Kind,
        counters: Counters,
        *,
        stall_timeout_s: float,
        silence_s: float,
    ) -> None:
        """stall_timeout_s: the silence that is a stall, as in the request; silence_s: that before the headers came."""
        self.status = response.status_code
        self.headers = response.headers
        self.url = url
        self.what = what
        self._pool = pool
        self._latency = pool.latency[kind]
        self.counters = counters
        assert isinstance(response.stream, Body)
        self._body = response.stream
        self._received = 0
        self._stall_timeout_s = stall_timeout_s
        self._start = trio.current_time()
        self._silence_s = silence_s
        self._window_end = self._start + stall_timeout_s
        self._window_bytes = 0

    @property
    def announced_length(self) -> int | None:
        """Content-Length, or None where there is none."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else None

    def __repr__(self) -> str:
        return f"Download({self.status}, {self.what})"

    async def receive(self) -> bytes:
        """The next piece of the body, of any length; b"" at its end. Raises Unavailable if it breaks off or stalls."""
        since = trio.current_time()
        with self._translated():
            piece = await self._body.receive()
        self._note(len(piece), since)
        return piece

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as exc:
            if isinstance(exc, httpx.TimeoutException):
                self._pool.note_stall(self._stall_timeout_s)
            raise error_of_exception(exc, self.what) from None

    def _note(self, count: int, since: float) -> None:
        """Count bytes received, 0 at the end of the body, and check for a trickle. since: when the wait for them began."""
        now = trio.current_time()
        self._silence_s = max(self._silence_s, now - since)
        self._received += count
        self.counters.add(NET_BYTES, count)
        if count:
            self._watch(count, now)
        else:
            self._latency.note_silence(self._silence_s)
            self._latency.note_body(self._received, now - self._start)

    async def finish(self) -> None:
        """Read what is left if it is short, so that the connection can be used again: a redirect's or an error's body, say."""
        length = self.announced_length
        if not self._body.ended and length is not None and length - self._received <= REST_BYTES_MAX:
            with trio.move_on_after(REST_TIMEOUT_S), suppress(XetfsError):
                while await self.receive():
                    pass

    def _watch(self, count: int, now: float) -> None:
        self._window_bytes += count
        if now >= self._window_end:
            if self._window_bytes < TRICKLE_BYTES_MIN:
                self._pool.note_stall(self._stall_timeout_s)
                raise TimedOut(f"{self.what}: the server sends too slowly")
            self._window_end = now + self._stall_timeout_s
            self._window_bytes = 0

    async def read(self, bytes_max: int) -> bytes:
        """The whole body, at most bytes_max. Raises ProtocolViolation if there is more."""
        body = bytearray()
        while piece := await self.receive():
            body += piece
            if len(body) > bytes_max:
                raise ProtocolViolation(f"{self.what}: the answer is longer than {bytes_max} bytes")
        return bytes(body)

    async def read_start(self, bytes_max: int) -> bytes:
        """The first bytes of the body, at most bytes_max; what follows is left unread. Raises Unavailable if it breaks off."""
        body = bytearray()
        while len(body) < bytes_max and (piece := await self.receive()):
            body += piece
        return bytes(body[:bytes_max])

    async def fill(self, writer: Writer) -> None:
        """Give `writer` the whole body, which must fill it exactly: Unavailable if it is shorter, else ProtocolViolation, both
        retryable."""
        left, excess = len(writer), False
        while left:
            if self._body.remaining == left:
                count = await self._receive_into(writer.room())
                writer.took(count)
            else:
                piece = memoryview(await self.receive())
                if not piece:
                    raise Unavailable(f"{self.what}: ended after {len(writer) - left} of {len(writer)} bytes")
                count = min(left, len(piece))
                write(writer, piece[:count])
                excess = count < len(piece)
            left -= count
        if excess or await self.receive():
            raise ProtocolViolation(f"{self.what}: more than the {len(writer)} bytes asked for", retryable=True)

    async def _receive_into(self, target: memoryview) -> int:
        since = trio.current_time()
        with self._translated():
            count = await self._body.receive_into(target)
        self._note(count, since)
        return count

    async def fill_slice(self, start: int, writer: Writer) -> None:
        """Fill `writer` from byte `start` of the body on; what follows is left unread. Unavailable if there is too little."""
        place, end = 0, start + len(writer)
        while place < end:
            piece = await self.receive()
            if not piece:
                raise Unavailable(f"{self.what}: ended after {place} of {end} bytes")
            write(writer, memoryview(piece)[max(0, start - place) : max(0, end - place)])
            place += len(piece)
