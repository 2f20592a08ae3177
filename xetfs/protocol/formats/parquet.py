"""Column chunks of a Parquet file.

The file ends in its metadata, their length in 32 bits, and a magic. The metadata are a Thrift struct in the compact protocol, of
which some integers are looked for: FileMetaData 4 row_groups → RowGroup 1 columns → ColumnChunk 3 meta_data → ColumnMetaData
7, 9, 11. All else is stepped over, without recursion.

The unit is the column chunk, not the row group: a program that reads a few columns of many reads whole chunks of these, and one
that reads all columns goes from each chunk on to the next.

Source: parquet-format, parquet.thrift; Apache Thrift, thrift-compact-protocol.md.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from xetfs.protocol.formats.layout import Steps, Units
from xetfs.protocol.formats.window import Window
from xetfs.protocol.ranges import ByteRange

_MAGIC: Final = b"PAR1"
"""Files with an encrypted footer end in PARE: they tell nothing."""
_TAIL_BYTES: Final = 8
_METADATA_BYTES_MAX: Final = 8 * 1024 * 1024
"""Longest metadata that are read: 100,000 column chunks. A megabyte takes a quarter of a second, more than the hint is worth."""
_VARINT_BYTES_MAX: Final = 10
_TOKEN_BYTES_MAX: Final = 24
"""More than what is read at once: the byte before a field, its number, the byte before a list, its length."""
_NESTING_MAX: Final = 32
"""The format itself nests about ten deep."""

# Types of the compact protocol. A field of type true or false has no bytes, an element of a list has one.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT, _UUID = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13
_FIELD_BYTES: Final = {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8, _UUID: 16}
_ELEMENT_BYTES: Final = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8, _UUID: 16}
_INTEGERS: Final = (_I16, _I32, _I64)

# The places on the way to what is looked for, and the field (0: any element of a list) that leads from one to the next.
_OTHER, _FILE, _GROUPS, _GROUP, _COLUMNS, _COLUMN, _META = range(7)
_BELOW: Final = {(_FILE, 4): _GROUPS, (_GROUPS, 0): _GROUP, (_GROUP, 1): _COLUMNS, (_COLUMNS, 0): _COLUMN, (_COLUMN, 3): _META}
_FILE_PATH: Final = 1
_BYTES, _DATA_AT, _DICTIONARY_AT = 7, 9, 11


def read_parquet(size: int) -> Steps:
    if size < len(_MAGIC) + _TAIL_BYTES:
        raise ValueError("too short for Parquet")
    tail = yield ByteRange(size - _TAIL_BYTES, size)
    length = int.from_bytes(tail[:4], "little")
    start = size - _TAIL_BYTES - length
    if tail[4:] != _MAGIC or length > _METADATA_BYTES_MAX or start < len(_MAGIC):
        raise ValueError(f"not Parquet, or metadata of {length} bytes in a file of {size}")
    metadata = _Metadata(Window(start, size - _TAIL_BYTES), Units(start))
    yield from metadata.walk()
    return metadata.units.layout(ByteRange(start, size))


class _Metadata:
    """Walks through the struct that a window begins with and collects the units.

    Each round of the walk takes one token: the head of a field with its value, an element of a list, or the end of a struct. Data
    of a megabyte have half a million of them, so that its state is in local variables, and it calls functions only for what is
    rare.
    """

    def __init__(self, window: Window, units: Units) -> None:
        self.units = units
        self._window = window
        self._data = b""
        self._column: dict[int, int] = {}  # integers of the ColumnMetaData being read
        self._is_elsewhere = False  # the chunk being read is in another file

    def walk(self) -> Generator[ByteRange, bytes, None]:
        open_above: list[tuple[int, int, int]] = []
        place, kind, count = _FILE, 0, 0  # of a list: type of its elements, how many are left; of a struct: 0, the last field
        data, at, safe = b"", 0, -1  # a token that begins at or before `safe` is within the data
        while True:
            if at > safe:
                at, safe = yield from self._load(at)
                data = self._data
            if kind:
                if not count:
                    place, kind, count = open_above.pop()
                    continue
                count -= 1
                value_kind, field = kind, 0
            else:
                head = data[at]
                at += 1
                if not head:
                    if place == _COLUMN:
                        self._end_column()
                    if not open_above:
                        return
                    place, kind, count = open_above.pop()
                    continue
                value_kind, step = head & 15, head >> 4
                if step:
                    count += step
                else:
                    count, at = _integer(data, at)
                field = count
                if value_kind in _FIELD_BYTES:
                    at += _FIELD_BYTES[value_kind]
                    continue
            if value_kind in _INTEGERS:
                if place == _META:
                    self._column[field], at = _integer(data, at)
                elif data[at] < 128:
                    at += 1
                else:
                    _, at = _varint(data, at)
            elif value_kind == _BINARY:
                self._is_elsewhere |= place == _COLUMN and field == _FILE_PATH
                length, at = _varint(data, at)
                at += length
            else:
                below, kind_below, count_below, at = self._enter(value_kind, _BELOW.get((place, field), _OTHER), at)
                if count_below or not kind_below:
                    if len(open_above) >= _NESTING_MAX:
                        raise ValueError("too deep")
                    open_above.append((place, kind, count))
                    place, kind, count = below, kind_below, count_below

    def _load(self, at: int) -> Generator[ByteRange, bytes, tuple[int, int]]:
        """Hold the data from index `at` of those held so far; where that is now, and up to where a token may begin."""
        window = self._window
        offset = window.base + at
        if offset >= window.limit:
            raise ValueError("the metadata go on past their end")
        yield from window.load(offset, min(_TOKEN_BYTES_MAX, window.limit - offset))
        if window.end < window.limit:
            self._data = window.data
            return 0, len(self._data) - _TOKEN_BYTES_MAX
        self._data = window.data + bytes(_TOKEN_BYTES_MAX)  # what is cut off at the end is then seen after a token, not in it
        return 0, len(window.data) - 1

    def _enter(self, kind: int, place: int, at: int) -> tuple[int, int, int, int]:
        """What a struct or list begins with: its place, kind and count as in `walk`, and where it goes on."""
        if kind == _STRUCT:
            if place == _COLUMN:
                self._column.clear()
                self._is_elsewhere = False
            return place, 0, 0, at
        if kind not in (_LIST, _SET):
            raise ValueError(f"a value of type {kind}")  # maps among them: the metadata have none
        head = self._data[at]
        at += 1
        kind, count = head & 15, head >> 4
        if not kind:
            raise ValueError("a list of nothing")
        if count == 15:
            count, at = _varint(self._data, at)
        if kind in _ELEMENT_BYTES:
            return place, kind, 0, at + count * _ELEMENT_BYTES[kind]
        return place, kind, count, at

    def _end_column(self) -> None:
        """Take in the chunk that was read; not one in another file, or one whose metadata are encrypted."""
        column = self._column
        places = [column[field] for field in (_DATA_AT, _DICTIONARY_AT) if column.get(field)]  # 0: it has no such page
        if places and _BYTES in column and not self._is_elsewhere:
            self.units.add(min(places), min(places) + column[_BYTES])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    for place in range(at, at + _VARINT_BYTES_MAX):
        byte = data[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place + 1
        shift += 7
    raise ValueError("a number without an end")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """A signed number (0, -1, 1, -2, 2 …), and where it ends."""
    value, at = _varint(data, at)
    return ~(value >> 1) if value & 1 else value >> 1, at
