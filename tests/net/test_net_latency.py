"""What is learnt of an origin's answers, and how long the next is waited for."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from flat_settings import flat_settings
from hypothesis import given
from hypothesis import strategies as st
from loopback import Asked, answer, client_of, serving

from xetfs.errors import TimedOut
from xetfs.net.latency import BULK_BYTES_MIN, SAMPLES_MAX, SAMPLES_MIN, LatencyEstimator, Samples
from xetfs.net.origins import Origin
from xetfs.telemetry import NET_HEDGES, NET_REQUESTS, NET_STALLS


def latency_after(*silences: float, floor_s: float = 2.0, first_s: float = 5.0, ceiling_s: float = 10.0) -> LatencyEstimator:
    latency = LatencyEstimator(floor_s=floor_s, first_s=first_s, ceiling_s=ceiling_s)
    for silence in silences:
        latency.note_silence(silence)
    return latency


def test_nothing_is_usual_before_there_are_some_answers() -> None:
    latency = latency_after(*[0.1] * (SAMPLES_MIN - 1))
    assert latency.p95_s(0) is None
    assert [latency.stall_timeout_s(attempt) for attempt in (1, 2, 3, 99)] == [5, 10, 10, 10]


def test_a_server_that_is_not_known_yet_is_given_time_and_another_attempt_within_an_operation() -> None:
    settings = flat_settings()
    usual = settings.net
    latency = LatencyEstimator(
        floor_s=usual.answer_timeout_min_s, first_s=usual.stall_timeout_first_s, ceiling_s=usual.stall_timeout_s
    )
    assert (latency.stall_timeout_s(1), latency.stall_timeout_s(2)) == (15, 25)
    assert usual.stall_timeout_first_s <= settings.operation_deadline_s / 2
    assert usual.stall_timeout_s < settings.operation_deadline_s


def test_a_fast_origin_is_waited_for_no_less_than_the_floor_and_longer_each_time() -> None:
    latency = latency_after(*[0.02] * SAMPLES_MIN)
    assert [latency.stall_timeout_s(attempt) for attempt in (1, 2, 3, 4)] == [2, 4, 8, 10]


def test_a_slow_origin_is_waited_for_as_long_as_it_takes_and_no_longer_than_the_ceiling() -> None:
    assert latency_after(*[1.0] * SAMPLES_MIN).stall_timeout_s(1) == 4
    assert latency_after(*[60.0] * SAMPLES_MIN).stall_timeout_s(1) == 10


def test_a_floor_above_the_ceiling_gives_way() -> None:
    assert latency_after(*[0.01] * SAMPLES_MIN, floor_s=2, ceiling_s=0.5).stall_timeout_s(1) == 0.5


def test_a_few_slow_answers_change_nothing_and_many_do() -> None:
    assert latency_after(*[0.1] * 61, *[9.0] * 3).stall_timeout_s(1) == 2
    assert latency_after(*[0.1] * 61, *[9.0] * 10).stall_timeout_s(1) == 10


def test_old_answers_are_forgotten() -> None:
    assert latency_after(*[9.0] * SAMPLES_MAX, *[0.1] * SAMPLES_MAX).stall_timeout_s(1) == 2


def test_bytes_take_their_time_on_top() -> None:
    latency = latency_after(*[0.5] * SAMPLES_MIN)
    assert latency.p95_s(BULK_BYTES_MIN) is None
    for _ in range(SAMPLES_MIN):
        latency.note_body(1000, 50.0)  # too short to say anything of the line
        latency.note_body(10_000_000, 1.0)
    assert latency.p95_s(20_000_000) == 2.5
    assert latency.p95_s(10) is not None


@given(st.lists(st.floats(0, 1e6), min_size=SAMPLES_MIN, max_size=3 * SAMPLES_MAX))
def test_what_is_usual_is_one_of_the_latest_and_rarely_exceeded(values: list[float]) -> None:
    samples = Samples()
    for value in values:
        samples.add(value)
    latest = values[-SAMPLES_MAX:]
    assert samples.p95 in latest
    assert sum(value > samples.p95 for value in latest) <= 0.05 * len(latest)


async def test_a_stall_is_noticed_by_what_is_usual_and_slowness_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """After some quick answers one that is silent is given up after the floor; the next wait is twice as long."""
    silent_s = {"/quick": 0.0, "/slow": 3.0, "/dead": 1e6}
    asked_at: list[float] = []

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        asked_at.append(trio.current_time())
        await trio.sleep(silent_s[asked.path])
        return answer(200, b"ok")

    async with (
        serving(handler) as server,
        client_of(server.url, stall_timeout_s=10.0, answer_timeout_min_s=2.0, attempts_max=4) as client,
    ):
        for _ in range(30):
            await client.request(f"{server.url}/quick", "quick")
        asked_at.clear()
        start = trio.current_time()
        assert (await client.request(f"{server.url}/slow", "slow")).body == b"ok"
        assert len(asked_at) == 2
        assert trio.current_time() - start <= 2 + 0.25 + 3 + 0.01
        start = trio.current_time()
        with pytest.raises(TimedOut):
            await client.request(f"{server.url}/dead", "dead")
        assert 2 + 4 + 8 + 10 <= trio.current_time() - start <= 2 + 4 + 8 + 10 + 2
        assert client.counters[NET_STALLS] == 1 + 4
        assert client.counters[NET_REQUESTS] == 30 + 2 + 4


async def test_a_stall_beside_others_that_are_answered_disturbs_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """One path is dead, the origin is not: each silence costs the one connection that it happened on."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        if asked.path == "/dead":
            await trio.sleep_forever()
        return answer(200, b"ok")

    async def keep_asking(scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await client.request(f"{server.url}/alive", "alive")
                await trio.sleep(0.1)

    async with serving(handler) as server, client_of(server.url, stall_timeout_s=2.0, attempts_max=6) as client:
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_asking, scope)
            await trio.sleep(1)
            with pytest.raises(TimedOut):
                await client.request(f"{server.url}/dead", "dead")
            scope.cancel()
        assert len([asked for asked in server.asked if asked.path == "/dead"]) == 6
        assert server.connections == 1 + 6


async def test_what_metadata_usually_takes_says_nothing_of_data(autojump_clock: trio.testing.MockClock) -> None:
    """At one origin, as behind a mirror: quick listings make no stall of a body that is slow to begin, nor bring it a hedge."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        await trio.sleep(12.0 if asked.path == "/cold" else 0.0)
        return answer(200, b"ok")

    async with serving(handler) as server, client_of(server.url, stall_timeout_s=25.0) as client:
        for _ in range(3 * SAMPLES_MIN):
            await client.request(f"{server.url}/listing", "listing")

        async def fetch() -> bytes:
            async with client.stream(f"{server.url}/cold", "data") as download:
                return await download.read(10)

        assert await client.retrying(lambda number: fetch(), origin=Origin.of(server.url), length=2) == b"ok"
        assert len([asked for asked in server.asked if asked.path == "/cold"]) == 1
        assert (client.counters[NET_STALLS], client.counters[NET_HEDGES]) == (0, 0)


async def test_what_data_usually_takes_says_nothing_of_metadata(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        await trio.sleep(12.0 if asked.path == "/plan" else 0.0)
        return answer(200, b"ok")

    async with serving(handler) as server, client_of(server.url, stall_timeout_s=25.0) as client:
        for _ in range(3 * SAMPLES_MIN):
            async with client.stream(f"{server.url}/data", "data") as download:
                await download.read(10)
        assert (await client.request(f"{server.url}/plan", "plan")).body == b"ok"
        assert client.counters[NET_STALLS] == 0
