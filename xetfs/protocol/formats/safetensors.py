"""Tensors of a safetensors file.

8 bytes with the length of the header, the header as JSON, the data. Each tensor says `"data_offsets": [begin, end]`, counted from
the beginning of the data. Only these are looked for: a JSON parser would take a hundred megabytes for a header of ten, and stack
for as many brackets as a file likes to open. In JSON a quotation mark within a string is escaped, so in a valid header the
pattern can be nothing else than such an entry.

Source: safetensors README, "Format".
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

from xetfs.protocol.formats.layout import HEADER_BYTES_MAX, Steps, Units
from xetfs.protocol.ranges import ByteRange

PIECE_BYTES: Final = 256 * 1024
"""Bytes searched at a time: a few milliseconds."""
_LENGTH_BYTES: Final = 8
_SPACE: Final = rb"[ \t\r\n]{0,8}+"
_OFFSETS: Final = re.compile(
    _SPACE.join((rb'"data_offsets"', rb":", rb"\[", rb"([0-9]{1,19}+)", rb",", rb"([0-9]{1,19}+)", rb"\]"))
)
_ENTRY_BYTES_MAX: Final = 128
"""More than the longest text that the pattern matches."""


def read_safetensors(size: int) -> Steps:
    if size < _LENGTH_BYTES:
        raise ValueError("shorter than the length of a header")
    length = int.from_bytes((yield ByteRange(0, _LENGTH_BYTES)), "little")
    data_at = _LENGTH_BYTES + length
    if length > HEADER_BYTES_MAX or data_at > size:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    units = Units(size)
    yield from _find_tensors(ByteRange(_LENGTH_BYTES, data_at), units)
    return units.layout(ByteRange(0, data_at))


def _find_tensors(text: ByteRange, units: Units) -> Generator[ByteRange, bytes, None]:
    """Look through the JSON a piece at a time; what may be the beginning of an entry is kept for the next."""
    kept = last = b""
    for at in range(text.start, text.end, PIECE_BYTES):
        piece = yield ByteRange(at, min(at + PIECE_BYTES, text.end))
        if at == text.start and not piece.startswith(b"{"):
            raise ValueError("a header that is not JSON")
        last = piece.rstrip(b" \t\r\n")[-1:] or last  # writers pad a header so that the data are aligned
        kept += piece
        looked_at = max(len(kept) - _ENTRY_BYTES_MAX, 0)
        for found in _OFFSETS.finditer(kept):
            units.add(text.end + int(found[1]), text.end + int(found[2]))
            looked_at = max(looked_at, found.end())
        kept = kept[looked_at:]
    if last != b"}":
        raise ValueError("a header that does not end")
