"""Opening a shard index brings the headers of the shards, and nothing else that an index may name."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flat_settings import flat_settings, open_engine
from trio.testing import wait_all_tasks_blocked

from xetfs.protocol.formats.shards import is_shard_index, shards_of
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.repo import RepoView, shards
from xetfs.testhub import Fault, StoredFile, TestHub, open_test_hub
from xetfs.units import KIB, MIB

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-{number}.safetensors" for number in range(20)]


def index_of(*names: object) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": {f"tensor{i}": name for i, name in enumerate(names)}}).encode()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        yield hub


def put(hub: TestHub, index: bytes) -> dict[str, bytes]:
    chance = random.Random(5)
    contents = {name: chance.randbytes(2 * MIB) for name in (*SHARDS, "other.bin")}
    files: dict[str, bytes | StoredFile] = {name: xet_file(hub, content) for name, content in contents.items()}
    files |= {INDEX: index, "deep/other.safetensors": b"small"}
    hub.storage.commit_files(hub.storage.create_repo("model", "acme/demo"), files)
    return contents


def xet_file(hub: TestHub, content: bytes) -> StoredFile:
    return hub.xet.add_file_from_chunks([content[at : at + 65_536] for at in range(0, len(content), 65_536)])[1]


async def opened_index(view: RepoView) -> None:
    """Say that the index was opened, and wait for what follows from that."""
    node = await view.find(INDEX)
    await shards.fetch_headers(view, node)


async def test_the_headers_of_all_shards_are_at_hand_then(hub: TestHub, tmp_path: Path) -> None:
    contents = put(hub, index_of(*SHARDS, *SHARDS))
    async with open_engine(flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache")) as engine:
        view = await engine.open_repo(RepoRef.parse("acme/demo"))
        await opened_index(view)
        assert len(SHARDS) * 512 * KIB <= sum(record.bytes_sent for record in hub.requests("transfer")) < len(SHARDS) * MIB
        hub.log.reset()
        for name in SHARDS:
            reader = view.open_file(await view.find(name))
            assert bytes(await reader.read(ByteRange(0, 512 * KIB))) == contents[name][: 512 * KIB]
            reader.close()
        assert hub.requests() == []


async def test_it_happens_once_and_only_for_an_index(hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(hub, index_of(*SHARDS))
    async with open_engine(flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache")) as engine:
        view = await engine.open_repo(RepoRef.parse("acme/demo"))
        fetched = []

        async def fetch_headers(view: RepoView, node: object) -> None:
            fetched.append(node)

        monkeypatch.setattr("xetfs.repo.view.fetch_headers", fetch_headers)
        index = await view.find(INDEX)
        for node in (await view.find("other.bin"), index, index, await view.find(SHARDS[0])):
            view.on_opened(node)
        await wait_all_tasks_blocked()
        assert fetched == [index]


HOSTILE = index_of("../secret", "/etc/passwd", "deep/other.safetensors", "absent.safetensors", "deep", "..", "", 7, None, ["x"])


@pytest.mark.parametrize("index", [HOSTILE, b"{}", b"[]", b"nonsense", b"\xff", b'{"weight_map": 5}', b"[" * 100_000, b""])
async def test_an_index_that_names_no_shards_brings_nothing(
    hub: TestHub, tmp_path: Path, index: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    put(hub, index)
    async with open_engine(flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache")) as engine:
        view = await engine.open_repo(RepoRef.parse("acme/demo"))
        await opened_index(view)
        assert hub.requests("transfer") == []
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []


async def test_a_header_that_cannot_be_had_is_left_out(hub: TestHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(hub, index_of(*SHARDS[:3]))
    async with open_engine(flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache")) as engine:
        view = await engine.open_repo(RepoRef.parse("acme/demo"))
        entry = (await view.find(SHARDS[1])).entry
        assert entry is not None
        assert entry.file_id is not None
        hub.faults.add(Fault("answer", origin="cas", path=entry.file_id.hex(), status=403))
        await opened_index(view)
        paths = "".join(record.path for record in hub.requests("cas") if record.status == 200)
        for name in (SHARDS[0], SHARDS[2]):
            other = (await view.find(name)).entry
            assert other is not None
            assert other.file_id is not None
            assert other.file_id.hex() in paths
        assert entry.file_id.hex() not in paths
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_what_is_an_index_and_what_it_says() -> None:
    assert is_shard_index("deep/model.safetensors.index.json")
    assert not is_shard_index("model.index.json")
    assert shards_of(index_of("b", "a", "b", "c/d", "")) == ("b", "a")
