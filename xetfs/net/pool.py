"""Connections to one origin: a bounded number of them, replaced as a whole when they have gone silent.

Each origin has its own transport and its own limit on requests, so that no slow origin takes the connections of another. When an
answer stalls, chances are that the idle connections beside it are just as dead, a NAT having forgotten them: the transport then
lets running requests end and sends new ones out on fresh connections. If others were heard from in the meantime, the fault lies
with that one connection, or with what was asked for, and the rest is left alone.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import httpx
import trio

from xetfs.errors import Unavailable
from xetfs.net.connector import Connector
from xetfs.net.origins import Origin, OriginPolicy
from xetfs.net.pace import Kind, Pace
from xetfs.net.places import Place, Places
from xetfs.net.proxies import Proxies, proxy_name, proxy_port
from xetfs.net.reach import Reach
from xetfs.net.streams import WIRE_BYTES
from xetfs.net.transport import Transport
from xetfs.settings import NetSettings
from xetfs.telemetry import Counters

ORIGINS_MAX: Final = 64
"""Origins with connections at one time. A Hub, its CAS and its transfer hosts are a handful."""


class OriginPool:
    """The connections to one origin."""

    def __init__(
        self,
        settings: NetSettings,
        connector: Connector,
        context: ssl.SSLContext,
        wire: memoryview,
        proxy: httpx.Proxy | None,
        reach: Reach,
        nursery: trio.Nursery,
    ) -> None:
        self.reach = reach
        first_s, ceiling_s = settings.stall_timeout_first_s, settings.stall_timeout_s
        self.paces: dict[Kind, Pace] = {
            "metadata": Pace(floor_s=settings.answer_timeout_min_s, first_s=first_s, ceiling_s=ceiling_s),
            "data": Pace(floor_s=settings.stall_timeout_min_s, first_s=first_s, ceiling_s=ceiling_s),
        }
        self._places = Places(settings.connections_max, self._usual_s, nursery)
        self.transport = Transport(connector, context, wire, proxy=proxy)
        self.heard_at = -math.inf
        """When bytes last came on any of its connections."""

    @property
    def busy(self) -> int:
        """Requests under way or waiting for their turn."""
        return self._places.busy

    @property
    def spare(self) -> bool:
        """Whether a place is free and nobody waits for it."""
        return self._places.spare

    def _usual_s(self) -> float:
        return max(pace.usual_s(0) or 0.0 for pace in self.paces.values())

    @asynccontextmanager
    async def turn(self, kind: Kind) -> AsyncIterator[Turn]:
        """Wait for a free place, and hold it for one request of that kind."""
        place = await self._places.take()
        try:
            yield Turn(self, place, self.paces[kind])
        finally:
            self._places.give_back(place)

    def renew(self, silent_s: float) -> None:
        """Use fresh connections from now on, because one has been silent for so long, if the others have been, too."""
        if self.heard_at <= trio.current_time() - silent_s:
            self.transport.retire()

    async def aclose(self) -> None:
        self.reach.close()
        self._places.close()
        await self.transport.aclose()


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request has of a pool: its place, the connections of which it gets one, and how fast its kind usually is."""

    pool: OriginPool
    place: Place
    pace: Pace

    def note_heard(self) -> None:
        """Bytes have come."""
        self.place.heard_at = self.pool.heard_at = trio.current_time()

    def renew(self, silent_s: float) -> None:
        """It was silent for so long: use fresh connections from now on, unless others of these were heard from meanwhile."""
        self.pool.renew(silent_s)


class OriginPools:
    """The pools of an engine, by origin and policy, made when first needed and dropped when idle and too many.

    A connection is made, and its address judged, under one policy, so it is never used under another.
    """

    def __init__(
        self,
        settings: NetSettings,
        context: ssl.SSLContext,
        proxies: Proxies,
        counters: Counters,
        nursery: trio.Nursery,
    ) -> None:
        """nursery: for tasks that belong to no request."""
        self._counters = counters
        self._nursery = nursery
        self._settings = settings
        self._proxies = proxies
        self._wire = memoryview(bytearray(WIRE_BYTES))
        self._context = context
        self._pools: dict[tuple[Origin, OriginPolicy], OriginPool] = {}

    async def get(self, origin: Origin, policy: OriginPolicy) -> OriginPool:
        """Raises Unavailable when too many origins are in use at once."""
        key = (origin, policy)
        pool = self._pools.pop(key, None)
        if pool is None:
            connector = Connector(partial(self._check_addresses, policy))
            proxy = self._proxies.for_origin(origin)
            reach = self._reach_of(origin, proxy, connector)
            pool = OriginPool(self._settings, connector, self._context, self._wire, proxy, reach, self._nursery)
        self._pools[key] = pool  # to the end: the first is the one unused for longest
        if len(self._pools) > ORIGINS_MAX:
            idle = next((old for old, its in self._pools.items() if its is not pool and not its.busy), None)
            if idle is None:
                del self._pools[key]
                raise Unavailable(f"{origin}: too many different servers at once")
            await self._pools.pop(idle).aclose()
        return pool

    def _check_addresses(self, policy: OriginPolicy, host: str, port: int, addresses: Sequence[str]) -> None:
        if not self._proxies.is_proxy(host, port):  # what a proxy connects to is out of sight
            policy.check_addresses(host, port, addresses)

    def _reach_of(self, origin: Origin, proxy: httpx.Proxy | None, connector: Connector) -> Reach:
        """Of the server, or of the proxy on the way to it: that one tells by its own answers what is behind it."""
        host, port = (origin.host, origin.port) if proxy is None else (proxy.url.host, proxy_port(proxy))

        async def connect(timeout_s: float) -> None:
            (await connector.connect(host, port, timeout_s)).close()

        server = str(origin) if proxy is None else f"the proxy {proxy_name(proxy)}"
        patience_s = self._settings.outage_patience_s
        return Reach(server, connect, patience_s=patience_s, counters=self._counters, nursery=self._nursery)

    async def aclose(self) -> None:
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.aclose()
