"""The network backend: bytes come through unchanged, whatever their number, and whoever reads beside."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from loopback import Asked, Authority, Names, answer, client_of, ranged, serving

from xetfs.errors import InvalidArgument, Unavailable
from xetfs.net.bodies import take_range
from xetfs.net.streams import WIRE_BYTES as RECEIVE_BYTES
from xetfs.net.writers import BufferWriter
from xetfs.protocol.ranges import ByteRange
from xetfs.secret import Secret
from xetfs.telemetry import NET_REQUESTS, NET_RETRIES

DATA = random.Random(7).randbytes(6 * 1024 * 1024)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "tls"])
async def test_random_ranges_read_side_by_side_are_byte_for_byte_those_of_the_server(authority: Authority, secure: bool) -> None:
    chance = random.Random(11)

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        return ranged(DATA, asked)

    async with (
        serving(handler, authority.server if secure else None) as server,
        client_of(server.url, ca_paths=(authority.ca_file,)) as client,
    ):

        async def reader(count: int) -> None:
            for _ in range(count):
                length = chance.choice(
                    [1, chance.randrange(1, 1000), chance.randrange(1, 70_000), chance.randrange(1, 3_000_000)]
                )
                start = chance.randrange(len(DATA) - length)
                span = ByteRange(start, start + length)
                into = bytearray(length)
                async with client.stream(f"{server.url}/d", "d", headers={"range": f"bytes={span.to_http()}"}) as download:
                    await take_range(download, span, len(DATA), BufferWriter(memoryview(into)))
                assert into == DATA[span.start : span.end]

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(reader, 8)
        assert client.counters[NET_REQUESTS] == len(server.asked) == 64
        assert client.counters[NET_RETRIES] == 0
        assert server.connections <= 8


@pytest.mark.parametrize("secure", [False, True], ids=["http", "tls"])
async def test_a_body_in_pieces_of_awkward_sizes(authority: Authority, secure: bool) -> None:
    """One byte at a time, and pieces around the sizes of a TLS record and of the receive buffer."""
    sizes = [1] * 40 + [16383, 16384, 16385, RECEIVE_BYTES - 1, RECEIVE_BYTES, RECEIVE_BYTES + 1]

    async def handler(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(answer(200, content_length=str(sum(sizes))))
        place = 0
        for size in sizes:
            await stream.send_all(DATA[place : place + size])
            place += size
            await trio.lowlevel.checkpoint()

    async with (
        serving(handler, authority.server if secure else None) as server,
        client_of(server.url, ca_paths=(authority.ca_file,)) as client,
        client.stream(f"{server.url}/d", "d") as download,
    ):
        assert await download.read(sum(sizes)) == DATA[: sum(sizes)]


async def test_connections_are_kept_and_a_closed_one_is_not_used_again() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.path == "/last":
            await stream.send_all(answer(200, b"ok"))
            return None
        return answer(200, b"ok")

    async with serving(handler) as server, client_of(server.url) as client:
        await client.request(f"{server.url}/first", "x")
        await client.request(f"{server.url}/last", "x")
        await trio.testing.wait_all_tasks_blocked()
        await client.request(f"{server.url}/next", "x")
        assert [asked.connection for asked in server.asked] == [1, 1, 2]
        assert client.counters[NET_RETRIES] == 0


async def test_a_certificate_of_an_unknown_authority_is_told_with_a_hint(authority: Authority) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"ok")

    async with serving(handler, authority.server) as server, client_of(server.url, attempts_max=1) as client:
        with pytest.raises(Unavailable, match="SSL_CERT_FILE"):
            await client.request(f"{server.url}/x", "x")
        assert server.asked == []


async def test_a_file_without_certificates_is_told_at_the_start(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidArgument, match="PEM"):
        async with client_of("https://hub.example", ca_paths=(tmp_path / "missing.pem",)):
            pass


async def test_the_next_address_of_a_name_is_tried_when_the_first_refuses(names: Names) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"ok")

    names.known["hub.example"] = ["127.0.0.2", "127.0.0.1"]  # nothing listens at the first
    async with serving(handler) as server:
        url = server.url.replace("127.0.0.1", "hub.example")
        async with client_of(url, attempts_max=1) as client:
            assert (await client.request(f"{url}/x", "x")).body == b"ok"
    assert names.asked == ["hub.example"]


async def test_a_proxy_is_asked_for_what_is_not_exempt(names: Names) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"from the proxy")

    async with serving(handler) as proxy:
        secret = Secret(proxy.url.replace("//", "//user:password@"))
        async with client_of("http://hub.example", http_proxy=secret) as client:
            assert (await client.request("http://hub.example/x?y=1", "x")).body == b"from the proxy"
        assert proxy.asked[0].target == "http://hub.example/x?y=1"
        assert proxy.asked[0].headers["proxy-authorization"].startswith("Basic ")
        async with client_of("http://127.0.0.1:1", http_proxy=secret, attempts_max=1) as client:
            with pytest.raises(Unavailable):
                await client.request("http://127.0.0.1:1/x", "x")
        names.known |= {"hub.example.org": ["127.0.0.2"]}
        async with client_of("http://hub.example.org", http_proxy=secret, no_proxy=(".example.org",), attempts_max=1) as client:
            with pytest.raises(Unavailable):
                await client.request("http://hub.example.org/x", "x")
        assert len(proxy.asked) == 1
