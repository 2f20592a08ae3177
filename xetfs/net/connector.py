"""Opens connections, to allowed addresses only: a name is resolved once, its addresses are checked, and those are used."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Final

import httpx
import trio

from xetfs.net.sockets import connect_any

CheckAddresses = Callable[[str, int, Sequence[str]], None]
"""Given host, port and its resolved addresses, raises if one of them must not be connected to."""

_LOCAL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Failures to connect that say nothing about the server or the route to it."""


class Unreachable(httpx.ConnectError):
    """No connection: refused, no route, no such name. Other ConnectErrors come from what happened on an open connection."""


class Unresponsive(httpx.ConnectTimeout):
    """No connection, as nothing answered within the connect timeout."""


class Connector:
    def __init__(self, check_addresses: CheckAddresses) -> None:
        self._check_addresses = check_addresses

    async def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Return a connected, non-blocking socket.

        Raises Unreachable, Unresponsive, httpx.ConnectError, and what `check_addresses` raises.
        """
        try:
            with trio.fail_after(timeout_s):
                found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                self._check_addresses(host, port, [str(entry[4][0]) for entry in found])
                return await connect_any(found)
        except trio.TooSlowError:
            raise Unresponsive("no answer") from None
        except OSError as exc:
            error = httpx.ConnectError if exc.errno in _LOCAL else Unreachable
            raise error(f"{exc.strerror or exc}") from exc
