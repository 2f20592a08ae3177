"""Tensors of a GGUF file.

Magic, version and two counts; metadata as keys and typed values; for each tensor its name, dimensions, type and where it begins,
counted from the data; padding; the data. A tensor goes on to the beginning of the next one: its length would follow from its
type, but new types come up every year, and between two tensors there is only padding, of 31 bytes as a rule.

How long the header is shows only at its end. It may hold a vocabulary of 256,000 strings, which has to be walked through string
by string; long strings and arrays of numbers are stepped over without being asked for.

Source: ggml, docs/gguf.md, "File Structure".
"""

from __future__ import annotations

from collections.abc import Generator
from struct import Struct
from typing import Final

from xetfs.protocol.formats.layout import HEADER_BYTES_MAX, UNITS_MAX, Starts, Steps
from xetfs.protocol.formats.window import Window
from xetfs.protocol.ranges import ByteRange

_MAGIC: Final = b"GGUF"
_HEAD_BYTES: Final = 24
_VERSIONS: Final = (2, 3)
"""Version 1 had counts of 32 bits; no reader accepts it any more."""
_NUMBER_BYTES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9
_NESTING_MAX: Final = 8
"""Arrays within arrays; no file is known to have any."""
_ALIGNMENT_KEY: Final = b"general.alignment"
_ALIGNMENT: Final = 32
_ALIGNMENT_MAX: Final = 1 << 20
_DIMENSIONS_MAX: Final = 8
"""Twice what the format has today."""

Step = Generator[ByteRange, bytes, int]
"""A part of the header being read; returns the offset behind it."""


def read_gguf(size: int) -> Steps:
    window = Window(0, min(size, HEADER_BYTES_MAX))
    yield from window.load(0, _HEAD_BYTES)
    if window.data[:4] != _MAGIC:
        raise ValueError("not GGUF")
    order = "<" if int.from_bytes(window.data[4:6], "little") else ">"  # files for big-endian machines do not say so otherwise
    version, tensors, pairs = Struct(order + "IQQ").unpack_from(window.data, 4)
    if version not in _VERSIONS or tensors > UNITS_MAX:
        raise ValueError(f"GGUF version {version} with {tensors} tensors")
    header = _Header(window, order)
    at = yield from header.read_pairs(_HEAD_BYTES, pairs)
    at = yield from header.read_tensors(at, tensors)
    if at > window.limit:
        raise ValueError("the header goes on past the end of the file")
    data_at = min(-(-at // header.alignment) * header.alignment, size)  # a vocabulary alone needs no padding
    return header.starts.layout(ByteRange(0, data_at), data_at, size)


class _Header:
    def __init__(self, window: Window, order: str) -> None:
        self._window = window
        self._number = Struct(order + "I").unpack_from
        self._length = Struct(order + "Q").unpack_from
        self._two = Struct(order + "IQ").unpack_from
        self.alignment = _ALIGNMENT
        self.starts = Starts()

    def read_pairs(self, at: int, count: int) -> Step:
        window = self._window
        for _ in range(count):
            if at + 8 > window.end:
                yield from window.load(at, 8)
            (length,) = self._length(window.data, at - window.base)
            at += 8
            key = b""
            if length == len(_ALIGNMENT_KEY):
                if at + length > window.end:
                    yield from window.load(at, length)
                key = window.data[at - window.base : at - window.base + length]
            at += length
            if at + 4 > window.end:
                yield from window.load(at, 4)
            (kind,) = self._number(window.data, at - window.base)
            at += 4
            if key == _ALIGNMENT_KEY:
                yield from self._read_alignment(kind, at)
            at = yield from self._skip_value(kind, at)
        return at

    def _read_alignment(self, kind: int, at: int) -> Generator[ByteRange, bytes, None]:
        window = self._window
        if at + 4 > window.end:
            yield from window.load(at, 4)
        (self.alignment,) = self._number(window.data, at - window.base)
        if kind != _UINT32 or not 1 <= self.alignment <= _ALIGNMENT_MAX:
            raise ValueError(f"an alignment of {self.alignment}")

    def _skip_value(self, kind: int, at: int) -> Step:
        """Step over one value. The arrays that are open are kept as (type, values left)."""
        window = self._window
        nested = [(kind, 1)]
        while nested:
            kind, count = nested.pop()
            if kind in _NUMBER_BYTES:
                at += count * _NUMBER_BYTES[kind]
            elif kind == _STRING:
                at = yield from self._skip_strings(at, count)
            elif kind == _ARRAY and len(nested) < _NESTING_MAX:
                if count:
                    nested.append((kind, count - 1))
                    if at + 12 > window.end:
                        yield from window.load(at, 12)
                    nested.append(self._two(window.data, at - window.base))
                    at += 12
            else:
                raise ValueError(f"a value of type {kind}, {len(nested)} arrays deep")
        return at

    def _skip_strings(self, at: int, count: int) -> Step:
        window = self._window
        for _ in range(count):
            if at + 8 > window.end:
                yield from window.load(at, 8)
            at += 8 + self._length(window.data, at - window.base)[0]
        return at

    def read_tensors(self, at: int, count: int) -> Step:
        window = self._window
        for _ in range(count):
            if at + 8 > window.end:
                yield from window.load(at, 8)
            at += 8 + self._length(window.data, at - window.base)[0]
            if at + 4 > window.end:
                yield from window.load(at, 4)
            (dimensions,) = self._number(window.data, at - window.base)
            if dimensions > _DIMENSIONS_MAX:
                raise ValueError(f"a tensor of {dimensions} dimensions")
            at += 4 + 8 * dimensions
            if at + 12 > window.end:
                yield from window.load(at, 12)
            _, start = self._two(window.data, at - window.base)
            at += 12
            self.starts.add(start)
        return at
