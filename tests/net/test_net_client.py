"""HttpClient against servers that are slow, wrong or hostile."""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable

import pytest
import trio
from loopback import CANARY, Asked, answer, client_of, serving

from xetfs import __version__
from xetfs.credentials import FixedToken
from xetfs.errors import Offline, ProtocolViolation, RateLimited, XetfsError
from xetfs.net.bodies import take_range
from xetfs.net.client import HttpClient
from xetfs.net.origins import REDIRECTS_MAX, Bearer, Origin
from xetfs.net.writers import BufferWriter
from xetfs.protocol.ranges import ByteRange
from xetfs.secret import Secret
from xetfs.telemetry import NET_BYTES, NET_REQUESTS, NET_RETRIES

Behaviour = Callable[[Asked, trio.abc.Stream], object]
DATA = bytes(range(256)) * 64


async def take(client: HttpClient, url: str, span: ByteRange, size: int | None) -> bytes:
    into = bytearray(len(span))
    async with client.stream(url, "data", headers={"range": f"bytes={span.to_http()}"}) as download:
        await take_range(download, span, size, BufferWriter(memoryview(into)))
    return bytes(into)


async def test_what_every_request_carries() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"ok", set_cookie="session=1; Path=/")

    async with serving(handler) as server, client_of(server.url) as client:
        await client.request(f"{server.url}/a", "x")
        async with client.stream(f"{server.url}/b", "x") as download:
            assert await download.read(10) == b"ok"
        small, data = server.asked
        assert small.headers["user-agent"] == data.headers["user-agent"] == f"xetfs/{__version__}"
        assert (small.headers["accept-encoding"], data.headers["accept-encoding"]) == ("gzip", "identity")
        assert not {"cookie", "authorization"} & (small.headers.keys() | data.headers.keys())
        assert client.counters[NET_REQUESTS] == 2
        assert client.counters[NET_BYTES] == 4


async def test_gzip_that_was_asked_for_is_undone() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, gzip.compress(DATA), content_encoding="gzip")

    async with serving(handler) as server, client_of(server.url) as client:
        assert (await client.request(f"{server.url}/x", "x")).body == DATA


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_an_encoding_that_nobody_asked_for_is_refused(encoding: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, gzip.compress(DATA), content_encoding=encoding)

    async with serving(handler) as server, client_of(server.url) as client:
        with pytest.raises(ProtocolViolation, match="nobody asked for") as caught:
            await take(client, f"{server.url}/x", ByteRange(0, 5), None)
        assert caught.value.retryable
        if encoding != "gzip":
            with pytest.raises(ProtocolViolation, match="nobody asked for"):
                await client.request(f"{server.url}/x", "x")
        assert client.counters[NET_RETRIES] == 0


async def test_a_small_body_that_unpacks_to_a_large_one_is_refused() -> None:
    bomb = gzip.compress(bytes(8 * 1024 * 1024))

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, bomb, content_encoding="gzip")

    async with serving(handler) as server, client_of(server.url) as client:
        with pytest.raises(ProtocolViolation, match="longer than"):
            await client.request(f"{server.url}/x", "x", bytes_max=1024 * 1024)


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(DATA)[:-9], zlib.compress(DATA)], ids=["text", "cut", "zlib"])
async def test_gzip_that_is_none_is_an_error(body: bytes) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, body, content_encoding="gzip")

    async with serving(handler) as server, client_of(server.url, attempts_max=1) as client:
        with pytest.raises(XetfsError):
            await client.request(f"{server.url}/x", "x")


async def test_an_endless_body_is_cut_off() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    async with serving(handler) as server, client_of(server.url) as client:
        with trio.fail_after(5), pytest.raises(ProtocolViolation, match="longer than"):
            await client.request(f"{server.url}/x", "x", bytes_max=1024 * 1024)
        assert client.counters[NET_BYTES] < 3 * 1024 * 1024


async def test_endless_headers_are_cut_off() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send_all(b"x-more: " + b"x" * 1000 + b"\r\n")

    async with serving(handler) as server, client_of(server.url) as client:
        with trio.fail_after(5), pytest.raises(ProtocolViolation, match="not HTTP"):
            await client.request(f"{server.url}/x", "x")


async def test_what_is_not_http_is_a_protocol_violation() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(b"220 mail.example ESMTP\r\n\r\n")

    async with serving(handler) as server, client_of(server.url) as client:
        with pytest.raises(ProtocolViolation, match="not HTTP"):
            await client.request(f"{server.url}/x", "x")


def _failing_at_first(failure: Behaviour, times: int = 1) -> Callable[[Asked, trio.abc.Stream], object]:
    seen = 0

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        nonlocal seen
        seen += 1
        if seen <= times:
            return await failure(asked, stream)  # type: ignore[misc,no-any-return]
        return answer(200, b"ok")

    return handler


async def _hang_up(asked: Asked, stream: trio.abc.Stream) -> None:
    return None


async def _cut_headers(asked: Asked, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-le")


async def _cut_body(asked: Asked, stream: trio.abc.Stream) -> None:
    await stream.send_all(answer(200, b"o", content_length="2"))


async def _cut_chunk(asked: Asked, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\no")


async def _say_nothing(asked: Asked, stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def _stop_in_headers(asked: Asked, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-le")
    await trio.sleep_forever()


async def _stop_in_body(asked: Asked, stream: trio.abc.Stream) -> None:
    await stream.send_all(answer(200, b"o", content_length="2"))
    await trio.sleep_forever()


async def _trickle_headers(asked: Asked, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n")
    while True:
        await stream.send_all(b"x: y\r\n")
        await trio.sleep(0.05)


async def _trickle_body(asked: Asked, stream: trio.abc.Stream) -> None:
    await stream.send_all(answer(200, content_length="100000"))
    while True:
        await stream.send_all(b"x")
        await trio.sleep(0.05)


async def _fail(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return answer(500, b"oops")


@pytest.mark.parametrize(
    "failure",
    [
        _hang_up,
        _cut_headers,
        _cut_body,
        _cut_chunk,
        _say_nothing,
        _stop_in_headers,
        _stop_in_body,
        _trickle_headers,
        _trickle_body,
        _fail,
    ],
    ids=lambda failure: failure.__name__.strip("_"),
)
async def test_what_breaks_off_or_stalls_is_tried_again_on_another_connection(failure: Behaviour) -> None:
    async with (
        serving(_failing_at_first(failure)) as server,  # type: ignore[arg-type]
        client_of(server.url, stall_timeout_s=0.2, connect_timeout_s=0.2) as client,
    ):
        with trio.fail_after(5):
            assert (await client.request(f"{server.url}/x", "x")).body == b"ok"
        assert client.counters[NET_RETRIES] == 1
        if failure is not _fail:
            assert server.connections == 2


async def test_a_stall_does_not_trust_the_idle_connections_beside_it() -> None:
    """Two connections are idle when one of them goes silent: the next attempt uses neither."""
    both = trio.Event()

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.path == "/pair":
            if len(server.asked) == 2:
                both.set()
            await both.wait()
        elif asked.connection <= 2:
            await trio.sleep_forever()
        return answer(200, b"ok")

    async with serving(handler) as server, client_of(server.url, stall_timeout_s=0.3) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(client.request, f"{server.url}/pair", "pair")
        with trio.fail_after(3):
            assert (await client.request(f"{server.url}/x", "x")).body == b"ok"
        assert [asked.connection for asked in server.asked if asked.path == "/x"][1] == 3


async def test_too_many_requests_wait_as_long_as_the_server_asks_unless_that_is_too_long() -> None:
    asks = ["0", "3600"]

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(429, retry_after=asks.pop(0))

    async with serving(handler) as server, client_of(server.url) as client:
        with pytest.raises(RateLimited, match="3600 s") as caught:
            await client.request(f"{server.url}/x", "x")
        assert caught.value.retry_after_s == 3600
        assert len(server.asked) == 2


async def test_offline_asks_nobody() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200)

    async with serving(handler) as server, client_of(server.url, offline=True) as client:
        with pytest.raises(Offline):
            await client.request(f"{server.url}/x", "x")
        assert server.connections == 0


async def test_the_path_and_query_of_a_signed_url_arrive_as_they_were_given() -> None:
    target = "/a%2Fb/c%20d/~x;y=1?X-Amz-Signature=a%2Bb%3D%3D&Policy=e30_&range=bytes%3D0-5&empty=&x=*'()!"

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200)

    async with serving(handler) as server, client_of(server.url) as client:
        await client.request(server.url + target, "x")
        assert server.asked[0].target == target


# Redirects and tokens


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_origin_leaves_the_token_behind(status: int) -> None:
    async def cdn(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"ok")

    async def hub(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(status, location="/b" if asked.path == "/a" else f"{storage.url}/signed?s=1")

    async with serving(cdn) as storage, serving(hub) as server, client_of(server.url) as client:
        credentials = Bearer(Origin.of(server.url), FixedToken(Secret(CANARY)))
        reply = await client.request(f"{server.url}/a", "x", credentials=credentials)
        assert (reply.body, reply.redirected) == (b"ok", True)
        assert server.paths == ["/a", "/b"]
        assert all(asked.headers["authorization"] == f"Bearer {CANARY}" for asked in server.asked)
        assert CANARY not in repr(storage.asked)


async def test_a_redirect_that_comes_back_brings_the_token_only_home() -> None:
    async def cdn(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(302, location=f"{server.url}/c")

    async def hub(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(302, location=f"{storage.url}/b") if asked.path == "/a" else answer(200, b"ok")

    async with serving(cdn) as storage, serving(hub) as server, client_of(server.url) as client:
        credentials = Bearer(Origin.of(server.url), FixedToken(Secret(CANARY)))
        assert (await client.request(f"{server.url}/a", "x", credentials=credentials)).body == b"ok"
        assert CANARY not in repr(storage.asked)


async def test_a_circle_of_redirects_ends() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(302, location="/x")

    async with serving(handler) as server, client_of(server.url) as client:
        with pytest.raises(ProtocolViolation, match="redirects"):
            await client.request(f"{server.url}/x", "x")
        assert len(server.asked) == REDIRECTS_MAX + 1


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/",
        "file:///etc/passwd",
        "http://u:p@127.0.0.1/",
        "http://127.0.0.1:22/",
        "",
    ],
)
async def test_redirects_into_places_that_are_not_the_hubs_to_name_are_refused(location: str) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(302, location=location)

    async with serving(handler) as server, client_of(server.url) as client:
        with pytest.raises(ProtocolViolation):
            await client.request(f"{server.url}/x", "x")
        assert len(server.asked) == 1


async def test_neither_token_nor_signature_is_logged_or_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    signature = "SIGNATUREsignatureSIGNATURE"

    async def cdn(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(403)

    async def hub(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        match asked.path:
            case "/signed":
                return answer(302, location=f"{storage.url}/x?X-Signature={signature}", x_xet_access_token=CANARY)
            case "/to-http":
                return answer(302, location=f"ftp://127.0.0.1/x?X-Signature={signature}")
            case "/gone":
                return None
            case _:
                return answer(500)

    told: list[str] = []
    async with serving(cdn) as storage, serving(hub) as server, client_of(server.url, attempts_max=2) as client:
        credentials = Bearer(Origin.of(server.url), FixedToken(Secret(CANARY)))
        for path in ("signed", "to-http", "gone", "broken"):
            try:
                reply = await client.request(f"{server.url}/{path}?X-Signature={signature}", path, credentials=credentials)
                told.append(repr(reply))
            except XetfsError as error:
                seen: BaseException | None = error
                while seen is not None:
                    told += [str(seen), repr(seen)]
                    seen = seen.__context__
        told += [repr(client), repr(credentials), repr(client.settings)]
    assert len(told) >= 7
    assert any("status=403" in record.getMessage() for record in caplog.records)
    for text in (*told, caplog.text):
        assert CANARY not in text
        assert signature not in text
