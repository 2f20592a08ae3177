"""The connections to one origin, as an httpx transport over h11 and trio.

httpx's own transport (httpcore) receives 64 KiB at a time, copies bodies several times, and loses a place in its pool when a
request is cancelled while it opens. This one is small because it leaves out what this package does not need: HTTP/2, request
bodies, and a queue, as requests to an origin are limited before they get here (net/pool.py).

An idle connection is used again, the most recently used first, if it is silent and there still is a route to the other side.
A cancelled or failed exchange closes its connection. Closing never waits.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from typing import Final

import h11
import httpx
import trio

from xetfs.net.connector import Connector
from xetfs.net.http1 import Body, Connection
from xetfs.net.proxies import ProxyAuthRequired, ProxyDenied, proxy_name, proxy_port
from xetfs.net.socks import open_tunnel
from xetfs.net.streams import PlainStream, Stream, TlsStream

KEEPALIVE_S: Final = 30.0
"""An idle connection is closed after this; load balancers commonly close theirs after 60 s."""


class Transport(httpx.AsyncBaseTransport):
    """One origin's connections. Requests carry their timeouts in httpx's `timeout` extension: connect and read, in seconds."""

    def __init__(
        self, connector: Connector, context: ssl.SSLContext, wire: memoryview, *, proxy: httpx.Proxy | None = None
    ) -> None:
        """wire: scratch buffer that all transports of an event loop share. proxy: through which all connections go."""
        self._connector = connector
        self._context = context
        self._wire = wire
        self._proxy = proxy
        self._idle: list[Connection] = []  # the most recently used last

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request without a body; return its answer, whose stream is a Body, once the head has come.

        Raises httpx.ConnectTimeout, ConnectError, ProxyError, ReadTimeout, ReadError, RemoteProtocolError.
        """
        timeout = request.extensions["timeout"]
        connection = self._reusable() or await self._open(request.url, timeout["connect"])
        with connection.guarded(timeout["read"]):
            head, framing = await connection.send(self._head_of(request))
        body = Body(connection, framing, stall_timeout_s=timeout["read"], release=self._release)
        return httpx.Response(head.status_code, headers=head.headers.raw_items(), stream=body, request=request)

    def _head_of(self, request: httpx.Request) -> h11.Request:
        url, headers = request.url, request.headers.raw
        if self._proxy is None or self._proxy.url.scheme != "http" or url.scheme == "https":
            return h11.Request(method=request.method, target=url.raw_path, headers=headers)
        target = b"http://" + url.netloc + url.raw_path
        return h11.Request(method=request.method, target=target, headers=[*headers, *_proxy_headers(self._proxy)])

    def _reusable(self) -> Connection | None:
        self.close_idle(KEEPALIVE_S)
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.close()
        return None

    def _release(self, connection: Connection) -> None:
        connection.used_at = trio.current_time()
        self._idle.append(connection)

    async def _open(self, url: httpx.URL, timeout_s: float) -> Connection:
        server = (url.host, _port_of(url)) if self._proxy is None else (self._proxy.url.host, proxy_port(self._proxy))
        plain = PlainStream(await self._connector.connect(*server, timeout_s))
        missing = ""
        try:
            with trio.fail_after(timeout_s):
                if self._proxy is not None:
                    missing = f"the proxy {proxy_name(self._proxy)} did not connect to {_shown(url)}"
                    await self._tunnel(plain, self._proxy, url)
                missing = f"no TLS with {_shown(url)}"
                stream = plain if url.scheme == "http" else await self._secure(plain, url)
        except trio.TooSlowError:
            plain.close()
            raise httpx.ConnectTimeout(missing) from None
        except OSError as exc:  # ssl.SSLError is one
            plain.close()
            raise httpx.ConnectError(str(exc)) from exc
        except BaseException:
            plain.close()
            raise
        return Connection(stream, self._wire)

    async def _secure(self, plain: PlainStream, url: httpx.URL) -> Stream:
        tls = TlsStream(plain, self._wire, self._context, url.host)
        await tls.handshake()
        return tls

    async def _tunnel(self, plain: PlainStream, proxy: httpx.Proxy, url: httpx.URL) -> None:
        """Have the proxy connect to the server, which an http:// proxy does not do for plain requests.

        Raises httpx.ProxyError, of which ProxyAuthRequired and ProxyDenied will not pass, with a text fit for the user.
        """
        try:
            if proxy.url.scheme != "http":
                await open_tunnel(plain, url.host, _port_of(url), proxy.raw_auth)
            elif url.scheme == "https":
                await self._connect_through(plain, proxy, url)
        except httpx.ProxyError as exc:
            raise type(exc)(f"the proxy {proxy_name(proxy)} did not connect to {_shown(url)}: {exc}") from None

    async def _connect_through(self, plain: PlainStream, proxy: httpx.Proxy, url: httpx.URL) -> None:
        target = f"{url.host if ':' not in url.host else f'[{url.host}]'}:{_port_of(url)}".encode()
        headers = [(b"host", target), *_proxy_headers(proxy)]
        try:
            head, _ = await Connection(plain, self._wire).send(h11.Request(method="CONNECT", target=target, headers=headers))
        except h11.RemoteProtocolError:
            raise httpx.ProxyError("its answer is not HTTP") from None
        match head.status_code:
            case 407:
                raise ProxyAuthRequired("it asks for a user name and password (407)")
            case 401 | 403 | 405 | 451:
                raise ProxyDenied(f"it does not allow that ({head.status_code})")
            case status if not 200 <= status < 300:
                raise httpx.ProxyError(f"it failed ({status})")

    def close_idle(self, unused_s: float) -> None:
        """Close the connections that have been idle for at least so many seconds."""
        since = trio.current_time() - unused_s
        while self._idle and self._idle[0].used_at <= since:
            self._idle.pop(0).close()

    async def aclose(self) -> None:
        self.close_idle(0.0)


def _port_of(url: httpx.URL) -> int:
    return url.port or (80 if url.scheme == "http" else 443)


def _shown(url: httpx.URL) -> str:
    return f"{url.host:.80}:{_port_of(url)}"


def _proxy_headers(proxy: httpx.Proxy) -> list[tuple[bytes, bytes]]:
    if proxy.raw_auth is None:
        return []
    user, password = proxy.raw_auth
    return [(b"proxy-authorization", b"Basic " + b64encode(user + b":" + password))]
