"""Connections to one origin: a bounded number of requests at a time, over connections that are known to work.

Each origin has its own transport and its own limit on requests, so that no slow origin takes the connections of another. When a
request stalls, idle connections may be just as dead, as a NAT may have forgotten them: those that have been unused for as long as
the silence are closed. One that was used in the meantime works, and stays.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import partial
from typing import Final

import httpx
import trio

from xetfs.errors import Unavailable
from xetfs.net.connector import Connector
from xetfs.net.latency import Kind, LatencyEstimator
from xetfs.net.origins import Origin, OriginPolicy
from xetfs.net.proxies import Proxies, proxy_name, proxy_port
from xetfs.net.reachability import Reachability
from xetfs.net.streams import WIRE_BYTES
from xetfs.net.transport import KEEPALIVE_S, Transport
from xetfs.settings import NetSettings
from xetfs.telemetry import NET_STALLS, Counters

ORIGINS_MAX: Final = 64
"""Most origins with connections at a time. A Hub, its CAS and its transfer hosts are a handful."""


class OriginPool:
    """The connections to one origin.

    permits: held by each request from before it is sent until its answer has been read.
    """

    def __init__(self, settings: NetSettings, transport: Transport, reachability: Reachability, counters: Counters) -> None:
        self.transport = transport
        self.reachability = reachability
        first_s, ceiling_s = settings.stall_timeout_first_s, settings.stall_timeout_s
        self.latency: dict[Kind, LatencyEstimator] = {
            "metadata": LatencyEstimator(floor_s=settings.answer_timeout_min_s, first_s=first_s, ceiling_s=ceiling_s),
            "data": LatencyEstimator(floor_s=settings.stall_timeout_min_s, first_s=first_s, ceiling_s=ceiling_s),
        }
        self.permits = trio.Semaphore(settings.connections_max, max_value=settings.connections_max)
        self._counters = counters

    @property
    def busy(self) -> bool:
        """True while a request is under way or waits for a permit."""
        return self.permits.value != self.permits.max_value

    def note_stall(self, silent_s: float) -> None:
        """An answer was given up after so long a silence: close what may be as dead as its connection."""
        self._counters.add(NET_STALLS)
        self.transport.close_idle(silent_s)

    async def aclose(self) -> None:
        self.reachability.close()
        await self.transport.aclose()


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
            transport = Transport(connector, self._context, self._wire, proxy=proxy)
            reachability = self._reachability_of(origin, proxy, connector)
            pool = OriginPool(self._settings, transport, reachability, self._counters)
        self._pools[key] = pool  # moved to the end, so that the first is the least recently used
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

    def _reachability_of(self, origin: Origin, proxy: httpx.Proxy | None, connector: Connector) -> Reachability:
        """Of the server, or of the proxy in front of it, which reports by its own answers what is behind it."""
        host, port = (origin.host, origin.port) if proxy is None else (proxy.url.host, proxy_port(proxy))

        async def connect(timeout_s: float) -> None:
            (await connector.connect(host, port, timeout_s)).close()

        server = str(origin) if proxy is None else f"the proxy {proxy_name(proxy)}"
        suspect_s = self._settings.outage_patience_s
        return Reachability(server, connect, suspect_s=suspect_s, counters=self._counters, nursery=self._nursery)

    def close_expired(self) -> None:
        """Close connections that have been idle for longer than KEEPALIVE_S. Never waits."""
        for pool in self._pools.values():
            pool.transport.close_idle(KEEPALIVE_S)

    async def aclose(self) -> None:
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.aclose()
