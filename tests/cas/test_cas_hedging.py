"""Data requests that take unusually long are asked a second time; counted in requests, on a clock that does not wait."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio
import trio.testing
from loopback import Asked, client_of, ranged, serving

from xetfs.cas.client import CasClient
from xetfs.net.client import HttpClient
from xetfs.net.latency import SAMPLES_MIN
from xetfs.net.writers import BufferWriter
from xetfs.protocol.ranges import HttpRange
from xetfs.protocol.reconstruction import SignedUrl
from xetfs.protocol.tree import XetToken
from xetfs.telemetry import CAS_FETCHES, NET_HEDGES, NET_HEDGES_WON, NET_RETRIES, NET_STALLS

DATA = random.Random(5).randbytes(300_000)
SPAN = HttpRange(1000, 180_999)


@pytest.fixture
def autojump_clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """One that leaves sockets a moment: on a busy machine what was sent may not have arrived yet when all tasks wait."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


async def no_token() -> XetToken:
    raise AssertionError("data is fetched without a token")


class Host:
    """Answers at once, or is silent: before the answer or in its middle, to the first so many requests for /dead…."""

    def __init__(self, silent: int, *, within: bool = False) -> None:
        self.silent = silent
        self.within = within

    async def __call__(self, asked: Asked, stream: trio.abc.Stream) -> bytes:
        if asked.path.startswith("/dead") and self.silent > 0:
            self.silent -= 1
            if self.within:
                await stream.send_all(ranged(DATA, asked)[:50_000])
            await trio.sleep_forever()
        return ranged(DATA, asked)


async def fetch(http: HttpClient, url: str) -> bytes:
    buffer = bytearray(len(SPAN))
    await CasClient(http, no_token).fetch(SignedUrl(f"{url}?Signature=x"), [(SPAN, partial(BufferWriter, memoryview(buffer)))])
    return bytes(buffer)


async def learn(http: HttpClient, url: str) -> None:
    for _ in range(SAMPLES_MIN):
        await fetch(http, f"{url}/alive")


async def test_a_stalled_request_is_overtaken_by_its_hedge(autojump_clock: trio.testing.MockClock) -> None:
    for within in (False, True):
        async with serving(Host(1, within=within)) as server, client_of(server.url, stall_timeout_s=10.0) as http:
            await learn(http, server.url)
            start = trio.current_time()
            assert await fetch(http, f"{server.url}/dead") == DATA[SPAN.first : SPAN.last + 1]
            assert trio.current_time() - start < 1
            assert [asked.path for asked in server.asked].count("/dead") == 2
            assert len({asked.connection for asked in server.asked if asked.path == "/dead"}) == 2
            assert (http.counters[NET_HEDGES], http.counters[NET_HEDGES_WON]) == (1, 1)
            assert (http.counters[NET_STALLS], http.counters[NET_RETRIES]) == (0, 0)
            assert http.counters[CAS_FETCHES] == SAMPLES_MIN + 2


async def test_before_anything_is_usual_a_stall_is_waited_out(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(Host(1)) as server, client_of(server.url, stall_timeout_s=25.0) as http:
        start = trio.current_time()
        assert await fetch(http, f"{server.url}/dead") == DATA[SPAN.first : SPAN.last + 1]
        assert 15 <= trio.current_time() - start <= 15.5
        assert len(server.asked) == 2
        assert (http.counters[NET_HEDGES], http.counters[NET_STALLS], http.counters[NET_RETRIES]) == (0, 1, 1)


async def test_one_stalled_url_delays_only_its_own_reader(autojump_clock: trio.testing.MockClock) -> None:
    """While one URL is dead, a hundred others are fetched in no time, each with one request."""
    async with serving(Host(1_000_000)) as server, client_of(server.url, stall_timeout_s=10.0) as http:
        await learn(http, server.url)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, http, f"{server.url}/dead")
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as others:
                for number in range(100):
                    others.start_soon(fetch, http, f"{server.url}/other{number}")
            assert trio.current_time() - start < 0.1
            nursery.cancel_scope.cancel()
        assert len([asked for asked in server.asked if asked.path.startswith("/other")]) == 100


async def test_hedges_are_counted_against_a_share_of_all_requests(autojump_clock: trio.testing.MockClock) -> None:
    """Of every two requests one is silent. A few are saved by a hedge, the rest by noticing the stall."""
    host = Host(1)
    async with serving(host) as server, client_of(server.url, stall_timeout_s=10.0) as http:
        await learn(http, server.url)
        for _ in range(20):
            host.silent = 1
            await fetch(http, f"{server.url}/dead")
        assert http.counters[NET_HEDGES] == http.counters[NET_HEDGES_WON] == 3
        assert http.counters[NET_STALLS] == 17
        assert [asked.path for asked in server.asked].count("/dead") == 40
