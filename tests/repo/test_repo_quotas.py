"""What walks cost the Hub, and how work in the background keeps to its quotas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio.testing
from flat_settings import flat_settings, open_engine

from xetfs.errors import RateLimited
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.repo import Engine, Node, RepoView, view
from xetfs.repo.listing import AHEAD_PAGES
from xetfs.repo.preload import Preload
from xetfs.repo.verify import Report, files_under, verify_files
from xetfs.testhub import Fault, HubOptions, TestHub, open_test_hub

DIRECTORIES = 1000
HANDFUL = 12
REFUSED_MAX = 60
"""Refusals of a walk that waits: one for each that is at work, in each window. One that does not wait meets thousands."""
PLAIN = b"all the same"


def make_wide(hub: TestHub, directories: int = DIRECTORIES, files: int = 2) -> list[str]:
    """A dataset of many directories, each with a directory and files in it; the paths of the files. Its content is one blob."""
    paths = [f"data/{number // 100:02}/{number:04}/{file}.txt" for number in range(directories) for file in range(files)]
    hub.storage.commit_files(hub.storage.create_repo("model", "acme/wide"), dict.fromkeys(paths, PLAIN))
    return sorted(paths)


@asynccontextmanager
async def opened(hub: TestHub, cache: Path, **settings: object) -> AsyncIterator[tuple[Engine, RepoView]]:
    chosen = flat_settings(**{"endpoint": hub.endpoint, "cache_dir": cache, "whole_checks": False, **settings})  # type: ignore[arg-type]
    async with open_engine(chosen) as engine:
        yield engine, await engine.open_repo(RepoRef.parse("acme/wide"))


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        yield hub


def listings(hub: TestHub) -> list[str]:
    return [record.query for record in hub.requests("hub") if "/tree/" in record.path]


async def find(view: RepoView, node: Node) -> list[str]:
    """As `find` does: one directory after the other, each listed when it is met."""
    paths = []
    for child in await view.children(node):
        paths += await find(view, child) if child.is_directory else [child.path]
    return paths


# Walks


async def test_a_walk_over_1000_directories_costs_a_handful_of_requests(hub: TestHub, tmp_path: Path) -> None:
    paths = make_wide(hub)
    async with opened(hub, tmp_path / "cache") as (_, view):
        found = await files_under(view, view.root)
        assert [node.path for node in found] == paths
        assert len(listings(hub)) <= HANDFUL
        hub.log.reset()
        assert len(await files_under(view, view.root)) == len(paths)
        assert listings(hub) == []
    async with opened(hub, tmp_path / "cache", offline=True) as (_, view):
        assert [node.path for node in await files_under(view, view.root)] == paths


async def test_find_on_a_mount_over_1000_directories_costs_a_handful_of_requests(hub: TestHub, tmp_path: Path) -> None:
    paths = make_wide(hub)
    async with opened(hub, tmp_path / "cache") as (_, view):
        assert await find(view, view.root) == paths
        assert len(listings(hub)) <= 3 * HANDFUL  # those that it met while all of them were on the way, too


async def test_verify_and_prefetch_list_with_a_handful_of_requests(hub: TestHub, tmp_path: Path) -> None:
    paths = make_wide(hub, 300, 1)
    async with opened(hub, tmp_path / "cache") as (engine, view):
        preload = Preload(engine, view, ["data/00/*"])
        preload.begin()
        await preload.run()
        assert (preload.progress.state, preload.progress.files_done) == ("done", 100)
        assert len(listings(hub)) <= HANDFUL
        report = Report()
        await verify_files(
            view, engine.shelf, await files_under(view, view.root), report, deep=False, on_bytes=lambda count: None
        )
        assert dict(report.kinds) == {"right": len(paths)}
        assert len(listings(hub)) <= HANDFUL


async def test_who_looks_into_some_directories_asks_for_these(hub: TestHub, tmp_path: Path) -> None:
    make_wide(hub, 20, 1)
    async with opened(hub, tmp_path / "cache") as (_, view):
        data = await view.lookup(view.root, "data")
        await view.children(await view.lookup(data, "00"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert [query for query in listings(hub) if "recursive=true" in query] == []


async def test_a_repo_that_is_too_large_is_not_pulled_in_by_a_walk_through_some_directories(hub: TestHub, tmp_path: Path) -> None:
    hub.options.page_size = 10
    make_wide(hub, 200, 5)
    async with opened(hub, tmp_path / "cache") as (_, view):
        data = await view.lookup(view.root, "data")
        folder = await view.lookup(data, "00")
        for child in (await view.children(folder))[:4]:
            await view.children(child)
        await trio.testing.wait_all_tasks_blocked(0.05)
        recursive = [query for query in listings(hub) if "recursive=true" in query]
        assert 1 <= len(recursive) <= AHEAD_PAGES[4]


async def test_what_is_too_much_for_one_question_is_asked_in_parts(
    hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "PAGES_BELOW_MAX", 3)
    hub.options.page_size = 100
    paths = make_wide(hub, 300, 1)  # 600 entries; 200 in each of three folders
    async with opened(hub, tmp_path / "cache") as (_, opened_view):
        assert [node.path for node in await files_under(opened_view, opened_view.root)] == paths
        assert len(listings(hub)) <= 3 * HANDFUL


async def test_a_mirror_without_recursion_is_walked_directory_by_directory(hub: TestHub, tmp_path: Path) -> None:
    paths = make_wide(hub, 20, 1)
    hub.faults.add(
        Fault("rewrite", path="/tree/", rewrite=lambda page: [entry for entry in page if entry["path"].count("/") < 3])
    )
    async with opened(hub, tmp_path / "cache") as (_, view):
        data = await view.lookup(view.root, "data")
        await view.children(data)
        hub.faults.clear()
        hub.faults.add(Fault("answer", path="/tree/[0-9a-f]*$", status=400))
        assert [node.path for node in await files_under(view, view.root)] == paths


# Quotas


async def test_work_in_the_background_leaves_a_share_of_the_quota_and_waits_for_the_next(tmp_path: Path) -> None:
    options = HubOptions(page_size=10, quotas={"api": 100}, quota_window_s=1)
    async with open_test_hub(tmp_path / "hub", options=options) as hub:
        paths = make_wide(hub, 400, 2)  # 1,206 entries, 121 pages
        async with opened(hub, tmp_path / "cache") as (_, view):
            assert len(await files_under(view, view.root)) == len(paths)
            assert len(listings(hub)) > 100
            assert not [record for record in hub.requests("hub") if record.status == 429]


async def test_verify_waits_as_long_as_the_server_asks(tmp_path: Path) -> None:
    """And longer than a program that reads would wait."""
    options = HubOptions(quotas={"resolvers": 6}, quota_window_s=3)  # two requests a file: the redirect and the bytes
    async with open_test_hub(tmp_path / "hub", options=options) as hub:
        repo = hub.storage.create_repo("model", "acme/wide")
        hub.storage.commit_files(repo, {f"{number}.txt": b"%d" % number for number in range(8)})
        async with opened(hub, tmp_path / "cache", operation_deadline_s=2.5) as (engine, view):
            report = Report()
            files = await files_under(view, view.root)
            await verify_files(view, engine.shelf, files, report, deep=False, on_bytes=lambda count: None)
            assert dict(report.kinds) == {"right": 8}
            refused = [record for record in hub.requests("hub") if record.status == 429]
            assert 1 <= len(refused) <= REFUSED_MAX


async def test_who_waits_is_told_at_once_until_when(tmp_path: Path) -> None:
    options = HubOptions(quotas={"resolvers": 0}, quota_window_s=300)
    async with open_test_hub(tmp_path / "hub", options=options) as hub:
        make_wide(hub, 1, 1)
        async with opened(hub, tmp_path / "cache") as (_, view):
            [node] = await files_under(view, view.root)
            reader = view.open_file(node)
            with pytest.raises(RateLimited, match=r"asks to wait (300|299) s, until \d\d:\d\d:\d\d"):
                await reader.read(ByteRange(0, 1))
            reader.close()
            assert len([record for record in hub.requests("hub") if record.status == 429]) == 1


async def test_what_a_server_names_outside_of_what_was_asked_is_no_listing(hub: TestHub, tmp_path: Path) -> None:
    """Or it could make another directory look as if it held nothing else."""
    paths = make_wide(hub, 4, 2)
    other = {"path": "data/00/0001/stray.txt", "type": "file", "size": 1, "oid": "1" * 40}
    hub.faults.add(Fault("rewrite", path="/tree/.*/0000$", rewrite=lambda page: [*page, other]))
    async with opened(hub, tmp_path / "cache") as (_, view):
        data = await view.lookup(view.root, "data")
        folder = await view.lookup(data, "00")
        await files_under(view, await view.lookup(folder, "0000"))
        assert [node.path for node in await files_under(view, view.root)] == paths
