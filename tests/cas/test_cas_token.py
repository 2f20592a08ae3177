"""One token for everybody: refreshed once, whoever waits, whoever leaves."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from loopback import CANARY

from xetfs.cas.token import EXPIRY_MARGIN_S, TokenSource
from xetfs.errors import AuthRequired, Unavailable
from xetfs.protocol.tree import XetToken
from xetfs.settings import Secret


class Hub:
    """Gives tokens, one after the other, each good for `life_s`; waits for `open` before it answers."""

    def __init__(self, life_s: int = 1000) -> None:
        self.now_s = 1_000_000.0
        self.life_s = life_s
        self.asked = 0
        self.cancelled = 0
        self.open = trio.Event()
        self.failing = False

    def clock(self) -> float:
        return self.now_s

    async def token(self) -> XetToken:
        self.asked += 1
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.failing:
            raise Unavailable("the Hub is away")
        return XetToken("http://127.0.0.1:1", Secret(f"{CANARY}{self.asked}"), int(self.now_s) + self.life_s)


async def test_many_who_wait_cause_one_request() -> None:
    hub = Hub()
    source = TokenSource(hub.token, now_s=hub.clock)
    got: list[XetToken] = []

    async def wait() -> None:
        got.append(await source.get())

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        hub.open.set()
    assert (hub.asked, len(got), len(set(got))) == (1, 50, 1)
    assert await source.get() == got[0]
    assert hub.asked == 1


@pytest.mark.parametrize(("left_s", "asked"), [(EXPIRY_MARGIN_S + 1, 1), (EXPIRY_MARGIN_S, 2), (0, 2), (-100, 2)])
async def test_a_token_is_replaced_thirty_seconds_before_its_end(left_s: int, asked: int) -> None:
    hub = Hub(life_s=1000)
    hub.open.set()
    source = TokenSource(hub.token, now_s=hub.clock)
    await source.get()
    hub.now_s += 1000 - left_s
    await source.get()
    assert hub.asked == asked


async def test_a_token_that_comes_expired_is_used_and_not_asked_for_in_a_circle() -> None:
    hub = Hub(life_s=-5)
    hub.open.set()
    source = TokenSource(hub.token, now_s=hub.clock)
    assert (await source.get()).expires_s < hub.now_s
    assert hub.asked == 1


async def test_who_is_cancelled_does_not_take_the_refresh_from_the_others() -> None:
    hub = Hub()
    source = TokenSource(hub.token, now_s=hub.clock)
    got: list[XetToken] = []

    async def wait() -> None:
        got.append(await source.get())

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def begin() -> None:
            with first:
                await wait()

        nursery.start_soon(begin)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        hub.open.set()
    assert (len(got), hub.asked, hub.cancelled) == (1, 1, 0)


async def test_the_last_to_leave_ends_the_refresh_and_the_next_begins_anew() -> None:
    hub = Hub()
    source = TokenSource(hub.token, now_s=hub.clock)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(source.get)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert hub.cancelled == 1
    hub.open.set()
    await source.get()
    assert hub.asked == 2


async def test_a_failed_refresh_fails_all_who_wait_and_is_not_remembered() -> None:
    hub = Hub()
    hub.failing = True
    source = TokenSource(hub.token, now_s=hub.clock)
    errors: list[Unavailable] = []

    async def wait() -> None:
        with pytest.raises(Unavailable, match="the Hub is away") as caught:
            await source.get()
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        hub.open.set()
    assert hub.asked == 1
    assert len({id(error) for error in errors}) == 5
    hub.failing = False
    await source.get()
    assert hub.asked == 2


async def test_a_refused_token_is_replaced_once_for_all_who_were_refused() -> None:
    hub = Hub()
    hub.open.set()
    source = TokenSource(hub.token, now_s=hub.clock)
    refused = await source.get()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(source.replace, refused)
    assert hub.asked == 2
    assert (await source.get()).access_token != refused.access_token


async def test_a_hub_that_gives_the_refused_token_again_is_an_error() -> None:
    hub = Hub()
    hub.open.set()
    fixed = await hub.token()

    async def same() -> XetToken:
        await trio.lowlevel.checkpoint()
        return fixed

    source = TokenSource(same, now_s=hub.clock)
    with pytest.raises(AuthRequired) as caught:
        await source.replace(await source.get())
    assert CANARY not in f"{caught.value} {source!r} {fixed!r}"


async def test_a_forgotten_token_is_asked_for_again_and_another_one_is_not_forgotten_for_it() -> None:
    hub = Hub()
    hub.open.set()
    source = TokenSource(hub.token, now_s=hub.clock)
    first = await source.get()
    source.forget(first)
    second = await source.get()
    source.forget(first)
    assert await source.get() is second
    assert hub.asked == 2
