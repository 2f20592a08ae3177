"""What goes wrong in a task that belongs to no request is logged, and ends neither the engine nor those who wait."""

from __future__ import annotations

import logging

import httpx
import pytest
import trio
import trio.testing
from loopback import Asked, answer, client_of, serving

from xetfs.detached import run_detached
from xetfs.net.reachability import Reachability
from xetfs.telemetry import Counters


class Broken(Counters):
    """A bug in the middle of whatever counts."""

    def add(self, name: str, amount: int = 1) -> None:
        raise RuntimeError("a bug")


def bugs(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


async def test_an_error_is_logged_and_goes_no_further(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")

    run_detached(nursery, fail, "a task")
    await trio.testing.wait_all_tasks_blocked()
    assert bugs(caplog) == ["a bug: a task failed"]


async def test_whoever_waits_for_a_probe_that_failed_by_a_bug_goes_on(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(timeout_s: float) -> None:
        await trio.lowlevel.checkpoint()
        raise httpx.ConnectError("refused")

    reach = Reachability("http://hub", refuse, suspect_s=0.0, counters=Broken(), nursery=nursery)
    reach.note_failure(trio.current_time(), "Connection refused", silent=False)
    with trio.fail_after(1):
        await reach.check("x")
    assert bugs(caplog) == ["a bug: probing http://hub failed"]


async def test_the_tasks_of_a_client_end_with_it(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, b"ok")

    async with serving(handler) as server, client_of(server.url) as client:
        client.nursery.start_soon(trio.sleep_forever)
        await client.request(f"{server.url}/x", "x")


async def test_an_error_of_the_block_is_not_wrapped() -> None:
    with pytest.raises(ValueError, match="of the block"):
        async with client_of("http://127.0.0.1:1"):
            raise ValueError("of the block")
