"""Plain non-blocking sockets under trio.

Not trio.socket: its send yields after the bytes have left and before the caller can count them, so that a client in the same
process would see bytes that the log has not counted yet; and sendfile needs the descriptor anyway.
"""

from __future__ import annotations

import socket

import trio


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


async def receive(sock: socket.socket, size: int) -> bytes:
    """Some bytes, b"" at the end. Raises OSError, trio.ClosedResourceError."""
    while True:
        try:
            return sock.recv(size)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)


def close(sock: socket.socket) -> None:
    """Close, waking whoever waits on it."""
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()
