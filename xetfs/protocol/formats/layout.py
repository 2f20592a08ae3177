"""What a file says of its units, and how that is read without I/O.

Each format is one generator: it yields the ranges it needs, is sent their bytes, and returns a Layout. Whatever the content makes
impossible is a ValueError within it: a range that ends before it begins, a unit outside of the file, a number without an end.
LayoutReader turns that into "no layout".
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from xetfs.protocol.ranges import ByteRange

HEADER_BYTES_MAX: Final = 32 * 1024 * 1024
"""Longest header that is read. Headers of real models have up to about 16 MiB (100,000 tensors, or a vocabulary of 256,000 tokens
with its merges); safetensors allows 100 MB, which would be a burden to read for a hint."""
UNITS_MAX: Final = 1 << 18
"""More units than any file has: they take 4 MiB, and some 40 for a moment while they are sorted."""

Buffer = bytes | bytearray | memoryview
Steps = Generator[ByteRange, bytes, "Layout"]
"""One format being read: yields what it wants, is sent exactly that, returns the layout; ValueError if the file has none."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The units of a file in order of their offsets; none is empty, no two overlap, what lies between is not described.

    header: the part that every program reads first, which may be the end of the file.
    starts, ends: offsets of the units, as arrays of 64-bit numbers: files have up to 100,000 of them.
    """

    header: ByteRange
    starts: array[int]
    ends: array[int]

    def __post_init__(self) -> None:
        if len(self.starts) != len(self.ends):
            raise ValueError(f"{len(self.starts)} starts of units, {len(self.ends)} ends")
        if not all(start < end for start, end in zip(self.starts, self.ends, strict=True)):
            raise ValueError("a unit is empty")
        if not all(end <= start for end, start in zip(self.ends, islice(self.starts, 1, None), strict=False)):
            raise ValueError("units overlap, or are not in order")

    @property
    def units(self) -> tuple[ByteRange, ...]:
        """All units as values; made anew each time."""
        return tuple(map(ByteRange, self.starts, self.ends))

    def unit_at(self, offset: int) -> ByteRange | None:
        """The unit that holds the byte at `offset`; None if that is in none."""
        i = self.index_at(offset)
        return ByteRange(self.starts[i], self.ends[i]) if i >= 0 and offset < self.ends[i] else None

    def index_at(self, offset: int) -> int:
        """Which unit begins last at or before `offset`; -1 if none does."""
        return bisect_right(self.starts, offset) - 1

    def end_from(self, offset: int) -> int:
        """Where a program that reads on from `offset` comes to an end: that of the unit which begins last at or before it. In
        front of all units it is the end of the header."""
        i = self.index_at(offset)
        return self.ends[i] if i >= 0 else self.header.end

    def last_end(self, offset: int) -> int:
        """Where the last unit ends that ends at or before `offset`; 0 if none does."""
        i = bisect_right(self.ends, offset) - 1
        return self.ends[i] if i >= 0 else 0


class LayoutReader:
    """Reads a layout. wants: the next bytes to be given; None when it is done. layout: the result, None if there is none."""

    __slots__ = ("_steps", "layout", "wants")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.layout: Layout | None = None
        self.wants: ByteRange | None = None
        self._advance(None)

    def feed(self, data: Buffer) -> None:
        """Give the bytes of `wants`; they are not kept. Raises ValueError if nothing is wanted, or if they are more or fewer.

        Bad content raises nothing: it ends in `wants` and `layout` both None.
        """
        if self.wants is None:
            raise ValueError("nothing is wanted any more")
        if len(data) != len(self.wants):
            raise ValueError(f"{len(data)} bytes given, {len(self.wants)} are wanted")
        self._advance(bytes(data))

    def _advance(self, data: bytes | None) -> None:
        try:
            self.wants = next(self._steps) if data is None else self._steps.send(data)
        except StopIteration as done:
            self.layout = done.value
            self.wants = None
        except ValueError:
            self.wants = None

    def __repr__(self) -> str:
        return f"LayoutReader(wants={self.wants}, units={None if self.layout is None else len(self.layout.starts)})"


class Units:
    """Collects the units of a file of `size` bytes, in any order. All methods raise ValueError for units that cannot be."""

    __slots__ = ("_ends", "_size", "_starts")

    def __init__(self, size: int) -> None:
        self._size = size
        self._starts = array("Q")
        self._ends = array("Q")

    def add(self, start: int, end: int) -> None:
        """A unit of these bytes; one without bytes is left out."""
        if not 0 <= start <= end <= self._size:
            raise ValueError(f"a unit [{start}, {end}) in a file of {self._size} bytes")
        if start < end:
            self._starts.append(start)
            self._ends.append(end)
        if len(self._starts) > UNITS_MAX:
            raise ValueError("too many units")

    def layout(self, header: ByteRange) -> Layout:
        pairs = sorted(zip(self._starts, self._ends, strict=True))
        return Layout(header, array("Q", [start for start, _ in pairs]), array("Q", [end for _, end in pairs]))


class Starts:
    """Collects where units begin, in any order; each goes on to the beginning of the next one, the last one to `end`."""

    __slots__ = ("_starts",)

    def __init__(self) -> None:
        self._starts = array("Q")

    def add(self, start: int) -> None:
        """Units that begin at the same place are one. Raises ValueError for a beginning that cannot be."""
        if not 0 <= start < 1 << 63:
            raise ValueError(f"a unit that begins at {start}")
        self._starts.append(start)
        if len(self._starts) > UNITS_MAX:
            raise ValueError("too many units")

    def layout(self, header: ByteRange, base: int, end: int) -> Layout:
        """base: what the beginnings are counted from. Raises ValueError if one of them is past the end."""
        starts = sorted({base + start for start in self._starts})
        if starts and starts[-1] > end:
            raise ValueError(f"a unit begins at {starts[-1]}, the data ends at {end}")
        if starts and starts[-1] == end:
            starts.pop()  # it has no bytes
        return Layout(header, array("Q", starts), array("Q", [*starts[1:], end] if starts else []))
