"""Bodies that are ranges of something: held against what was asked for, before a byte of them is believed."""

from __future__ import annotations

from typing import Final

from xetfs.errors import ProtocolViolation
from xetfs.net.download import Download
from xetfs.protocol.multipart import parse_content_range
from xetfs.protocol.ranges import ByteRange
from xetfs.settings import MIB

SLICED_BYTES_MAX: Final = 16 * MIB
"""How far into a whole body we read for a range that the server did not cut out."""


async def take_range(download: Download, wanted: ByteRange, size: int | None, into: memoryview) -> None:
    """Fill `into` with the bytes `wanted` from a 206 that holds exactly these, or from a 200 that holds everything.

    size: of the whole object, if known. Raises ProtocolViolation for another range, another size or a body too long; Unavailable
    if the body ends early.
    """
    if download.status == 206:
        held, total = parse_content_range(download.headers.get("content-range", ""))
        if held.to_bytes() != wanted:
            raise ProtocolViolation(f"{download.what}: asked for bytes {wanted.to_http()}, got {held}")
        if size is not None and total is not None and total != size:
            raise ProtocolViolation(f"{download.what}: {total} bytes long, not the {size} it is listed with")
        check_length(download, len(wanted))
        await download.fill(into)
        return
    if size is not None:
        check_length(download, size)
    if size == len(wanted):
        await download.fill(into)
    elif wanted.end <= SLICED_BYTES_MAX:
        await download.fill_slice(wanted.start, into)
    else:
        raise ProtocolViolation(f"{download.what}: the server does not serve ranges")


def check_length(download: Download, length: int) -> None:
    """Raises ProtocolViolation if the answer announces another length."""
    told = download.headers.get("content-length")
    if told is not None and told != str(length):
        raise ProtocolViolation(f"{download.what}: {told:.20} bytes announced in place of {length}")
