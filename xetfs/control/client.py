"""The side that asks. Standard library only; blocks for a limited time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from xetfs.control.messages import ANSWER_BYTES_MAX, Request, decode_answer, encode_request
from xetfs.control.peer import address_in, is_trusted, uid_of
from xetfs.errors import ProtocolViolation, Unavailable

ASK_S: Final = 6.0
"""Longest wait for an answer or a sign of progress: a little longer than the disk of a store may take."""


def ask(
    path: Path,
    op: str,
    /,
    *,
    timeout_s: float = ASK_S,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda document: None,
    **arguments: object,
) -> dict[str, Any]:
    """Return the result of an operation of the engine at this socket.

    timeout_s: longest silence. Raises the error that the engine answers; Unavailable if nobody answers in time, or if it belongs
    to another user; ProtocolViolation if it does not answer as xetfs does.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            with address_in(path.parent, path.name) as (address, _):
                connection.connect(address)
            if not is_trusted(uid_of(connection)):
                raise Unavailable(f"{path} belongs to another user")
            with suppress(BrokenPipeError):  # what it said before it closed may still be read
                connection.sendall(encode_request(Request(op, arguments)))
            for line in _lines(connection, timeout_s):
                result = decode_answer(line, on_progress)
                if result is not None:
                    return result
    except OSError as exc:
        raise Unavailable(f"{path} does not answer: {exc.strerror or exc}") from None
    except ProtocolViolation as exc:
        raise ProtocolViolation(f"{path}: {exc.message}", hint=exc.hint) from None
    raise Unavailable(f"{path} closed without an answer")


def _lines(connection: socket.socket, timeout_s: float) -> Iterator[bytes]:
    """Complete lines until the other side closes; what it sent after the last one counts as one too."""
    pending = bytearray()
    deadline = time.monotonic() + timeout_s
    while piece := connection.recv(65536):
        pending += piece
        if len(pending) > ANSWER_BYTES_MAX:
            raise ProtocolViolation("its answer does not end")
        while (end := pending.find(b"\n")) >= 0:
            yield bytes(pending[:end])
            del pending[: end + 1]
            deadline = time.monotonic() + timeout_s
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
    if pending:
        yield bytes(pending)
