"""Views and their clients: the same while they are held, and gone when they are not."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import small_hub
from flat_settings import flat_settings, open_engine

from xetfs.errors import EntryNotFound
from xetfs.protocol.names import RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.repo import Engine, registry
from xetfs.testhub import TestHub, open_test_hub


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    async with open_test_hub(tmp_path / "hub") as hub:
        small_hub.fill(hub)
        yield hub


@pytest.fixture
async def engine(hub: TestHub, tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_engine(flat_settings(endpoint=hub.endpoint, cache_dir=tmp_path / "cache")) as engine:
        yield engine


async def test_a_repo_that_is_opened_again_is_the_same_view(engine: Engine, hub: TestHub) -> None:
    view = await engine.open_repo(RepoRef.parse("acme/demo"))
    node = await view.lookup(view.root, small_hub.PLAIN)
    hub.log.reset()
    again = await engine.open_repo(RepoRef.parse("acme/demo"))
    assert again is view
    assert await again.lookup(again.root, small_hub.PLAIN) is node
    assert [record.path for record in hub.requests()] == ["/api/models/acme/demo/revision/main"]  # rights are judged anew


async def test_folders_and_revisions_of_a_commit_share_one_token(engine: Engine, hub: TestHub) -> None:
    whole = await engine.open_repo(RepoRef.parse("acme/demo"))
    part = await engine.open_repo(RepoRef.parse("acme/demo/deep"))
    same = await engine.open_repo(RepoRef.parse(f"acme/demo@{whole.commit}"))
    for view, path in ((whole, small_hub.XET), (part, "er/more.bin"), (same, small_hub.XET)):
        node = view.root
        for name in path.split("/"):
            node = await view.lookup(node, name)
        reader = view.open_file(node)
        await reader.read(ByteRange(0, 1000))
        reader.close()
    assert sum("/xet-read-token/" in record.path for record in hub.requests()) == 1


async def test_what_could_not_be_opened_is_not_kept(engine: Engine) -> None:
    with pytest.raises(EntryNotFound):
        await engine.open_repo(RepoRef.parse("acme/demo/absent"))
    gc.collect()
    assert "0 views" in repr(engine)


async def test_views_that_nobody_holds_go_and_those_in_use_stay(
    engine: Engine, hub: TestHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "VIEWS_KEPT_MAX", 3)
    for number in range(10):
        hub.storage.commit_files(hub.storage.create_repo("model", f"many/{number}"), {"x": b"%d" % number})
    held = await engine.open_repo(RepoRef.parse("many/0"))
    for number in range(1, 10):
        await engine.open_repo(RepoRef.parse(f"many/{number}"))
    gc.collect()
    assert "4 views" in repr(engine)  # three that were used last, and the one that is held
    assert await engine.open_repo(RepoRef.parse("many/0")) is held


async def test_few_views_are_kept_when_they_are_large(engine: Engine, hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ENTRIES_KEPT_MAX", 100)
    for number in range(5):
        files = {f"{name:02}": b"x" for name in range(40)}
        hub.storage.commit_files(hub.storage.create_repo("model", f"large/{number}"), files)
        await engine.open_repo(RepoRef.parse(f"large/{number}"))
    gc.collect()
    assert "2 views" in repr(engine)


PROGRAM = """
import hashlib, json, re, sys
from pathlib import Path
import trio
sys.path[:0] = [sys.argv[1]]
from flat_settings import flat_settings, open_engine
from loopback import answer, serving
from xetfs.protocol.names import RepoRef

REPOS, FILES = 1000, 500
names = [f"part-{number:05}-of-{FILES:05}.safetensors" for number in range(FILES)]

async def handler(asked, stream):
    _, _, _, owner, name, what, *_ = asked.path.split("/")
    commit = hashlib.sha1(name.encode()).hexdigest()
    if what == "revision":
        return answer(200, json.dumps({"id": f"{owner}/{name}", "sha": commit, "private": False}).encode())
    entries = [{"type": "file", "path": path, "size": 7, "oid": commit} for path in names]
    return answer(200, json.dumps(entries).encode())

async def main():
    async with serving(handler) as server:
        async with open_engine(flat_settings(endpoint=server.url, cache_dir=Path(sys.argv[2]))) as engine:
            held = await engine.open_repo(RepoRef.parse("many/0"))
            for number in range(REPOS):
                view = await engine.open_repo(RepoRef.parse(f"many/{number}"))
                nodes = list(await view.children(view.root))
                assert len(nodes) == FILES
                view.open_file(nodes[number % FILES]).close()
            again = await engine.open_repo(RepoRef.parse("many/0"))
            # Not ru_maxrss, which a process has from the one that forked it.
            peak_kib = int(re.search("VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
            print(json.dumps({"peak_mib": peak_kib / 1024, "same": again is held, "engine": repr(engine)}))

trio.run(main)
"""


def test_a_thousand_repos_in_one_process_take_little_memory(tmp_path: Path) -> None:
    program = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent.parent), str(tmp_path / "cache")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"], "a view that is held is not made twice"
    assert found["peak_mib"] < 350, found
    views = int(found["engine"].partition(" views")[0].rpartition("(")[2])
    assert views < 1000, found
