"""Connecting to one of several addresses, and asking the kernel whether there is a route to one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

import trio

ATTEMPT_DELAY_S: Final = 0.25
"""Head start of one address over the next when a host has several (RFC 8305)."""

_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
"""What the kernel says of a connection whose network is gone, or whose address this machine no longer has."""


def has_way(local: tuple[Any, ...], peer: tuple[Any, ...]) -> bool:
    """True if the kernel has a route from one address to the other. Connecting a UDP socket asks it, and sends nothing."""
    family = socket.AF_INET6 if len(local) > 2 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((local[0], 0, *local[2:]))
            sock.connect(peer)
    except OSError as exc:
        return exc.errno not in _NO_WAY
    return True


async def connect_any(found: Sequence[tuple[Any, Any, int, str, Any]]) -> socket.socket:
    """Connect to the first address that answers, trying the next whenever one fails or takes long. Raises OSError."""
    winner: list[socket.socket] = []
    failures: list[OSError] = []
    ordered = _alternate_families(found) if found else []

    async def attempt(entry: tuple[Any, Any, int, str, Any], failed: trio.Event) -> None:
        try:
            winner.append(await _connect_one(entry))
        except OSError as exc:
            failures.append(exc)
            failed.set()
        else:
            nursery.cancel_scope.cancel()

    taken: socket.socket | None = None
    try:
        async with trio.open_nursery() as nursery:
            for entry in ordered:
                failed = trio.Event()
                nursery.start_soon(attempt, entry, failed)
                with trio.move_on_after(ATTEMPT_DELAY_S):
                    await failed.wait()
        taken = winner[0] if winner else None
    finally:
        for sock in winner:
            if sock is not taken:
                sock.close()
    if taken is None:
        raise failures[0] if failures else OSError("no address")
    return taken


async def _connect_one(entry: tuple[Any, Any, int, str, Any]) -> socket.socket:
    family, kind, protocol, _, address = entry
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await trio.lowlevel.checkpoint()
        try:
            sock.connect(address)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _alternate_families(found: Sequence[tuple[Any, Any, int, str, Any]]) -> list[tuple[Any, Any, int, str, Any]]:
    """At most six addresses, the families in turns, so that one broken family costs one head start and not the whole time."""
    first = [entry for entry in found if entry[0] == found[0][0]]
    other = [entry for entry in found if entry[0] != found[0][0]]
    mixed = [entry for pair in zip(first, other, strict=False) for entry in pair]
    rest = first[len(other) :] or other[len(first) :]
    return (mixed + rest)[:6]
