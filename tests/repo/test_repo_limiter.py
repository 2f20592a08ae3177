"""The limit on prefetch in flight: it adapts to timeouts, keeps the order, and leaks nothing."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from xetfs.repo.limiter import AdaptiveLimiter


def limiter() -> AdaptiveLimiter:
    return AdaptiveLimiter(most=16, least=2, step=1)


async def test_a_timeout_halves_it_and_success_raises_it() -> None:
    limit = limiter()
    seen = []
    for _ in range(4):
        with pytest.raises(trio.TooSlowError):
            async with limit.hold(2):
                raise trio.TooSlowError
        seen.append(limit.limit)
    assert seen == [8, 4, 2, 2]
    for _ in range(20):
        async with limit.hold(2):
            pass
    assert (limit.limit, limit.held) == (16, 0)
    with pytest.raises(ValueError):
        async with limit.hold(2):
            raise ValueError
    assert (limit.limit, limit.held) == (16, 0)


async def test_timeouts_of_work_that_ran_at_the_same_time_count_once() -> None:
    limit = limiter()

    async def time_out() -> None:
        try:
            async with limit.hold(4):
                await trio.testing.wait_all_tasks_blocked()
                raise trio.TooSlowError
        except trio.TooSlowError:
            return
        raise AssertionError("the timeout is lost")

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(time_out)
    assert (limit.limit, limit.held) == (8, 0)


async def test_work_waits_its_turn() -> None:
    limit = limiter()
    order: list[int] = []

    async def work(number: int, cost: int) -> None:
        async with limit.hold(cost):
            order.append(number)
            assert limit.held <= max(limit.limit, cost)
            await trio.testing.wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        for number, cost in enumerate((10, 10, 1, 40, 1)):
            nursery.start_soon(work, number, cost)
            await trio.testing.wait_all_tasks_blocked(0)
            if number == 0:
                assert order == [0]
    assert order == sorted(order)
    assert limit.held == 0


async def test_who_is_cancelled_gives_his_turn_to_the_next() -> None:
    limit = limiter()
    done = trio.Event()

    async def third() -> None:
        async with limit.hold(16):
            done.set()

    async with trio.open_nursery() as nursery, limit.hold(16):
        with trio.CancelScope() as scope:
            nursery.start_soon(third)
            scope.cancel()
            async with limit.hold(1):
                raise AssertionError("it was held")
        assert scope.cancelled_caught
    assert done.is_set()
    assert limit.held == 0
