"""The part of a header that is being looked at: moves forward only, and is loaded in pieces."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from xetfs.protocol.ranges import ByteRange

PIECE_BYTES: Final = 64 * 1024
"""Bytes asked for at a time: at the worst some 20 ms of work, and about one chunk more than needed when the end is not known."""


class Window:
    """data: bytes [base, end) of the file, held at the moment. limit: where the header ends at the latest."""

    __slots__ = ("base", "data", "end", "limit")

    def __init__(self, start: int, limit: int) -> None:
        self.base = self.end = start
        self.limit = limit
        self.data = b""

    def load(self, at: int, count: int) -> Generator[ByteRange, bytes, None]:
        """Hold bytes [at, at + count) and some more, and let go of what is before. Callers ask only when they lack bytes.

        Raises ValueError if the limit is before that.
        """
        if at + count > self.limit:
            raise ValueError(f"bytes {at}-{at + count} are past the end of the header")
        start = max(at, self.end)
        end = min(max(at + count, start + PIECE_BYTES), self.limit)
        kept = self.data[at - self.base :]
        self.data = kept + (yield ByteRange(start, end))
        self.base, self.end = at, end
