"""Quotas as the Hub's headers tell them."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from xetfs.hub.quota import LIMIT_GUESSED, RESERVED_SHARE, WINDOW_MAX_S, Quotas


def headers(limit: str, policy: str = "") -> httpx.Headers:
    return httpx.Headers({"RateLimit": limit, **({"RateLimit-Policy": policy} if policy else {})})


async def test_background_work_pauses_while_little_is_left(autojump_clock: trio.testing.MockClock) -> None:
    quotas = Quotas()
    assert quotas.pause_s() == 0
    quotas.note(headers('"api";r=4999;t=300', '"fixed window";"api";q=5000;w=300'))
    assert quotas.pause_s() == 0
    quotas.note(headers('"api";r=1000;t=120', '"fixed window";"api";q=5000;w=300'))
    assert quotas.pause_s() == 120
    start = trio.current_time()
    await quotas.leave_room()
    assert trio.current_time() - start == 120
    assert quotas.pause_s() == 0


async def test_each_class_has_its_own(autojump_clock: trio.testing.MockClock) -> None:
    quotas = Quotas()
    quotas.note(headers('"api";r=0;t=10'))
    quotas.note(headers('"resolvers";r=0;t=50'))
    assert quotas.pause_s() == 50
    quotas.note(headers('"resolvers";r=2999;t=300'))
    assert quotas.pause_s() == 10


async def test_without_a_policy_the_smallest_is_taken() -> None:
    quotas = Quotas()
    quotas.note(headers(f'"api";r={int(RESERVED_SHARE * LIMIT_GUESSED) + 1};t=10'))
    assert quotas.pause_s() == 0
    quotas.note(headers(f'"api";r={int(RESERVED_SHARE * LIMIT_GUESSED)};t=10'))
    assert quotas.pause_s() == pytest.approx(10, abs=0.1)


async def test_no_header_makes_it_wait_for_ever() -> None:
    quotas = Quotas()
    quotas.note(headers('"api";r=0;t=999999999'))
    assert quotas.pause_s() <= WINDOW_MAX_S


@pytest.mark.parametrize(
    "text",
    ["", "api;r=0", '"other";r=0;t=9', '"api";r=-1;t=9', '"api";r=x;t=y', ";;;", '"' * 5000, '"api";t=5;r=0'],
)
async def test_what_is_not_understood_says_nothing(text: str) -> None:
    quotas = Quotas()
    quotas.note(headers(text, text))
    assert quotas.pause_s() == 0
