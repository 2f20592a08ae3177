"""How sure a file is said to be, over a hub that offers proofs and one that does not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import small_hub
import trio
from flat_settings import flat_settings, open_engine
from small_hub import EMPTY, LFS, NESTED, PLAIN, REPO, XET

from xetfs import telemetry
from xetfs.errors import ProtocolViolation, XetfsError
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.filemap import Level, level_name
from xetfs.repo import RepoView, engine
from xetfs.settings import Settings
from xetfs.testhub import Fault, TestHub, open_test_hub


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TestHub]:
    monkeypatch.setattr(engine, "HOUSEKEEPING_INTERVAL_S", 0.01)
    async with open_test_hub(tmp_path / "hub") as hub:
        small_hub.fill(hub)
        yield hub


def settings(hub: TestHub, tmp_path: Path, **chosen: Any) -> Settings:
    return flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache", **chosen)


async def read(view: RepoView, path: str, end: int | None = None) -> bytes:
    node = await view.find(path)
    reader = view.open_file(node)
    try:
        return bytes(await reader.read(ByteRange(0, node.size if end is None else end)))
    finally:
        reader.close()


async def level(view: RepoView, path: str) -> str:
    return level_name(view.describe(await view.find(path)).level)


async def wait_for_level(view: RepoView, path: str, wanted: str) -> None:
    with trio.fail_after(20):
        while await level(view, path) != wanted:
            await trio.sleep(0.01)


async def test_with_proofs(hub: TestHub, tmp_path: Path) -> None:
    async with open_engine(settings(hub, tmp_path)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        names = (XET, NESTED, PLAIN, LFS, EMPTY)
        assert [await level(view, name) for name in names] == ["none", "none", "none", "none", "file"]
        await read(view, XET, 10)
        await read(view, PLAIN, 10)
        assert [await level(view, name) for name in names] == ["proof", "none", "file", "none", "file"]
        statistics = await opened.statistics()
        assert dict(statistics.files) == {Level.PROOF: 1, Level.FILE: 1}
        await read(view, EMPTY)
        assert dict((await opened.statistics()).files) == {Level.PROOF: 1, Level.FILE: 2}


async def test_without_proofs_a_file_is_raised_when_it_is_known_whole(
    hub: TestHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.options.proof_status = 404
    async with open_engine(settings(hub, tmp_path, window_bytes_max=256 * 1024)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        with caplog.at_level(logging.INFO):
            await read(view, XET, 10)
            assert await level(view, XET) == "framing"
            await read(view, XET)
            await wait_for_level(view, XET, "file")
            await read(view, NESTED)
            await wait_for_level(view, NESTED, "file")
        assert opened.counters[telemetry.READER_WHOLE_RIGHT] == 2
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1, "once for each server"
    assert "offers no proofs" in warnings[0]
    assert f"server={hub.cas_url}" in warnings[0]
    # What was learnt is kept.
    async with open_engine(settings(hub, tmp_path, offline=True)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        assert await read(view, XET) == small_hub.content_of()[XET]
        assert await level(view, XET) == "file"


async def test_a_whole_file_that_was_known_before_is_checked_too(hub: TestHub, tmp_path: Path) -> None:
    async with open_engine(settings(hub, tmp_path, verify="off")) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        await read(view, XET)
        for _ in range(3):
            await trio.sleep(engine.HOUSEKEEPING_INTERVAL_S)
        assert await level(view, XET) == "framing", "nothing is checked with --verify off"
    async with open_engine(settings(hub, tmp_path, offline=True)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        await read(view, XET)
        await wait_for_level(view, XET, "file")


async def test_without_proofs_a_part_is_raised_when_its_xorb_is_known_whole(hub: TestHub, tmp_path: Path) -> None:
    hub.options.proof_status = 404
    _, stored = hub.xet.add_file_from_chunks([bytes([number]) * 100_000 for number in range(10)], xorb_chunks=5)
    _, more = hub.xet.add_file_from_chunks([b"more" * 10_000])
    hub.storage.commit_files(hub.storage.require_repo("model", REPO), {"two.bin": stored, "more.bin": more})
    limits = {"window_bytes_min": 100_000, "window_bytes_max": 100_000, "ahead_bytes_max": 0}
    async with open_engine(settings(hub, tmp_path, **limits)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        for other in (NESTED, XET, "more.bin"):  # until it is known that there are no proofs, a little more than asked is loaded
            await read(view, other, 10)
        proofs = asked(hub, "file-chunk-hashes")
        await read(view, "two.bin", 500_000)
        assert asked(hub, "file-chunk-hashes") == proofs, "it is known that there are none"
        await wait_for_level(view, "two.bin", "xorb")
        assert opened.counters[telemetry.READER_XORBS_RIGHT] == 1
        assert (await opened.statistics()).files[Level.XORB] == 1
        await read(view, "two.bin")
        await wait_for_level(view, "two.bin", "file")


async def test_an_lfs_file_is_raised_when_it_is_known_whole(hub: TestHub, tmp_path: Path) -> None:
    async with open_engine(settings(hub, tmp_path)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        await read(view, LFS)
        await wait_for_level(view, LFS, "file")
        asked = len(hub.requests())
        assert await read(view, LFS) == small_hub.content_of()[LFS]
        assert len(hub.requests()) == asked


async def test_a_false_file_is_an_error_and_is_forgotten(hub: TestHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.options.proof_status = 501
    hub.faults.add(Fault("flip", path="/xorbs/", offset=20, count=1))
    async with open_engine(settings(hub, tmp_path)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        with caplog.at_level(logging.WARNING):
            assert await read(view, XET) != small_hub.content_of()[XET]
            await wait_for_level(view, XET, "none")
        [error] = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
        assert "what was read of it until now was wrong" in error
        assert opened.counters[telemetry.READER_WHOLE_WRONG] == 1
        assert await read(view, XET) == small_hub.content_of()[XET]
        await wait_for_level(view, XET, "file")


async def test_proof_gives_out_nothing_below_it(hub: TestHub, tmp_path: Path) -> None:
    async with open_engine(settings(hub, tmp_path, verify="proof")) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        assert await read(view, XET) == small_hub.content_of()[XET]
        assert await read(view, PLAIN) == small_hub.content_of()[PLAIN]
        with pytest.raises(ProtocolViolation, match="xetfs verify"):
            await read(view, LFS, 10)
        assert [await level(view, name) for name in (XET, PLAIN, LFS)] == ["proof", "file", "none"]
    hub.options.proof_status = 404
    async with open_engine(settings(hub, tmp_path, verify="proof")) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        with pytest.raises(ProtocolViolation, match="no proof to be had"):
            await read(view, NESTED, 10)
        assert await level(view, NESTED) == "none"


ANSWERS = {
    "401": Fault("answer", path="/file-chunk-hashes/", status=401),
    "403": Fault("answer", path="/file-chunk-hashes/", status=403),
    "429": Fault("answer", path="/file-chunk-hashes/", status=429, headers={"retry-after": "3600"}),
    "500": Fault("answer", path="/file-chunk-hashes/", status=500),
    "silent": Fault("stall", path="/file-chunk-hashes/"),
    "HTML": Fault("answer", path="/file-chunk-hashes/", status=200, body="<html>Please log in</html>"),
    "too large": Fault("answer", path="/file-chunk-hashes/", status=200, body=" " * (9 * 1024 * 1024)),
}


@pytest.mark.parametrize("reason", ANSWERS)
async def test_a_proof_that_cannot_be_had_is_seen_in_the_level_alone(hub: TestHub, tmp_path: Path, reason: str) -> None:
    hub.faults.add(ANSWERS[reason])
    async with open_engine(settings(hub, tmp_path, proof_timeout_s=0.3, whole_checks=False)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        assert await read(view, XET, 10) == small_hub.content_of()[XET][:10]
        assert await level(view, XET) == "framing"
        assert opened.counters[telemetry.READER_PROOFS_MISSED] == 1
    async with open_engine(settings(hub, tmp_path, verify="proof", attempts_max=1, stall_timeout_s=0.3)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        with pytest.raises(XetfsError):
            await read(view, XET, 10)
        assert await level(view, XET) == "none"


async def test_the_level_outlives_the_reader(hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONTENTS_KEPT_MAX", 1)
    async with open_engine(settings(hub, tmp_path)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        await read(view, XET)
        await opened.flush()
        for name in (PLAIN, NESTED, EMPTY):
            await read(view, name)
            await opened.flush()
        assert await level(view, XET) == "proof"
        assert sum((await opened.statistics()).files.values()) == 4


# What was left without proof


async def leave_without_proof(hub: TestHub, tmp_path: Path, end: int | None = None, **chosen: Any) -> bytes:
    """A mount that had no proof reads the beginning of a file; what it read. Then the hub offers proofs."""
    hub.options.proof_status = 404
    async with open_engine(settings(hub, tmp_path, whole_checks=False, **chosen)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        data = await read(view, XET, end)
        assert await level(view, XET) == "framing"
    hub.options.proof_status = 200
    hub.log.reset()
    return data


def asked(hub: TestHub, part: str) -> int:
    return sum(part in record.path for record in hub.requests())


@pytest.mark.parametrize("chosen", [{}, {"verify": "off"}], ids=["no proofs offered", "verify off"])
async def test_what_was_left_without_proof_is_proven_when_it_is_read_again(
    hub: TestHub, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    data = await leave_without_proof(hub, tmp_path, **chosen)
    async with open_engine(settings(hub, tmp_path, whole_checks=False)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        assert await level(view, XET) == "none"
        assert await read(view, XET) == data == small_hub.content_of()[XET]
        assert await level(view, XET) == "proof"
    assert (asked(hub, "/file-chunk-hashes/"), asked(hub, "/reconstructions/"), asked(hub, "/xorbs/")) == (1, 0, 0)


async def test_what_was_left_and_is_false_is_found_and_replaced(
    hub: TestHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.add(Fault("flip", path="/xorbs/", offset=20, count=1))
    assert await leave_without_proof(hub, tmp_path) != small_hub.content_of()[XET]
    async with open_engine(settings(hub, tmp_path)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        with caplog.at_level(logging.WARNING):
            assert await read(view, XET) == small_hub.content_of()[XET]
        assert opened.counters[telemetry.READER_CORRUPT_WINDOWS] == 1
        assert await level(view, XET) == "proof"


async def test_offline_it_is_served_as_it_was_left(hub: TestHub, tmp_path: Path) -> None:
    data = await leave_without_proof(hub, tmp_path)
    async with open_engine(settings(hub, tmp_path, offline=True, whole_checks=False)) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        assert await read(view, XET) == data
        assert await level(view, XET) == "framing"
    assert hub.requests() == []


@pytest.mark.parametrize("reason", ["refused", "failing", "silent", "no such file"])
async def test_it_is_served_as_it_was_left_when_no_proof_is_to_be_had(hub: TestHub, tmp_path: Path, reason: str) -> None:
    """To the last byte of what is held, beside what is not; one request is enough to know."""
    data = await leave_without_proof(hub, tmp_path, 300_000, window_bytes_max=256 * 1024)
    async with open_engine(
        settings(hub, tmp_path, whole_checks=False, proof_timeout_s=0.3, outage_patience_s=0.1, attempts_max=1)
    ) as opened:
        view = await opened.open_repo(RepoRef.parse(REPO))
        match reason:
            case "refused":
                for server in hub.servers.values():
                    server.refuse()
            case "failing":
                hub.faults.add(Fault("answer", path="/v", origin="cas", status=500))
            case "silent":
                hub.faults.add(Fault("stall", origin="cas"))
            case _:
                hub.faults.add(Fault("answer", path="/file-chunk-hashes/", status=404))
        reader = view.open_file(await view.find(XET))
        for at in (*range(0, len(data) - 10_000, 10_000), len(data) - 1):
            assert bytes(await reader.read(ByteRange(at, at + 1))) == data[at : at + 1]
        reader.close()
        assert await level(view, XET) == "framing"
        assert asked(hub, "/file-chunk-hashes/") <= 1
        assert asked(hub, "/xorbs/") == 0
