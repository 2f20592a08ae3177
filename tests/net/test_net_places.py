"""How many requests one server is asked at a time, and that silent ones do not hold up the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from loopback import Asked, answer, client_of, serving

from xetfs.net import places as lending
from xetfs.net.places import COUNT_PAUSE_S, LENT_FACTOR, SILENT_FACTOR, SILENT_S, Place, Places

COUNT = 4


class Requests:
    """Requests that hold places until they are told to end."""

    def __init__(self, nursery: trio.Nursery, usual_s: Callable[[], float] = float) -> None:
        self.places = Places(COUNT, usual_s, nursery)
        self.held: list[Place] = []
        self.scopes: list[trio.CancelScope] = []
        self._nursery = nursery

    def start(self, count: int) -> None:
        for _ in range(count):
            scope = trio.CancelScope()
            self.scopes.append(scope)
            self._nursery.start_soon(self._run, scope)

    async def _run(self, scope: trio.CancelScope) -> None:
        with scope:
            place = await self.places.take()
            self.held.append(place)
            try:
                await trio.sleep_forever()
            finally:
                self.held.remove(place)
                self.places.give_back(place)

    def speak(self) -> None:
        """All that are under way hear from the server."""
        for place in self.held:
            place.heard_at = trio.current_time()

    def end(self) -> None:
        for scope in self.scopes:
            scope.cancel()


async def test_no_more_than_the_count_while_the_server_speaks(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        requests = Requests(nursery)
        requests.start(3 * COUNT)
        for _ in range(20):
            await trio.sleep(SILENT_S / 2)
            assert len(requests.held) == COUNT
            requests.speak()
        nursery.cancel_scope.cancel()


async def test_silent_requests_let_others_go_first_up_to_a_limit(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        requests = Requests(nursery)
        requests.start(10 * COUNT)
        await trio.sleep(SILENT_S - COUNT_PAUSE_S)
        assert len(requests.held) == COUNT
        await trio.sleep(10 * SILENT_S)
        assert len(requests.held) == COUNT * (1 + LENT_FACTOR)
        nursery.cancel_scope.cancel()


async def test_whoever_comes_when_all_are_silent_goes_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        requests = Requests(nursery)
        requests.start(COUNT)
        await trio.sleep(10 * SILENT_S)
        requests.start(1)
        await trio.testing.wait_all_tasks_blocked()
        assert len(requests.held) == COUNT + 1
        nursery.cancel_scope.cancel()


async def test_what_was_lent_is_taken_back(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        requests = Requests(nursery)
        requests.start(3 * COUNT)
        await trio.sleep(10 * SILENT_S)
        assert len(requests.held) == 3 * COUNT
        requests.end()
        await trio.sleep(SILENT_S)
        assert requests.held == []
        requests.start(3 * COUNT)
        await trio.testing.wait_all_tasks_blocked()
        assert len(requests.held) == COUNT
        nursery.cancel_scope.cancel()


async def test_what_is_usual_is_no_silence(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        requests = Requests(nursery, lambda: 3 * SILENT_S)
        requests.start(2 * COUNT)
        await trio.sleep(3 * SILENT_FACTOR * SILENT_S - COUNT_PAUSE_S)
        assert len(requests.held) == COUNT
        await trio.sleep(2 * COUNT_PAUSE_S)
        assert len(requests.held) == 2 * COUNT
        nursery.cancel_scope.cancel()


async def test_a_wait_that_is_cancelled_takes_no_place(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        requests = Requests(nursery)
        requests.start(2 * COUNT)
        await trio.testing.wait_all_tasks_blocked()
        for scope in requests.scopes[COUNT:]:
            scope.cancel()
        await trio.sleep(2 * COUNT_PAUSE_S)
        assert (len(requests.held), requests.places.busy, requests.places.spare) == (COUNT, COUNT, False)
        requests.end()
        await trio.testing.wait_all_tasks_blocked()
        assert (requests.places.busy, requests.places.spare) == (0, True)


async def test_a_read_beside_many_stalled_ones_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over sockets: three times as many requests as places are silent, before the headers and within the body."""
    monkeypatch.setattr(lending, "SILENT_S", 0.05)
    monkeypatch.setattr(lending, "COUNT_PAUSE_S", 0.01)

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.path == "/loud":
            return answer(200, b"ok")
        if asked.path == "/body":
            await stream.send_all(answer(200, b"o", content_length="2"))
        await trio.sleep_forever()
        return None

    async with (
        serving(handler) as server,
        client_of(server.url, connections_max=COUNT, stall_timeout_s=120) as client,
        trio.open_nursery() as nursery,
    ):
        for number in range((LENT_FACTOR - 1) * COUNT):
            nursery.start_soon(client.request, f"{server.url}/{'body' if number % 2 else 'silent'}", "silent")
        with trio.fail_after(20):
            for _ in range(5):
                assert (await client.request(f"{server.url}/loud", "loud")).body == b"ok"
        assert server.paths.count("/loud") == 5
        assert len(server.paths) == 5 + (LENT_FACTOR - 1) * COUNT
        nursery.cancel_scope.cancel()
