"""Makes connections, to allowed addresses only: a name is resolved once, its addresses are judged, and connected to as judged."""

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
"""Why a connection may fail that has nothing to do with the other side, nor with the way there."""


class Unreached(httpx.ConnectError):
    """Nobody is there: refused, no route, no such name. Other ConnectErrors come from what an open connection brought."""


class Unanswered(httpx.ConnectTimeout):
    """The same, for want of any answer in all the time that a connection was given."""


class Connector:
    def __init__(self, check_addresses: CheckAddresses) -> None:
        self._check_addresses = check_addresses

    async def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Return a connected, non-blocking socket.

        Raises Unreached, Unanswered, httpx.ConnectError, and what `check_addresses` raises.
        """
        try:
            with trio.fail_after(timeout_s):
                found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                self._check_addresses(host, port, [str(entry[4][0]) for entry in found])
                return await connect_any(found)
        except trio.TooSlowError:
            raise Unanswered("no answer") from None
        except OSError as exc:
            error = httpx.ConnectError if exc.errno in _LOCAL else Unreached
            raise error(f"{exc.strerror or exc}") from exc
