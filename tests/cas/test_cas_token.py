"""One token for everybody: refreshed once, whoever waits, whoever leaves."""

from __future__ import annotations

import time
from functools import partial

import pytest
import trio
import trio.testing
from loopback import CANARY

from xetfs.cas.token import EXPIRY_MARGIN_S, LIFE_UNKNOWN_S, USE_MIN_S, TokenSource, usable_s
from xetfs.errors import AuthRequired, Unavailable
from xetfs.protocol.tree import XetToken
from xetfs.secret import Secret


class Hub:
    """Gives tokens, one after the other, each good for `life_s` by a clock of its own; waits for `open` before it answers."""

    def __init__(self, life_s: int = 1000, *, tells_time: bool = True) -> None:
        self.now_s = 1_000_000
        self.life_s = life_s
        self.tells_time = tells_time
        self.asked = 0
        self.cancelled = 0
        self.open = trio.Event()
        self.failing = False

    async def token(self) -> XetToken:
        self.asked += 1
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.failing:
            raise Unavailable("the Hub is away")
        issued_s = self.now_s if self.tells_time else None
        return XetToken("http://127.0.0.1:1", Secret(f"{CANARY}{self.asked}"), self.now_s + self.life_s, issued_s)


async def test_many_who_wait_cause_one_request(nursery: trio.Nursery) -> None:
    hub = Hub()
    source = TokenSource(hub.token, nursery=nursery)
    got: list[XetToken] = []

    async def wait() -> None:
        got.append(await source.get())

    async with trio.open_nursery() as waiting:
        for _ in range(50):
            waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        hub.open.set()
    assert (hub.asked, len(got), len(set(got))) == (1, 50, 1)
    assert await source.get() == got[0]
    assert hub.asked == 1


@pytest.mark.parametrize(("left_s", "asked"), [(EXPIRY_MARGIN_S + 1, 1), (EXPIRY_MARGIN_S, 2), (0, 2), (-100, 2)])
async def test_a_token_is_replaced_thirty_seconds_before_its_end(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, left_s: float, asked: int
) -> None:
    hub = Hub(life_s=1000)
    hub.open.set()
    source = TokenSource(hub.token, nursery=nursery)
    await source.get()
    await trio.sleep(1000 - left_s)
    await source.get()
    assert hub.asked == asked


@pytest.mark.parametrize("life_s", [-7200, -5, 0, 5])
async def test_a_token_that_comes_expired_is_used_and_not_asked_for_with_every_request(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, life_s: int
) -> None:
    hub = Hub(life_s)
    hub.open.set()
    source = TokenSource(hub.token, nursery=nursery)
    for _ in range(20):
        await source.get()
    assert hub.asked == 1
    await trio.sleep(USE_MIN_S)
    await source.get()
    assert hub.asked == 2


async def test_without_the_servers_time_a_lifetime_is_assumed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = Hub(tells_time=False)
    hub.open.set()
    source = TokenSource(hub.token, nursery=nursery)
    for elapsed_s, asked in [(0.0, 1), (LIFE_UNKNOWN_S - EXPIRY_MARGIN_S - 1, 1), (1.0, 2)]:
        await trio.sleep(elapsed_s)
        await source.get()
        assert hub.asked == asked


@pytest.mark.parametrize(("life_s", "used_s"), [(3600, 3570), (60, 30), (40, 20), (20, USE_MIN_S), (0, USE_MIN_S)])
def test_how_long_a_token_is_used(life_s: int, used_s: float) -> None:
    assert usable_s(XetToken("http://127.0.0.1:1", Secret(CANARY), 5000 + life_s, 5000)) == used_s


async def test_the_wall_clock_is_not_looked_at(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is two hours ahead, or behind, asks for one token, not for one with each request."""
    for wrong_s in (1_000_000 - 7200, 1_000_000 + 7200):
        monkeypatch.setattr(time, "time", partial(int, wrong_s))
        hub = Hub(life_s=3600)
        hub.open.set()
        source = TokenSource(hub.token, nursery=nursery)
        for _ in range(20):
            await source.get()
        assert hub.asked == 1


async def test_a_token_ages_from_when_it_was_asked_for(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    hub = Hub(life_s=100)
    source = TokenSource(hub.token, nursery=nursery)
    async with trio.open_nursery() as waiting:
        waiting.start_soon(source.get)
        await trio.sleep(50)
        hub.open.set()
    await trio.sleep(25)
    await source.get()
    assert hub.asked == 2


async def test_who_is_cancelled_does_not_take_the_refresh_from_the_others(nursery: trio.Nursery) -> None:
    hub = Hub()
    source = TokenSource(hub.token, nursery=nursery)
    got: list[XetToken] = []

    async def wait() -> None:
        got.append(await source.get())

    async with trio.open_nursery() as waiting:
        first = trio.CancelScope()

        async def begin() -> None:
            with first:
                await wait()

        waiting.start_soon(begin)
        await trio.testing.wait_all_tasks_blocked()
        waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        hub.open.set()
    assert (len(got), hub.asked, hub.cancelled) == (1, 1, 0)


async def test_the_last_to_leave_ends_the_refresh_and_the_next_begins_anew(nursery: trio.Nursery) -> None:
    hub = Hub()
    source = TokenSource(hub.token, nursery=nursery)
    async with trio.open_nursery() as waiting:
        for _ in range(3):
            waiting.start_soon(source.get)
        await trio.testing.wait_all_tasks_blocked()
        waiting.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert hub.cancelled == 1
    hub.open.set()
    await source.get()
    assert hub.asked == 2


async def test_a_failed_refresh_fails_all_who_wait_and_is_not_remembered(nursery: trio.Nursery) -> None:
    hub = Hub()
    hub.failing = True
    source = TokenSource(hub.token, nursery=nursery)
    errors: list[Unavailable] = []

    async def wait() -> None:
        with pytest.raises(Unavailable, match="the Hub is away") as caught:
            await source.get()
        errors.append(caught.value)

    async with trio.open_nursery() as waiting:
        for _ in range(5):
            waiting.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        hub.open.set()
    assert hub.asked == 1
    assert len({id(error) for error in errors}) == 5
    hub.failing = False
    await source.get()
    assert hub.asked == 2


async def test_a_refused_token_is_replaced_once_for_all_who_were_refused(nursery: trio.Nursery) -> None:
    hub = Hub()
    hub.open.set()
    source = TokenSource(hub.token, nursery=nursery)
    refused = await source.get()
    async with trio.open_nursery() as waiting:
        for _ in range(10):
            waiting.start_soon(source.replace, refused)
    assert hub.asked == 2
    assert (await source.get()).access_token != refused.access_token


async def test_a_hub_that_gives_the_refused_token_again_is_an_error(nursery: trio.Nursery) -> None:
    hub = Hub()
    hub.open.set()
    fixed = await hub.token()

    async def same() -> XetToken:
        await trio.lowlevel.checkpoint()
        return fixed

    source = TokenSource(same, nursery=nursery)
    with pytest.raises(AuthRequired) as caught:
        await source.replace(await source.get())
    assert CANARY not in f"{caught.value} {source!r} {fixed!r}"


async def test_a_forgotten_token_is_asked_for_again_and_another_one_is_not_forgotten_for_it(nursery: trio.Nursery) -> None:
    hub = Hub()
    hub.open.set()
    source = TokenSource(hub.token, nursery=nursery)
    first = await source.get()
    source.forget(first)
    second = await source.get()
    source.forget(first)
    assert await source.get() is second
    assert hub.asked == 2
