"""The protocol of the control socket: requests and answers, one line of JSON each. Standard library only.

    → {"v": 1, "op": "prefetch", "globs": ["*.safetensors"]}
    ← {"v": 1, "progress": {...}}                                   while it takes long, any number
    ← {"v": 1, "ok": true, "result": {...}}
    ← {"v": 1, "ok": false, "error": {"kind": "EntryNotFound", "message": "...", "hint": "..."}}

A connection may carry several requests, one after the other. docs/control.md describes the operations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from xetfs import errors
from xetfs.errors import InvalidArgument, ProtocolViolation, XetfsError

VERSION: Final = 1
REQUEST_BYTES_MAX: Final = 64 * 1024
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
BUG: Final = "Bug"
"""Kind of an error that is a bug; its message gives nothing away, the traceback is in the log."""


@dataclass(frozen=True, slots=True)
class Request:
    op: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def encode(document: Mapping[str, object]) -> bytes:
    return json.dumps({"v": VERSION, **document}).encode() + b"\n"


def encode_request(request: Request) -> bytes:
    return encode({"op": request.op, **request.arguments})


def decode_request(line: bytes) -> Request:
    """Raises InvalidArgument."""
    document = _object(line)
    if document is None:
        raise InvalidArgument("a request is one line with a JSON object")
    if document.get("v") != VERSION:
        raise InvalidArgument(f"version {document.get('v')!r:.40} is not supported", hint=f"version {VERSION} is")
    op = document.get("op")
    if not isinstance(op, str):
        raise InvalidArgument('a request names an operation in "op"')
    return Request(op, {name: value for name, value in document.items() if name not in ("v", "op")})


def success(result: Mapping[str, object]) -> bytes:
    return encode({"ok": True, "result": result})


def progress(document: Mapping[str, object]) -> bytes:
    return encode({"progress": document})


def failure(error: XetfsError | None) -> bytes:
    """error: None for a bug."""
    if error is None:
        return encode({"ok": False, "error": {"kind": BUG, "message": "a bug in xetfs; see its log", "hint": ""}})
    return encode({"ok": False, "error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}})


def decode_answer(line: bytes, on_progress: Callable[[Mapping[str, Any]], None]) -> dict[str, Any] | None:
    """Return the result, or None for progress, which goes to `on_progress`.

    Raises the error that the answer holds, ProtocolViolation for anything else.
    """
    match _object(line):
        case {"v": 1, "ok": True, "result": dict(result)}:
            return result
        case {"v": 1, "progress": dict(document)}:
            on_progress(document)
            return None
        case {"v": 1, "ok": False, "error": {"kind": str(kind), "message": str(message), "hint": str(hint)}}:
            raise _error(kind, message, hint)
        case {"version": 1, "pid": _}:
            raise ProtocolViolation("it is served by an older version of xetfs", hint="unmount and mount it again")
    raise ProtocolViolation("it did not answer as xetfs does")


def _error(kind: str, message: str, hint: str) -> XetfsError:
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, XetfsError):
        error = found.__new__(found)
        XetfsError.__init__(error, message, hint=hint)
        return error
    return ProtocolViolation(message, hint=hint)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
