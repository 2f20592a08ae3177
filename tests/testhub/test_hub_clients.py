"""The real clients upload to the hub and read back what they wrote, in every way they know."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from xetfs.testhub import Run, TestHub

WRITE = """
repo = os.environ["REPO"]
kind = os.environ["KIND"]
api.create_repo(repo, repo_type=kind, private=True, space_sdk="static" if kind == "space" else None)
api.upload_folder(repo_id=repo, repo_type=kind, folder_path=work / "source")
"""
READ = """
repo = os.environ["REPO"]
kind = os.environ["KIND"]
source = work / "source"
names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
assert sorted(api.list_repo_files(repo, repo_type=kind)) == names
snapshot = pathlib.Path(snapshot_download(repo, repo_type=kind))
fs = HfFileSystem()
prefix = {"model": "", "dataset": "datasets/", "space": "spaces/"}[kind]
for name in names:
    content = (source / name).read_bytes()
    assert (snapshot / name).read_bytes() == content, name
    assert fs.read_bytes(f"{prefix}{repo}/{name}") == content, name
    one = hf_hub_download(repo, name, repo_type=kind, cache_dir=work / "single")
    assert pathlib.Path(one).read_bytes() == content, name
with fs.open(f"{prefix}{repo}/model.safetensors") as file:
    file.seek(1_234_567)
    assert file.read(70_001) == (source / "model.safetensors").read_bytes()[1_234_567:1_304_568]
"""


def make_files(source: Path, seed: int = 0) -> dict[str, bytes]:
    chance = random.Random(seed)
    repeated = chance.randbytes(300_000)
    files = {
        "README.md": b"---\nlicense: mit\n---\n# Hello\n",
        "empty.txt": b"",
        "one.bin": b"\x07",
        "model.safetensors": chance.randbytes(3_000_000),
        "zeros.bin": bytes(1_500_000),
        "repeated.bin": repeated * 4 + chance.randbytes(1000) + repeated * 2,
        "deep/er/names ü #?%+&.txt": "ünïcode".encode(),
        "deep/" + "n" * 251 + ".bin": chance.randbytes(40_000),
    }
    for name, content in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
async def test_a_folder_comes_back_as_it_was_through_xet(hub: TestHub, run_client, work: Path, kind: str) -> None:
    files = make_files(work / "source")
    env = {"REPO": "local/demo", "KIND": kind}
    await run_client(WRITE, env=env)
    hub.reset()
    await run_client(READ, env=env)
    assert [request.path for request in hub.requests("cas")].count("/v1/reconstructions") == 0
    assert any(request.path.startswith("/v2/reconstructions/") for request in hub.requests("cas"))
    repo = hub.storage.require_repo(kind, "local/demo")
    commit = hub.storage.commit(repo, "main")
    for name, content in files.items():
        entry = hub.storage.entry(commit, name)
        held = hub.storage.lfs(entry.sha256)
        assert entry.size == len(content)
        assert (held is not None and held.file_id is not None) == (Path(name).suffix in (".bin", ".safetensors"))
    assert not any(request.authorized for request in hub.requests("transfer"))


async def test_a_folder_comes_back_as_it_was_without_xet(hub: TestHub, run_client, work: Path) -> None:
    make_files(work / "source")
    env = {"REPO": "local/demo", "KIND": "model"}
    await run_client(WRITE, env=env, xet=False)
    assert hub.requests("cas") == []
    await run_client(READ, env=env, xet=False)
    assert hub.requests("cas") == []
    commit = hub.storage.commit(hub.storage.require_repo("model", "local/demo"), "main")
    held = hub.storage.lfs(hub.storage.entry(commit, "model.safetensors").sha256)
    assert held is not None
    assert held.file_id is None


async def test_xet_files_reach_clients_without_xet_over_the_bridge(hub: TestHub, run_client, work: Path) -> None:
    make_files(work / "source")
    env = {"REPO": "local/demo", "KIND": "dataset"}
    await run_client(WRITE, env=env)
    hub.reset()
    await run_client(READ, env=env, xet=False)
    assert hub.requests("cas") == []
    assert any(request.path.startswith("/bridge/") and request.status == 206 for request in hub.requests("transfer"))


async def test_version_1_and_plain_files_sent_directly_will_do(hub: TestHub, run_client, work: Path) -> None:
    make_files(work / "source")
    env = {"REPO": "local/demo", "KIND": "model"}
    hub.options.v2_status = 501
    hub.options.plain_files = "direct"
    await run_client(WRITE + READ, env=env)
    assert {request.status for request in hub.requests("cas") if request.path.startswith("/v2/reconstructions")} == {501}
    assert any(request.path.startswith("/v1/reconstructions/") for request in hub.requests("cas"))


async def test_multi_range_fetching(hub: TestHub, run_client, work: Path) -> None:
    make_files(work / "source")
    env = {"REPO": "local/demo", "KIND": "model", "HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING": "1"}
    await run_client(WRITE, env=env)
    repo = hub.storage.require_repo("model", "local/demo")
    chunks = [random.Random(number).randbytes(20_000) for number in range(60)]
    xorb = hub.xet.add_xorb(chunks)
    scattered = [Run(xorb, number, number + 1) for number in (0, 7, 3, 3, 50, 20, 59, 30)]
    content = b"".join(chunks[run.start] for run in scattered)
    _, stored = hub.xet.add_file_from_terms(scattered)
    hub.storage.commit_files(repo, {"scattered.bin": stored})
    (work / "source" / "scattered.bin").write_bytes(content)
    hub.reset()
    await run_client(READ, env=env)
    asked = [request.range or "" for request in hub.requests("transfer") if request.path.endswith(xorb.hex())]
    assert asked
    assert all(header.count("-") == 7 for header in asked)


async def test_the_same_content_again_is_found_by_its_chunks(hub: TestHub, run_client, work: Path) -> None:
    make_files(work / "source")
    await run_client(WRITE, env={"REPO": "local/first", "KIND": "model"})
    (work / "source" / "changed.bin").write_bytes((work / "source" / "model.safetensors").read_bytes() + b"more")
    hub.reset()
    env = {"REPO": "local/second", "KIND": "model", "HF_HOME": str(work / "another home")}
    await run_client(WRITE + READ, env=env)
    uploaded = sum(request.bytes_received for request in hub.requests("cas") if "/xorbs/" in request.path)
    assert uploaded < 500_000
    assert any("/v1/chunks/" in request.path and request.status == 200 for request in hub.requests("cas"))


async def test_large_lfs_uploads_in_parts(hub: TestHub, run_client, work: Path) -> None:
    hub.options.multipart_upload_bytes = 1_000_000
    make_files(work / "source")
    await run_client(WRITE + READ, env={"REPO": "local/demo", "KIND": "model"}, xet=False)
    puts = [request.path for request in hub.requests("transfer") if request.method == "PUT"]
    assert sum(path.endswith(("/1", "/2", "/3")) for path in puts) >= 3
