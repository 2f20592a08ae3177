"""Records of a PyTorch checkpoint: a zip file whose entries are stored as they are, one for each storage.

The file ends in a directory of its entries and a record that says where that begins, in a longer form too if the numbers of the
first do not suffice. The directory says where each entry's own header begins, but not how long that is: PyTorch pads it, so that
the data are aligned. So a unit goes from there to the beginning of the next one, and holds the header, the data, and what follows
them. Checkpoints from before PyTorch 1.6 are no zip files; these are recognized by their first bytes, which every program reads.

Source: PKWARE APPNOTE 6.3.10, 4.3.7 to 4.3.16 and 4.5.3; PyTorch, caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

from collections.abc import Generator
from struct import Struct
from typing import Final

from xetfs.protocol.formats.layout import HEADER_BYTES_MAX, Starts, Steps
from xetfs.protocol.formats.window import Window
from xetfs.protocol.ranges import ByteRange

_LOCAL: Final = b"PK\3\4"
_END: Final = Struct("<4s4xHHIIH")  # entries on this disk, entries, bytes and offset of the directory, length of the comment
_END_MAGIC: Final = b"PK\5\6"
_LOCATOR: Final = Struct("<4s4xQ4x")  # stands right before the end record: where the longer one begins
_LOCATOR_MAGIC: Final = b"PK\6\7"
_LONG_END: Final = Struct("<4s20xQQQQ")  # as in the short one, without a comment
_LONG_END_MAGIC: Final = b"PK\6\6"
_ENTRY: Final = Struct("<4s16xIIHHH8xI")  # packed and unpacked bytes; lengths of name, extra fields, comment; where it begins
_ENTRY_MAGIC: Final = b"PK\1\2"
_EXTRA: Final = Struct("<HH")
_LONG_EXTRA: Final = 1
_LONG: Final = 0xFFFFFFFF
"""A number of 32 bits that is too small for its value: the value is in the longer form."""

_TAIL_BYTES: Final = 1024
"""Holds the three records at the end. Programs read no more of it at first, and then the directory."""

Step = Generator[ByteRange, bytes, tuple[int, ByteRange]]


def read_torch_zip(size: int) -> Steps:
    if size < len(_LOCAL) + _END.size:
        raise ValueError("too short for a zip file")
    if (yield ByteRange(0, len(_LOCAL))) != _LOCAL:
        raise ValueError("not a zip file")
    count, directory = yield from _find_directory(size)
    starts = Starts()
    window = Window(directory.start, directory.end)
    at = directory.start
    for _ in range(count):
        at = yield from _read_entry(window, at, starts)
    return starts.layout(ByteRange(directory.start, size), 0, directory.start)


def _find_directory(size: int) -> Step:
    """How many entries the directory has, and where it is."""
    tail_at = max(size - _TAIL_BYTES, 0)
    tail = yield ByteRange(tail_at, size)
    end = tail.rfind(_END_MAGIC)  # a comment may follow; PyTorch writes none
    if not 0 <= end <= len(tail) - _END.size:
        raise ValueError("a zip file without an end")
    _, _, count, length, start, _ = _END.unpack_from(tail, end)
    locator = end - _LOCATOR.size
    if locator >= 0:
        magic, long_at = _LOCATOR.unpack_from(tail, locator)
        if magic == _LOCATOR_MAGIC:
            if long_at + _LONG_END.size > size:
                raise ValueError("the longer end record is past the end of the file")
            record = yield ByteRange(long_at, long_at + _LONG_END.size)
            magic, _, count, length, start = _LONG_END.unpack(record)
            if magic != _LONG_END_MAGIC:
                raise ValueError("no end record where there should be one")
    if length > HEADER_BYTES_MAX or start + length > tail_at + end:
        raise ValueError(f"a directory of {length} bytes at {start} in a file of {size}")
    return count, ByteRange(start, start + length)


def _read_entry(window: Window, at: int, starts: Starts) -> Generator[ByteRange, bytes, int]:
    name: int
    extra: int
    comment: int
    if at + _ENTRY.size > window.end:
        yield from window.load(at, _ENTRY.size)
    magic, packed, unpacked, name, extra, comment, start = _ENTRY.unpack_from(window.data, at - window.base)
    if magic != _ENTRY_MAGIC:
        raise ValueError("an entry of the directory that is none")
    at += _ENTRY.size + name
    if start == _LONG:
        if at + extra > window.end:
            yield from window.load(at, extra)
        place = at - window.base
        start = _long_start(window.data[place : place + extra], 8 * ((unpacked == _LONG) + (packed == _LONG)))
    starts.add(start)
    return at + extra + comment


def _long_start(extra: bytes, before: int) -> int:
    """Where an entry begins, by its extra field of long numbers: behind the `before` bytes of those that are long as well."""
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if kind == _LONG_EXTRA and before + 8 <= length and at + length <= len(extra):
            return int.from_bytes(extra[at + before : at + before + 8], "little")
        at += length
    raise ValueError("an entry that does not say where it begins")
