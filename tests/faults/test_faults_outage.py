"""The network is gone: what was read is served and costs no request, what was not fails at once, and it may come back."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from fault_bench import PLACES, Bench, User, open_bench, open_user, perform
from fault_row import OUT_OF_REACH
from flat_settings import open_engine

from xetfs.net import sockets
from xetfs.repo import revisions
from xetfs.telemetry import FS_ERRORS, NET_OUTAGES, NET_REQUESTS, NET_RETRIES, NET_STALLS

OPERATIONS = ("list", "read", "read plain", "read lfs")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as bench:
        yield bench


def cut(bench: Bench) -> None:
    """No server can be reached, and what is connected is cut."""
    for server in bench.hub.servers.values():
        server.refuse()


async def do(bench: Bench, user: User, operation: str) -> str:
    return await perform(bench, user, user.engine, operation)


async def test_what_was_read_is_served_and_what_was_not_fails_at_once(bench: Bench, tmp_path: Path) -> None:
    async with open_user(bench, tmp_path / "cache") as user:
        for operation in OPERATIONS[:2]:
            assert await do(bench, user, operation) == "data"
        cut(bench)
        requests = user.engine.counters[NET_REQUESTS]
        for operation in OPERATIONS[:2]:
            assert await do(bench, user, operation) == "data"
        assert user.engine.counters[NET_REQUESTS] == requests
        for operation in OPERATIONS[2:]:
            assert await do(bench, user, operation) == OUT_OF_REACH
        lost = user.engine.counters.snapshot()
        assert lost[NET_OUTAGES] == 1, "both go through the Hub"
        for _ in range(20):
            for operation in OPERATIONS[2:]:
                assert await do(bench, user, operation) == OUT_OF_REACH
        again = user.engine.counters.snapshot()
        assert (again[NET_REQUESTS], again[NET_RETRIES]) == (lost[NET_REQUESTS], lost[NET_RETRIES])
        assert again[FS_ERRORS] == lost[FS_ERRORS] + 40


async def test_when_it_is_back_all_goes_on_without_a_remount(bench: Bench, tmp_path: Path) -> None:
    async with open_user(bench, tmp_path / "cache") as user:
        for _ in range(3):
            cut(bench)
            for operation in OPERATIONS:
                assert await do(bench, user, operation) in ("data", OUT_OF_REACH)
            bench.heal()
            with trio.fail_after(2):
                for operation in OPERATIONS:
                    while (sees := await do(bench, user, operation)) == OUT_OF_REACH:
                        await trio.testing.wait_all_tasks_blocked(0.02)
                    assert sees == "data"


@pytest.mark.root
def test_a_link_that_goes_down_is_noticed_before_anything_is_sent(tmp_path: Path) -> None:
    """The connections from before are still there, and would only be silent: nobody waits for them."""
    command = ["unshare", "--net", sys.executable, Path(__file__).with_name("lost_link.py"), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen["before"].values()) == {"data"}
    assert seen["gone"] == {"list": "data", "read": "data", "read plain": OUT_OF_REACH, "read lfs": OUT_OF_REACH}
    assert seen["counts"] == {NET_REQUESTS: 1, NET_STALLS: 0, NET_OUTAGES: 1}
    assert set(seen["back"].values()) == {"data"}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_restart_is_no_error(bench: Bench, tmp_path: Path, operation: str) -> None:
    """The server of what is asked for is gone when a program reads, and back a moment later."""
    origin = next(place.origin for place in PLACES.values() if place.operation == operation)
    async with open_user(bench, tmp_path / "cache", outage_patience_s=20.0, operation_deadline_s=30.0) as user:
        bench.hub.servers[origin].refuse()  # type: ignore[index]
        seen: list[str] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                seen.append(await do(bench, user, operation))

            nursery.start_soon(read)
            while not user.engine.counters[NET_RETRIES]:
                await trio.testing.wait_all_tasks_blocked()
            bench.heal()
        assert seen == ["data"]
        assert user.engine.counters[NET_OUTAGES] == 0


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "unanswered"])
async def test_a_known_repo_is_mounted_without_its_hub_and_that_is_said_once(
    bench: Bench, tmp_path: Path, silent: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_user(bench, tmp_path / "cache") as user:
        assert await do(bench, user, "list") == "data"
    tried: list[Any] = []

    async def connect(entry: Any) -> None:
        tried.append(entry)
        if silent:
            await trio.sleep_forever()
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(sockets, "_connect_one", connect)
    monkeypatch.setattr(revisions, "PATIENCE_S", 0.2)
    caplog.set_level(logging.WARNING, logger="xetfs")
    async with open_engine(bench.settings(tmp_path / "cache", connect_timeout_s=60.0, outage_patience_s=0.1)) as engine:
        with trio.fail_after(5):
            view = await engine.open_repo(bench.ref)
        assert await do(bench, User(engine, view), "list") == "data"
    assert tried
    [said] = [record.getMessage() for record in caplog.records if record.name.startswith("xetfs.")]
    assert said.startswith("the Hub cannot be reached, serving the last known commit repo=local/faulty@main")
