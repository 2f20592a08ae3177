"""The side of whoever asks a mount. Standard library only; blocks for a limited time."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Final

from xetfs.control.peer import address_in, is_trusted, uid_of
from xetfs.errors import ProtocolViolation, Unavailable

ASK_S: Final = 6.0
"""A little longer than the other side takes at most."""
DOCUMENT_BYTES_MAX: Final = 4 * 1024 * 1024


def ask(path: Path, *, timeout_s: float = ASK_S) -> dict[str, object]:
    """The document of the mount at this socket.

    Raises Unavailable if nobody answers in time, or if it is somebody else's; ProtocolViolation if the answer is none.
    """
    deadline = time.monotonic() + timeout_s
    body = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            with address_in(path.parent, path.name) as (address, _):
                connection.connect(address)
            if not is_trusted(uid_of(connection)):
                raise Unavailable(f"{path} is somebody else's")
            while piece := connection.recv(65536):
                body += piece
                if len(body) > DOCUMENT_BYTES_MAX:
                    raise ProtocolViolation(f"{path} does not end")
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
    except OSError as exc:
        raise Unavailable(f"{path} does not answer: {exc.strerror or exc}") from None
    if not body:
        raise Unavailable(f"{path} closed without an answer")
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ProtocolViolation(f"{path} did not answer as a mount does")
    return document
