"""A second request beside a slow one: when it is sent, who wins, and how few they are."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from xetfs.errors import ProtocolViolation, TimedOut, Unavailable
from xetfs.net.hedging import CREDIT_FIRST, CREDIT_MAX, HEDGE_AFTER_MIN_S, HEDGE_FACTOR, HEDGE_SHARE, Hedger, hedge_after_s
from xetfs.net.latency import SAMPLES_MIN, LatencyEstimator
from xetfs.telemetry import NET_HEDGES, NET_HEDGES_WON, Counters


class Calls:
    """Each call takes its own time, then returns its number, or raises."""

    def __init__(self, *plans: float | tuple[float, Exception]) -> None:
        self.plans = list(plans)
        self.begun: list[float] = []
        self.running = 0

    async def __call__(self) -> int:
        number = len(self.begun)
        self.begun.append(trio.current_time())
        plan = self.plans[number]
        takes_s, error = plan if isinstance(plan, tuple) else (plan, None)
        self.running += 1
        try:
            await trio.sleep(takes_s)
        finally:
            self.running -= 1
        if error is not None:
            raise error
        return number


class Outcome:
    def __init__(self, value: int, seconds: float, calls: Calls, counters: Counters) -> None:
        self.value, self.seconds, self.calls, self.counters = value, seconds, calls, counters


async def run(*plans: float | tuple[float, Exception], after_s: float | None = 1.0, may: bool = True) -> Outcome:
    counters, calls = Counters(), Calls(*plans)
    start = trio.current_time()
    try:
        value = await Hedger(counters).run(calls, after_s=after_s, may_hedge=lambda: may)
    finally:
        assert calls.running == 0
    return Outcome(value, trio.current_time() - start, calls, counters)


async def test_a_quick_request_is_alone(autojump_clock: trio.testing.MockClock) -> None:
    done = await run(0.9)
    assert (done.value, done.seconds, len(done.calls.begun)) == (0, 0.9, 1)
    assert done.counters.snapshot() == {}


async def test_a_slow_one_gets_company_and_the_first_to_finish_wins(autojump_clock: trio.testing.MockClock) -> None:
    done = await run(100.0, 0.2)
    assert (done.value, round(done.seconds, 6)) == (1, 1.2)
    assert (done.counters[NET_HEDGES], done.counters[NET_HEDGES_WON]) == (1, 1)


async def test_the_first_may_still_win(autojump_clock: trio.testing.MockClock) -> None:
    done = await run(1.1, 50.0)
    assert (done.value, round(done.seconds, 6)) == (0, 1.1)
    assert (done.counters[NET_HEDGES], done.counters[NET_HEDGES_WON]) == (1, 0)


async def test_the_failure_of_one_leaves_the_other_its_chance(autojump_clock: trio.testing.MockClock) -> None:
    assert (await run((1.5, TimedOut("silent")), 3.0)).value == 1
    assert (await run(3.0, (0.5, ProtocolViolation("a lie")))).value == 0


async def test_when_both_fail_the_error_is_that_of_the_first(autojump_clock: trio.testing.MockClock) -> None:
    for first_s in (1.5, 9.0):
        with pytest.raises(TimedOut, match="silent"):
            await run((first_s, TimedOut("silent")), (2.0, Unavailable("refused")))


async def test_a_failure_before_the_time_has_no_company(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(Unavailable):
        await run((0.5, Unavailable("refused")))


async def test_no_hedge_without_a_place_or_without_knowing_what_is_usual(autojump_clock: trio.testing.MockClock) -> None:
    assert len((await run(9.0, may=False)).calls.begun) == 1
    assert len((await run(9.0, after_s=None)).calls.begun) == 1


async def test_a_cancelled_wait_ends_both(autojump_clock: trio.testing.MockClock) -> None:
    calls = Calls(100.0, 100.0)
    with trio.move_on_after(5) as scope:
        await Hedger(Counters()).run(calls, after_s=1.0, may_hedge=lambda: True)
    assert scope.cancelled_caught
    assert (len(calls.begun), calls.running) == (2, 0)


async def test_when_everything_is_slow_hedges_stay_few(autojump_clock: trio.testing.MockClock) -> None:
    counters = Counters()
    hedger = Hedger(counters)
    for _ in range(400):
        await hedger.run(Calls(2.0, 2.0), after_s=1.0, may_hedge=lambda: True)
    assert CREDIT_FIRST + 400 * HEDGE_SHARE - 1 <= counters[NET_HEDGES] <= CREDIT_FIRST + 400 * HEDGE_SHARE


async def test_what_is_saved_up_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    counters = Counters()
    hedger = Hedger(counters)
    for _ in range(1000):
        await hedger.run(Calls(0.0), after_s=1.0, may_hedge=lambda: True)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(lambda: hedger.run(Calls(9.0, 9.0), after_s=1.0, may_hedge=lambda: True))
    assert counters[NET_HEDGES] == CREDIT_MAX


def test_when_is_what_is_usual_and_some_more_but_never_at_once() -> None:
    pace = LatencyEstimator(floor_s=2, first_s=5, ceiling_s=10)
    assert hedge_after_s(pace, 0) is None
    for _ in range(SAMPLES_MIN):
        pace.note_silence(0.01)
        pace.note_body(1_000_000, 1.0)
    assert hedge_after_s(pace, 100) == HEDGE_AFTER_MIN_S
    assert hedge_after_s(pace, 4_000_000) == pytest.approx(HEDGE_FACTOR * 4.01)
