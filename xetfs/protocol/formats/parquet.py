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

from xetfs.protocol.formats.layout import HEADER_BYTES_MAX, Steps, Units
from xetfs.protocol.formats.window import Window
from xetfs.protocol.ranges import ByteRange

_MAGIC: Final = b"PAR1"
"""Files with an encrypted footer end in PARE: they tell nothing."""
_TAIL_BYTES: Final = 8
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
    if tail[4:] != _MAGIC or length > HEADER_BYTES_MAX or start < len(_MAGIC):
        raise ValueError(f"not Parquet, or metadata of {length} bytes in a file of {size}")
    metadata = _Metadata(Window(start, size - _TAIL_BYTES), Units(start))
    yield from metadata.walk()
    return metadata.units.layout(ByteRange(start, size))


class _Frame:
    """A struct or a list that is open. field: the last one read of a struct, 0 for a list; kind, left: of a list's elements."""

    __slots__ = ("field", "kind", "left", "place")

    def __init__(self, place: int, kind: int = 0, left: int = 0) -> None:
        self.place = place
        self.kind = kind
        self.left = left
        self.field = 0


class _Metadata:
    """Walks through the struct that a window begins with, one token after the other, and collects the units."""

    def __init__(self, window: Window, units: Units) -> None:
        self.units = units
        self._window = window
        self._at = window.base
        self._open = [_Frame(_FILE)]
        self._column: dict[int, int] = {}  # integers of the ColumnMetaData being read
        self._is_elsewhere = False  # the chunk being read is in another file

    def walk(self) -> Generator[ByteRange, bytes, None]:
        window = self._window
        while self._open:
            if self._at >= window.limit:
                raise ValueError("the metadata go on past their end")
            needed = min(self._at + _TOKEN_BYTES_MAX, window.limit)
            if needed > window.end:
                yield from window.load(self._at, needed - self._at)
                if window.end == window.limit:
                    window.data += bytes(_TOKEN_BYTES_MAX)  # a token cut off at the end is then seen after it, not within
            frame = self._open[-1]
            if frame.kind:
                self._read_element(frame)
            else:
                self._read_field(frame)

    def _read_field(self, frame: _Frame) -> None:
        head = self._window.data[self._at - self._window.base]
        self._at += 1
        if head == 0:
            self._open.pop()
            if frame.place == _COLUMN:
                self._end_column()
            return
        kind, step = head & 15, head >> 4
        frame.field = frame.field + step if step else self._integer()
        if kind in _FIELD_BYTES:
            self._at += _FIELD_BYTES[kind]
        else:
            self._read_value(kind, frame.place, frame.field)

    def _read_element(self, frame: _Frame) -> None:
        if frame.left == 0:
            self._open.pop()
            return
        frame.left -= 1
        self._read_value(frame.kind, frame.place, 0)

    def _read_value(self, kind: int, place: int, field: int) -> None:
        """Read an integer, step over a string, or open a struct or list, which is then the next to be looked at."""
        if kind in _INTEGERS:
            value = self._integer()
            if place == _META:
                self._column[field] = value
        elif kind == _BINARY:
            if place == _COLUMN and field == _FILE_PATH:
                self._is_elsewhere = True
            length = self._varint()
            self._at += length
        elif kind == _STRUCT:
            self._enter(_Frame(_BELOW.get((place, field), _OTHER)))
        elif kind in (_LIST, _SET):
            self._begin_list(_BELOW.get((place, field), _OTHER))
        else:
            raise ValueError(f"a value of type {kind}")  # maps among them: the metadata have none

    def _begin_list(self, place: int) -> None:
        head = self._window.data[self._at - self._window.base]
        self._at += 1
        kind, count = head & 15, head >> 4
        if count == 15:
            count = self._varint()
        if kind in _ELEMENT_BYTES:
            self._at += count * _ELEMENT_BYTES[kind]
        elif count:
            self._enter(_Frame(place, kind, count))

    def _enter(self, frame: _Frame) -> None:
        if len(self._open) >= _NESTING_MAX:
            raise ValueError("too deep")
        if frame.place == _COLUMN:
            self._column.clear()
            self._is_elsewhere = False
        self._open.append(frame)

    def _end_column(self) -> None:
        """Take in the chunk that was read; not one in another file, or one whose metadata are encrypted."""
        column = self._column
        places = [column[field] for field in (_DATA_AT, _DICTIONARY_AT) if column.get(field)]  # 0: it has no such page
        if places and _BYTES in column and not self._is_elsewhere:
            self.units.add(min(places), min(places) + column[_BYTES])

    def _varint(self) -> int:
        """A number in groups of 7 bits, the lowest first. A token never holds two of more than 10 bytes."""
        data, start = self._window.data, self._at - self._window.base
        value = shift = 0
        for at in range(start, start + _VARINT_BYTES_MAX):
            byte = data[at]
            value |= (byte & 127) << shift
            if byte < 128:
                self._at += at + 1 - start
                return value
            shift += 7
        raise ValueError("a number without an end")

    def _integer(self) -> int:
        """A signed number: 0, -1, 1, -2, 2 …"""
        value = self._varint()
        return value >> 1 if not value & 1 else ~(value >> 1)
