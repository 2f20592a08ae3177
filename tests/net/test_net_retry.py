"""When something is tried again, after how long, and when no more."""

from __future__ import annotations

import re

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import AccessDenied, RateLimited, Unavailable, XetfsError
from xetfs.net.failures import error_of_status, retry_after_s
from xetfs.net.retry import PAUSE_MAX_S, pause_before_retry, with_retries
from xetfs.telemetry import NET_FAILURES, NET_RETRIES, Counters

ASKED_MAX_S = 60.0


class Attempts:
    """Fails with the given errors in turn, then succeeds; notes when it was called."""

    def __init__(self, *errors: XetfsError) -> None:
        self.errors = list(errors)
        self.times: list[float] = []

    async def __call__(self, number: int) -> str:
        self.times.append(trio.current_time())
        assert number == len(self.times)
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_passing_failures_are_tried_again_after_growing_pauses(autojump_clock: trio.testing.MockClock) -> None:
    counters = Counters()
    attempts = Attempts(*[Unavailable("down")] * 4)
    assert await with_retries(attempts, attempts_max=5, counters=counters, pause_max_s=ASKED_MAX_S) == "done"
    assert (len(attempts.times), counters[NET_RETRIES], counters[NET_FAILURES]) == (5, 4, 0)
    assert attempts.times[-1] - attempts.times[0] <= 0.25 + 0.5 + 1 + 2


async def test_the_last_error_is_told_when_attempts_are_used_up(autojump_clock: trio.testing.MockClock) -> None:
    counters = Counters()
    attempts = Attempts(*[Unavailable("down")] * 9)
    with pytest.raises(Unavailable):
        await with_retries(attempts, attempts_max=3, counters=counters, pause_max_s=ASKED_MAX_S)
    assert (len(attempts.times), counters[NET_RETRIES], counters[NET_FAILURES]) == (3, 2, 1)


async def test_what_would_fail_again_is_not_tried_again() -> None:
    attempts = Attempts(AccessDenied("no"))
    with pytest.raises(AccessDenied):
        await with_retries(attempts, attempts_max=5, counters=Counters(), pause_max_s=ASKED_MAX_S)
    assert len(attempts.times) == 1


@pytest.mark.parametrize("error", [RateLimited("slow", retry_after_s=17), Unavailable("busy", retry_after_s=17)])
async def test_the_pause_that_the_server_asks_for_is_kept(autojump_clock: trio.testing.MockClock, error: XetfsError) -> None:
    attempts = Attempts(error)
    assert await with_retries(attempts, attempts_max=5, counters=Counters(), pause_max_s=ASKED_MAX_S) == "done"
    assert 17 <= attempts.times[1] - attempts.times[0] <= 18


async def test_a_pause_longer_than_sensible_is_an_error_at_once() -> None:
    attempts = Attempts(RateLimited("slow", retry_after_s=ASKED_MAX_S + 1))
    with pytest.raises(RateLimited):
        await with_retries(attempts, attempts_max=5, counters=Counters(), pause_max_s=ASKED_MAX_S)
    assert len(attempts.times) == 1


async def test_nobody_sleeps_past_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    attempts = Attempts(*[RateLimited("slow", retry_after_s=20)] * 5)
    begun = trio.current_time()
    with trio.fail_after(30), pytest.raises(RateLimited):
        await with_retries(attempts, attempts_max=5, counters=Counters(), pause_max_s=ASKED_MAX_S)
    assert len(attempts.times) == 2
    assert trio.current_time() - begun < 30


async def test_an_error_that_comes_with_the_deadline_is_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async def attempt(number: int) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        raise Unavailable("cut short")

    with pytest.raises(trio.TooSlowError), trio.fail_after(5):
        await with_retries(attempt, attempts_max=5, counters=Counters(), pause_max_s=ASKED_MAX_S)


@given(number=st.integers(1, 60))
def test_pauses_are_bounded(number: int) -> None:
    pause = pause_before_retry(Unavailable("down"), number, ASKED_MAX_S)
    assert pause is not None
    assert 0 <= pause <= min(PAUSE_MAX_S, 0.25 * 2 ** (number - 1))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:07 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 7),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:07 GMT"}, 0),
        ({"retry-after": "soon", "date": "Wed, 21 Oct 2026 07:28:07 GMT"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "٣"}, None),
        ({"ratelimit": '"api";r=0;t=211'}, 211),
        ({"ratelimit": '"api";r=0;t=211', "retry-after": "5"}, 211),
        ({"ratelimit": '"api";r=4999;t=300', "retry-after": "5"}, 5),
        ({"ratelimit": "nonsense"}, None),
    ],
)
def test_what_a_server_asks_to_wait(headers: dict[str, str], expected: float | None) -> None:
    encoded = [(name.encode(), value.encode("utf-8")) for name, value in headers.items()]
    assert retry_after_s(httpx.Headers(encoded)) == expected


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 599])
def test_statuses_that_pass_are_retryable(status: int) -> None:
    assert error_of_status(status, httpx.Headers(), "x").retryable


@pytest.mark.parametrize("status", [100, 204, 304, 400, 401, 403, 404, 405, 409, 410, 416, 418, 451, 501])
def test_statuses_that_stay_are_not(status: int) -> None:
    assert not error_of_status(status, httpx.Headers(), "x").retryable


def test_retry_after_may_be_a_date_by_the_servers_clock() -> None:
    headers = httpx.Headers({"date": "Sun, 29 Nov 2026 02:00:00 GMT", "retry-after": "Sun, 29 Nov 2026 02:00:30 GMT"})
    assert retry_after_s(headers) == 30
    headers["retry-after"] = "Sun, 29 Nov 2026 01:00:00 GMT"
    assert retry_after_s(headers) == 0
    headers["retry-after"] = "soon"
    assert retry_after_s(headers) is None
    error = error_of_status(429, httpx.Headers({"retry-after": "90"}), "a listing")
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 90
    assert re.search(r"wait 90 s, until \d\d:\d\d:\d\d", error.hint)
