"""The lock of pyfuse3's tasks: it stays where it is, and is never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pyfuse3
import pytest
import trio
import trio.testing

from xetfs.fs.turns import Turn, quick_turns


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
        assert (given.open_nursery, given.lowlevel) == (trio.open_nursery, trio.lowlevel)
