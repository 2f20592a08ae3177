"""The transport: framing of bodies, and which connections are used again."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing
from flat_settings import flat_settings
from loopback import Asked, Authority, Loopback, answer, serving

from xetfs.net.client import open_network
from xetfs.net.connector import Connector
from xetfs.net.http1 import HEAD_BYTES_MAX, Body
from xetfs.net.transport import KEEPALIVE_S, Transport
from xetfs.telemetry import Counters

TIMEOUT_S = 5.0


@asynccontextmanager
async def transport_to(handler: Callable[..., object], *, proxy: str = "") -> AsyncIterator[tuple[Loopback, Transport]]:
    async with serving(handler) as server:  # type: ignore[arg-type]
        transport = make_transport(proxy)
        try:
            yield server, transport
        finally:
            await transport.aclose()


def make_transport(proxy: str = "", context: ssl.SSLContext | None = None) -> Transport:
    connector = Connector(lambda _host, _port, _addresses: None)
    chosen = httpx.Proxy(proxy) if proxy else None
    return Transport(connector, context or ssl.create_default_context(), memoryview(bytearray(65536)), proxy=chosen)


async def ask(transport: Transport, url: str, method: str = "GET", *, read_s: float = TIMEOUT_S) -> tuple[httpx.Response, Body]:
    request = httpx.Request(method, url, extensions={"timeout": {"connect": TIMEOUT_S, "read": read_s}})
    response = await transport.handle_async_request(request)
    assert isinstance(response.stream, Body)
    return response, response.stream


async def read(body: Body) -> bytes:
    return b"".join([piece async for piece in body])


def saying(reply: bytes, *, last: bool = False) -> Callable[[Asked, trio.abc.Stream], object]:
    """A server that answers every request with `reply`, and with `last` hangs up after it."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if last:
            await stream.send_all(reply)
            return None
        return reply

    return handler


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nz: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "reply", "body", "kept"),
    [
        ("GET", answer(200, b"hello"), b"hello", True),
        ("GET", answer(200, b""), b"", True),
        ("GET", CHUNKED, b"hello, world", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b"", True),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer(200, b"hello"), b"hello", True),
        ("GET", answer(200, b"hello", connection="close"), b"hello", False),
        ("GET", answer(200, b"hello", connection="Keep-Alive, Close"), b"hello", False),
        ("GET", b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello", False),
        ("GET", answer(200, b"hello", content_length="5") + b"and more", b"hello", False),
    ],
)
async def test_a_body_ends_where_its_framing_says(method: str, reply: bytes, body: bytes, kept: bool) -> None:
    async with transport_to(saying(reply)) as (server, transport):
        for _ in range(2):
            _, stream = await ask(transport, f"{server.url}/x", method)
            assert await read(stream) == body
            assert stream.ended
        assert server.connections == (1 if kept else 2)


@pytest.mark.parametrize("protocol", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_a_body_without_a_length_ends_with_its_connection(protocol: bytes) -> None:
    async with transport_to(saying(protocol + b" 200 OK\r\n\r\nhello", last=True)) as (server, transport):
        response, stream = await ask(transport, f"{server.url}/x")
        assert response.status_code == 200
        assert stream.remaining is None
        assert await read(stream) == b"hello"
        assert await stream.receive() == b""


@pytest.mark.parametrize(
    "reply",
    [answer(200, b"hel", content_length="5"), CHUNKED[:-20], b"HTTP/1.1 200 OK\r\ncontent-le"],
    ids=["length", "chunked", "head"],
)
async def test_what_ends_early_is_no_whole_answer(reply: bytes) -> None:
    async with transport_to(saying(reply, last=True)) as (server, transport):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError), match="close"):
            await read((await ask(transport, f"{server.url}/x"))[1])


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2 * HEAD_BYTES_MAX + b"\r\n\r\n",
    ],
    ids=["ssh", "two lengths", "long head"],
)
async def test_what_is_not_http_is_refused(reply: bytes) -> None:
    async with transport_to(saying(reply)) as (server, transport):
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(transport, f"{server.url}/x")


async def test_a_body_is_received_into_place_however_it_arrives() -> None:
    content = bytes(range(256)) * 4096

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        await stream.send_all(answer(200, content_length=str(len(content))) + content[:1000])
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(content[1000:])
        return b""

    async with transport_to(handler) as (server, transport):
        _, stream = await ask(transport, f"{server.url}/x")
        into, filled = bytearray(len(content)), 0
        while filled < len(into):
            assert stream.remaining == len(into) - filled
            filled += await stream.receive_into(memoryview(into)[filled : filled + 300_000])
        assert into == content
        assert stream.ended
        assert await stream.receive() == b""


async def test_a_silent_body_times_out_and_closes_its_connection() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        await stream.send_all(answer(200, content_length="5") + b"he")
        await trio.sleep_forever()

    async with transport_to(handler) as (server, transport):
        _, stream = await ask(transport, f"{server.url}/x", read_s=0.05)
        with pytest.raises(httpx.ReadTimeout):
            await read(stream)
        assert stream.ended
        with pytest.raises(httpx.ReadTimeout):
            await read((await ask(transport, f"{server.url}/y", read_s=0.05))[1])
        assert server.connections == 2


async def test_a_body_that_is_left_unread_costs_its_connection() -> None:
    async with transport_to(saying(answer(200, b"hello"))) as (server, transport):
        for _ in range(2):
            _, stream = await ask(transport, f"{server.url}/x")
            await stream.aclose()
        assert server.connections == 2


async def test_an_idle_connection_is_used_again_until_it_is_too_old(autojump_clock: trio.testing.MockClock) -> None:
    async with transport_to(saying(answer(200, b"hello"))) as (server, transport):
        for pause_s in (0, KEEPALIVE_S - 1, KEEPALIVE_S + 1, 0):
            await trio.sleep(pause_s)
            await read((await ask(transport, f"{server.url}/x"))[1])
        assert [asked.connection for asked in server.asked] == [1, 1, 2, 2]


async def test_an_idle_connection_is_closed_without_another_request(autojump_clock: trio.testing.MockClock) -> None:
    """The client is asked for it now and then, and closes what is too old to be used."""
    ended = trio.Event()

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.path == "/last":
            await stream.send_all(answer(200, b"hello"))
            assert await stream.receive_some(1) == b""
            ended.set()
            return None
        return answer(200, b"hello")

    async with serving(handler) as server, open_network(flat_settings(), Counters()) as network:
        await network.client(server.url).request(f"{server.url}/last", "x")
        network.close_expired()
        await trio.sleep(KEEPALIVE_S - 1)
        network.close_expired()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not ended.is_set()
        await trio.sleep(2)
        network.close_expired()
        await ended.wait()


async def test_only_connections_unused_for_so_long_are_closed(autojump_clock: trio.testing.MockClock) -> None:
    """What is under way is left alone, and used again after it: its answer shows that it works."""
    async with transport_to(saying(answer(200, b"hello"))) as (server, transport):
        bodies = [(await ask(transport, f"{server.url}/{number}"))[1] for number in range(3)]
        await read(bodies[0])
        await trio.sleep(2)
        await read(bodies[1])
        transport.close_idle(1)
        assert await read(bodies[2]) == b"hello"
        for _ in range(2):
            bodies = [(await ask(transport, f"{server.url}/after"))[1] for _ in range(2)]
            for body in bodies:
                await read(body)
        assert sorted(asked.connection for asked in server.asked[3:]) == [2, 2, 3, 3]


async def test_a_secure_origin_is_reached_through_a_tunnel_of_the_proxy(authority: Authority) -> None:
    async with serving(saying(answer(200, b"hello")), authority.server) as server:  # type: ignore[arg-type]

        async def tunnel(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
            assert asked.method == "CONNECT"
            host, _, port = asked.target.partition(":")
            far = await trio.open_tcp_stream(host, int(port))
            await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")

            async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
                while data := await source.receive_some():
                    await sink.send_all(data)

            async with far, trio.open_nursery() as pumps:
                pumps.start_soon(pump, far, stream)
                await pump(stream, far)
                pumps.cancel_scope.cancel()
            return None

        async with serving(tunnel) as proxy:
            context = ssl.create_default_context(cafile=str(authority.ca_file))
            transport = make_transport(proxy.url.replace("//", "//user:pass@"), context)
            for _ in range(2):
                assert await read((await ask(transport, f"{server.url}/x"))[1]) == b"hello"
            assert len(proxy.asked) == 1
            assert proxy.asked[0].headers["proxy-authorization"].startswith("Basic ")
            assert "proxy-authorization" not in server.asked[0].headers
            await transport.aclose()


async def test_a_proxy_that_refuses_a_tunnel_is_named() -> None:
    async with serving(saying(answer(407, b"no"))) as proxy:  # type: ignore[arg-type]
        with pytest.raises(httpx.ProxyError, match="407"):
            await ask(make_transport(proxy.url), "https://hub.example/x")
