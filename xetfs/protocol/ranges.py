"""Ranges, and the conversions between them.

Two conventions meet in this protocol: file bytes and chunk indexes are counted half open, HTTP ranges inclusive. They have
types of their own with fields of different names, so that one cannot be taken for the other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """Bytes [start, end) of a file. May be empty, never negative."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"not a byte range: [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start

    def clip(self, size: int) -> ByteRange:
        """The part of this range that lies within a file of `size` bytes."""
        return ByteRange(min(self.start, size), min(self.end, size))

    def to_http(self) -> HttpRange:
        """The same bytes as an HTTP range. Raises ValueError if there are none: HTTP has no empty range."""
        return HttpRange(self.start, self.end - 1)


@dataclass(frozen=True, slots=True, order=True)
class ChunkRange:
    """Chunks [start, end) of a xorb or a file, by index. Never empty."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"not a chunk range: [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start

    def covers(self, other: ChunkRange) -> bool:
        return self.start <= other.start and other.end <= self.end


@dataclass(frozen=True, slots=True, order=True)
class HttpRange:
    """Bytes first..last of an HTTP body, both included, as in `Range: bytes=first-last`."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise ValueError(f"not an HTTP range: {self.first}-{self.last}")

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        """The form of the header: `first-last`."""
        return f"{self.first}-{self.last}"

    def to_bytes(self) -> ByteRange:
        return ByteRange(self.first, self.last + 1)
