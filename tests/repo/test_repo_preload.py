"""Fetching chosen files into the store: all of them, nothing else, never more than fits, after whoever reads."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from flat_settings import flat_settings, open_engine
from huggingface_hub.utils import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from xetfs import telemetry
from xetfs.errors import ProtocolViolation, Unavailable
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.file import FileReader
from xetfs.repo import Engine, RepoView, patience, preload
from xetfs.repo.preload import Preload, matches
from xetfs.testhub import Fault, StoredFile, TestHub, open_test_hub
from xetfs.units import MIB

SHARDS = {f"model-{number}.safetensors": 6 * MIB + number for number in range(3)}
OTHERS = {"other.bin": 5 * MIB, "onnx/model.onnx": 3 * MIB}
SMALL = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "deep/tokenizer.json": b'{"b": 2}', "empty.safetensors": b""}


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    chance = random.Random(5)
    return {path: chance.randbytes(size) for path, size in (SHARDS | OTHERS).items()} | SMALL


@pytest.fixture
async def hub(tmp_path: Path, contents: dict[str, bytes]) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        files: dict[str, bytes | StoredFile] = {
            path: xet_file(hub, content) if path not in SMALL else content for path, content in contents.items()
        }
        hub.storage.commit_files(hub.storage.create_repo("model", "acme/demo"), files)
        yield hub


def xet_file(hub: TestHub, content: bytes) -> StoredFile:
    return hub.xet.add_file_from_chunks([content[at : at + 65_536] for at in range(0, len(content), 65_536)])[1]


@asynccontextmanager
async def opened(hub: TestHub, cache: Path, **settings: object) -> AsyncIterator[tuple[Engine, RepoView]]:
    chosen = flat_settings(**{"endpoint": hub.endpoint, "cache_dir": cache, "whole_checks": False, **settings})  # type: ignore[arg-type]
    async with open_engine(chosen) as engine:
        yield engine, await engine.open_repo(RepoRef.parse("acme/demo"))


async def run(engine: Engine, view: RepoView, *globs: str) -> Preload:
    """One run, to its end."""
    made = Preload(engine, view, globs)
    made.begin()
    await made.run()
    return made


@asynccontextmanager
async def open_preload(engine: Engine, view: RepoView, globs: list[str]) -> AsyncIterator[Preload]:
    """A run whose files are chosen."""
    made = Preload(engine, view, globs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await made.matched.wait()
        yield made
        nursery.cancel_scope.cancel()


async def read(view: RepoView, path: str) -> bytes:
    node = await view.find(path)
    reader = view.open_file(node)
    try:
        return bytes(await reader.read(ByteRange(0, node.size)))
    finally:
        reader.close()


def transferred(hub: TestHub) -> int:
    return sum(record.bytes_sent for record in hub.requests("transfer"))


async def test_what_matches_is_read_later_without_a_request(hub: TestHub, tmp_path: Path, contents: dict[str, bytes]) -> None:
    chosen = [*SHARDS, "tokenizer.json", "deep/tokenizer.json", "empty.safetensors"]
    async with opened(hub, tmp_path / "cache") as (engine, view):
        progress = (await run(engine, view, "*.safetensors", "*tokenizer*")).progress
        assert (progress.state, progress.files, progress.files_done, progress.files_failed) == ("done", 6, 6, 0)
        assert progress.bytes == progress.bytes_done == sum(len(contents[path]) for path in chosen)
        assert sum(SHARDS.values()) <= transferred(hub) <= 1.02 * sum(SHARDS.values())
    hub.log.reset()
    async with opened(hub, tmp_path / "cache", offline=True) as (_, view):
        for path in chosen:
            assert await read(view, path) == contents[path]
    async with opened(hub, tmp_path / "cache") as (_, view):
        hub.log.reset()
        assert [await read(view, path) for path in chosen] == [contents[path] for path in chosen]
        assert hub.requests() == []
        assert await read(view, "other.bin") == contents["other.bin"]
        assert transferred(hub) >= OTHERS["other.bin"]


async def test_another_run_fetches_what_is_missing_and_no_more(hub: TestHub, tmp_path: Path) -> None:
    async with opened(hub, tmp_path / "cache") as (engine, view):
        await read(view, "model-1.safetensors")
        before = transferred(hub)
        assert (await run(engine, view, "model-*")).progress.state == "done"
        assert transferred(hub) - before <= 1.02 * (SHARDS["model-0.safetensors"] + SHARDS["model-2.safetensors"])
    async with opened(hub, tmp_path / "cache") as (engine, view):
        hub.log.reset()
        progress = (await run(engine, view, "model-*")).progress
        assert (progress.state, progress.files_done) == ("done", 3)
        assert hub.requests() == []


async def test_a_run_that_is_broken_off_goes_on_where_it_was(
    hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preload, "WINDOW_BYTES", MIB)
    monkeypatch.setattr(preload, "IN_FLIGHT_BYTES_MAX", 4 * MIB)
    async with opened(hub, tmp_path / "cache") as (engine, view), open_preload(engine, view, ["model-*"]) as begun:
        begun.begin()
        fetch = FileReader.bring
        enough = trio.Event()

        async def bring(self: FileReader, span: ByteRange, on_covered: Callable[[int], None]) -> None:
            if begun.progress.bytes_done > 8 * MIB:
                enough.set()
                await trio.sleep_forever()
            await fetch(self, span, on_covered)

        monkeypatch.setattr(FileReader, "bring", bring)
        await enough.wait()
    monkeypatch.setattr(FileReader, "bring", fetch)
    assert 8 * MIB <= transferred(hub) < 14 * MIB
    async with opened(hub, tmp_path / "cache") as (engine, view):
        assert (await run(engine, view, "model-*")).progress.state == "done"
    assert transferred(hub) <= 1.02 * sum(SHARDS.values())


async def test_it_stops_when_the_cache_is_full_and_pushes_nothing_out(hub: TestHub, tmp_path: Path) -> None:
    async with opened(hub, tmp_path / "cache", cache_bytes_max=20 * MIB) as (engine, view):
        made = await run(engine, view, "*")
        progress = made.progress
        assert progress.state == "full"
        assert "--cache-size" in progress.reason
        assert progress.bytes == sum(SHARDS.values()) + sum(OTHERS.values()) + sum(map(len, SMALL.values()))
        assert 8 * MIB <= progress.bytes_done <= progress.room_bytes == int(0.9 * 20 * MIB)
        assert transferred(hub) <= progress.room_bytes
        assert engine.counters[telemetry.STORE_EVICTED] == 0


async def test_nothing_is_begun_while_a_program_waits(hub: TestHub, tmp_path: Path) -> None:
    async with opened(hub, tmp_path / "cache") as (engine, view), open_preload(engine, view, ["model-*"]) as begun:
        wanted = (await view.find("other.bin")).entry
        assert wanted is not None
        assert wanted.file_id is not None
        hub.faults.add(Fault("delay", origin="cas", path=wanted.file_id.hex(), seconds=0.2, count=1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, view, "other.bin")
            while not hub.requests("cas"):
                await trio.testing.wait_all_tasks_blocked(0.001)
            begun.begin()
        before = max(i for i, record in enumerate(hub.requests("cas")) if wanted.file_id.hex() in record.path)
        asked = [record.path for record in hub.requests("cas")[: before + 1]]
        assert asked
        assert all(wanted.file_id.hex() in path for path in asked)


async def test_files_that_cannot_be_had_are_left_out(
    hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fetch = FileReader.bring

    async def bring(self: FileReader, span: ByteRange, on_covered: Callable[[int], None]) -> None:
        if self.size == SHARDS["model-1.safetensors"]:
            raise ProtocolViolation("no proof to be had")
        await fetch(self, span, on_covered)

    monkeypatch.setattr(FileReader, "bring", bring)
    async with opened(hub, tmp_path / "cache") as (engine, view):
        progress = (await run(engine, view, "*.safetensors")).progress
    assert (progress.state, progress.files, progress.files_done, progress.files_failed) == ("done", 4, 3, 1)
    assert progress.reason == "model-1.safetensors: no proof to be had"
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "not prefetched path='model-1.safetensors': no proof to be had"
    ]


async def test_it_waits_for_the_network(hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_S", 0.001)
    fetch, left = FileReader.bring, [Unavailable("nobody there"), Unavailable("nobody there"), trio.TooSlowError()]
    states = []

    async def bring(self: FileReader, span: ByteRange, on_covered: Callable[[int], None]) -> None:
        states.append(made.progress.state)
        if left:
            raise left.pop()
        await fetch(self, span, on_covered)

    monkeypatch.setattr(FileReader, "bring", bring)
    async with opened(hub, tmp_path / "cache") as (engine, view):
        made = Preload(engine, view, ["other.bin"])
        made.begin()
        await made.run()
    assert states == ["fetching", "waiting", "waiting", "waiting"]
    assert (made.progress.state, made.progress.bytes_done, made.progress.reason) == ("done", OTHERS["other.bin"], "")


async def test_a_slow_line_has_less_under_way(hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_S", 0.001)
    monkeypatch.setattr(preload, "WINDOW_BYTES", MIB)
    monkeypatch.setattr(preload, "WINDOW_COST_MIN", MIB)
    fetch, many = FileReader.bring, trio.Event()
    running, most = 0, []

    async def bring(self: FileReader, span: ByteRange, on_covered: Callable[[int], None]) -> None:
        nonlocal running
        running += 1
        most.append(running)
        if running == 6:
            many.set()
        try:
            on_covered(span.end)
            await many.wait()
            if len(most) < 60:
                raise trio.TooSlowError
            await fetch(self, span, on_covered)
        finally:
            running -= 1

    monkeypatch.setattr(FileReader, "bring", bring)
    async with opened(hub, tmp_path / "cache") as (engine, view):
        assert (await run(engine, view, "model-*")).progress.state == "done"
    assert max(most) >= 6
    assert most[50:60] == [1] * 10


async def test_what_nothing_matches_is_told(hub: TestHub, tmp_path: Path) -> None:
    async with opened(hub, tmp_path / "cache") as (engine, view):
        async with open_preload(engine, view, ["*.gguf", "config.json", "onnx/"]) as begun:
            progress = begun.progress
            assert (progress.state, progress.unmatched, progress.files) == ("matching", ("*.gguf",), 2)
            assert (progress.bytes, progress.bytes_done) == (2 + OTHERS["onnx/model.onnx"], 0)
            assert hub.requests("cas") == []
        assert (await run(engine, view, "*.gguf")).progress.state == "done"


NAMES = st.text("ab./*[]!?", min_size=1, max_size=8)


@given(NAMES, NAMES)
def test_globs_mean_what_they_mean_to_the_real_client(path: str, glob: str) -> None:
    path = path.replace("//", "/")
    assert matches(path, glob) == bool(list(filter_repo_objects([path], allow_patterns=[glob])))
