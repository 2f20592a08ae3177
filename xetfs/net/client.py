"""HttpClient: the only HTTP client; every request goes through it.

One `Network` per engine owns the connections; each Hub has a client of its own, which sends every request under that Hub's policy
(net/origins.py). Connections are shared between clients of one policy only, so that none made under a looser one is used.

`request` is for small answers: read whole, bounded, redirects followed, tried again when that may help. `stream` is for data:
one attempt, whose body is taken piece by piece or filled into a buffer. The caller repeats it with `retrying`, as only the caller
knows what a half-read body means.

Phases of one attempt: wait for a permit of the origin; connect, send, wait for the headers (net/transport.py); read the body;
close. Each may be cancelled at any moment, which closes its connection.

docs/network.md describes all mechanisms together: limits, timeouts, hedges, retries, and what happens while a server cannot be
reached.

Everything goes through `_open`, which counts and logs it.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

import httpx
import trio

from xetfs import __version__
from xetfs.errors import Offline, ProtocolViolation, Unavailable
from xetfs.net.connector import Unreachable, Unresponsive
from xetfs.net.download import Download
from xetfs.net.failures import error_of_exception, error_of_status, is_retried_status
from xetfs.net.hedging import Hedger, hedge_after_s
from xetfs.net.latency import Kind
from xetfs.net.origins import PUBLIC_HOSTS, REDIRECTS_MAX, Bearer, HostPolicy, Origin, OriginPolicy
from xetfs.net.pool import OriginPool, OriginPools
from xetfs.net.proxies import Proxies
from xetfs.net.retry import with_retries
from xetfs.net.trust import make_ssl_context
from xetfs.protocol.urls import split_url
from xetfs.secret import Secret
from xetfs.settings import Settings
from xetfs.telemetry import NET_ANSWER_SECONDS, NET_REQUESTS, Counters
from xetfs.units import MIB

log = logging.getLogger(__name__)

SMALL_BODY_BYTES_MAX: Final = 8 * MIB
"""Most bytes of a small answer, decoded: a page of 1000 entries takes 0.3 MiB, a reconstruction of 10,000 terms 2 MiB."""
URLS_PARSED_MAX: Final = 32
"""URLs kept as httpx parses them: a signed URL names up to 500 ranges, is asked for each of them, and takes 3 ms to parse."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, read whole. url: where it came from, after redirects; redirected: if that is another URL."""

    status: int
    headers: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)
    url: str = field(repr=False)
    redirected: bool = False


class Network:
    """The connections of one engine, and what its clients share. Made by open_network. Not thread-safe."""

    def __init__(self, settings: Settings, counters: Counters, nursery: trio.Nursery) -> None:
        """nursery: for tasks that belong to no request; started by run_detached."""
        self.nursery = nursery
        self.settings = settings
        self.counters = counters
        self.parse_url = lru_cache(maxsize=URLS_PARSED_MAX)(httpx.URL)
        self.hedger = Hedger(counters)
        context, proxies = make_ssl_context(settings.net.ca_paths), Proxies(settings.net)
        self.pools = OriginPools(settings.net, context, proxies, counters, nursery)
        self._clients: dict[tuple[str, HostPolicy], HttpClient] = {}

    def client(self, endpoint: str, hosts: HostPolicy = PUBLIC_HOSTS) -> HttpClient:
        """Return the client for requests on behalf of the Hub at `endpoint`: the same one each time.

        Raises ProtocolViolation for an endpoint that is not a URL.
        """
        key = (endpoint, hosts)
        if key not in self._clients:
            self._clients[key] = HttpClient(self, OriginPolicy(endpoint, hosts))
        return self._clients[key]

    def close_expired(self) -> None:
        """Close connections that have been idle for too long to be used again. Never waits."""
        self.pools.close_expired()


class HttpClient:
    """Sends requests on behalf of one Hub. Made by Network.client. Not thread-safe."""

    def __init__(self, network: Network, policy: OriginPolicy) -> None:
        self.nursery = network.nursery
        self.settings = network.settings
        self.counters = network.counters
        self.policy = policy
        self._parse_url = network.parse_url
        self._hedger = network.hedger
        self._pools = network.pools

    async def retrying(self, attempt: Callable[[int], Awaitable[T]], *, origin: Origin | None = None, length: int = 0) -> T:
        """Call `attempt` with its number, again while its errors are worth it; see net/retry.py.

        origin, length: given for `length` bytes of data. The next attempt then starts beside one that takes unusually long
        (net/hedging.py), so two attempts at the same time must do no harm to each other.
        """

        async def hedged(number: int) -> T:
            if origin is None:
                return await attempt(number)
            pool = await self._pools.get(origin, self.policy)
            after_s = hedge_after_s(pool.latency["data"], length)
            return await self._hedger.run(lambda: attempt(number), after_s=after_s, may_hedge=lambda: pool.permits.value > 0)

        return await with_retries(
            hedged,
            attempts_max=self.settings.net.attempts_max,
            counters=self.counters,
            pause_max_s=self.settings.operation_deadline_s,
        )

    async def request(
        self,
        url: str,
        what: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        credentials: Bearer | None = None,
        bytes_max: int = SMALL_BODY_BYTES_MAX,
        follow: bool = True,
    ) -> Answer:
        """Return a small answer of any status but those worth retrying (408, 429, 5xx except 501), raised after the last attempt.

        what: names the request in messages and logs, as in "tree of acme/demo". bytes_max: of the body, decoded.
        follow: follow redirects; otherwise a redirect is the answer.
        Raises RateLimited, Unavailable, ProtocolViolation, Offline.
        """

        async def attempt(number: int) -> Answer:
            asked = {"accept-encoding": "gzip", **(headers or {})}
            async with self.stream(
                url, what, method=method, headers=asked, credentials=credentials, follow=follow, attempt=number, kind="metadata"
            ) as download:
                if is_retried_status(download.status):
                    raise error_of_status(download.status, download.headers, what)
                body = _decode(await download.read(bytes_max), download, bytes_max)
                return Answer(download.status, download.headers, body, download.url, download.url != url)

        return await self.retrying(attempt)

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        what: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        credentials: Bearer | None = None,
        follow: bool = True,
        attempt: int = 1,
        kind: Kind = "data",
    ) -> AsyncIterator[Download]:
        """One attempt at an answer whose body is taken inside the `async with`; redirects are followed before, if at all.

        attempt: its number, as each is waited for longer than the one before. kind: what it asks for (net/latency.py).
        An answer in an encoding that was not asked for is refused here; by default none is asked for.
        A 401 to a token that has been replaced since is followed by one more request, with the new one.
        Raises Unavailable, ProtocolViolation, Offline; any other status is the caller's to judge.
        """
        sent = {"accept-encoding": "identity", "accept": "*/*", **(headers or {}), "user-agent": f"xetfs/{__version__}"}
        target, redirects, renewed = url, 0, False
        token = await credentials.credentials.token() if credentials is not None else None
        while redirects <= REDIRECTS_MAX:
            permit = token if credentials is not None and credentials.origin == Origin.of(target) else None
            async with self._attempt(method, target, what, sent, permit, attempt, kind) as download:
                if download.status == 407:
                    raise error_of_status(407, download.headers, what)
                if download.status == 401 and permit is not None and credentials is not None and not renewed:
                    credentials.credentials.refused(permit)
                    token, renewed = await credentials.credentials.token(), True
                    if token is not None and token != permit:
                        continue
                location = download.headers.get("location") if follow and download.status in _REDIRECTS else None
                if location is None:
                    _check_encoding(download, sent["accept-encoding"])
                    yield download
                    return
                target = self.policy.check_redirect(target, location, what)
                redirects += 1
        raise ProtocolViolation(f"{what}: more than {REDIRECTS_MAX} redirects")

    @asynccontextmanager
    async def _attempt(
        self, method: str, url: str, what: str, headers: Mapping[str, str], token: Secret | None, number: int, kind: Kind
    ) -> AsyncIterator[Download]:
        """One request to one origin: its permit, its opening, its closing. token: to be sent to that origin."""
        if self.settings.offline:
            raise Offline(f"{what}: not at hand, and offline")
        parts = self.policy.check_url(url, what)
        origin = Origin.of_parts(parts)
        pool = await self._pools.get(origin, self.policy)
        await pool.reachability.check(what)
        async with pool.permits:
            timeout_s = pool.latency[kind].stall_timeout_s(number)
            request = self._make_request(method, url, parts.host, headers, timeout_s)
            if token is not None:
                request.headers["authorization"] = f"Bearer {token.reveal()}"
            start = trio.current_time()
            response = await self._open(pool, request, what, timeout_s)
            silence_s = trio.current_time() - start
            try:
                log.debug("%s %s status=%d what=%r", method, parts.shown, response.status_code, what)
                download = Download(
                    response, url, what, pool, kind, self.counters, stall_timeout_s=timeout_s, silence_s=silence_s
                )
                yield download
                await download.finish()
            finally:
                await response.aclose()

    def _make_request(self, method: str, url: str, host: str, headers: Mapping[str, str], timeout_s: float) -> httpx.Request:
        timeouts = {"connect": self.settings.net.connect_timeout_s, "read": timeout_s}
        try:
            request = httpx.Request(method, self._parse_url(url), headers=dict(headers), extensions={"timeout": timeouts})
        except httpx.InvalidURL:
            raise ProtocolViolation("a URL that cannot be asked") from None
        if request.url.host != host:
            raise ProtocolViolation("a URL that two readers read differently")
        return request

    async def _open(self, pool: OriginPool, request: httpx.Request, what: str, timeout_s: float) -> httpx.Response:
        self.counters.add(NET_REQUESTS)
        start = trio.current_time()
        try:
            response = await pool.transport.handle_async_request(request)
            pool.reachability.note_answer()
            self.counters.observe(NET_ANSWER_SECONDS, trio.current_time() - start)
            return response
        except httpx.HTTPError as exc:
            if isinstance(exc, httpx.TimeoutException):
                pool.note_stall(timeout_s)
            error = error_of_exception(exc, what)
            if isinstance(exc, Unreachable | Unresponsive):
                pool.reachability.note_failure(start, str(exc), silent=isinstance(exc, Unresponsive))
                if isinstance(error, Unavailable):
                    error.unconnected = True
        # Raised here, without the foreign exception behind it: that one refers to the request, and so to its headers.
        log.debug("%s %s failed: %s", request.method, split_url(str(request.url), what).shown, error.message)
        raise error


def _check_encoding(download: Download, accepted: str) -> None:
    encoding = download.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", accepted):
        raise ProtocolViolation(
            f"{download.what}: the answer is encoded as {encoding!r:.40}, which nobody asked for",
            retryable=accepted == "identity",  # a range, which something in between compressed on its way
        )


def _decode(body: bytes, download: Download, bytes_max: int) -> bytes:
    """Undo gzip, at most bytes_max: a small body can hold a large one."""
    if download.headers.get("content-encoding", "").strip().lower() != "gzip" or not body:
        return body
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        decoded = decoder.decompress(body, bytes_max + 1)
    except zlib.error:
        raise ProtocolViolation(f"{download.what}: the answer is not the gzip it claims to be") from None
    if len(decoded) > bytes_max:
        raise ProtocolViolation(f"{download.what}: the answer is longer than {bytes_max} bytes")
    if not decoder.eof:
        raise Unavailable(f"{download.what}: the answer ended in the middle")
    return decoded


@asynccontextmanager
async def open_network(settings: Settings, counters: Counters) -> AsyncIterator[Network]:
    """The network of an engine, closed with all its tasks and connections at the end.

    An error of the block comes out as it is, not in a group.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                network = Network(settings, counters, nursery)
                try:
                    yield network
                finally:
                    await network.pools.aclose()
            except BaseException as exc:  # raised again below, outside of the nursery, which would wrap it into a group
                failure = exc
            nursery.cancel_scope.cancel()
    finally:
        if failure is not None:
            raise failure
