"""The side of the mount: a unix socket that answers each connection with one JSON document, and closes it.

Everything about a connection has a limit: how many there are, and how long one takes. An error in making the answer is logged and
becomes a document of its own; the mount goes on whatever happens here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from xetfs.control.peer import address_in, is_trusted, uid_of

log = logging.getLogger(__name__)

ANSWER_S: Final = 5.0
"""Limit for one connection, from accepting to closing."""
CONNECTIONS_MAX: Final = 8
"""Connections at the same time; more are closed at once."""

Answer = Callable[[], Awaitable[Mapping[str, object]]]


@asynccontextmanager
async def open_control(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Answer at the socket `path`, which is a new name, for as long as the context lasts.

    answer: makes the document, anew for each connection. Raises OSError if there can be no socket at that place.
    """
    listener = _listen(path)
    try:
        async with trio.open_nursery() as nursery:
            slots = trio.CapacityLimiter(CONNECTIONS_MAX)
            nursery.start_soon(trio.serve_listeners, partial(_serve, answer, slots), [listener])
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _listen(path: Path) -> trio.SocketListener:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with address_in(path.parent, path.name) as (address, directory):
        _remove_left_over(directory, path.name.partition("-")[0])
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # It gets its name when it listens: a socket that does not is taken for one that a killed process left.
            hidden = f".{path.name}"
            listening.bind(f"{address[: -len(path.name)]}{hidden}")
            os.chmod(hidden, 0o600, dir_fd=directory)
            listening.listen(CONNECTIONS_MAX)
            os.rename(hidden, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            listening.close()
            raise
    listening.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _remove_left_over(directory: int, kernel: str) -> None:
    """Remove sockets at which nobody listens: their processes were killed.

    kernel: how the names of sockets of this kernel begin. It says so for processes of every PID namespace, as containers may
    share the directory, and not for those of other machines, which may share it too.
    """
    for name in os.listdir(directory):
        if name.endswith(".sock") and name.startswith(f"{kernel}-") and _is_left_over(f"/proc/self/fd/{directory}/{name}"):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)


def _is_left_over(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(address)
        except ConnectionRefusedError:
            return True
        except OSError:  # its backlog is full, for example
            return False
    return False


async def _serve(answer: Answer, slots: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    async with stream:
        try:
            slots.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            return
        try:
            with trio.move_on_after(ANSWER_S):
                await _answer(answer, stream)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.debug("whoever asked for the status has gone: %s", exc)
        finally:
            slots.release_on_behalf_of(stream)


async def _answer(answer: Answer, stream: trio.SocketStream) -> None:
    uid = uid_of(stream.socket)
    if not is_trusted(uid):
        log.warning("refused to tell another user the status uid=%d", uid)
        return
    try:
        body = json.dumps(await answer())
    except Exception:
        log.exception("the status could not be told")
        body = json.dumps({"error": "the status could not be told; see the log"})
    await stream.send_all(body.encode() + b"\n")
