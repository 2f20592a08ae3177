"""A small HTTP server on loopback that says exactly what a test wants, down to the byte, and remembers what it was asked."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio
from flat_settings import flat_settings

from xetfs.credentials import FixedToken
from xetfs.hub.endpoint import Hub
from xetfs.net.client import HttpClient, open_network
from xetfs.net.origins import HostPolicy
from xetfs.secret import Secret
from xetfs.telemetry import Counters

CANARY = "hf_CANARYcanaryCANARYcanary"
"""A token that may appear in one header of one origin and nowhere else."""


@dataclass
class Asked:
    """One request as it came; header names in lower case. connection counts from 1."""

    method: str
    target: str
    headers: dict[str, str]
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def span(self) -> tuple[int, int]:
        """first and last of `Range: bytes=first-last`."""
        first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
        return int(first), int(last)


Handler = Callable[[Asked, trio.abc.Stream], Awaitable[bytes | None]]
"""Returns a whole answer, or None when it has sent what it wanted and the connection is to end."""


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """An answer with Content-Length, unless given; `x_error_code="…"` becomes `x-error-code: …`."""
    lines = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode("latin-1") + body


def ranged(data: bytes, asked: Asked) -> bytes:
    """The 206 that a proper server gives."""
    first, last = asked.span
    return answer(206, data[first : last + 1], content_range=f"bytes {first}-{last}/{len(data)}")


class Loopback:
    """Where it is and what it was asked so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.connections = 0

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[Loopback]:
    """Serve `handler` on a loopback port of its own until the end of the block."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        port = listeners[0].socket.getsockname()[1]
        server = Loopback(f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}")
        nursery.start_soon(
            partial(trio.serve_listeners, partial(_serve, server, handler, tls), listeners, handler_nursery=nursery)
        )
        try:
            yield server
        except Exception as error:  # which the nursery would wrap into a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(server: Loopback, handler: Handler, tls: ssl.SSLContext | None, stream: trio.abc.Stream) -> None:
    server.connections += 1
    number = server.connections
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    try:
        while (asked := await _read_head(stream, number)) is not None:
            server.asked.append(asked)
            reply = await handler(asked, stream)
            if reply is None:
                break
            await stream.send_all(b"" if asked.method == "HEAD" and not reply else reply)
    except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
        pass  # the client went away, which many tests make it do
    await trio.aclose_forcefully(stream)


async def _read_head(stream: trio.abc.Stream, connection: int) -> Asked | None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(65536)
        if not data:
            return None
        head += data
    first, *lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return Asked(method, target, {name.lower(): value.strip() for name, _, value in pairs}, connection)


@asynccontextmanager
async def client_of(endpoint: str, *, allow_private: bool = False, **choices: object) -> AsyncIterator[HttpClient]:
    """A client for the Hub at `endpoint`, with short timeouts unless chosen otherwise; counters at `.counters`."""
    defaults: dict[str, object] = {"cache_dir": Path("/nonexistent"), "connections_max": 8, "stall_timeout_s": 5.0}
    settings = flat_settings(**{**defaults, **choices})
    async with open_network(settings, Counters()) as network:
        yield network.client(endpoint, HostPolicy(allow_private=allow_private))


def hub_at(endpoint: str, token: Secret | None = None) -> Hub:
    return Hub(endpoint, FixedToken(token) if token is not None else None)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of our own, and a server certificate for 127.0.0.1, localhost and hub.example by it."""

    ca_file: Path
    server: ssl.SSLContext


def make_authority(folder: Path) -> Authority:
    """Make keys and certificates with the openssl command."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "30",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=loopback")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:hub.example\nauthorityKeyIdentifier=keyid\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem",
            "-days", "30", "-extfile", "names")  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return Authority(folder / "ca.pem", context)


class Names(trio.abc.HostnameResolver):
    """A name service that knows what a test told it."""

    def __init__(self) -> None:
        self.known: dict[str, Sequence[str]] = {}
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        if name not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = []
        for address in self.known[name]:
            kind = trio.socket.AF_INET6 if ":" in address else trio.socket.AF_INET
            found.append((kind, trio.socket.SOCK_STREAM, 6, "", (address, port)))
        return found

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError
