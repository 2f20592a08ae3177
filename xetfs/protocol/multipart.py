"""Bodies that carry several byte ranges (multipart/byteranges), read as they arrive.

    [preamble CRLF] --B CRLF headers CRLF CRLF data CRLF --B CRLF headers … data CRLF --B-- [epilogue]

The data is binary and may hold anything, the boundary too: a part is therefore cut by the length that its Content-Range tells,
and only then a boundary is expected. What lies between two parts' data is called a frame here; it is the only thing kept between
two pieces, and it is bounded. Data is passed on as slices of what was fed, never copied.

Source: RFC 9110, section 14.6; RFC 2046, section 5.1; Xet spec, multi-range fetches.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from xetfs.errors import ProtocolViolation
from xetfs.protocol.json_values import INT_MAX
from xetfs.protocol.ranges import HttpRange

FRAME_BYTES_MAX: Final = 16 * 1024
"""Longest frame: boundary and headers, with the preamble the first one. Real ones take some 150 bytes."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)
_CONTENT_TYPE = re.compile(r"\s*multipart/byteranges\s*(;.*)", re.ASCII | re.IGNORECASE | re.DOTALL)
_PARAMETER = re.compile(r"\s*;\s*([!-:<-~]+?)\s*=\s*(?:\"([^\"]*)\"|([^\s;\"]*))", re.ASCII)
_CONTENT_RANGE = re.compile(r"\s*bytes\s+([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16}|\*)\s*", re.ASCII | re.IGNORECASE)
_LINE_END = re.compile(rb"[ \t]*\r\n")


class Piece(NamedTuple):
    """Some bytes of one of the ranges expected: `data` belongs at `offset` within range number `part`."""

    part: int
    offset: int
    data: memoryview


def parse_boundary(content_type: str) -> str | None:
    """The boundary that a Content-Type names; None if it is not multipart/byteranges. Raises ProtocolViolation."""
    match = _CONTENT_TYPE.fullmatch(content_type) if len(content_type) <= FRAME_BYTES_MAX else None
    if match is None:
        if content_type.strip().lower().startswith("multipart/"):
            raise ProtocolViolation(f"a multipart body without a boundary, or of another kind: {content_type!r:.100}")
        return None
    for parameter in _PARAMETER.finditer(match[1]):
        if parameter[1].lower() == "boundary":
            return parameter[2] if parameter[2] is not None else parameter[3]
    raise ProtocolViolation(f"a multipart body without a boundary: {content_type!r:.100}")


def parse_content_range(text: str) -> tuple[HttpRange, int | None]:
    """Read `bytes first-last/total`; the total is None for `*`. Raises ProtocolViolation.

    `bytes */total`, which goes with a 416 and no bytes, is refused like anything malformed.
    """
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:  # not shown: a host that puts a signature where it does not belong would put it into a log
        raise ProtocolViolation(f"not a Content-Range, but {len(text)} other characters")
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if not first <= last < (INT_MAX if total is None else total) <= INT_MAX:
        raise ProtocolViolation(f"not a Content-Range: {text!r:.80}")
    return HttpRange(first, last), total


class MultipartParser:
    """Takes a body in pieces of any size and tells which bytes belong to which of the ranges that were asked for.

    Parts may come in any order. A part may hold several ranges that follow each other without a gap, which servers are free to
    join; anything else that is not one of the ranges, or the same range again, is refused.
    """

    def __init__(self, boundary: str, expected: Sequence[HttpRange]) -> None:
        """Raises ProtocolViolation if the boundary cannot be one, ValueError if the ranges are none or overlap."""
        if not _BOUNDARY.fullmatch(boundary):
            raise ProtocolViolation(f"not a multipart boundary: {boundary!r:.100}")
        self._delimiter = b"--" + boundary.encode("ascii")
        self._expected = tuple(expected)
        self._order = sorted(range(len(expected)), key=lambda index: self._expected[index])
        self._firsts = [self._expected[index].first for index in self._order]
        for before, after in pairwise(self._order):
            if self._expected[before].last >= self._expected[after].first:
                raise ValueError(f"ranges overlap: {self._expected[before]} and {self._expected[after]}")
        if not expected:
            raise ValueError("no ranges")
        self._missing = set(range(len(expected)))  # ranges of which no part has begun
        self._targets: list[int] = []  # ranges that the rest of this part fills, the next one last
        self._filled = 0  # bytes of targets[-1] that were passed on
        self._frame = bytearray()
        self._started = False
        self._ended = False
        self._total: int | None = None
        self._failure: ProtocolViolation | None = None

    @property
    def complete(self) -> bool:
        """Whether every range was passed on in full; what may follow is only the end of the framing."""
        return not self._missing and not self._targets

    def feed(self, data: bytes | memoryview) -> list[Piece]:
        """Take the next bytes of the body; return what they hold of the ranges, as slices of `data`.

        Raises ProtocolViolation, then and in every later call.
        """
        if self._failure is not None:
            raise self._failure
        view = memoryview(data).cast("B")
        pieces: list[Piece] = []
        place = 0
        try:
            while place < len(view) and not self._ended:
                place = self._take_data(view, place, pieces) if self._targets else self._take_frame(view, place)
        except ProtocolViolation as error:
            self._failure = error
            raise
        return pieces

    def finish(self) -> None:
        """Tell that the body has ended. Raises ProtocolViolation unless all ranges and the closing boundary were there."""
        if self._failure is not None:
            raise self._failure
        if not self.complete:
            unfilled = [*self._missing, *self._targets]
            raise ProtocolViolation(f"a multipart body without {self._expected[min(unfilled)]}, {len(unfilled)} ranges missing")
        if not self._ended:
            raise ProtocolViolation("a multipart body without its end")

    def _take_data(self, view: memoryview, place: int, pieces: list[Piece]) -> int:
        part = self._targets[-1]
        length = min(len(view) - place, len(self._expected[part]) - self._filled)
        pieces.append(Piece(part, self._filled, view[place : place + length]))
        self._filled += length
        if self._filled == len(self._expected[part]):
            self._targets.pop()
            self._filled = 0
        return place + length

    def _take_frame(self, view: memoryview, place: int) -> int:
        """Read on in a frame; return where it ends in `view`, or len(view) if it goes on in the next piece."""
        kept = len(self._frame)
        self._frame += view[place : place + FRAME_BYTES_MAX - kept]
        end = self._read_frame()
        if end is not None:
            self._frame.clear()
            return place + end - kept
        if len(self._frame) >= FRAME_BYTES_MAX:
            raise ProtocolViolation(f"a multipart body without a part's headers in {FRAME_BYTES_MAX} bytes")
        return len(view)

    def _read_frame(self) -> int | None:
        """Act on the frame if it is whole and return its length, None if more is needed."""
        after = self._delimiter_end()
        if after is None or len(self._frame) < after + 2:
            return None
        if self._frame.startswith(b"--", after):
            self._ended = True
            return after + 2
        line_end = _LINE_END.match(self._frame, after)
        if line_end is None:
            if bytes(self._frame[after:]).strip(b" \t") in (b"", b"\r"):
                return None
            raise ProtocolViolation("a multipart boundary that goes on after its end")
        headers_end = self._frame.find(b"\r\n\r\n", line_end.end() - 2)  # the line's own CRLF begins it if there are no headers
        if headers_end < 0:
            return None
        self._begin_part(bytes(self._frame[line_end.end() : headers_end]))
        return headers_end + 4

    def _delimiter_end(self) -> int | None:
        """Where `--boundary` ends in the frame, None if that cannot be told yet. A preamble may precede the first one."""
        line = b"\r\n" + self._delimiter
        if self._started:
            if not self._frame.startswith(line[: len(self._frame)]):
                raise ProtocolViolation("a multipart body whose part is not followed by a boundary")
            return len(line) if len(self._frame) >= len(line) else None
        if self._frame.startswith(self._delimiter):
            return len(self._delimiter)
        found = self._frame.find(line)
        return found + len(line) if found >= 0 else None

    def _begin_part(self, headers: bytes) -> None:
        content_range = None
        for line in headers.decode("latin-1").split("\r\n") if headers else ():
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise ProtocolViolation(f"a multipart body with a malformed header: {line!r:.80}")
            if name.lower() == "content-encoding" and value.strip().lower() != "identity":
                raise ProtocolViolation(f"a part in an encoding that was not asked for: {value!r:.40}")
            if name.lower() == "content-range":
                if content_range is not None:
                    raise ProtocolViolation("a part with two Content-Range headers")
                content_range = value
        if content_range is None:
            raise ProtocolViolation("a part without Content-Range")
        held, total = parse_content_range(content_range)
        if self._total is not None and total is not None and total != self._total:
            raise ProtocolViolation(f"parts of objects of two lengths, {self._total} and {total}")
        self._total = total if total is not None else self._total
        self._targets = self._ranges_in(held)
        self._missing.difference_update(self._targets)
        self._started = True

    def _ranges_in(self, held: HttpRange) -> list[int]:
        """The expected ranges that a part consists of, last one first."""
        found: list[int] = []
        place, first = bisect_left(self._firsts, held.first), held.first
        while place < len(self._order) and self._firsts[place] == first <= held.last:
            found.append(self._order[place])
            first = self._expected[found[-1]].last + 1
            place += 1
        if first != held.last + 1 or not self._missing.issuperset(found):
            raise ProtocolViolation(f"a part for bytes {held}, which were not asked for or came twice")
        return found[::-1]
