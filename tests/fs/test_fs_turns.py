"""The lock of pyfuse3's tasks: it stays where it is, and is never lost."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pyfuse3
import pytest
import trio
import trio.testing

from xetfs.fs.turns import BUSY_S_MAX, Doorbell, Turn, quick_turns


class Requests:
    """What tasks take turns to wait for; `answered` tells which of them had each."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.answered: list[tuple[str, int]] = []
        self.slow = trio.Event()
        self._send, self._receive = trio.open_memory_channel[int](100)

    def come(self, *numbers: int) -> None:
        for number in numbers:
            self._send.send_nowait(number)

    async def serve(self, name: str) -> None:
        """Request 0 takes until `slow` is set, a negative one ends the task."""
        while True:
            async with self.turn:
                number = await self._receive.receive()
            self.answered.append((name, number))
            if number < 0:
                return
            if number == 0:
                await self.slow.wait()


@pytest.fixture
async def requests() -> AsyncIterator[Requests]:
    turn = Turn()
    with turn.in_this_run():
        yield Requests(turn)


async def serve(nursery: trio.Nursery, requests: Requests, *names: str) -> None:
    """Start tasks one after the other."""
    for name in names:
        nursery.start_soon(requests.serve, name)
        await trio.testing.wait_all_tasks_blocked()


async def come(requests: Requests, *numbers: int) -> list[str]:
    """Let requests come one by one; which tasks answered them."""
    before = len(requests.answered)
    for number in numbers:
        requests.come(number)
        with trio.fail_after(5):
            while (requests.answered[-1:] or [("", 99)])[0][1] != number:
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
    return [name for name, _ in requests.answered[before:]]


async def test_who_answers_at_once_keeps_the_turn(requests: Requests) -> None:
    async with trio.open_nursery() as nursery:
        await serve(nursery, requests, "a", "b", "c")
        assert await come(requests, 1, 2, 3, 4) == ["a"] * 4
        requests.come(5, 6, 7)
        await trio.testing.wait_all_tasks_blocked()
        assert requests.answered[4:] == [("a", 5), ("a", 6), ("a", 7)]
        nursery.cancel_scope.cancel()


async def test_somebody_waits_while_others_are_busy(requests: Requests) -> None:
    async with trio.open_nursery() as nursery:
        await serve(nursery, requests, "a", "b", "c")
        assert await come(requests, 0, 1, 2) == ["a", "b", "b"]
        requests.slow.set()
        await trio.testing.wait_all_tasks_blocked()
        assert set(await come(requests, 3, 4)) == {"b"}  # a waits for its turn again
        nursery.cancel_scope.cancel()


async def test_somebody_waits_when_others_have_ended(requests: Requests) -> None:
    async with trio.open_nursery() as nursery:
        await serve(nursery, requests, "a", "b", "c")
        assert await come(requests, -1, 1, -2, 2, -3) == ["a", "b", "b", "c", "c"]


async def test_somebody_waits_when_who_did_is_cancelled(requests: Requests) -> None:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                await serve(first, requests, "a")
                await serve(nursery, requests, "b")
                scope.cancel()
        assert await come(requests, 1, 2) == ["b", "b"]
        nursery.cancel_scope.cancel()


async def test_pyfuse3_is_given_the_lock_and_the_rest_of_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyfuse3, "trio", trio)
    with quick_turns():
        given = vars(pyfuse3)["trio"]
        assert isinstance(given.Lock(), Turn)
        assert given.Lock() is given.Lock()
        assert given.open_nursery is trio.open_nursery
        assert given.lowlevel.current_task is trio.lowlevel.current_task
        assert given.lowlevel.wait_readable is not trio.lowlevel.wait_readable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def turns_of_others(work: Callable[[], Awaitable[None]]) -> int:
    """How often another task had its turn while this was done."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        turns = 0
        await work()
        seen = turns
        nursery.cancel_scope.cancel()
    return seen


async def test_what_has_come_already_is_not_waited_for(pipe: tuple[int, int]) -> None:
    doorbell = Doorbell(clock=Clock())
    os.write(pipe[1], b"request")

    async def wait() -> None:
        for _ in range(100):
            await doorbell.wait_readable(pipe[0])

    assert await turns_of_others(wait) == 0


async def test_others_have_their_turn_however_many_requests_come(pipe: tuple[int, int]) -> None:
    clock = Clock()
    doorbell = Doorbell(clock=clock)
    os.write(pipe[1], b"request")

    async def wait() -> None:
        for _ in range(100):
            await doorbell.wait_readable(pipe[0])
            clock.now += BUSY_S_MAX / 9.5  # that each request takes

    assert await turns_of_others(wait) >= 5  # of ten, as trio runs tasks that can run in any order


async def test_what_has_not_come_is_waited_for(pipe: tuple[int, int]) -> None:
    doorbell = Doorbell(clock=Clock())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(doorbell.wait_readable, pipe[0])
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        os.write(pipe[1], b"request")
        with trio.move_on_after(5) as limit:
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
        assert not limit.cancelled_caught
