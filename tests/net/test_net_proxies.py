"""Proxies: which one is asked for what, that names are left to it, and what its refusals look like."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
from loopback import Asked, Authority, Names, answer, client_of, serving

from xetfs.cli.exits import Exit, exit_of
from xetfs.cli.redact import redact
from xetfs.errors import InvalidArgument, ProxyRefused, Unavailable, XetfsError
from xetfs.net.proxies import is_exempt, make_proxy
from xetfs.secret import Secret

PASSWORD = "CANARYpassword"


@pytest.mark.parametrize(
    ("entry", "host", "port", "exempt"),
    [
        ("*", "hub.example", 443, True),
        ("hub.example", "hub.example", 443, True),
        ("hub.example", "Hub.Example.", 443, True),
        ("HUB.EXAMPLE", "hub.example", 443, True),
        ("example", "hub.example", 443, True),
        ("hub.example", "cdn.hub.example", 443, True),
        ("hub.example", "nothub.example", 443, False),
        (".example", "hub.example", 443, True),
        (".hub.example", "hub.example", 443, True),
        ("*.example", "hub.example", 443, True),
        ("*.hub.example", "other.example", 443, False),
        ("hub.example:443", "hub.example", 443, True),
        ("hub.example:443", "hub.example", 8443, False),
        ("*:8443", "hub.example", 8443, True),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3", "10.1.2.4", 443, False),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("10.0.0.0/8", "10.200.3.4", 443, True),
        ("10.0.0.0/8", "11.0.0.1", 443, False),
        ("10.1.2.3/8", "10.200.3.4", 443, True),
        ("10.0.0.0/8", "10.example", 443, False),
        ("0.0", "10.0.0.0", 443, False),
        ("fd00::/8", "fd12:3456::1", 443, True),
        ("fd12::1", "fd12::1", 443, True),
        ("[fd12::1]", "fd12:0::0:1", 443, True),
        ("[fd12::1]:443", "fd12::1", 443, True),
        ("[fd12::1]:80", "fd12::1", 443, False),
        ("[fd00::]/8", "fd12::1", 443, True),
        ("10.0.0.0/99", "10.0.0.1", 443, False),
        (".", "hub.example", 443, False),
        ("other", "localhost", 443, True),
        ("other", "127.8.8.8", 443, True),
        ("other", "::1", 443, True),
    ],
)
def test_what_is_asked_without_a_proxy(entry: str, host: str, port: int, exempt: bool) -> None:
    assert is_exempt(host, port, (entry,)) is exempt
    assert is_exempt(host, port, ("unrelated.example", entry, "192.0.2.1")) is exempt


@pytest.mark.parametrize("text", ["socks4://p:1", "https://u:canary@p:1", "http://", "nonsense"])
def test_a_proxy_that_cannot_be_used(text: str) -> None:
    with pytest.raises(InvalidArgument, match="socks5://host:port") as caught:
        make_proxy(Secret(text))
    assert "canary" not in str(caught.value)


# Over sockets: a proxy of each kind, which connects everything to one server


@dataclass
class Proxy:
    """A proxy that says what a test wants. connected: where it was asked to connect to."""

    url: str
    connected: list[tuple[str, int]] = field(default_factory=list)


async def _relay(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await source.receive_some():
                await sink.send_all(data)
        nursery.cancel_scope.cancel()

    async with other, trio.open_nursery() as nursery:
        nursery.start_soon(pump, one, other)
        nursery.start_soon(pump, other, one)


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        some = await stream.receive_some(count - len(data))
        if not some:
            raise trio.BrokenResourceError
        data += bytes(some)
    return data


@asynccontextmanager
async def socks(target_port: int, *, auth: bytes | None = None, reply: int = 0, version: int = 5) -> AsyncIterator[Proxy]:
    """A SOCKS 5 proxy; auth: `user:password` that it asks for. It sends its answers byte by byte."""

    async def serve(stream: trio.SocketStream) -> None:
        async def say(data: bytes) -> None:
            for byte in data:
                await stream.send_all(bytes([byte]))

        try:
            _, count = await _exactly(stream, 2)
            methods = await _exactly(stream, count)
            wanted = 0 if auth is None else 2
            if wanted not in methods:
                await say(bytes([version, 0xFF]))
                return
            await say(bytes([version, wanted]))
            if auth is not None:
                user = await _exactly(stream, (await _exactly(stream, 2))[1])
                password = await _exactly(stream, (await _exactly(stream, 1))[0])
                good = user + b":" + password == auth
                await say(bytes([1, not good]))
                if not good:
                    return
            _, _, _, kind = await _exactly(stream, 4)
            if kind == 3:
                host = (await _exactly(stream, (await _exactly(stream, 1))[0])).decode()
            else:
                host = str(await _exactly(stream, 4 if kind == 1 else 16))
            proxy.connected.append((host, struct.unpack(">H", await _exactly(stream, 2))[0]))
            await say(bytes([5, reply, 0, 3, 4]) + b"here" + bytes(2))
            if not reply:
                await _relay(stream, await trio.open_tcp_stream("127.0.0.1", target_port))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = Proxy(f"socks5://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners, handler_nursery=nursery))
        yield proxy
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def http_proxy(target_port: int, refusal: bytes | None = None) -> AsyncIterator[Proxy]:
    """An HTTP proxy. refusal: what it answers instead of connecting."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        host, _, port = asked.target.rpartition(":")
        proxy.connected.append((host, int(port) if asked.method == "CONNECT" else 80))
        if refusal is not None or asked.method != "CONNECT":
            return refusal or answer(200, b"ok")
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _relay(stream, await trio.open_tcp_stream("127.0.0.1", target_port))
        return None

    async with serving(handler) as server:
        proxy = Proxy(server.url)
        yield proxy


async def ok(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return answer(200, b"ok")


async def ask(url: str, proxy: Proxy, **choices: object) -> bytes:
    secret = Secret(proxy.url)
    async with client_of(url, http_proxy=secret, https_proxy=secret, attempts_max=2, **choices) as client:
        return (await client.request(f"{url}/x", "x")).body


async def refused(url: str, proxy: Proxy, error: type[XetfsError], **choices: object) -> XetfsError:
    with pytest.raises(error) as caught:
        await ask(url, proxy, **choices)
    shown = str(caught.value)
    assert PASSWORD not in shown
    assert redact(shown) == shown, "the redactor mangles it"
    assert exit_of(caught.value) is Exit.UNREACHABLE
    return caught.value


Kind = Callable[..., AbstractAsyncContextManager[Proxy]]


@pytest.mark.parametrize("kind", [http_proxy, socks], ids=["http", "socks5"])
async def test_a_name_is_resolved_by_the_proxy_alone(names: Names, authority: Authority, kind: Kind) -> None:
    """Inside some companies no other machine can."""
    async with serving(ok, authority.server) as server:
        port = int(server.url.rpartition(":")[2])
        async with kind(port) as proxy:
            assert await ask(f"https://hub.example:{port}", proxy, ca_paths=(authority.ca_file,)) == b"ok"
            assert proxy.connected == [("hub.example", port)]
    assert set(names.asked) <= {"127.0.0.1"}


async def test_plain_requests_go_through_socks_too(names: Names) -> None:
    async with serving(ok) as server, socks(int(server.url.rpartition(":")[2])) as proxy:
        assert await ask("http://hub.example", proxy) == b"ok"
        assert proxy.connected == [("hub.example", 80)]
        assert server.asked[0].target == "/x"
    assert set(names.asked) <= {"127.0.0.1"}


async def test_a_socks_proxy_gets_addresses_as_such_and_its_password(names: Names) -> None:
    auth = f"user:{PASSWORD}"
    async with serving(ok) as server, socks(int(server.url.rpartition(":")[2]), auth=auth.encode()) as proxy:
        proxy.url = proxy.url.replace("//", f"//{auth}@")
        assert await ask("http://93.184.215.14", proxy) == b"ok"
        assert await ask("http://[2606:2800:220::1]:8080", proxy) == b"ok"
        assert [port for _, port in proxy.connected] == [80, 8080]
        assert [len(host) for host, _ in proxy.connected] == [len(str(bytes([93, 184, 215, 14]))), len(proxy.connected[1][0])]


@pytest.mark.parametrize("given", ["", f"user:{PASSWORD}wrong@"])
async def test_a_socks_proxy_that_wants_a_password(given: str) -> None:
    async with socks(1, auth=f"user:{PASSWORD}".encode()) as proxy:
        port = proxy.url.rpartition(":")[2]
        proxy.url = proxy.url.replace("//", f"//{given}")
        error = await refused("https://hub.example", proxy, ProxyRefused)
        assert str(error).startswith(f"x: the proxy 127.0.0.1:{port} did not connect to hub.example:443: it ")
        assert "user:password@" in error.hint


@pytest.mark.parametrize(("reply", "error", "reason"), [(2, ProxyRefused, "not allowed"), (4, Unavailable, "host unreachable")])
async def test_a_socks_proxy_that_does_not_connect(reply: int, error: type[XetfsError], reason: str) -> None:
    async with socks(1, reply=reply) as proxy:
        assert reason in str(await refused("https://hub.example", proxy, error))


async def test_what_is_no_socks_proxy() -> None:
    async with socks(1, version=4) as proxy:
        assert "does not speak SOCKS 5" in str(await refused("https://hub.example", proxy, Unavailable))


async def test_a_proxy_that_says_nothing_is_named() -> None:
    async def silent(asked: Asked, stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with serving(silent) as server:
        for url in (server.url, server.url.replace("http:", "socks5:")):
            error = await refused("https://hub.example", Proxy(url), Unavailable, connect_timeout_s=0.1)
            assert f"the proxy {server.url.removeprefix('http://')} did not connect to hub.example:443" in error.message


@pytest.mark.parametrize("url", ["https://hub.example", "http://hub.example"])
async def test_a_proxy_that_wants_a_password_is_named_once(url: str) -> None:
    """407, from the proxy itself or in its answer to a plain request: not tried again, and no fault of the Hub."""
    async with http_proxy(1, answer(407, b"", proxy_authenticate='Basic realm="corp"')) as proxy:
        error = await refused(url, proxy, ProxyRefused)
        assert "proxy" in error.message
        assert "407" in error.message
        assert "user:password@" in error.hint
        assert len(proxy.connected) == 1


async def test_a_proxy_that_does_not_let_through_or_fails() -> None:
    async with http_proxy(1, answer(403, b"blocked")) as proxy:
        error = await refused("https://hub.example", proxy, ProxyRefused)
        assert "did not connect to hub.example:443: it does not allow that (403)" in error.message
        assert "no_proxy" in error.hint
        assert len(proxy.connected) == 1
    async with http_proxy(1, answer(502, b"bad gateway")) as proxy:
        assert "it failed (502)" in str(await refused("https://hub.example", proxy, Unavailable))
        assert len(proxy.connected) == 2  # which may pass


async def test_each_scheme_has_its_own_proxy(names: Names) -> None:
    """A Hub inside, asked directly, whose files lie outside."""
    other = Secret("http://127.0.0.1:1")
    async with (
        http_proxy(1, answer(200, b"from outside")) as proxy,
        client_of("http://hub.example", https_proxy=other, http_proxy=Secret(proxy.url)) as client,
    ):
        assert (await client.request("http://hub.example/x", "x")).body == b"from outside"
