"""One HTTP/1.1 exchange after another over one stream.

h11 parses heads and chunked bodies. A body with a Content-Length needs no parsing, so once the head is read its bytes go from the
socket straight into the reader's buffer: h11 copies a body several times, which costs more than receiving it. Every exchange has
an h11 connection of its own, which is cheap, so that nothing depends on where the last one stopped.

A connection is kept for another request only if its answer was read to the end and both sides allow it. Anything else (an error,
a cancellation, a body left unread) closes it. Source: RFC 9112 §6, §9.3; h11's documentation, "trailing_data".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import h11
import httpx
import trio

from xetfs.net.streams import Stream

HEAD_BYTES_MAX: Final = 100 * 1024
"""Longest response head. A signed redirect takes 4 KiB; h11's default of 16 KiB is too tight for some proxies."""
HEAD_RECEIVE_BYTES: Final = 16 * 1024
"""Most bytes received in one turn while a head is awaited: what comes with it of a body is copied once more than the rest."""
WAKE_S: Final = 0.02
"""How often the event loop wakes for a body, about: fewer wake-ups move the same bytes for less CPU."""
WAKE_BYTES_FIRST: Final = 64 * 1024
WAKE_BYTES_MAX: Final = 512 * 1024
"""More than this the kernel may not buffer for a connection."""


class Connection:
    """One stream and the exchange on it. Not thread-safe; used by one task at a time."""

    def __init__(self, stream: Stream, wire: memoryview) -> None:
        """wire: scratch buffer that the connections of an event loop share; no await divides its use."""
        self.used_at = trio.current_time()
        self._stream = stream
        self._wire = wire

    @property
    def reusable(self) -> bool:
        return self._stream.reusable

    async def send(self, request: h11.Request) -> tuple[h11.Response, Framing]:
        """Send a request without a body; return the head of its answer and how the body is framed.

        Raises OSError if the connection breaks, h11.RemoteProtocolError if the answer is not HTTP or ends within its head.
        """
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        head = parser.send(request) or b""
        parser.send(h11.EndOfMessage())
        await self._stream.send_all(head)
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                if not await self._feed(parser, HEAD_RECEIVE_BYTES):
                    raise ConnectionResetError("the server closed the connection without an answer")
            elif isinstance(event, h11.Response):
                return event, Framing(request.method, event, parser)

    async def receive_parsed(self, parser: h11.Connection) -> bytes:
        """The next piece of a body whose end only the parser knows; b"" at its end. Raises as `send`."""
        while (event := parser.next_event()) is h11.NEED_DATA:
            await self._feed(parser, len(self._wire))
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _feed(self, parser: h11.Connection, bytes_max: int) -> int:
        count = await self._stream.receive_into(self._wire[:bytes_max])
        parser.receive_data(bytes(self._wire[:count]))
        return count

    async def receive_into(self, target: memoryview, *, wake_bytes: int) -> int:
        """Put bytes of the body at the start of `target`; return how many, 0 at the end of the stream. Raises OSError.

        wake_bytes: about as many should be there before the event loop is woken.
        """
        self._stream.wake_after(min(len(target), wake_bytes))
        try:
            return await self._stream.receive_into(target)
        finally:
            self._stream.wake_after(1)  # the next exchange may wait for less

    @contextmanager
    def guarded(self, timeout_s: float) -> Iterator[None]:
        """Bound a part of an exchange, and raise httpx's errors. Any error, a cancellation too, closes the connection."""
        try:
            with trio.fail_after(timeout_s):
                yield
        except BaseException as exc:
            self.close()
            match exc:
                case trio.TooSlowError():
                    raise httpx.ReadTimeout("no answer in time") from None
                case OSError():
                    raise httpx.ReadError(str(exc)) from exc
                case h11.RemoteProtocolError():
                    raise httpx.RemoteProtocolError(str(exc)) from exc
            raise

    def close(self) -> None:
        self._stream.close()


class Framing:
    """Where the body of one answer ends, and what of it has come with the head."""

    def __init__(self, method: bytes, response: h11.Response, parser: h11.Connection) -> None:
        fields = dict(response.headers)
        chunked, length = b"transfer-encoding" in fields, fields.get(b"content-length")
        if method == b"HEAD" or response.status_code in (204, 304):
            chunked, length = False, b"0"
        self.parser = parser
        self.remaining = None if chunked or length is None else int(length)
        """Bytes of the body that nobody has taken yet; None if the parser must find its end."""
        self.early = memoryview(parser.trailing_data[0] if self.remaining is not None else b"")
        """Those of them that came with the head."""
        options = fields.get(b"connection", b"").lower()
        self.persistent = (chunked or length is not None) and response.http_version >= b"1.1" and b"close" not in options


class Body(httpx.AsyncByteStream):
    """The body of one answer, taken by one task, once: in pieces, or received into a buffer.

    Raises httpx.ReadTimeout after `stall_timeout_s` of silence, httpx.ReadError if the connection breaks,
    httpx.RemoteProtocolError if the body ends early or is not HTTP. After an error, or if it is closed before its end, its
    connection is closed.
    """

    def __init__(
        self, connection: Connection, framing: Framing, *, stall_timeout_s: float, release: Callable[[Connection], None]
    ) -> None:
        """release: takes the connection back when it can carry another request."""
        self._connection = connection
        self._framing = framing
        self._stall_timeout_s = stall_timeout_s
        self._release = release
        self._ended = False
        self._wake_bytes = WAKE_BYTES_FIRST
        if framing.remaining == 0:
            self._end()

    @property
    def ended(self) -> bool:
        """True once the body was read to its end, or its connection closed."""
        return self._ended

    @property
    def remaining(self) -> int | None:
        """Bytes of the body that nobody has taken yet, or None if its length is unknown."""
        return self._framing.remaining

    async def receive(self) -> bytes:
        """The next piece of the body, of any length; b"" at its end."""
        if self._ended:
            return b""
        if self._framing.remaining is not None:
            piece = memoryview(bytearray(min(self._framing.remaining, WAKE_BYTES_MAX)))
            return bytes(piece[: await self.receive_into(piece)])
        with self._guarded():
            data = await self._connection.receive_parsed(self._framing.parser)
        if not data:
            self._end()
        return data

    async def receive_into(self, target: memoryview) -> int:
        """Put the next bytes of a body of known length at the start of `target`; return how many.

        target: not empty, and no longer than what remains.
        """
        framing = self._framing
        assert framing.remaining is not None
        if framing.early:
            count = min(len(framing.early), len(target))
            target[:count] = framing.early[:count]
            framing.early = framing.early[count:]
        else:
            count = await self._receive_into(target)
        framing.remaining -= count
        if not framing.remaining:
            self._end()
        return count

    async def _receive_into(self, target: memoryview) -> int:
        began = trio.current_time()
        with self._guarded():
            count = await self._connection.receive_into(target, wake_bytes=self._wake_bytes)
            if not count:
                raise h11.RemoteProtocolError("the connection closed within the body")
        waited_s = trio.current_time() - began
        if waited_s < WAKE_S:
            self._wake_bytes = min(2 * self._wake_bytes, WAKE_BYTES_MAX)
        elif waited_s > 2 * WAKE_S:
            self._wake_bytes = max(self._wake_bytes // 2, 1)
        return count

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self._connection.guarded(self._stall_timeout_s):
                yield
        except BaseException:
            self._ended = True
            raise

    def _end(self) -> None:
        self._ended = True
        if self._framing.persistent and not self._framing.early:
            self._release(self._connection)
        else:
            self._connection.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.receive():
            yield piece

    async def aclose(self) -> None:
        if not self._ended:
            self._ended = True
            self._connection.close()
