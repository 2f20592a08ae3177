"""Proving whole files over a test hub: what is right, what is wrong, and what is asked for it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import small_hub
import trio
from flat_settings import flat_settings, open_engine
from small_hub import EMPTY, LFS, NESTED, PLAIN, XET

from xetfs.errors import EntryNotFound, NotADirectory, Offline, Unavailable
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.filemap import Level
from xetfs.repo import Engine, RepoView
from xetfs.repo.verify import UNREACHABLE_MAX, Report, Verdict, files_under, verify_files
from xetfs.telemetry import READER_CORRUPT_WINDOWS, STORE_CORRUPT
from xetfs.testhub import Fault, TestHub, open_test_hub
from xetfs.units import MIB

OpenRepo = Callable[..., AbstractAsyncContextManager[tuple[Engine, RepoView]]]
ALL = sorted((XET, LFS, PLAIN, EMPTY, NESTED))


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        small_hub.fill(hub)
        yield hub


@pytest.fixture
def open_repo(hub: TestHub, tmp_path: Path) -> OpenRepo:
    @asynccontextmanager
    async def open_it(**settings: Any) -> AsyncIterator[tuple[Engine, RepoView]]:
        given = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache", "whole_checks": False, **settings}
        async with open_engine(flat_settings(**given)) as engine:
            yield engine, await engine.open_repo(RepoRef.parse(small_hub.REPO))

    return open_it


async def verify(engine: Engine, view: RepoView, path: str = "", *, deep: bool = False) -> tuple[Report, int]:
    """The report on a path, and the bytes of progress that were told."""
    report, told = Report(), []
    files = await files_under(view, await view.find(path))
    await verify_files(view, engine.shelf, files, report, deep=deep, on_bytes=told.append)
    return report, sum(told)


def data_requests(hub: TestHub) -> list[str]:
    return [record.path for record in hub.requests() if record.origin == "transfer" or "resolve" in record.path]


# What is right


async def test_a_whole_repo(hub: TestHub, open_repo: OpenRepo) -> None:
    async with open_repo() as (engine, view):
        report, told = await verify(engine, view)
        assert dict(report.kinds) == {"right": 5}
        assert dict(report.names) == {"file_id": 2, "sha256": 1, "git_oid": 2}
        assert report.wrong == []
        assert (report.files, report.unchecked, report.again) == (5, 0, 0)
        assert told == report.bytes == sum(map(len, small_hub.content_of().values()))


async def test_deep_computes_the_sha256_of_files_in_xet(hub: TestHub, open_repo: OpenRepo) -> None:
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view, deep=True)
        assert dict(report.names) == {"file_id": 2, "sha256": 3, "git_oid": 2}


async def test_a_folder_or_a_file(open_repo: OpenRepo) -> None:
    async with open_repo() as (_, view):
        for path, found in {"deep": [NESTED], "deep/er/": [NESTED], NESTED: [NESTED], PLAIN: [PLAIN], "": ALL}.items():
            files = await files_under(view, await view.find(path))
            assert sorted(file.path for file in files) == found
        with pytest.raises(EntryNotFound):
            await view.find("deep/absent")
        with pytest.raises(NotADirectory):
            await view.find(f"{PLAIN}/below")


async def test_what_is_held_is_not_fetched_and_what_was_proven_stays_known(hub: TestHub, open_repo: OpenRepo) -> None:
    async with open_repo() as (engine, view):
        await verify(engine, view)
    hub.log.reset()
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view, deep=True)
        assert dict(report.kinds) == {"right": 5}
    assert [record.path for record in hub.requests()] == ["/api/models/acme/demo/revision/main"]
    # A reader that takes nothing less finds the files proven: the LFS file too, which it would refuse otherwise.
    async with open_repo(verify="proof", offline=True) as (engine, view):
        for name in ALL:
            reader = view.open_file(await view.find(name))
            assert bytes(await reader.read(ByteRange(0, reader.size))) == small_hub.content_of()[name]
            assert reader.map.level in (Level.PROOF, Level.FILE, None)
            reader.close()


async def test_only_what_is_missing_is_fetched(hub: TestHub, open_repo: OpenRepo) -> None:
    async with open_repo() as (_, view):
        reader = view.open_file(await view.find(XET))
        await reader.read(ByteRange(0, 1_000_000))
        reader.close()
    hub.log.reset()
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view, XET)
        assert dict(report.kinds) == {"right": 1}
    assert sum(record.sent_bytes for record in hub.requests("transfer")) < 400_000


async def test_it_works_with_a_cache_that_is_smaller_than_the_file(hub: TestHub, open_repo: OpenRepo, tmp_path: Path) -> None:
    chunks = [bytes([number]) * 100_000 + number.to_bytes(4, "big") for number in range(240)]
    _, stored = hub.xet.add_file_from_chunks(chunks)
    hub.storage.commit_files(hub.storage.require_repo("model", small_hub.REPO), {"large.bin": stored})
    async with open_repo(cache_bytes_max=8 * MIB, memory_bytes_max=8 * MIB) as (engine, view):
        for _ in range(2):
            report, _ = await verify(engine, view, "large.bin", deep=True)
            assert dict(report.names) == {"file_id": 1, "sha256": 1}


async def test_a_run_that_is_broken_off_leaves_only_what_is_proven(hub: TestHub, open_repo: OpenRepo) -> None:
    chunks = [number.to_bytes(4, "big") * 25_000 for number in range(240)]
    _, stored = hub.xet.add_file_from_chunks(chunks)
    hub.storage.commit_files(hub.storage.require_repo("model", small_hub.REPO), {"large.bin": stored})
    async with open_repo() as (engine, view):
        report, told = Report(), 0
        with trio.CancelScope() as scope:

            def on_bytes(count: int) -> None:
                nonlocal told
                told += count
                if told > 5 * MIB:
                    scope.cancel()

            files = await files_under(view, await view.find("large.bin"))
            await verify_files(view, engine.shelf, files, report, deep=False, on_bytes=on_bytes)
        assert (report.files, report.unchecked) == (1, 1)
        reader = view.open_file(files[0])
        assert reader.map.level == Level.PROOF
        reader.close()


# What is wrong


async def test_wrong_data_is_corrupt_and_hurts_no_other_file(hub: TestHub, open_repo: OpenRepo) -> None:
    hub.faults.add(Fault("flip", path="/xorbs/", offset=20))
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view)
        assert report.kinds["corrupt"] == 2
        assert report.kinds["right"] == 3
        assert sorted(verdict.path for verdict in report.wrong) == sorted((NESTED, XET))
    hub.faults.clear()
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view)
        assert dict(report.kinds) == {"right": 5}


@pytest.mark.parametrize("proof_status", [200, 404])
async def test_what_came_wrong_once_is_fetched_again(hub: TestHub, open_repo: OpenRepo, proof_status: int) -> None:
    """By the part where a part can be proven, otherwise by the file."""
    hub.options.proof_status = proof_status
    hub.faults.add(Fault("flip", path="/xorbs/", offset=20, count=1))
    async with open_repo() as (engine, view):
        report, told = await verify(engine, view, XET)
        assert dict(report.kinds) == {"right": 1}
        assert (engine.counters[READER_CORRUPT_WINDOWS], report.again) == ((1, 0) if proof_status == 200 else (0, 1))
        assert told == report.bytes


async def test_without_proofs_wrong_data_shows_in_the_name_of_the_file(hub: TestHub, open_repo: OpenRepo) -> None:
    hub.options.proof_status = 404
    hub.faults.add(Fault("flip", path="/xorbs/", offset=20))
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view, XET)
        assert str(report.wrong[0].error) == "its content does not have the file id listed"
        assert report.wrong[0].kind == "corrupt"


async def test_a_lie_that_was_kept_is_found_and_replaced(hub: TestHub, open_repo: OpenRepo) -> None:
    """A server without proofs gave wrong bytes, and only a part was read: nothing could be known then."""
    hub.options.proof_status = 404
    hub.faults.add(Fault("flip", path="/xorbs/", offset=20, count=1))
    async with open_repo() as (_, view):
        reader = view.open_file(await view.find(XET))
        assert bytes(await reader.read(ByteRange(0, 50_000))) != small_hub.content_of()[XET][:50_000]
        reader.close()
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view, XET)
        assert (dict(report.kinds), report.again) == ({"right": 1}, 1)
        reader = view.open_file(await view.find(XET))
        assert bytes(await reader.read(ByteRange(0, 50_000))) == small_hub.content_of()[XET][:50_000]
        reader.close()


async def test_a_damaged_cache_is_replaced(hub: TestHub, open_repo: OpenRepo, tmp_path: Path) -> None:
    async with open_repo() as (engine, view):
        await verify(engine, view)
    files = [path for path in (tmp_path / "cache").rglob("*.val") if path.stat().st_size > 100_000]
    assert files
    for path in files:
        content = bytearray(path.read_bytes())
        content[-1000] ^= 1
        path.write_bytes(content)
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view)
        assert dict(report.kinds) == {"right": 5}
        assert engine.counters[STORE_CORRUPT] == len(files)


async def test_a_false_lfs_file(hub: TestHub, open_repo: OpenRepo) -> None:
    sha256 = hashlib.sha256(small_hub.content_of()[LFS]).hexdigest()
    path = hub.storage.lfs_path(sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view)
        [verdict] = report.wrong
        assert (verdict.path, verdict.kind) == (LFS, "corrupt")
        assert "SHA-256" in str(verdict.error)


async def test_a_plain_file_that_is_not_what_git_says(hub: TestHub, open_repo: OpenRepo) -> None:
    hub.faults.add(Fault("flip", path=f"resolve.*{PLAIN}"))
    async with open_repo() as (engine, view):
        report, _ = await verify(engine, view)
        assert [(verdict.path, verdict.kind) for verdict in report.wrong] == [(PLAIN, "corrupt")]


async def test_a_listing_with_another_sha256(hub: TestHub, open_repo: OpenRepo) -> None:
    def lie(tree: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**entry, "lfs": {**entry["lfs"], "oid": "0" * 64}} if entry["path"] == XET else entry for entry in tree]

    hub.faults.add(Fault("rewrite", path="/tree/", rewrite=lie))
    async with open_repo() as (engine, view):
        assert dict((await verify(engine, view, XET))[0].kinds) == {"right": 1}
        report, _ = await verify(engine, view, XET, deep=True)
        assert "does not have the SHA-256 listed" in str(report.wrong[0].error)


# What cannot be told


async def test_offline_what_is_not_held_cannot_be_checked(open_repo: OpenRepo) -> None:
    async with open_repo() as (engine, view):
        await verify(engine, view, XET)
    async with open_repo(offline=True) as (engine, view):
        report, _ = await verify(engine, view, XET)
        assert dict(report.kinds) == {"right": 1}
        reader_missing, _ = await verify(engine, view, PLAIN)
        assert isinstance(reader_missing.wrong[0].error, Offline)
        assert reader_missing.wrong[0].kind == "failed"


async def test_it_gives_up_when_nobody_answers(hub: TestHub, open_repo: OpenRepo) -> None:
    count = UNREACHABLE_MAX + 20
    small = {f"many/{number}.txt": str(number).encode() for number in range(count)}
    hub.storage.commit_files(hub.storage.require_repo("model", small_hub.REPO), small)
    hub.faults.add(Fault("answer", path="resolve", status=503))
    async with open_repo(attempts_max=1) as (engine, view):
        report, _ = await verify(engine, view, "many")
        assert all(isinstance(verdict.error, Unavailable) for verdict in report.wrong)
        assert UNREACHABLE_MAX <= report.kinds["failed"] < count
        assert report.unchecked == count - report.kinds["failed"]


def test_kinds_of_verdicts() -> None:
    assert Verdict("a", 1).kind == "nameless"
    assert Verdict("a", 1, ("sha256",)).kind == "right"
    assert Verdict("a", 1, error=Offline("x")).kind == "failed"
