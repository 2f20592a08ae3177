"""Who is at the other end of a unix socket, and how to name one whose path is longer than an address may be.

An address holds 107 bytes; a path through a descriptor of its directory is always shorter. Standard library only.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


class Socket(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def uid_of(connection: Socket) -> int:
    """The user whose process opened the other end. Raises OSError."""
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


def is_trusted(uid: int) -> bool:
    """Whether a user may know what this process knows, or be believed by it: the same user, and root."""
    return uid in (os.geteuid(), 0)


@contextmanager
def address_in(directory: Path, name: str) -> Iterator[tuple[str, int]]:
    """The address of the socket `name` in `directory`, and a descriptor of the directory; both good within the context.

    Raises OSError; PermissionError if somebody else could put a socket there.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not is_trusted(found.st_uid) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{directory} can be written by others")
        yield f"/proc/self/fd/{fd}/{name}", fd
    finally:
        os.close(fd)
