"""Requests and answers as the three origins see them, and the errors that become answers.

An answer's body is a sequence of pieces: bytes, or slices of files that are never read into memory (server.py hands them to
sendfile). A request's body is pulled, in pieces, by whoever handles it; what nobody pulled is drained by the server.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal
from urllib.parse import parse_qs, unquote

Origin = Literal["hub", "cas", "transfer"]
JSON_BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest JSON request held in memory; larger uploads (commits, shards, xorbs) are spooled."""
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileSlice:
    """`length` bytes of a file from `offset`, to be sent without reading them."""

    path: Path
    offset: int
    length: int


Piece = bytes | FileSlice


@dataclass(slots=True)
class Response:
    """An answer. Content-Length is added when it is sent. `stream` replaces `pieces` for bytes that must be computed:
    then `stream_length` says how many there will be."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: Sequence[Piece] = ()
    stream: Callable[[], AsyncGenerator[bytes, None]] | None = None
    stream_length: int = 0

    @property
    def length(self) -> int:
        if self.stream is not None:
            return self.stream_length
        return sum(piece.length if isinstance(piece, FileSlice) else len(piece) for piece in self.pieces)

    @property
    def announced_length(self) -> int:
        """Content-Length, if a fault made it another than `length`."""
        told = [value for name, value in self.headers if name.lower() == "content-length"]
        return int(told[0]) if told else self.length

    def set_header(self, name: str, value: str) -> None:
        self.remove_header(name)
        self.headers.append((name, value))

    def remove_header(self, name: str) -> None:
        self.headers = [(n, v) for n, v in self.headers if n.lower() != name.lower()]


def json_response(value: object, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return Response(status, [("Content-Type", "application/json; charset=utf-8"), *headers], [body])


def text_response(text: str, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Response:
    return Response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers], [text.encode()])


def redirect(status: int, location: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    return text_response(
        f"{'Found' if status == 302 else 'Temporary Redirect'}. Redirecting.", status, [*headers, ("Location", location)]
    )


class Problem(Exception):
    """A refusal that becomes an answer: the status, the message as the Hub words it, and its X-Error-Code if it has one."""

    def __init__(self, status: int, message: str, *, code: str = "", headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = tuple(headers)

    def to_response(self) -> Response:
        headers = [*self.headers, ("X-Error-Message", re.sub(r"[^ -~]", "?", self.message))]
        if self.code:
            headers.append(("X-Error-Code", self.code))
        return json_response({"error": self.message}, self.status, headers)


@dataclass(slots=True)
class Request:
    """One request. headers: names in lower case, the last of a repeated one. segments: the path, split at `/`, then unquoted.

    ignore_range is set by a fault: the handler then answers as a server that knows no ranges.
    """

    origin: Origin
    method: str
    target: str
    headers: Mapping[str, str]
    body: Callable[[], AsyncGenerator[bytes, None]]
    path: str = ""
    segments: tuple[str, ...] = ()
    query: Mapping[str, list[str]] = field(default_factory=dict)
    ignore_range: bool = False

    def __post_init__(self) -> None:
        self.path, _, query = self.target.partition("?")
        self.segments = tuple(unquote(part) for part in self.path.strip("/").split("/")) if self.path.strip("/") else ()
        self.query = parse_qs(query, keep_blank_values=True) if query else {}

    @property
    def query_string(self) -> str:
        return self.target.partition("?")[2]

    def argument(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[-1]

    def flag(self, name: str) -> bool:
        return self.argument(name).lower() in ("1", "true", "yes", "on")

    async def read(self, bytes_max: int = JSON_BODY_BYTES_MAX) -> bytes:
        """The whole body, in memory. Raises Problem (413) beyond `bytes_max`."""
        file = io.BytesIO()
        await self.save(file, bytes_max)
        return file.getvalue()

    async def save(self, file: IO[bytes], bytes_max: int) -> None:
        """Write the body to `file`. Raises Problem (413) beyond `bytes_max`."""
        total = 0
        async with aclosing(self.body()) as body:
            async for part in body:
                total += len(part)
                if total > bytes_max:
                    raise Problem(413, f"the request is larger than {bytes_max} bytes")
                file.write(part)

    async def read_json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Problem (400)."""
        try:
            value = json.loads(await self.read() or b"{}")
        except ValueError as error:
            raise Problem(400, f"the request is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise Problem(400, "the request is not a JSON object")
        return value

    async def spool(self, directory: Path, bytes_max: int) -> IO[bytes]:
        """The body in an unnamed temporary file in `directory`, rewound; the caller closes it. Raises Problem (413)."""
        file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - handed to the caller
        try:
            await self.save(file, bytes_max)
            file.seek(0)
            return file
        except BaseException:
            file.close()
            raise


def iter_pieces(pieces: Sequence[Piece], size: int = _READ_BYTES) -> Iterator[bytes]:
    """The bytes of a body, in parts of at most `size`: for the ways of sending that must see or count them."""
    for piece in pieces:
        if isinstance(piece, FileSlice):
            with piece.path.open("rb") as file:
                file.seek(piece.offset)
                left = piece.length
                while left and (data := file.read(min(size, left))):
                    left -= len(data)
                    yield data
        else:
            yield from (piece[start : start + size] for start in range(0, len(piece), size))


def parse_ranges(header: str) -> list[tuple[int, int | None]] | None:
    """`bytes=a-b,c-d` as (first, last) pairs; last None for `a-`, first negative for a suffix `-n`. None if not understood."""
    unit, _, text = header.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    ranges: list[tuple[int, int | None]] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not dash or not (first.isdigit() or (not first and last.isdigit())) or (last and not last.isdigit()):
            return None
        if not first:
            ranges.append((-int(last), None))
        else:
            ranges.append((int(first), int(last) if last else None))
            if last and int(last) < int(first):
                return None
    return ranges


def clip_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The single range asked for, as (first, last) within `size` bytes; None when there is none that counts.

    Raises Problem (416) when it begins at or past the end. Several ranges are ignored, as many servers do.
    """
    ranges = parse_ranges(header) if header else None
    if ranges is None or len(ranges) != 1:
        return None
    first, last = ranges[0]
    if first < 0:
        first, last = max(0, size + first), size - 1
    if first >= size:
        raise Problem(416, "the range is not satisfiable", headers=[("Content-Range", f"bytes */{size}")])
    return first, min(size - 1, size - 1 if last is None else last)
