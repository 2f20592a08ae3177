"""Connected sockets, plain and under TLS, made for large bodies.

trio's own streams hand out 64 KiB, or one TLS record of 16 KiB, for each turn of the scheduler, which costs more than the bytes
themselves. Here one turn receives as much as fits into the caller's buffer, straight from the socket, and under TLS everything
that has arrived is decrypted before another task runs.

Timeouts are the caller's cancel scopes. Any cancellation leaves a stream in an unknown state, and its owner closes it; closing is
immediate. A stream is used by one task at a time. Not thread-safe.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import trio

from xetfs.net.sockets import has_way

WIRE_BYTES: Final = 512 * 1024
"""Most bytes received in one turn; measured best between 256 KiB and 1 MiB."""
RECORD_BYTES: Final = 16 * 1024
"""Longest TLS record, and so the most that one SSLObject.read returns."""
ROUTE_CHECK_AFTER_S: Final = 0.1
"""A connection that was heard from this recently is used again without asking the kernel for a route."""


class Stream(Protocol):
    """A byte stream to one server. Its methods raise OSError, ssl.SSLError included, when the connection breaks."""

    async def send_all(self, data: bytes) -> None: ...

    async def receive_into(self, target: memoryview) -> int:
        """Wait for bytes and put them at the start of `target`. Return how many, 0 at the end of the stream."""
        ...

    def wake_after(self, count: int) -> None:
        """Hint: `receive_into` may return only once `count` bytes have arrived, or the other side has closed."""
        ...

    @property
    def reusable(self) -> bool:
        """True if an idle connection can carry another request: silent, open, and with a route to the other side."""
        ...

    def close(self) -> None: ...


class PlainStream:
    """A connected, non-blocking TCP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._closed = False
        self._low_water = 1
        self._heard_at = trio.current_time()

    async def send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:
            with suppress(BlockingIOError, InterruptedError):
                rest = rest[self._sock.send(rest) :]
            if not rest:
                return
            await trio.lowlevel.wait_writable(self._sock)

    async def receive_into(self, target: memoryview) -> int:
        if self._low_water > 1:  # only waiting honours SO_RCVLOWAT: recv() takes whatever there is
            await trio.lowlevel.wait_readable(self._sock)
        else:
            await trio.lowlevel.checkpoint()
        while True:
            try:
                count = self._sock.recv_into(target)
            except (BlockingIOError, InterruptedError):
                await trio.lowlevel.wait_readable(self._sock)
            else:
                self._heard_at = trio.current_time()
                return count

    def wake_after(self, count: int) -> None:
        if count != self._low_water:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
                self._low_water = count

    @property
    def reusable(self) -> bool:
        return not self._closed and not self._readable() and self._has_way()

    def _readable(self) -> bool:
        """True if an idle connection was closed by the other side, or received what nobody asked for."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def _has_way(self) -> bool:
        """True if this machine still has the connection's address and a route; an idle connection does not notice by itself."""
        if trio.current_time() - self._heard_at < ROUTE_CHECK_AFTER_S:
            return True
        try:
            return has_way(self._sock.getsockname(), self._sock.getpeername())
        except OSError:
            return False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


class TlsStream:
    """TLS over a PlainStream."""

    def __init__(self, plain: PlainStream, wire: memoryview, context: ssl.SSLContext, hostname: str) -> None:
        """wire: scratch buffer for what arrives encrypted; an event loop's streams may share it, as no await divides its use."""
        self._plain = plain
        self._wire = wire
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)

    async def handshake(self) -> None:
        """Raises ssl.SSLError, and OSError if the connection breaks."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._exchange()
            else:
                await self._flush()
                return

    async def send_all(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def receive_into(self, target: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while (count := self._decrypt(target)) is None:
            await self._exchange()
        return count

    def wake_after(self, count: int) -> None:
        """At least `count` bytes on the wire carry as many of the body, less one record that may have been received in part."""
        self._plain.wake_after(max(1, count - RECORD_BYTES))

    @property
    def reusable(self) -> bool:
        return self._plain.reusable

    def close(self) -> None:
        """No close_notify: it could block, and nobody reads it."""
        self._plain.close()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._plain.send_all(self._outgoing.read())

    async def _exchange(self) -> None:
        """Send what TLS has to say, then wait for more from the other side."""
        await self._flush()
        count = await self._plain.receive_into(self._wire)
        if count:
            self._incoming.write(self._wire[:count])
        else:
            self._incoming.write_eof()

    def _decrypt(self, target: memoryview) -> int | None:
        """Decrypt what has arrived into `target`. None if TLS needs more from the other side, 0 at the end of the stream."""
        filled = 0
        while filled < len(target):
            try:
                count = _read_into(self._tls, target[filled : filled + RECORD_BYTES])
            except ssl.SSLWantReadError:
                return filled or None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                # Many servers close without close_notify. Truncation is judged by HTTP lengths, which every body here has.
                break
            if not count:
                break
            filled += count
        return filled


def _read_into(tls: ssl.SSLObject, buffer: memoryview) -> int:
    """SSLObject.read with a buffer, which returns a count; its published types do not know that form."""
    read: Callable[[int, memoryview], int] = tls.read  # type: ignore[assignment]
    return read(len(buffer), buffer)
