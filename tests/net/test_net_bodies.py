"""Ranges out of the answers of servers that label them as they should, otherwise, or not at all."""

from __future__ import annotations

import random

import pytest
import trio
from loopback import Asked, Handler, answer, client_of, ranged, serving

from xetfs.errors import ProtocolViolation, Unavailable, XetfsError
from xetfs.net.bodies import SLICED_BYTES_MAX, take_range
from xetfs.net.client import HttpClient
from xetfs.net.writers import BufferWriter
from xetfs.protocol.ranges import ByteRange
from xetfs.telemetry import NET_UNLABELLED
from xetfs.units import MIB

DATA = random.Random(2).randbytes(50_000)
SPAN = ByteRange(300, 1300)
WHOLE = len(DATA)
HEAD = b"HTTP/1.1 %d OK\r\ncontent-type: application/octet-stream\r\n%s\r\n"


async def take(client: HttpClient, url: str, span: ByteRange, size: int | None) -> bytes:
    into = bytearray(len(span))
    async with client.stream(url, "data", headers={"range": f"bytes={span.to_http()}"}) as download:
        await take_range(download, span, size, BufferWriter(memoryview(into)))
    return bytes(into)


async def taken(handler: Handler, span: ByteRange, size: int | None) -> tuple[bytes, int]:
    """The bytes, and how many of their answers did not say which they are."""
    async with serving(handler) as server, client_of(server.url) as client:
        return await take(client, f"{server.url}/x", span, size), client.counters[NET_UNLABELLED]


async def refused(handler: Handler, span: ByteRange, size: int | None) -> XetfsError:
    """The error, which another attempt may not meet."""
    async with serving(handler) as server, client_of(server.url) as client:
        with pytest.raises(XetfsError) as caught:
            await take(client, f"{server.url}/x", span, size)
        assert caught.value.retryable
        assert client.counters[NET_UNLABELLED] == 0
        return caught.value


def saying(reply: bytes) -> Handler:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return reply

    return handler


def unannounced(status: int, body: bytes, headers: bytes = b"") -> Handler:
    """A body without Content-Length, which ends with the connection."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD % (status, headers) + body)

    return handler


def chunked(status: int, body: bytes, headers: bytes = b"") -> Handler:
    """A body in pieces of 700 bytes."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        pieces = [body[at : at + 700] for at in range(0, len(body), 700)]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        return HEAD % (status, headers + b"transfer-encoding: chunked\r\n") + framed

    return handler


@pytest.mark.parametrize("size", [WHOLE, None])
async def test_a_206_that_holds_the_range(size: int | None) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return ranged(DATA, asked)

    assert await taken(handler, SPAN, size) == (DATA[300:1300], 0)


@pytest.mark.parametrize("size", [WHOLE, None])
@pytest.mark.parametrize("send", [unannounced, chunked])
async def test_a_206_without_content_length_is_judged_by_what_arrives(send, size: int | None) -> None:  # type: ignore[no-untyped-def]
    label = b"content-range: bytes 300-1299/50000\r\n"
    assert await taken(send(206, DATA[300:1300], label), SPAN, size) == (DATA[300:1300], 0)
    assert isinstance(await refused(send(206, DATA[300:1299], label), SPAN, size), Unavailable)
    assert isinstance(await refused(send(206, DATA[300:1301], label), SPAN, size), ProtocolViolation)
    assert isinstance(await refused(send(206, DATA, label), SPAN, size), ProtocolViolation)


@pytest.mark.parametrize("size", [WHOLE, None])
async def test_a_206_without_content_range_is_the_range_if_it_is_as_long(size: int | None) -> None:
    assert await taken(saying(answer(206, DATA[300:1300])), SPAN, size) == (DATA[300:1300], 1)
    assert await taken(chunked(206, DATA[300:1300]), SPAN, size) == (DATA[300:1300], 1)
    for body in (DATA[300:1299], DATA[300:1301], DATA, b""):
        assert isinstance(await refused(saying(answer(206, body)), SPAN, size), ProtocolViolation)
        assert await refused(chunked(206, body), SPAN, size)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content_range": "bytes 1-10/1000"}, DATA[1:11]),
        ({"content_range": "bytes 0-8/1000"}, DATA[:9]),
        ({"content_range": "bytes 0-10/1000"}, DATA[:11]),
        ({"content_range": "bytes 0-9/999"}, DATA[:10]),
        ({"content_range": "bytes 0-9/5"}, DATA[:10]),
        ({"content_range": "octets 0-9/1000"}, DATA[:10]),
        ({"content_range": "bytes */1000"}, DATA[:10]),
        ({"content_range": ""}, DATA[:10]),
        ({"content_range": "bytes 0-9/1000"}, DATA[:11]),
        ({"content_range": "bytes 0-9/1000"}, DATA[:9]),
        ({"content_range": "bytes 0-9/1000", "content_length": "9"}, DATA[:10]),
        ({"content_range": "bytes 0-9/1000", "content_length": "1010"}, DATA[:10]),
    ],
)
async def test_a_206_with_another_range_or_length_is_refused(headers: dict[str, str], body: bytes) -> None:
    assert isinstance(await refused(saying(answer(206, body, **headers)), ByteRange(0, 10), 1000), ProtocolViolation)


async def test_a_200_as_long_as_the_range_is_the_range_where_hashes_decide() -> None:
    assert await taken(saying(answer(200, DATA[300:1300])), SPAN, None) == (DATA[300:1300], 1)
    assert await taken(unannounced(200, DATA[300:1300]), SPAN, None) == (DATA[300:1300], 1)
    assert await taken(chunked(200, DATA[300:1300]), SPAN, None) == (DATA[300:1300], 1)
    for send in (unannounced, chunked):
        assert isinstance(await refused(send(200, DATA[300:1300]), SPAN, WHOLE), Unavailable)
    assert isinstance(await refused(saying(answer(200, DATA[300:1300])), SPAN, WHOLE), ProtocolViolation)


@pytest.mark.parametrize("size", [WHOLE, None])
@pytest.mark.parametrize(
    "span", [SPAN, ByteRange(0, 10), ByteRange(30_000, WHOLE), ByteRange(10, WHOLE), ByteRange(49_999, WHOLE)]
)
async def test_a_200_of_another_length_is_the_whole_object(span: ByteRange, size: int | None) -> None:
    for handler in (saying(answer(200, DATA)), unannounced(200, DATA), chunked(200, DATA)):
        assert await taken(handler, span, size) == (DATA[span.start : span.end], 0)


@pytest.mark.parametrize("send", [unannounced, chunked])
async def test_a_file_asked_for_whole_without_content_length(send) -> None:  # type: ignore[no-untyped-def]
    everything = ByteRange(0, WHOLE)
    assert await taken(send(200, DATA), everything, WHOLE) == (DATA, 0)
    assert isinstance(await refused(send(200, DATA[:-1]), everything, WHOLE), Unavailable)
    assert isinstance(await refused(send(200, DATA + b"x"), everything, WHOLE), ProtocolViolation)


@pytest.mark.parametrize("size", [WHOLE, None])
@pytest.mark.parametrize("body", [b"", DATA[:999], DATA[:1299], b"<html>Log in</html>"])
async def test_a_200_that_cannot_hold_the_range_is_refused(body: bytes, size: int | None) -> None:
    for handler in (saying(answer(200, body)), unannounced(200, body), chunked(200, body)):
        assert await refused(handler, SPAN, size)


async def test_no_more_of_a_whole_object_is_read_than_is_sensible() -> None:
    sent = 0

    def endless(headers: bytes) -> Handler:
        async def handler(asked: Asked, stream: trio.abc.Stream) -> None:
            nonlocal sent
            await stream.send_all(HEAD % (200, headers))
            while True:
                await stream.send_all(bytes(65536))
                sent += 65536

        return handler

    near = ByteRange(SLICED_BYTES_MAX - 10, SLICED_BYTES_MAX)
    far = ByteRange(SLICED_BYTES_MAX, SLICED_BYTES_MAX + 1)
    for handler in (endless(b"content-length: %d\r\n" % (64 * MIB)), endless(b"")):
        assert await taken(handler, near, None) == (bytes(10), 0)
        for size in (None, 64 * MIB):
            sent = 0
            assert isinstance(await refused(handler, far, size), ProtocolViolation)
            assert sent < 4 * MIB
    # But as long as the range goes, it may be the range.
    long = ByteRange(SLICED_BYTES_MAX, SLICED_BYTES_MAX + 10)
    assert await taken(unannounced(200, DATA[:10]), long, None) == (DATA[:10], 1)


async def test_a_listed_size_is_held_against_a_whole_object() -> None:
    assert isinstance(await refused(saying(answer(200, DATA)), ByteRange(0, 10), WHOLE + 1), ProtocolViolation)
