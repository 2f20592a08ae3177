"""Large directories: what they cost the Hub, and what an error on the way costs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import trio
from flat_settings import flat_settings, open_engine
from loopback import Asked, answer, serving

from xetfs.errors import AccessDenied, EntryNotFound, ProtocolViolation, RateLimited, Unavailable, XetfsError
from xetfs.protocol.names import RepoRef
from xetfs.repo import Engine

COMMIT = "d9" * 20
PAGE = 1000


class Large:
    """A Hub of one repo whose folder `many` has `count` entries, made up as they are asked for; `few` is empty."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.url = ""
        self.pages: list[int] = []
        """Numbers of the pages that were asked for."""
        self.failing: dict[int, bytes] = {}
        """Pages that are answered with something else."""
        self.gate: trio.Event | None = None
        self.asked = trio.Event()
        """Set once the first of them is."""

    def entry(self, number: int) -> dict[str, object]:
        return {"type": "file", "path": f"many/{number:07}.txt", "size": number, "oid": f"{number:040x}"}

    async def answer(self, asked: Asked, stream: trio.abc.Stream) -> bytes:
        path, _, query = asked.target.partition("?")
        if "/revision/" in path:
            info = {"id": "acme/large", "sha": COMMIT, "private": False, "lastModified": "2026-11-21T07:01:41.000Z"}
            return answer(200, json.dumps(info).encode())
        if not path.endswith("/many"):
            folders = [] if path.endswith("/few") else ["few", "many"]
            return answer(200, json.dumps([{"type": "directory", "path": name} for name in folders]).encode())
        number = int(parse_qs(query).get("cursor", ["0"])[0])
        self.pages.append(number)
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if number in self.failing:
            return self.failing[number]
        start = number * PAGE
        page = [self.entry(at) for at in range(start, min(start + PAGE, self.count))]
        headers = {"link": f'<?cursor={number + 1}>; rel="next"'} if start + PAGE < self.count else {}
        return answer(200, json.dumps(page).encode(), **headers)


@asynccontextmanager
async def large_hub(count: int) -> AsyncIterator[Large]:
    large = Large(count)
    async with serving(large.answer) as server:
        large.url = server.url
        yield large


@asynccontextmanager
async def engine_at(large: Large, cache: Path, **choices: object) -> AsyncIterator[Engine]:
    settings = flat_settings(endpoint=large.url, cache_dir=cache, attempts_max=1, **choices)  # type: ignore[arg-type]
    async with open_engine(settings) as engine:
        yield engine


REF = RepoRef.parse("acme/large")


async def test_a_file_of_120_000_is_found_by_name_and_the_listing_kept(tmp_path: Path) -> None:
    async with large_hub(120_000) as large:
        async with engine_at(large, tmp_path / "cache") as engine:
            view = await engine.open_repo(REF)
            node = await view.lookup(await view.lookup(view.root, "many"), "0119999.txt")
            assert (node.size, node.path) == (119_999, "many/0119999.txt")
            assert large.pages == list(range(120))
        async with engine_at(large, tmp_path / "cache", offline=True) as engine:
            view = await engine.open_repo(REF)
            folder = await view.lookup(view.root, "many")
            children = await view.children(folder)
            assert len(children) == 120_000
            assert children[77_777] is await view.lookup(folder, "0077777.txt")
            assert [node.name for node in children[5:7]] == ["0000005.txt", "0000006.txt"]
            with pytest.raises(EntryNotFound):
                await view.lookup(folder, "0120000.txt")
        assert large.pages == list(range(120))


async def test_what_is_too_large_is_refused_and_not_asked_for_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xetfs.hub.client.ENTRIES_MAX", 15_000)
    async with large_hub(40_000) as large, engine_at(large, tmp_path / "cache") as engine:
        view = await engine.open_repo(REF)
        folder = await view.lookup(view.root, "many")
        for _ in range(20):
            with pytest.raises(ProtocolViolation, match="more than 15000 entries"):
                await view.lookup(folder, "0000001.txt")
        assert len(large.pages) == 16


async def test_it_is_asked_for_again_after_that_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xetfs.hub.client.ENTRIES_MAX", 15_000)
    monkeypatch.setattr("xetfs.repo.listing.FAILURE_KEPT_S", 0.0)
    async with large_hub(40_000) as large, engine_at(large, tmp_path / "cache") as engine:
        view = await engine.open_repo(REF)
        folder = await view.lookup(view.root, "many")
        for _ in range(2):
            with pytest.raises(ProtocolViolation):
                await view.children(folder)
        assert len(large.pages) == 32


@pytest.mark.parametrize(("status", "error"), [(503, Unavailable), (429, RateLimited), (403, AccessDenied)])
async def test_after_an_error_that_may_pass_the_next_try_goes_on_where_it_was(
    tmp_path: Path, status: int, error: type[XetfsError]
) -> None:
    async with large_hub(30_000) as large, engine_at(large, tmp_path / "cache") as engine:
        view = await engine.open_repo(REF)
        folder = await view.lookup(view.root, "many")
        large.failing[20] = answer(status)
        with pytest.raises(error):
            await view.children(folder)
        del large.failing[20]
        assert len(await view.children(await view.lookup(view.root, "few"))) == 0
        children = await view.children(folder)
        assert [node.size for node in children] == list(range(30_000))
        assert large.pages == [*range(21), *range(20, 30)]


async def test_a_garbled_page_costs_its_listing_and_is_asked_for_at_once_when_that_is_cheap(tmp_path: Path) -> None:
    async with large_hub(5_000) as large, engine_at(large, tmp_path / "cache") as engine:
        view = await engine.open_repo(REF)
        folder = await view.lookup(view.root, "many")
        large.failing[2] = answer(200, b"<html>")
        with pytest.raises(ProtocolViolation):
            await view.children(folder)
        large.failing.clear()
        assert len(await view.children(folder)) == 5_000


async def test_a_listing_goes_on_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    """A directory may take longer than an operation may: the next who asks finds what has come since."""
    async with large_hub(3_000) as large, engine_at(large, tmp_path / "cache") as engine:
        view = await engine.open_repo(REF)
        folder = await view.lookup(view.root, "many")
        large.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(view.children, folder)
            await large.asked.wait()
            nursery.cancel_scope.cancel()
        large.gate.set()
        assert len(await view.children(folder)) == 3_000
        assert large.pages == [0, 1, 2]
