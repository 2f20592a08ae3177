"""What mirrors, self-hosted Hubs and odd repos answer, seen through a real mount."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount_hub import HubProcess
from mount_user import MountRepo, is_mounted, run_xetfs

from xetfs.cli.exits import Exit
from xetfs.testhub import HubOptions, TestHub

REPO = "datasets/acme/odd"
PREFIX = "/artifactory/api/hf"
MANY = 1500
CONTENT = random.Random(7).randbytes(300_000)
ROOT_LISTING = r"/tree/[0-9a-f]{40}$"


@pytest.fixture(scope="module")
def odd_hub(base: Path) -> Iterator[HubProcess]:
    directory = base / "odd hub"
    seeded = TestHub(directory, HubOptions(), seed=0)
    repo = seeded.storage.create_repo("dataset", "acme/odd")
    in_xet = seeded.xet.add_file_from_chunks([CONTENT[at : at + 50_000] for at in range(0, len(CONTENT), 50_000)])[1]
    files = {"a.bin": in_xet, "b.txt": b"b", "c.txt": b"c", "sub/a.txt": b"below"}
    commit = seeded.storage.commit_files(repo, files | {f"many/{number:04}": b"%d" % number for number in range(MANY)})
    for ref, content in {"refs/heads/v1@2": {"v": b"2"}, "refs/convert/parquet": {"default/train/0.parquet": b"p"}}.items():
        seeded.storage.set_ref(repo, ref, commit.oid)
        seeded.storage.commit_files(repo, content, deleted_folders=["."], branch=ref)
    seeded.storage.close()
    hub = HubProcess(directory)
    try:
        yield hub
    finally:
        hub.stop()
        shutil.rmtree(directory)


@pytest.fixture
def hub(odd_hub: HubProcess) -> HubProcess:
    """Shadows the hub of the other tests here: it answers as it should until it is told otherwise."""
    odd_hub.reset()
    odd_hub.control("PUT", "options", {"path_prefix": "", "link_url": ""})
    odd_hub.control("POST", "repos", {"kind": "dataset", "name": "acme/odd", "private": False})
    return odd_hub


def rewrite(hub: HubProcess, path: str, **members: object) -> None:
    """Replace members of an answer, by paths whose dots are written as `__`."""
    named = {name.lstrip("_").replace("__", "."): value for name, value in members.items()}
    hub.control("POST", "faults", {"action": "rewrite", "origin": "hub", "path": path, "members": named})


@pytest.mark.parametrize(
    ("members", "left"),
    [
        ({"_1__type": "unknown"}, ["a.bin", "c.txt", "many", "sub"]),
        ({"_1__path": ""}, ["a.bin", "c.txt", "many", "sub"]),
        ({"_1__size": 2**70, "_2__size": -1}, ["a.bin", "many", "sub"]),
        ({"_0__xetHash": "*" * 64}, ["a.bin", "b.txt", "c.txt", "many", "sub"]),
        ({"_1__lastCommit": 5, "_2__oid": None, "_3__size": None}, ["a.bin", "b.txt", "c.txt", "many", "sub"]),
    ],
)
def test_one_odd_entry_hides_no_other(
    hub: HubProcess, mount_repo: MountRepo, members: dict[str, object], left: list[str]
) -> None:
    rewrite(hub, ROOT_LISTING, **members)
    mounted = mount_repo(hub.endpoint, REPO)
    mounted.expected.append("odd entries of a listing")
    assert sorted(os.listdir(mounted.path)) == left
    assert (mounted.path / "a.bin").read_bytes() == CONTENT
    assert (mounted.path / "sub" / "a.txt").read_bytes() == b"below"
    assert len([line for line in mounted.log().splitlines() if " WARNING " in line]) == 1


def test_a_hub_that_leaves_out_what_only_decorates(hub: HubProcess, mount_repo: MountRepo) -> None:
    rewrite(hub, "/revision/", lastModified=None, private=None, gated=True, disabled=None)
    mounted = mount_repo(hub.endpoint, REPO, token="hf_anybody")
    assert (mounted.path / "a.bin").read_bytes() == CONTENT
    assert (mounted.path / "b.txt").stat().st_mtime > 0


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("link_url", ["", "https://huggingface.co"])
def test_an_endpoint_with_a_path_and_links_to_the_original_host(
    hub: HubProcess, mount_repo: MountRepo, prefix: str, link_url: str
) -> None:
    hub.control("PUT", "options", {"path_prefix": prefix, "link_url": link_url})
    mounted = mount_repo(hub.endpoint + prefix, REPO)
    assert len(os.listdir(mounted.path / "many")) == MANY
    assert (mounted.path / "many" / "1499").read_bytes() == b"1499"
    assert (mounted.path / "a.bin").read_bytes() == CONTENT
    pages = [request for request in hub.requests("hub") if request["path"].endswith("/many")]
    assert len(pages) == 2
    assert all(request["path"].startswith(f"{prefix}/api/datasets/") for request in pages)


@pytest.mark.parametrize(
    ("text", "shown", "names"),
    [
        ("@v1@2", f"{REPO}@v1@2", ["v"]),
        ("@~parquet", f"{REPO}@~parquet", ["default"]),
        ("@refs/convert/parquet/default/train", f"{REPO}/default/train@refs/convert/parquet", ["0.parquet"]),
        ("@refs%2Fconvert%2Fparquet", f"{REPO}@refs/convert/parquet", ["default"]),
        ("@main/sub", f"{REPO}/sub@main", ["a.txt"]),
    ],
)
def test_revisions_as_the_hub_knows_them(
    hub: HubProcess, tmp_path: Path, base: Path, text: str, shown: str, names: list[str]
) -> None:
    path = base / "mount of a revision"
    path.mkdir(exist_ok=True)
    env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "", "XDG_STATE_HOME": str(tmp_path)}
    done = run_xetfs("mount", REPO + text, str(path), "--cache-dir", str(tmp_path / "cache"), env=env)
    try:
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"mounted {shown} (")
        assert os.listdir(path) == names
    finally:
        run_xetfs("umount", str(path), env=env)


def test_a_folder_that_is_listed_never_looks_deleted(hub: HubProcess, mount_repo: MountRepo, tmp_path: Path) -> None:
    """What a mirror job would delete in its copy."""
    mounted = mount_repo(hub.endpoint, REPO)
    mounted.expected.append(" ERROR ")
    hub.control("POST", "repos", {"kind": "dataset", "name": "acme/odd", "private": True})
    for ask in (lambda: os.listdir(mounted.path / "sub"), lambda: (mounted.path / "sub" / "a.txt").stat()):
        with pytest.raises(OSError, match="sub") as caught:
            ask()
        assert caught.value.errno in (errno.EIO, errno.EACCES)
    copy = tmp_path / "copy"
    (copy / "sub").mkdir(parents=True)
    (copy / "sub" / "a.txt").write_bytes(b"below")
    done = subprocess.run(["rsync", "-a", "--delete", f"{mounted.path}/", copy], capture_output=True, check=False, timeout=60)
    assert done.returncode != 0
    assert (copy / "sub" / "a.txt").read_bytes() == b"below"


@pytest.mark.parametrize(
    ("repo", "answer", "code", "words"),
    [
        (
            REPO,
            {"status": 451, "body": '{"error":"Not available\\u001b in your country"}'},
            Exit.REFUSED,
            "Not available in your country",
        ),
        (REPO, {"status": 403, "headers": {"X-Error-Message": "Storage limit reached"}}, Exit.REFUSED, "Storage limit reached"),
        (REPO, {"status": 400, "body": '{"error":"Use the organization\'s mirror"}'}, Exit.DATA, "Use the organization's mirror"),
        ("kernels/acme/activation", {"status": 500}, Exit.USAGE, "models, datasets and spaces"),
        ("buckets/acme/data", {"status": 500}, Exit.USAGE, "models, datasets and spaces"),
    ],
)
def test_a_refusal_says_why_in_one_line(
    hub: HubProcess, tmp_path: Path, repo: str, answer: dict[str, object], code: Exit, words: str
) -> None:
    hub.control("POST", "faults", {"action": "answer", "origin": "hub", "path": "/revision/", **answer})
    env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_anybody", "XDG_STATE_HOME": str(tmp_path)}
    path = tmp_path / "mount"
    path.mkdir()
    done = run_xetfs("mount", repo, str(path), "--cache-dir", str(tmp_path / "cache"), env=env)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not is_mounted(path)
