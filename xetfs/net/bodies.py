"""Bodies that are ranges of something: compared with what was asked for before a byte of them is used.

What servers answer to a request for one range, and what is made of it:

| answer | is |
|---|---|
| 206 with the Content-Range asked for, and a body of that length | the range |
| 206 without Content-Range, and a body of that length | the range, if its bytes are hashed by the caller or the status vouches |
| 200, and a body of exactly the length asked for | the range, if its bytes are hashed by the caller (Xet alone) |
| 200, and a body of another length | the whole object, out of which the range is cut |
| anything else | refused, and worth another attempt: what garbles one answer rarely garbles the next |

The second and third are what the CAS server of the crate xet-client answers (simulation/local_server/handlers.rs, fetch_term);
they are counted. A body without Content-Length is judged by what arrives.
"""

from __future__ import annotations

from typing import Final

from xetfs.errors import ProtocolViolation, Unavailable
from xetfs.net.download import Download
from xetfs.net.writers import Writer, write
from xetfs.protocol.multipart import parse_content_range
from xetfs.protocol.ranges import ByteRange, HttpRange
from xetfs.telemetry import NET_UNLABELLED
from xetfs.units import MIB

SLICED_BYTES_MAX: Final = 16 * MIB
"""How far into a whole body we read for a range that the server did not cut out."""


async def take_range(download: Download, wanted: ByteRange, size: int | None, writer: Writer) -> None:
    """Fill `writer`, which is as long as `wanted`, from the body of a 200 or 206.

    size: of the whole object as it is listed, for a file whose parts have no hash of their own; None if the caller checks the
    hash of every byte.
    Raises ProtocolViolation (retryable) for another range, another size or a body too long; Unavailable if the body ends early.
    """
    if download.status == 206:
        await _take_partial(download, wanted, size, writer)
    elif download.announced_length == len(wanted) and size in (None, len(wanted)):
        await download.fill(writer)
        if size is None:
            download.counters.add(NET_UNLABELLED)
    else:
        await _take_whole(download, wanted, size, writer)


async def _take_partial(download: Download, wanted: ByteRange, size: int | None, writer: Writer) -> None:
    label = download.headers.get("content-range")
    if label is not None:
        held, total = _parse_label(download, label)
        if held.to_bytes() != wanted:
            raise _garbled(download, f"asked for bytes {wanted.to_http()}, got {held}")
        if size is not None and total is not None and total != size:
            raise _garbled(download, f"{total} bytes long, not the {size} it is listed with")
    if download.announced_length not in (None, len(wanted)):
        raise _garbled(download, f"{download.announced_length} bytes announced in place of {len(wanted)}")
    await download.fill(writer)
    if label is None:
        download.counters.add(NET_UNLABELLED)


def _parse_label(download: Download, label: str) -> tuple[HttpRange, int | None]:
    try:
        return parse_content_range(label)
    except ProtocolViolation as exc:
        raise _garbled(download, exc.message) from None


async def _take_whole(download: Download, wanted: ByteRange, size: int | None, writer: Writer) -> None:
    """Cut the range out of a body that should be the whole object."""
    announced = download.announced_length
    if announced is None:
        await _take_unannounced(download, wanted, size, writer)
    elif announced < wanted.end or announced != (size or announced):
        raise _garbled(download, f"{announced} bytes announced in place of {size or len(wanted)}")
    elif wanted.end > SLICED_BYTES_MAX:
        raise _garbled(download, "the server does not serve ranges")
    else:
        await download.fill_slice(wanted.start, writer)


async def _take_unannounced(download: Download, wanted: ByteRange, size: int | None, writer: Writer) -> None:
    """The same of a body without Content-Length: it is the range if it ends where that would.

    What could be either is collected first rather than in `writer`, which takes no byte back.
    """
    if size == len(writer):
        await download.fill(writer)
        return
    if wanted.end > SLICED_BYTES_MAX:
        if size is not None:
            raise _garbled(download, "the server does not serve ranges")
        await download.fill(writer)
        download.counters.add(NET_UNLABELLED)
        return
    body = await download.read_start(wanted.end)
    if len(body) == wanted.end:
        write(writer, memoryview(body)[wanted.start :])
    elif len(body) == len(writer) and size is None:
        write(writer, memoryview(body))
        download.counters.add(NET_UNLABELLED)
    else:
        raise Unavailable(f"{download.what}: ended after {len(body)} of {wanted.end} bytes")


def _garbled(download: Download, why: str) -> ProtocolViolation:
    return ProtocolViolation(f"{download.what}: {why}", retryable=True)
