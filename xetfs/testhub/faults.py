"""Misbehaviour on request: rules that say which requests go wrong, and how.

A rule matches on origin, method and a regular expression searched in the path; `skip` lets the first matches pass, `count` ends
it, `probability` makes it rare (decided by the hub's own seeded generator). All rules that fire on a request act on it, in the
order in which they were added. `after_bytes` says where in the answer: None is before the head, 0 right after it, N in the body.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from xetfs.testhub.messages import Origin, Request, Response, iter_pieces
from xetfs.testhub.signing import expired_url

Action = Literal[
    "answer",  # `status`, `headers`, `body` in place of the real answer
    "stall",  # nothing more for `seconds` (None: until the client gives up), from after_bytes on
    "drip",  # one byte each `seconds` (1), from after_bytes on
    "close",  # the connection ends in an orderly way at after_bytes, whatever length was promised
    "reset",  # the same, by a TCP reset
    "truncate",  # only after_bytes of the body, with a Content-Length to match
    "flip",  # one bit of the byte at `offset` of the body (None: anywhere)
    "lengthen",  # `after_bytes` zeros behind the body, with a Content-Length to match
    "content_length",  # Content-Length off by `offset`; the connection ends after the body
    "content_range",  # `body` as Content-Range; none if it is empty
    "ignore_range",  # 200 and everything where 206 was due
    "gzip",  # the body compressed, and said so
    "redirect",  # `status` (302) to `location`
    "rewrite",  # the JSON body through `rewrite`, or with the members of `members` replaced
    "expire",  # 403, as a signed URL past its time; with `status` 400 as Cloud Storage words it
    "delay",  # `seconds` before the request is looked at
]
_ACTIONS = get_args(Action)


@dataclass(slots=True)
class Fault:
    """One rule. fired counts how often it acted."""

    action: Action
    origin: Origin | None = None
    path: str = ""
    method: str | None = None
    skip: int = 0
    count: int | None = None
    probability: float = 1.0
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    after_bytes: int | None = None
    seconds: float | None = None
    offset: int | None = None
    location: str = ""
    members: Mapping[str, Any] = field(default_factory=dict)
    rewrite: Callable[[Any], Any] | None = None
    fired: int = 0
    _seen: int = 0

    def __post_init__(self) -> None:
        if self.action not in _ACTIONS:
            raise ValueError(f"no such fault: {self.action!r}; one of {', '.join(_ACTIONS)}")
        re.compile(self.path)

    def wants(self, request: Request, chance: random.Random) -> bool:
        """Whether it fires on this request; counts the request."""
        if self.origin not in (None, request.origin) or self.method not in (None, request.method):
            return False
        if not re.search(self.path, request.path):
            return False
        self._seen += 1
        if self._seen <= self.skip or (self.count is not None and self.fired >= self.count):
            return False
        if self.probability < 1 and chance.random() >= self.probability:
            return False
        self.fired += 1
        return True

    def describe(self) -> dict[str, Any]:
        """As JSON, for the control endpoint."""
        return {key: value for key, value in asdict(self).items() if key not in ("rewrite", "_seen")}


def rate_limited(retry_after_s: int, **where: Any) -> Fault:
    """A rule that answers 429 with Retry-After."""
    return Fault("answer", status=429, headers={"Retry-After": str(retry_after_s)}, body='{"error":"Too many requests"}', **where)


class Faults:
    """The rules in force. Mutable, from the event loop only."""

    def __init__(self, seed: int) -> None:
        self.rules: list[Fault] = []
        self.chance = random.Random(seed)

    def add(self, fault: Fault) -> Fault:
        self.rules.append(fault)
        return fault

    def clear(self) -> None:
        self.rules.clear()

    def remove(self, fault: Fault) -> None:
        self.rules.remove(fault)

    def firing(self, request: Request) -> list[Fault]:
        """The rules that fire on this request, in order."""
        return [rule for rule in self.rules if rule.wants(request, self.chance)] if self.rules else []


def replacing_answer(faults: list[Fault]) -> Response | None:
    """The answer that stands in for the real one, if a rule gives one."""
    for fault in faults:
        if fault.action == "answer":
            return Response(fault.status, list(fault.headers.items()), [fault.body.encode()] if fault.body else [])
        if fault.action == "expire":
            return expired_url(400 if fault.status == 400 else 403).to_response()
        if fault.action == "redirect":
            status = fault.status if 300 <= fault.status < 400 else 302
            return Response(status, [("Location", fault.location), *fault.headers.items()], [b"elsewhere"])
    return None


async def settle(response: Response) -> None:
    """Compute a streamed body now, so that it can be altered like any other."""
    if response.stream is not None:
        async with aclosing(response.stream()) as stream:
            response.pieces = [data async for data in stream]
        response.stream = None


def alter(response: Response, faults: list[Fault]) -> None:
    """Change the head and the content of an answer as the rules say. How it is delivered is server.py's to spoil."""
    for fault in faults:
        match fault.action:
            case "content_range" if fault.body:
                response.set_header("Content-Range", fault.body)
            case "content_range":
                response.remove_header("Content-Range")
            case "content_length":
                response.set_header("Content-Length", str(response.length + (fault.offset or 0)))
            case "lengthen":
                response.pieces = [*response.pieces, bytes(fault.after_bytes or 0)]
            case "truncate":
                _truncate(response, fault.after_bytes or 0)
            case "gzip":
                response.pieces = [gzip.compress(b"".join(iter_pieces(response.pieces)), 1)]
                response.set_header("Content-Encoding", "gzip")
            case "rewrite" if response.status < 300:
                value = json.loads(b"".join(iter_pieces(response.pieces)))
                value = fault.rewrite(value) if fault.rewrite is not None else _replace(value, fault.members)
                response.pieces = [json.dumps(value).encode("utf-8", "surrogatepass")]


def _truncate(response: Response, length: int) -> None:
    body = bytearray()
    for data in iter_pieces(response.pieces):
        body += data[: length - len(body)]
        if len(body) >= length:
            break
    response.pieces = [bytes(body)]


def _replace(value: Any, members: Mapping[str, Any]) -> Any:
    """Replace members by dotted path: `terms.0.unpacked_length`; the empty path is the whole value."""
    for path, new in members.items():
        if not path:
            value = new
            continue
        *parents, last = path.split(".")
        at = value
        for name in parents:
            at = at[int(name)] if isinstance(at, list) else at[name]
        if isinstance(at, list):
            at[int(last)] = new
        else:
            at[last] = new
    return value
