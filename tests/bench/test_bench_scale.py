"""The files of many sizes are files like any other, and the store of many blocks a store like any other."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchlib import scale_data, scenarios_cache
from benchlib.scale_data import prepare_scale
from flat_settings import flat_settings, open_engine

from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.repo.view import Node, RepoView
from xetfs.settings import StoreSettings
from xetfs.store.disk import DiskStore
from xetfs.telemetry import Counters
from xetfs.testhub import open_test_hub

SMALL = {
    "GB": 10_000_000,
    "XORBS": 3,
    "XORB_CHUNKS": 12,
    "LARGE_TERM_CHUNKS": 4,
    "FILES": (3, 5),
    "SIZES_GB": (1, 3),
    "TERMS": (2, 9),
    "TERM_CHUNKS": 2,
    "TERM_FILES": 2,
    "SHARDS": 6,
    "SHARD_CHUNKS": 4,
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(scale_data, name, value)


def prepare(directory: Path) -> list[str]:
    told: list[str] = []
    prepare_scale(directory, directory / "hub", told.append)
    return told


def test_what_is_made_is_kept_until_its_format_changes(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare(tmp_path)
    assert not prepare(tmp_path)
    monkeypatch.setattr(scale_data, "FORMAT", -1)
    assert prepare(tmp_path)


async def test_its_files_are_mounted_and_proven_like_any_other(small: None, tmp_path: Path) -> None:
    prepare(tmp_path)
    async with (
        open_test_hub(tmp_path / "hub") as hub,
        open_engine(flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache", verify="proof")) as engine,
    ):
        view = await engine.open_repo(RepoRef.parse(scale_data.size_repo(3)))
        (large,) = await view.children(view.root)
        assert large.size == pytest.approx(30_000_000, rel=0.2)
        reader = view.open_file(large)
        assert len(await reader.read(ByteRange(large.size // 2, large.size // 2 + 4096))) == 4096
        reader.close()

        view = await engine.open_repo(RepoRef.parse(scale_data.SHARDS_REPO))
        shards = [await read_all(view, node) for node in await view.children(view.root)]
        assert len(set(shards)) == len(shards) == 6
        stored = prepare_scale(tmp_path, tmp_path / "hub", print).shards_bytes
        assert stored == sum(map(len, shards)) + 8 * 6 * 4  # each chunk has a header of 8 bytes, and none compresses

        view = await engine.open_repo(RepoRef.parse(scale_data.files_repo(5)))
        folder = await view.lookup(view.root, "data")
        assert [node.name for node in await view.children(folder)] == [scale_data.file_name(number) for number in range(5)]


async def read_all(view: RepoView, node: Node) -> bytes:
    reader = view.open_file(node)
    data = bytes(await reader.read(ByteRange(0, node.size)))
    reader.close()
    return data


def test_terms_are_as_many_as_asked_and_no_two_can_be_merged() -> None:
    runs = scale_data.scattered_terms(list("abc"), 500, 4, seed=1)
    assert len(runs) == 500
    assert all(run.end - run.start == 4 and run.start % 4 == 0 and run.end <= scale_data.XORB_CHUNKS for run in runs)
    assert all(one.xorb != other.xorb for one, other in itertools.pairwise(runs))
    assert (
        runs == scale_data.scattered_terms(list("abc"), 500, 4, seed=1) != scale_data.scattered_terms(list("abc"), 500, 4, seed=2)
    )


def test_a_store_of_many_blocks_holds_them_and_its_costs_are_told(tmp_path: Path) -> None:
    directory = tmp_path / "store"

    def run(what: str, number: int) -> str:
        command = [sys.executable, "-P", str(scenarios_cache.PROGRAM), what, str(directory), str(number)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    run("make", 2500)
    store = DiskStore(StoreSettings(cache_dir=directory), Counters())
    statistics = store.statistics()
    strays = store.sweep(age_s=0)
    store.close()
    assert (statistics.state, statistics.blocks_and_records, strays) == ("ok", 2500, 0)
    costs = json.loads(run("measure", 1))
    assert set(costs) == {"open_s", "upkeep_s", "find_s", "miss_s", "put_s", "resident_bytes"}
    assert all(value > 0 for value in costs.values())
