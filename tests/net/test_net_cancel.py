"""Cancelling requests at any moment leaves the client as it was: every place free, every connection usable."""

from __future__ import annotations

import random
import time

import pytest
import trio
import trio.testing
from loopback import Asked, Authority, answer, client_of, serving

from xetfs.settings import NetSettings

BODY = random.Random(1).randbytes(300_000)
PLACES = 8


@pytest.mark.parametrize("secure", [False, True], ids=["http", "tls"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_cancelled_requests_by_the_thousand_leave_the_pool_working(authority: Authority, secure: bool, seed: int) -> None:
    chance = random.Random(seed)
    ended: dict[str, int] = {"cancelled": 0, "whole": 0}

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        await trio.sleep(chance.random() * 0.004)
        return answer(200, BODY[: chance.randrange(len(BODY))])

    async with (
        serving(handler, authority.server if secure else None) as server,
        client_of(server.url, connections_max=PLACES, ca_paths=(authority.ca_file,)) as client,
    ):

        async def one(after_s: float) -> None:
            with trio.move_on_after(after_s):
                async with client.stream(f"{server.url}/x", "x") as download:
                    while await download.receive():
                        pass
                ended["whole"] += 1
                return
            ended["cancelled"] += 1

        begun = time.monotonic()
        while time.monotonic() - begun < 2.2 and ended["cancelled"] < 2000:
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(one, chance.random() * 0.02)
        assert ended["cancelled"] >= 40, ended
        # All places are free again: as many requests as there are places succeed side by side, in one round.
        async with trio.open_nursery() as nursery:
            for _ in range(PLACES):
                nursery.start_soon(one, 5)
        before = dict(ended)
        with trio.fail_after(5):
            for _ in range(20):
                await one(5)
        assert ended == {**before, "whole": before["whole"] + 20}


class CancelAtStep(trio.abc.Instrument):
    """Cancels `scope` when any task is about to take the step-th step from now: every moment there is, one after the other."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@pytest.mark.parametrize("kept", [False, True], ids=["new-connection", "kept-connection"])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "tls"])
async def test_a_request_cancelled_at_each_of_its_steps_leaves_its_only_place_free(
    authority: Authority, secure: bool, kept: bool
) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, BODY[:50_000])

    async with serving(handler, authority.server if secure else None) as server:
        step, ended = 0, False
        while not ended:
            step += 1
            async with client_of(server.url, connections_max=1, ca_paths=(authority.ca_file,), attempts_max=1) as client:
                if kept:
                    await client.request(f"{server.url}/before", "x")
                with trio.CancelScope() as scope:
                    instrument = CancelAtStep(scope, step)
                    trio.lowlevel.add_instrument(instrument)
                    await client.request(f"{server.url}/cancelled", "x")
                    ended = True
                trio.lowlevel.remove_instrument(instrument)
                with trio.fail_after(3):
                    assert (await client.request(f"{server.url}/after", "x")).body == BODY[:50_000]
        assert step >= 4  # so many moments there were


async def test_a_cancelled_opening_ends_at_once_and_frees_its_place() -> None:
    """The server takes the request and never answers: the one who asked does not wait for its timeout."""

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.path == "/silent":
            await trio.sleep_forever()
        return answer(200, b"ok")

    async with serving(handler) as server, client_of(server.url, connections_max=1, stall_timeout_s=60) as client:
        for _ in range(3):
            with trio.fail_after(2), trio.move_on_after(0.05):
                await client.request(f"{server.url}/silent", "silent")
        with trio.fail_after(2):
            assert (await client.request(f"{server.url}/loud", "loud")).body == b"ok"


async def test_one_slow_origin_does_not_take_the_places_of_another() -> None:
    async def silent(asked: Asked, stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async def quick(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"ok")

    async with (
        serving(silent) as slow,
        serving(quick) as fast,
        client_of(fast.url, connections_max=2, stall_timeout_s=60) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(client.request, f"{slow.url}/x", "slow")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(2):
            assert (await client.request(f"{fast.url}/x", "fast")).body == b"ok"
        nursery.cancel_scope.cancel()


async def test_a_request_behind_others_leaves_the_queue_when_cancelled() -> None:
    async def silent(asked: Asked, stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with serving(silent) as server, client_of(server.url, connections_max=1, stall_timeout_s=60) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request, f"{server.url}/first", "first")
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(2), trio.move_on_after(0.02):
                await client.request(f"{server.url}/second", "second")
            nursery.cancel_scope.cancel()
        assert server.paths == ["/first"]


async def test_a_read_beside_many_stalled_ones_is_served() -> None:
    """As many as the default limit leaves room for, silent before the headers and within the body."""
    stalled = NetSettings().connections_max - 1

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.path == "/loud":
            return answer(200, b"ok")
        if asked.path == "/body":
            await stream.send_all(answer(200, b"o", content_length="2"))
        await trio.sleep_forever()
        return None

    async with (
        serving(handler) as server,
        client_of(server.url, connections_max=stalled + 1, stall_timeout_s=120) as client,
        trio.open_nursery() as nursery,
    ):
        for number in range(stalled):
            nursery.start_soon(client.request, f"{server.url}/{'body' if number % 2 else 'silent'}", "silent")
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(20):
            for _ in range(5):
                assert (await client.request(f"{server.url}/loud", "loud")).body == b"ok"
        assert (server.paths.count("/loud"), len(server.paths)) == (5, 5 + stalled)
        nursery.cancel_scope.cancel()


async def test_no_more_requests_at_a_time_than_allowed() -> None:
    under_way: list[str] = []

    async def silent(asked: Asked, stream: trio.abc.Stream) -> bytes:
        under_way.append(asked.path)
        await released.wait()
        return answer(200, b"ok")

    released = trio.Event()
    async with serving(silent) as server, client_of(server.url, connections_max=3, stall_timeout_s=60) as client:
        async with trio.open_nursery() as nursery:
            for number in range(7):
                nursery.start_soon(client.request, f"{server.url}/{number}", "silent")
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(under_way) == 3
            released.set()
        assert len(under_way) == 7
        assert server.connections == 3
