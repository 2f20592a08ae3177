"""The side of the engine: a unix socket that carries out operations for its own user and root.

Everything about a connection is bounded: how many there are, the size of a request, the time to send one, the time to take an
answer. An error of an operation is an answer like any other; the engine goes on whatever happens here. An operation ends when
whoever asked has gone, which is noticed at the next sign of progress.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from xetfs.control import messages
from xetfs.control.messages import REQUEST_BYTES_MAX, Request
from xetfs.control.peer import address_in, is_trusted, uid_of
from xetfs.errors import InvalidArgument, TimedOut, XetfsError, leaves

log = logging.getLogger(__name__)

SEND_S: Final = 5.0
"""Time for one request to come, and for one answer to be taken."""
PROGRESS_INTERVAL_S: Final = 1.0
"""How often a long operation shows that it is alive."""
CONNECTIONS_MAX: Final = 8
"""Connections at the same time; more are closed at once."""
Report = Callable[[Mapping[str, object]], None]
"""Called with how far an operation is."""


class Gone(Exception):
    """Whoever asked has gone, or sends or takes nothing."""


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Bound one exchange with the other side. Raises Gone."""
    try:
        with trio.fail_after(SEND_S):
            yield
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as exc:
        raise Gone(repr(exc)) from None


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request may ask for. parameters: names and defaults, whose type a request must keep to; a tuple holds strings."""

    run: Callable[..., Awaitable[Mapping[str, object]]]
    parameters: Mapping[str, object] = field(default_factory=dict)

    def arguments(self, request: Request) -> dict[str, Any]:
        """The arguments of a request, completed. Raises InvalidArgument."""
        unknown = sorted(set(request.arguments) - set(self.parameters))
        if unknown:
            raise InvalidArgument(f"{request.op}: unknown argument {unknown[0]!r:.80}")
        chosen = dict(self.parameters)
        for name, value in request.arguments.items():
            default = self.parameters[name]
            if isinstance(default, tuple):
                fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
            else:
                fits = type(value) is type(default)
            if not fits:
                raise InvalidArgument(f"{request.op}: {name} is of the wrong type")
            chosen[name] = tuple(value) if isinstance(default, tuple) else value
        return chosen


@asynccontextmanager
async def open_control(path: Path, operations: Mapping[str, Operation]) -> AsyncIterator[None]:
    """Carry out operations, by name, for requests at the socket `path`, which is a new name, as long as the context lasts.

    Raises OSError if there can be no socket at that place.
    """
    listener = _listen(path)
    try:
        async with trio.open_nursery() as nursery:
            slots = trio.CapacityLimiter(CONNECTIONS_MAX)
            nursery.start_soon(trio.serve_listeners, partial(_serve, operations, slots), [listener])
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


async def _serve(operations: Mapping[str, Operation], slots: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    async with stream:
        try:
            slots.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            return
        try:
            with _in_time():
                uid = uid_of(stream.socket)
            if is_trusted(uid):
                await _converse(operations, stream)
            else:
                log.warning("refused a control connection of another user uid=%d", uid)
        except Gone as exc:
            log.debug("a control connection ended: %s", exc)
        finally:
            slots.release_on_behalf_of(stream)


async def _converse(operations: Mapping[str, Operation], stream: trio.SocketStream) -> None:
    """Answer requests one after the other until the other side has no more. Raises Gone."""
    pending = bytearray()
    while True:
        with _in_time():
            while b"\n" not in pending and len(pending) <= REQUEST_BYTES_MAX:
                piece = await stream.receive_some(REQUEST_BYTES_MAX)
                if not piece:
                    return
                pending += piece
        line, end, rest = pending.partition(b"\n")
        if len(line) > REQUEST_BYTES_MAX or not end:
            await _send(stream, messages.failure(InvalidArgument("the request is too long")))
            return
        pending = bytearray(rest)
        await _send(stream, await _answer(operations, bytes(line), stream))


async def _answer(operations: Mapping[str, Operation], line: bytes, stream: trio.SocketStream) -> bytes:
    """Carry out a request; the answer. Raises Gone."""
    try:
        request = messages.decode_request(line)
        operation = operations.get(request.op)
        if operation is None:
            raise InvalidArgument(f"unknown operation {request.op!r:.80}", hint=f"there are {', '.join(sorted(operations))}")
        return messages.success(await _run(partial(operation.run, **operation.arguments(request)), stream))
    except XetfsError as exc:
        return messages.failure(exc)
    except trio.TooSlowError:
        return messages.failure(TimedOut("no answer in time"))
    except Gone:
        raise
    except Exception:
        log.exception("a control operation failed")
        return messages.failure(None)


async def _run(operation: Callable[[Report], Awaitable[Mapping[str, object]]], stream: trio.SocketStream) -> Mapping[str, object]:
    """Carry out an operation, and send now and then how far it is. Raises its errors, and Gone."""
    latest: Mapping[str, object] = {}
    done = trio.Event()

    def report(document: Mapping[str, object]) -> None:
        nonlocal latest
        latest = document

    async def show_progress() -> None:
        while not done.is_set():
            with trio.move_on_after(PROGRESS_INTERVAL_S):
                await done.wait()
                return
            await _send(stream, messages.progress(latest))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_progress)
            result = await operation(report)
            done.set()
        return result
    except BaseExceptionGroup as group:
        causes = [cause for cause in leaves(group) if not isinstance(cause, trio.Cancelled)]
        if len(causes) != 1:
            raise
        raise causes[0] from None


async def _send(stream: trio.SocketStream, line: bytes) -> None:
    with _in_time():
        await stream.send_all(line)
