"""Plain non-blocking sockets under trio.

Not trio.socket: its send yields after the bytes have left and before the caller can count them, so that a client in the same
process would see bytes that the log has not counted yet; and sendfile needs the descriptor anyway.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

import trio

TLS_BYTES_MAX: Final = 256 * 1024
"""Given to OpenSSL in one call: it encrypts all of it before it returns."""


async def accept(listener: socket.socket) -> socket.socket:
    """The next connection, non-blocking. Raises trio.ClosedResourceError when the listener is closed meanwhile."""
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listener)
        except ConnectionAbortedError:
            continue
        else:
            sock.setblocking(False)
            return sock


async def shake_hands(sock: ssl.SSLSocket) -> None:
    """Our half of a TLS handshake. Raises OSError, trio.ClosedResourceError."""
    while True:
        try:
            sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            await wait_for(sock, error)
        else:
            return


async def receive(sock: socket.socket, size: int) -> bytes:
    """Some bytes, b"" at the end. Raises OSError, trio.ClosedResourceError."""
    while True:
        try:
            return sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            await wait_for(sock, error, to_read=True)


async def send(sock: socket.socket, data: memoryview) -> int:
    """Send the first of these bytes, as many as fit; how many. Raises OSError, trio.ClosedResourceError."""
    while True:
        try:
            return sock.send(data[:TLS_BYTES_MAX] if isinstance(sock, ssl.SSLSocket) else data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            await wait_for(sock, error)


async def wait_for(sock: socket.socket, error: Exception, *, to_read: bool = False) -> None:
    """Wait until what raised `error` may be tried again. TLS says itself which way it waits."""
    if isinstance(error, ssl.SSLWantReadError) or (to_read and isinstance(error, BlockingIOError)):
        await trio.lowlevel.wait_readable(sock)
    else:
        await trio.lowlevel.wait_writable(sock)


def close(sock: socket.socket) -> None:
    """Close, waking whoever waits on it."""
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()
