"""The lowest layer: sockets under httpcore, made for large bodies and for many cancellations.

Large receives. httpcore asks for 64 KiB at a time, and trio's TLS hands out one 16 KiB record per turn of the scheduler; both
cost more than the bytes themselves. Here one turn receives up to RECEIVE_BYTES, and under TLS everything that has arrived is
decrypted before anybody else runs. All connections of a backend share its two buffers: what `read` returns is a view into one of
them, valid until the reader's next await. httpcore hands it to h11, which copies it at once.

Cancellation. httpcore loses a place in its pool for ever when a request is cancelled while it opens (encode/httpcore #1093,
#961, #830). So the opening runs shielded in a task of its own, and an `Opening` says from outside when it must end: the socket
operation under way then fails like a broken connection, which httpcore handles well. See pool.py.

Who runs: one event loop. A stream is used by one task at a time (HTTP/1.1 takes turns); nothing here is for threads.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpcore
import trio

from xetfs.net.sockets import connect_any, has_way

RECEIVE_BYTES = 512 * 1024
"""Most bytes received in one turn; measured best between 256 KiB and 1 MiB."""
RECORD_BYTES = 16 * 1024
"""Longest TLS record, and so the most that one SSLObject.read gives."""
HEAD_BYTES = 16 * 1024
"""Most bytes received in one turn while headers are awaited: what comes with them of a body is copied more often than the
rest."""
SURE_S = 0.1
"""How long after bytes have come on a connection nobody asks whether there still is a way to the other side."""

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Why a connection may not be made that has nothing to do with the other side, nor with the way there."""

CheckAddresses = Callable[[str, int, Sequence[str]], None]
"""Given host, port and its resolved addresses, raises if one of them must not be connected to."""


class Unreached(httpcore.ConnectError):
    """Nobody is there: refused, no route, no such name. Other ConnectErrors come from what an open connection brought."""


class Unanswered(httpcore.ConnectTimeout):
    """The same, for want of any answer in all the time that a connection was given."""


class Opening:
    """One request on its way until its headers are there: by when that must be, and whether anybody still wants it."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.aborted = False
        self._scope: trio.CancelScope | None = None

    def abort(self) -> None:
        """Make the socket operation under way, and any later one, fail at once."""
        self.aborted = True
        if self._scope is not None:
            self._scope.cancel()


OPENING: ContextVar[Opening | None] = ContextVar("xetfs_net_opening", default=None)
"""Set in the task that opens a request, and only there."""


@dataclass(frozen=True, slots=True, eq=False)
class Buffers:
    """What the connections of one backend receive into: bytes as they come, and decrypted ones."""

    wire: memoryview = field(default_factory=lambda: memoryview(bytearray(RECEIVE_BYTES)))
    clear: memoryview = field(default_factory=lambda: memoryview(bytearray(RECEIVE_BYTES)))


@contextmanager
def _bounded(timeout: float | None, error: type[Exception]) -> Iterator[None]:
    """Run one socket operation; `error` if it takes longer than `timeout`, or than the request that is being opened may."""
    opening = OPENING.get()
    deadline = trio.current_time() + (math.inf if timeout is None else timeout)
    with trio.CancelScope(deadline=deadline) as scope:
        if opening is not None:
            scope.deadline = min(deadline, opening.deadline)
            opening._scope = scope
            if opening.aborted:
                scope.cancel()
        try:
            yield
        finally:
            if opening is not None:
                opening._scope = None
    if scope.cancelled_caught:
        raise error("given up" if opening is not None and opening.aborted else "no answer in time")


class PlainStream(httpcore.AsyncNetworkStream):
    """A connected TCP socket. Closing is immediate."""

    def __init__(self, sock: socket.socket, buffers: Buffers) -> None:
        self._sock = sock
        self._buffers = buffers
        self._closed = False
        self._low_water = 1
        self._heard_at = trio.current_time()

    async def receive_some(self, target: memoryview) -> int:
        """Wait for bytes and put them into `target`; 0 at the end of the stream. No await after the bytes are there."""
        while True:
            if self._low_water > 1:  # which only waiting goes by: receiving takes what there is
                await trio.lowlevel.wait_readable(self._sock)
            else:
                await trio.lowlevel.checkpoint()
            try:
                count = self._sock.recv_into(target)
            except (BlockingIOError, InterruptedError):
                await trio.lowlevel.wait_readable(self._sock)
            else:
                self._heard_at = trio.current_time()
                return count

    def wait_for_at_least(self, count: int) -> None:
        """Wake up only when that many bytes have arrived, or the other side has closed: fewer turns for the same bytes."""
        if count != self._low_water:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
                self._low_water = count

    async def send_all(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            await trio.lowlevel.checkpoint()
            try:
                rest = rest[self._sock.send(rest) :]
            except (BlockingIOError, InterruptedError):
                await trio.lowlevel.wait_writable(self._sock)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Whatever has arrived, up to RECEIVE_BYTES: `max_bytes` is httpcore's habit, not a need of its parser."""
        target = self._buffers.wire if OPENING.get() is None else self._buffers.wire[:HEAD_BYTES]
        count = await self.receive_into(target, timeout)
        return self._buffers.wire[:count] if count else b""  # type: ignore[return-value]  # h11 takes any buffer

    async def receive_into(self, target: memoryview, timeout: float | None) -> int:
        """Whatever has arrived and fits, put into `target`; 0 at the end of the stream. Raises httpcore's errors."""
        try:
            with _bounded(timeout, httpcore.ReadTimeout):
                return await self.receive_some(target)
        except (OSError, trio.ClosedResourceError) as exc:
            raise httpcore.ReadError(str(exc)) from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            with _bounded(timeout, httpcore.WriteTimeout):
                await self.send_all(buffer)
        except (OSError, trio.ClosedResourceError) as exc:
            raise httpcore.WriteError(str(exc)) from exc

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        stream = TlsStream(self, self._buffers, ssl_context, server_hostname)
        try:
            with _bounded(timeout, httpcore.ConnectTimeout):
                await stream.handshake()
        except (OSError, ssl.CertificateError, trio.ClosedResourceError) as exc:  # ssl.SSLError is an OSError
            await self.aclose()
            raise httpcore.ConnectError(str(exc)) from exc
        except BaseException:
            await self.aclose()
            raise
        return stream

    def _has_way(self) -> bool:
        """Whether this machine still has the connection's address and a route to the other side; a connection says nothing of it
        by itself, and is silent until it is given up."""
        return trio.current_time() - self._heard_at < SURE_S or has_way(self._sock.getsockname(), self._sock.getpeername())

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # which httpcore asks before it uses an idle connection, and closes it if so
            return self._closed or _poll_readable(self._sock) or not self._has_way()
        if info == "socket":
            return self._sock
        if info == "client_addr":
            return self._sock.getsockname()
        if info == "server_addr":
            return self._sock.getpeername()
        return None


class TlsStream(httpcore.AsyncNetworkStream):
    """TLS over a PlainStream, decrypting all that one receive brought before anybody else runs."""

    def __init__(self, plain: PlainStream, buffers: Buffers, context: ssl.SSLContext, hostname: str | None) -> None:
        self._plain = plain
        self._wire = buffers.wire
        self._clear = buffers.clear
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._exchange()
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._plain.send_all(self._outgoing.read())

    async def _exchange(self) -> None:
        """Send what TLS wants to say, then wait for more from the other side."""
        await self._flush()
        count = await self._plain.receive_some(self._wire)
        if count:
            self._incoming.write(self._wire[:count])
        else:
            self._incoming.write_eof()

    def _decrypt(self, target: memoryview) -> int | None:
        """Decrypt what is at hand into `target`. None if TLS needs more from the other side, 0 at the end of the stream."""
        filled = 0
        while filled < len(target):
            try:
                count = _read_into(self._tls, target[filled:])
            except ssl.SSLWantReadError:
                return filled or None
            except ssl.SSLZeroReturnError:
                break
            except ssl.SSLEOFError:
                # Many servers close without close_notify. Truncation is judged by HTTP lengths, which everything here has.
                break
            if not count:
                break
            filled += count
        return filled

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        target = self._clear if OPENING.get() is None else self._clear[:HEAD_BYTES]
        count = await self.receive_into(target, timeout)
        return self._clear[:count] if count else b""  # type: ignore[return-value]

    def wait_for_at_least(self, count: int) -> None:
        """Nothing to do: how many bytes on the wire bring `count` is not known, and waiting for one too many would not end."""

    async def receive_into(self, target: memoryview, timeout: float | None) -> int:
        """As PlainStream.receive_into."""
        try:
            with _bounded(timeout, httpcore.ReadTimeout):
                await trio.lowlevel.checkpoint()
                while (count := self._decrypt(target)) is None:
                    await self._exchange()
                return count
        except (OSError, trio.ClosedResourceError) as exc:
            raise httpcore.ReadError(str(exc)) from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            with _bounded(timeout, httpcore.WriteTimeout):
                self._tls.write(buffer)
                await self._flush()
        except (OSError, trio.ClosedResourceError) as exc:
            raise httpcore.WriteError(str(exc)) from exc

    async def aclose(self) -> None:
        """No close_notify: it could block, and nobody reads it."""
        await self._plain.aclose()

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._tls
        return self._plain.get_extra_info(info)


def _read_into(tls: ssl.SSLObject, buffer: memoryview) -> int:
    """SSLObject.read with a buffer, which answers with a count; its published types know neither."""
    read: Callable[[int, memoryview], int] = tls.read  # type: ignore[assignment]
    return read(min(RECORD_BYTES, len(buffer)), buffer)


class Backend(httpcore.AsyncNetworkBackend):
    """Makes connections, to allowed addresses only: a name is resolved once, judged, and connected to as judged."""

    def __init__(self, check_addresses: CheckAddresses) -> None:
        self._check_addresses = check_addresses
        self._buffers = Buffers()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises Unreached, Unanswered, other ConnectErrors and ConnectTimeouts, and what `check_addresses` raises."""
        if local_address is not None:
            raise httpcore.ConnectError("binding to a local address is not supported")
        start = trio.current_time()
        try:
            with _bounded(timeout, httpcore.ConnectTimeout):
                found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                self._check_addresses(host, port, [str(entry[4][0]) for entry in found])
                sock = await connect_any(found)
        except OSError as exc:
            error = httpcore.ConnectError if exc.errno in _OURS else Unreached
            raise error(f"{exc.strerror or exc}") from exc
        except httpcore.ConnectTimeout as exc:
            if timeout is not None and trio.current_time() - start >= timeout:
                raise Unanswered("no answer") from exc
            raise
        for option in socket_options or ():
            sock.setsockopt(*option)
        return PlainStream(sock, self._buffers)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


def _poll_readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to say: it was closed, or speaks out of turn. Either way it is of no more use."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
