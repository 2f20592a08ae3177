"""Flights, the budget, the prefetcher, the buffers: each alone."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from xetfs.errors import Unavailable
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.budget import Budget, Urgency
from xetfs.reader.flights import Flight
from xetfs.reader.prefetch import Prefetcher
from xetfs.units import KIB, MIB


async def test_a_flight_gives_its_result_to_everybody() -> None:
    ended: list[str] = []
    async with trio.open_nursery() as nursery:

        async def work() -> str:
            await trio.lowlevel.checkpoint()
            return "done"

        flight = Flight(nursery, work, on_end=lambda: ended.append("once"))
        for _ in range(3):
            flight.join()
        assert [await flight.wait() for _ in range(3)] == ["done"] * 3
        assert ended == ["once"]


async def test_a_flight_gives_its_error_to_everybody_and_harms_nobody_else() -> None:
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            await trio.lowlevel.checkpoint()
            raise Unavailable("gone")

        flight = Flight(nursery, work)
        flight.join()
        for _ in range(2):
            with pytest.raises(Unavailable, match="gone"):
                await flight.wait()
        assert flight.ended


async def test_a_flight_ends_with_its_last_waiter_and_not_before() -> None:
    async with trio.open_nursery() as nursery:
        flight = Flight(nursery, trio.sleep_forever)
        flight.join()
        flight.join()
        flight.leave()
        await wait_all_tasks_blocked()
        assert not flight.ended
        flight.leave()
        assert flight.ended
        await wait_all_tasks_blocked()


async def test_the_budget_bounds_what_is_held_and_lets_demand_go_first() -> None:
    budget = Budget(100)
    order: list[str] = []
    await budget.acquire(90, Urgency(demand=True))

    async def take(name: str, amount: int, urgency: Urgency) -> None:
        await budget.acquire(amount, urgency)
        order.append(name)
        assert budget.held <= 100

    raised = Urgency(demand=False)
    async with trio.open_nursery() as nursery:
        for name, urgency in [("ahead", Urgency(demand=False)), ("raised", raised), ("demand", Urgency(demand=True))]:
            nursery.start_soon(take, name, 60, urgency)
            await wait_all_tasks_blocked()
        raised.demand = True
        for _ in range(3):
            budget.release(90 if not order else 60)
            await wait_all_tasks_blocked()
    assert order == ["raised", "demand", "ahead"]


async def test_a_cancelled_wait_for_the_budget_holds_nothing() -> None:
    budget = Budget(10)
    await budget.acquire(10, Urgency(demand=True))
    with trio.move_on_after(0):
        await budget.acquire(5, Urgency(demand=True))
    budget.release(10)
    assert budget.held == 0
    await budget.acquire(1000, Urgency(demand=True))  # more than all of it, but nothing else is held
    assert budget.held == 1000


async def test_the_budget_reclaims_before_it_makes_wait() -> None:
    freed: list[int] = []

    def reclaim(amount: int) -> int:
        freed.append(amount)
        return amount

    budget = Budget(10, reclaim=reclaim)
    budget.add(10)
    await budget.acquire(4, Urgency(demand=False))
    assert (freed, budget.held) == ([4], 10)


def make_prefetcher(size: int = 1 << 30) -> Prefetcher:
    return Prefetcher(size, window_bytes_min=256 * KIB, window_bytes_max=8 * MIB, ahead_bytes_max=64 * MIB)


def test_a_random_read_wants_no_more_than_it_asks() -> None:
    prefetcher = make_prefetcher()
    for start in (500 * MIB, 3 * MIB, 900 * MIB, 77 * MIB):
        want = prefetcher.observe(ByteRange(start, start + 4096))
        assert (want.demand, want.ahead_until) == (ByteRange(start, start + 4096), 0)


def test_small_reads_that_happen_to_be_near_each_other_are_no_stream() -> None:
    prefetcher = make_prefetcher()
    for start in (500 * MIB, 500 * MIB + 100 * KIB, 501 * MIB, 500 * MIB - 90 * KIB):
        want = prefetcher.observe(ByteRange(start, start + 4096))
        assert (want.demand, want.ahead_until) == (ByteRange(start, start + 4096), 0)


def test_the_first_read_of_a_file_wants_one_small_window() -> None:
    want = make_prefetcher().observe(ByteRange(0, 4096))
    assert (want.demand, want.ahead_until) == (ByteRange(0, 256 * KIB), 0)


def test_a_sequential_reader_is_led_faster_and_faster() -> None:
    prefetcher = make_prefetcher()
    steps, ahead = [], 0
    for start in range(0, 300 * MIB, 128 * KIB):
        want = prefetcher.observe(ByteRange(start, start + 128 * KIB))
        steps.append(want.step)
        if want.ahead_until:
            assert want.ahead_until > ahead
            ahead = want.ahead_until
            assert ahead - start <= min(64 * MIB, 32 * (start + 128 * KIB)) + 128 * KIB
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (256 * KIB, 8 * MIB)
    assert ahead >= 300 * MIB


def test_a_few_mebibytes_read_are_enough_to_fill_a_line() -> None:
    prefetcher = make_prefetcher()
    ahead = 0
    for start in range(0, 4 * MIB, MIB):
        ahead = max(prefetcher.observe(ByteRange(start, start + MIB)).ahead_until, ahead)
    assert ahead >= 4 * MIB + 16 * MIB


def test_a_program_that_looks_at_the_beginning_is_not_led_far() -> None:
    """It reads 128 KiB, say, and the kernel makes 256 KiB of it."""
    want = make_prefetcher().observe(ByteRange(0, 256 * KIB))
    assert (want.demand, want.ahead_until) == (ByteRange(0, 256 * KIB), 0)


def test_a_program_that_reads_much_of_the_beginning_is_led_to_the_end_of_a_file() -> None:
    """In one window if the file is short, else in one for the program and one or more for what follows."""
    for size in (600 * KIB, 2 * MIB):
        want = make_prefetcher(size).observe(ByteRange(0, 512 * KIB))
        assert (want.demand, want.ahead_until) == (ByteRange(0, size), 0)
    for size in (3 * MIB, 30 * MIB):
        want = make_prefetcher(size).observe(ByteRange(0, MIB))
        assert (want.demand, want.ahead_until, want.limit) == (ByteRange(0, MIB), size, size)
    assert make_prefetcher().observe(ByteRange(0, MIB)).ahead_until == 32 * MIB


def test_pages_here_and_there_at_the_beginning_are_no_file_read_through() -> None:
    prefetcher = make_prefetcher()
    for start in range(0, 64 * MIB, 512 * KIB):
        want = prefetcher.observe(ByteRange(start, start + 4 * KIB))
        assert want.ahead_until <= start + MIB


def test_who_leaves_out_most_is_not_led_far() -> None:
    """It touches a page here and there, each near the last: what it left out it has not read."""
    prefetcher = make_prefetcher()
    for start in range(0, 64 * MIB, MIB):
        want = prefetcher.observe(ByteRange(start, start + 4 * KIB))
        assert want.ahead_until <= start + 4 * MIB


def test_requests_out_of_order_stay_one_stream() -> None:
    prefetcher = make_prefetcher()
    prefetcher.observe(ByteRange(0, 128 * KIB))
    streams = set()
    for base in range(1, 400, 4):
        for i in (2, 0, 3, 1):
            start = (base + i) * 128 * KIB
            streams.add(prefetcher.observe(ByteRange(start, start + 128 * KIB)).stream)
    assert len(streams) == 1


def test_several_streams_side_by_side() -> None:
    prefetcher = make_prefetcher()
    starts = [i * 100 * MIB for i in range(8)]
    for _ in range(64):
        wants = []
        for i, start in enumerate(starts):
            wants.append(prefetcher.observe(ByteRange(start, start + 128 * KIB)))
            starts[i] += 128 * KIB
    assert {want.step for want in wants} == {8 * MIB}


@given(st.lists(st.tuples(st.integers(0, 10 * MIB), st.integers(1, 2 * MIB)), max_size=60), st.integers(1, 10 * MIB))
def test_what_is_wanted_stays_within_the_file(reads: list[tuple[int, int]], size: int) -> None:
    prefetcher = make_prefetcher(size)
    for start, length in reads:
        span = ByteRange(start, start + length).clip(size)
        if len(span):
            want = prefetcher.observe(span)
            assert want.demand.start == span.start
            assert span.end <= want.demand.end <= size
            assert want.ahead_until <= size


def test_blocks_of_one_length_are_recognised_and_nothing_past_them_is_loaded() -> None:
    """Each of 4 MiB by four requests, anywhere in a file; one that is next to the last may be chance."""
    prefetcher = make_prefetcher()
    places = [100 * MIB, 900 * MIB, 300 * MIB, 700 * MIB, 20 * MIB, 500 * MIB, 504 * MIB, 240 * MIB]
    for number, place in enumerate(places):
        wants = [prefetcher.observe(ByteRange(start, start + MIB)) for start in range(place, place + 4 * MIB, MIB)]
        if number >= 3:
            assert {want.demand.end for want in wants} == {place + 4 * MIB}
            assert [want.ahead_until for want in wants] == [0] * 4


def test_a_block_that_goes_on_is_a_stream_again() -> None:
    prefetcher = make_prefetcher()
    for place in (100 * MIB, 900 * MIB, 300 * MIB):
        for start in range(place, place + 4 * MIB, MIB):
            prefetcher.observe(ByteRange(start, start + MIB))
    wants = [prefetcher.observe(ByteRange(start, start + MIB)) for start in range(500 * MIB, 540 * MIB, MIB)]
    assert wants[0].demand == ByteRange(500 * MIB, 504 * MIB)
    assert max(want.ahead_until for want in wants) >= 580 * MIB
