"""An engine that reads from transfer hosts with rules of their own: what they serve, what they refuse, and how they label it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from flat_settings import flat_settings, open_engine

from xetfs.errors import AccessDenied
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.xorb import Scheme
from xetfs.repo import RepoView
from xetfs.settings import Settings
from xetfs.telemetry import CAS_URL_REFRESHES, NET_UNLABELLED
from xetfs.testhub import Fault, HubOptions, Run, TestHub, open_test_hub
from xetfs.units import KIB

REPO: Final = "acme/scattered"
TOGETHER: Final = {"multirange": True}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        yield hub


def fill(hub: TestHub) -> bytes:
    """A file whose windows lie scattered over two xorbs: 36 runs of two chunks, with a gap before the next. Its content."""
    chance = random.Random(3)
    chunks = [chance.randbytes(20 * KIB) for _ in range(120)]
    halves = [chunks[:60], chunks[60:]]
    xorbs = [hub.xet.add_xorb(half, Scheme.NONE) for half in halves]
    places = [(number % 2, 3 * (number // 2)) for number in range(36)]
    _, stored = hub.xet.add_file_from_terms([Run(xorbs[half], start, start + 2) for half, start in places])
    hub.storage.commit_files(hub.storage.create_repo("model", REPO), {"f.bin": stored})
    return b"".join(chunk for half, start in places for chunk in halves[half][start : start + 2])


def settings(hub: TestHub, tmp_path: Path, **chosen: Any) -> Settings:
    return flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache", ahead_bytes_max=0, **chosen)


async def read(view: RepoView, start: int, end: int) -> bytes:
    reader = view.open_file(await view.find("f.bin"))
    try:
        return bytes(await reader.read(ByteRange(start, end)))
    finally:
        reader.close()


def ranges(hub: TestHub) -> list[str]:
    return [request.range or "" for request in hub.requests("transfer")]


@pytest.mark.parametrize("multirange", [False, True])
@pytest.mark.parametrize("range_answers", ["labelled", "unlabelled", "ok"])
@pytest.mark.parametrize("several_ranges", ["parts", "signed", "refused", "whole"])
@pytest.mark.parametrize("v2_status", [200, 404])
async def test_every_byte_comes_right(
    hub: TestHub, tmp_path: Path, several_ranges: Any, range_answers: Any, multirange: bool, v2_status: int
) -> None:
    content = fill(hub)
    hub.options.several_ranges, hub.options.range_answers, hub.options.v2_status = several_ranges, range_answers, v2_status
    async with open_engine(settings(hub, tmp_path, multirange=multirange)) as engine:
        view = await engine.open_repo(RepoRef.parse(REPO))
        assert await read(view, 0, len(content)) == content
        refused = [request for request in hub.requests("transfer") if request.status >= 400]
        singles = [request for request in ranges(hub) if "," not in request]
        assert engine.counters[NET_UNLABELLED] == (0 if range_answers == "labelled" else len(singles))
        assert engine.counters[CAS_URL_REFRESHES] == 0
    together = len(ranges(hub)) - len(singles)
    if not multirange or v2_status == 404:
        assert (len(refused), together) == (0, 0)
    elif several_ranges in ("refused", "whole"):
        assert (len(refused), together) == (int(several_ranges == "refused"), 1)
    else:
        assert len(refused) == 0
        assert together >= 1


async def test_a_server_that_refuses_several_ranges_is_asked_once(hub: TestHub, tmp_path: Path) -> None:
    content = fill(hub)
    hub.options.several_ranges = "refused"
    async with open_engine(settings(hub, tmp_path, **TOGETHER)) as engine:
        view = await engine.open_repo(RepoRef.parse(REPO))
        for start in range(0, len(content), 400 * KIB):
            assert await read(view, start, start + 100 * KIB) == content[start : start + 100 * KIB]
        assert sum("," in asked for asked in ranges(hub)) == 1
        assert engine.counters[CAS_URL_REFRESHES] == 0


async def test_a_server_that_refuses_every_url_is_told_and_believed(hub: TestHub, tmp_path: Path) -> None:
    """One fresh URL is worth a try, the next reads learn it from one request, and the error has the server's words."""
    fill(hub)
    words = "<Error><Code>AccessDenied</Code><Message>unknown key pair</Message></Error>"
    hub.faults.add(Fault("answer", origin="transfer", status=403, body=words))
    async with open_engine(settings(hub, tmp_path)) as engine:
        view = await engine.open_repo(RepoRef.parse(REPO))
        for number, start in enumerate((0, 600 * KIB, 1200 * KIB)):
            with pytest.raises(AccessDenied, match="unknown key pair"):
                await read(view, start, start + 10)
            assert engine.counters[CAS_URL_REFRESHES] == 1, f"read {number}"
        hub.faults.clear()


@pytest.mark.parametrize("status", [403, 400])
async def test_urls_that_have_expired_are_replaced(
    hub: TestHub, tmp_path: Path, status: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = fill(hub)
    hub.options.expired_status = status
    # Until one of them is used, all URLs are past their end.
    monkeypatch.setattr(HubOptions, "url_expiry_s", lambda _: int(time.time()) + (3600 if hub.requests("transfer") else -1))
    async with open_engine(settings(hub, tmp_path)) as engine:
        view = await engine.open_repo(RepoRef.parse(REPO))
        assert await read(view, 0, 100 * KIB) == content[: 100 * KIB]
        assert engine.counters[CAS_URL_REFRESHES] >= 1
        assert {request.status for request in hub.requests("transfer")} == {206, status}
