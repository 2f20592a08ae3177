"""Signed URLs of files: asked for once a file and not once a range, as long as they last."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing
from flat_settings import flat_settings
from loopback import CANARY, Asked, Loopback, answer, client_of, hub_at, ranged, serving

from xetfs.errors import AccessDenied, Unavailable
from xetfs.hub.client import HubClient
from xetfs.hub.locations import LIFETIME_S, LOCATIONS_MAX, MARGIN_S, Locations
from xetfs.protocol.names import CommitId, RepoId
from xetfs.protocol.ranges import ByteRange
from xetfs.secret import Secret

REPO = RepoId("model", "acme/demo")
COMMIT = CommitId("d92e49681370bceb144bcbecb0af679dbe2655ff")
DATA = bytes(range(251)) * 400
ATTEMPTS = flat_settings().net.attempts_max
SPANS = [ByteRange(at, at + 1000) for at in range(0, 100_000, 1000)]


async def read(hub: HubClient, span: ByteRange, path: str = "a.bin") -> bytes:
    into = bytearray(len(span))
    await hub.fetch_file(REPO, COMMIT, path, span, len(DATA), memoryview(into))
    return bytes(into)


async def read_all_at_once(hub: HubClient) -> None:
    async def check(span: ByteRange) -> None:
        assert await read(hub, span) == DATA[span.start : span.end]

    async with trio.open_nursery() as nursery:
        for span in SPANS:
            nursery.start_soon(check, span)


@asynccontextmanager
async def two_servers(
    refuses: Callable[[Asked], int] = lambda asked: 0,
) -> AsyncIterator[tuple[Loopback, Loopback, HubClient]]:
    """A Hub that redirects to another signed URL each time, and the storage. refuses: the status of a refusal, or 0."""

    async def cdn(asked: Asked, stream: trio.abc.Stream) -> bytes:
        status = refuses(asked)
        return answer(status) if status else ranged(DATA, asked)

    async with serving(cdn) as storage:
        count = 0

        async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
            nonlocal count
            count += 1
            return answer(302, location=f"{storage.url}{asked.path}?sig={CANARY}&Expires={int(time.time()) + 3600}&try={count}")

        async with serving(handler) as hub, client_of(hub.url) as http:
            yield hub, storage, HubClient(http, hub_at(hub.url, Secret("hf_token")))


async def test_the_resolver_is_asked_once_for_many_ranges_side_by_side_and_by_turns() -> None:
    async with two_servers() as (hub, storage, client):
        await read_all_at_once(client)
        for span in SPANS:
            assert await read(client, span) == DATA[span.start : span.end]
        assert len(hub.asked) == 1
        assert len(storage.asked) == 2 * len(SPANS)
        assert not any("authorization" in asked.headers for asked in storage.asked)
        await read(client, SPANS[0], "b.bin")
        assert len(hub.asked) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_kept_url_that_is_refused_is_replaced_once_for_all_who_read(status: int) -> None:
    ended = False
    async with two_servers(lambda asked: status if ended and asked.target.endswith("try=1") else 0) as (hub, _, client):
        await read(client, SPANS[0])
        ended = True
        await read_all_at_once(client)
        assert len(hub.asked) == 2


@pytest.mark.parametrize("fault", ["gone", "failing"])
async def test_storage_that_is_gone_or_fails_is_left_for_another_that_the_hub_names(fault: str) -> None:
    """As by a Hub whose files are at several content delivery networks."""

    async def good(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return ranged(DATA, asked)

    async def failing(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(503) if failed else ranged(DATA, asked)

    failed, place = False, ""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(302, location=f"{place}{asked.path}?sig=x&Expires={int(time.time()) + 3600}")

    async with serving(handler) as hub, serving(good) as second, client_of(hub.url) as http:
        client = HubClient(http, hub_at(hub.url, Secret("hf_token")))
        async with serving(failing) as first:
            place = first.url
            await read(client, SPANS[0])
            failed, place = True, second.url
            if fault == "failing":
                await read_all_at_once(client)
        await read_all_at_once(client)
        assert len(hub.asked) == 2


async def test_storage_that_refuses_every_url_is_not_asked_for_ever() -> None:
    refusing = False
    async with two_servers(lambda asked: 403 if refusing else 0) as (hub, storage, client):
        await read(client, SPANS[0])
        refusing = True
        with pytest.raises(Unavailable):
            await read(client, SPANS[1])
        assert len(hub.asked) <= 1 + ATTEMPTS
        assert len(storage.asked) <= 2 + ATTEMPTS


async def test_a_hub_that_refuses_lets_those_who_wait_hear_it_themselves() -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(403)

    async with serving(handler) as hub, client_of(hub.url) as http:
        client = HubClient(http, hub_at(hub.url, Secret("hf_token")))
        failures = []

        async def fail(span: ByteRange) -> None:
            with pytest.raises(AccessDenied):
                await read(client, span)
            failures.append(span)

        async with trio.open_nursery() as nursery:
            for span in SPANS[:5]:
                nursery.start_soon(fail, span)
        assert len(failures) == 5


async def test_a_hub_that_sends_bytes_itself_is_asked_side_by_side() -> None:
    """Once that is known, nobody waits for another's headers."""
    waiting = trio.Event()
    at_once = 0

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        nonlocal at_once
        if asked.headers["range"] != "bytes=0-999":
            at_once += 1
            if at_once == 3:
                waiting.set()
            await waiting.wait()
        return ranged(DATA, asked)

    async with serving(handler) as hub, client_of(hub.url) as http:
        client = HubClient(http, hub_at(hub.url, Secret("hf_token")))
        await read(client, SPANS[0])
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for span in SPANS[1:4]:
                    nursery.start_soon(read, client, span)


async def test_one_who_is_cancelled_while_he_asks_leaves_the_question_to_the_next() -> None:
    locations = Locations()
    assert await locations.claim("u") is None
    async with trio.open_nursery() as nursery:
        found: list[object] = []

        async def wait() -> None:
            found.append(await locations.claim("u"))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        locations.release("u")
    assert found == [None]


async def test_a_url_is_not_used_near_its_end_by_the_clock_of_the_server(autojump_clock: trio.testing.MockClock) -> None:
    """Ours is an hour off."""
    locations = Locations()
    date = httpx.Headers({"date": "Sun, 29 Nov 2026 02:00:00 GMT"})
    locations.keep("u", "https://cdn/x?Expires=1795917900", date)  # 02:05:00
    await trio.sleep(299 - MARGIN_S)
    assert await locations.claim("u") is not None
    await trio.sleep(2)
    assert await locations.claim("u") is None


async def test_one_without_an_end_is_used_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    locations = Locations()
    locations.keep("u", "https://cdn/x", httpx.Headers())
    await trio.sleep(LIFETIME_S - 1)
    assert await locations.claim("u") is not None
    await trio.sleep(2)
    assert await locations.claim("u") is None


async def test_they_are_bounded_and_do_not_show_themselves() -> None:
    locations = Locations()
    for number in range(LOCATIONS_MAX + 10):
        locations.keep(str(number), f"https://cdn/x?sig={CANARY}", httpx.Headers())
    assert repr(locations) == f"Locations({LOCATIONS_MAX})"
    kept = await locations.claim(str(LOCATIONS_MAX))
    assert CANARY not in repr(kept)
