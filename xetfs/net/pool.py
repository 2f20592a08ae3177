"""Connections to one origin: a bounded number of them, replaced as a whole when they have gone silent.

Each origin has its own httpcore pool and its own limiter of the same size, so that no request ever waits inside httpcore (whose
queue does not survive cancellation) and no slow origin takes the places of another. When an answer stalls, chances are that the
idle connections beside it are just as dead, a NAT having forgotten them: the pool is then retired, which lets its running
requests end and sends new ones out on fresh connections. When others were heard from in the meantime, it is that one connection,
or what was asked for, and nobody else is disturbed.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpcore
import httpx
import trio

from xetfs.errors import MachineUnfit, ProtocolViolation, Unavailable
from xetfs.net.backend import OPENING, Backend, Opening
from xetfs.net.origins import Origin
from xetfs.net.pace import Pace
from xetfs.net.places import Place, Places
from xetfs.net.reach import Reach
from xetfs.net.reuse import Reuse
from xetfs.settings import Settings
from xetfs.telemetry import Counters

KEEPALIVE_S: Final = 30.0
"""An idle connection is closed after this; load balancers commonly close theirs after 60 s."""
CLOSE_TIMEOUT_S: Final = 2.0
ORIGINS_MAX: Final = 64
"""Origins with connections at one time. A Hub, its CAS and its transfer hosts are a handful."""

PROXY_PORT: Final = 80
"""Where an `http://` proxy listens that is given without a port."""

# These log response headers at DEBUG: redirects with signatures, the CAS's token. Requests are logged by client.py instead.
_TALKATIVE: Final = ("httpcore.connection", "httpcore.http11", "httpcore.proxy")


def check_libraries(transport: httpx.AsyncHTTPTransport) -> httpcore.AsyncConnectionPool:
    """The pool inside a transport, if httpx and httpcore are built as this module expects. Raises MachineUnfit."""
    pool = getattr(transport, "_pool", None)
    if not isinstance(pool, httpcore.AsyncConnectionPool) or not isinstance(
        getattr(pool, "_network_backend", None), httpcore.AsyncNetworkBackend
    ):
        raise MachineUnfit(
            f"httpx {httpx.__version__} with httpcore {httpcore.__version__} is not a pair that xetfs works with",
            hint="pip install httpx==0.28.1 httpcore==1.0.9",
        )
    return pool


def silence_libraries() -> None:
    for name in _TALKATIVE:
        logging.getLogger(name).disabled = True


class Generation:
    """One httpcore pool and the number of requests that use it."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.users = 0
        self.retired = False
        self.heard_at = -math.inf
        """When bytes last came on any of its connections."""

    async def open(self, request: httpx.Request, deadline: float) -> httpx.Response:
        """Send a request and wait for the headers of its answer, at most until `deadline`.

        Raises what the transport raises. Cancelled, it ends what is under way and closes what has been opened: httpcore
        itself never sees the cancellation, only a broken connection.
        """
        opening = Opening(deadline)
        response: httpx.Response | None = None
        failure: Exception | None = None
        ended = trio.Event()

        async def run() -> None:
            nonlocal response, failure
            OPENING.set(opening)
            try:
                with trio.CancelScope(shield=True):
                    response = await self.transport.handle_async_request(request)
            except Exception as exc:
                failure = exc
            finally:
                ended.set()

        finished = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                try:
                    await ended.wait()
                finally:
                    opening.abort()
            finished = True
        finally:
            if not finished and response is not None:
                await close_response(response)
        if failure is not None:
            raise failure
        assert response is not None
        return response

    async def close_if_done(self) -> None:
        if self.retired and not self.users:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await self.transport.aclose()


async def close_response(response: httpx.Response) -> None:
    """Give the connection back, or close it if its answer was not read to the end. Bounded, and not to be cancelled."""
    with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
        await response.aclose()


class OriginPool:
    """The connections to one origin."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        context: ssl.SSLContext,
        proxy: httpx.Proxy | None,
        reach: Reach,
    ) -> None:
        self.reach = reach
        self._settings = settings
        self._backend = backend
        self._context = context
        self._proxy = proxy
        self.pace = Pace(floor_s=settings.stall_timeout_min_s, ceiling_s=settings.stall_timeout_s)
        self._places = Places(settings.connections_max, self.pace)
        self._current = Generation(self._make_transport())

    @property
    def busy(self) -> int:
        """Requests under way or waiting for their turn."""
        return self._places.busy

    @property
    def spare(self) -> bool:
        """Whether a place is free and nobody waits for it."""
        return self._places.spare

    def _make_transport(self) -> httpx.AsyncBaseTransport:
        places = self._settings.connections_max
        transport = httpx.AsyncHTTPTransport(
            verify=self._context,
            trust_env=False,  # the environment is read by the command line, once
            http1=True,
            http2=False,
            limits=httpx.Limits(max_connections=places, max_keepalive_connections=places, keepalive_expiry=KEEPALIVE_S),
            proxy=self._proxy,
            retries=0,
        )
        pool = check_libraries(transport)
        pool._network_backend = self._backend
        pool._assign_requests_to_connections = Reuse(pool)  # type: ignore[method-assign]
        return transport

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Wait for a free place, and hold it for one request."""
        place = await self._places.take()
        generation = self._current
        generation.users += 1
        try:
            yield Turn(self, generation, place)
        finally:
            generation.users -= 1
            self._places.give_back(place)
            await generation.close_if_done()

    async def renew(self, generation: Generation, silent_s: float) -> None:
        """Use fresh connections from now on, because one of `generation` has been silent for so long, and so have the others.

        Nothing to do if that happened already.
        """
        if generation is self._current and generation.heard_at <= trio.current_time() - silent_s:
            self._current = Generation(self._make_transport())
            generation.retired = True
            await generation.close_if_done()

    async def aclose(self) -> None:
        self.reach.close()
        self._places.close()
        self._current.retired = True
        await self._current.close_if_done()


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request has of a pool: its place, and the connections of which it gets one."""

    pool: OriginPool
    generation: Generation
    place: Place

    def note_heard(self) -> None:
        """Bytes have come."""
        self.place.heard_at = self.generation.heard_at = trio.current_time()

    async def renew(self, silent_s: float) -> None:
        """It was silent for so long: use fresh connections from now on, unless others of these were heard from meanwhile."""
        await self.pool.renew(self.generation, silent_s)


class OriginPools:
    """The pools of a client, by origin, made when first needed and dropped when idle and too many."""

    def __init__(self, settings: Settings, backend: Backend, context: ssl.SSLContext, counters: Counters) -> None:
        self._counters = counters
        self._settings = settings
        self._backend = backend
        self._context = context
        self._pools: dict[Origin, OriginPool] = {}

    async def get(self, origin: Origin) -> OriginPool:
        """Raises Unavailable when too many origins are in use at once."""
        pool = self._pools.pop(origin, None)
        if pool is None:
            proxy = self._proxy_of(origin)
            pool = OriginPool(self._settings, self._backend, self._context, proxy, self._reach_of(origin, proxy))
        self._pools[origin] = pool  # to the end: the first is the one unused for longest
        if len(self._pools) > ORIGINS_MAX:
            idle = next((old for old, its in self._pools.items() if its is not pool and not its.busy), None)
            if idle is None:
                del self._pools[origin]
                raise Unavailable(f"{origin}: too many different servers at once")
            await self._pools.pop(idle).aclose()
        return pool

    def _reach_of(self, origin: Origin, proxy: httpx.Proxy | None) -> Reach:
        """Of the server, or of the proxy on the way to it: that one tells by its own answers what is behind it."""
        host, port = (origin.host, origin.port) if proxy is None else (proxy.url.host, proxy.url.port or PROXY_PORT)

        async def connect(timeout_s: float) -> None:
            stream = await self._backend.connect_tcp(host, port, timeout_s)
            await stream.aclose()

        server = str(origin) if proxy is None else f"the proxy {host}:{port}"
        return Reach(server, connect, patience_s=self._settings.outage_patience_s, counters=self._counters)

    def _proxy_of(self, origin: Origin) -> httpx.Proxy | None:
        if self._settings.proxy is None or _is_exempt(origin.host, self._settings.no_proxy):
            return None
        try:
            proxy = httpx.Proxy(self._settings.proxy.reveal())
        except (ValueError, httpx.InvalidURL):
            raise ProtocolViolation("the proxy is not a URL of the form http://[user:password@]host:port") from None
        if proxy.url.scheme != "http":
            raise ProtocolViolation("only proxies that are asked by http:// are supported")
        return proxy

    async def aclose(self) -> None:
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.aclose()


def _is_exempt(host: str, no_proxy: tuple[str, ...]) -> bool:
    if host in ("localhost", "::1") or host.startswith("127.") or "*" in no_proxy:
        return True
    return any(host == name.lstrip(".") or host.endswith("." + name.lstrip(".")) for name in no_proxy)


def deadline_after(seconds: float) -> float:
    """The earlier of `seconds` from now and the caller's own deadline."""
    return min(trio.current_time() + (seconds if seconds > 0 else math.inf), trio.current_effective_deadline())
