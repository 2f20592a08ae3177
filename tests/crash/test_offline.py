"""Without a network: what was read before is there, what was not fails at once, and nobody is asked."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from load import check_whole
from mount_user import run_xetfs
from stage import GUEST, OWNER, PRIVATE, REPO, Stage, Staged, mounted, staged

from xetfs.cli.exits import Exit

UNREAD = ("shards/000.bin", "shards/001.bin", "lfs/old.bin", "plain.txt")


def was_read(path: str) -> bool:
    return path not in UNREAD


def read_everything(stage: Stage, contents: dict[str, bytes]) -> None:
    check_whole(stage.path, contents, was_read)
    for folder, _, names in os.walk(stage.path):
        for name in names:
            os.listxattr(Path(folder) / name)


def forget_pages(root: Path) -> None:
    """The kernel forgets all content, so that every read reaches the daemon."""
    for folder, _, names in os.walk(root):
        for name in names:
            fd = os.open(Path(folder) / name, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def check_offline(stage: Stage, contents: dict[str, bytes]) -> None:
    """All that was read is right, what was not cannot be reached."""
    read_everything(stage, contents)
    for path in UNREAD:
        assert os.stat(stage.path / path).st_size == len(contents[path])
        with pytest.raises(OSError) as caught:
            (stage.path / path).read_bytes()
        assert caught.value.errno == errno.ENETUNREACH
    with pytest.raises(FileNotFoundError):
        os.stat(stage.path / "weights/absent")


def test_what_was_read_is_served_without_a_request(stage_of: Staged) -> None:
    contents = dict(stage_of.contents)
    with mounted(stage_of, "offline") as stage:
        read_everything(stage, contents)
        stage_of.hub.reset()
        forget_pages(stage.path)
        read_everything(stage, contents)
        assert stage_of.hub.requests() == []
    stage.start("--offline")
    try:
        check_offline(stage, contents)
        assert stage_of.hub.requests() == []
        stage.stop()
        stage.judge(["errno=ENETUNREACH"])
    finally:
        stage.clean_up()


def test_the_variable_of_the_hub_means_offline_too(stage_of: Staged) -> None:
    with mounted(stage_of, "variable") as stage:
        check_whole(stage.path, stage_of.contents, lambda path: path.startswith("deep/"))
    stage_of.hub.reset()
    stage.env["HF_HUB_OFFLINE"] = "1"
    try:
        stage.start()
        check_whole(stage.path, stage_of.contents, lambda path: path.startswith("deep/"))
        with pytest.raises(OSError) as caught:
            os.listdir(stage.path / "shards")
        assert caught.value.errno == errno.ENETUNREACH
        stage.stop()
        stage.judge(["errno=ENETUNREACH"])
    finally:
        stage.clean_up()
    assert stage_of.hub.requests() == []


@pytest.fixture
def doomed(crash_base: Path, request: pytest.FixtureRequest) -> Iterator[Staged]:
    """A hub that a test may stop."""
    with staged(crash_base / request.node.name) as running:
        yield running


def test_a_network_that_is_lost_leaves_what_was_read(doomed: Staged) -> None:
    contents = dict(doomed.contents)
    stage = Stage(doomed, "lost")
    try:
        stage.start()
        read_everything(stage, contents)
        doomed.hub.stop()
        forget_pages(stage.path)
        read_everything(stage, contents)
        with pytest.raises(OSError) as caught:
            (stage.path / UNREAD[0]).read_bytes()
        assert caught.value.errno == errno.ENETUNREACH
        read_everything(stage, contents)
        stage.stop()
        stage.judge(["operation=read"])
        stage.start()  # without --offline: the Hub is tried, and the last known commit taken
        read_everything(stage, contents)
        stage.stop()
        stage.judge(["the Hub cannot be reached"])
        stage.start("--offline")
        check_offline(stage, contents)
        stage.stop()
        stage.judge(["errno=ENETUNREACH"])
    finally:
        stage.clean_up()


def test_offline_mounts_only_what_is_known(stage_of: Staged) -> None:
    with mounted(stage_of, "known") as stage:
        pass
    stage_of.hub.reset()
    for ref in ("stage/unknown", f"{REPO}@v1", f"datasets/{REPO}"):
        refused = run_xetfs("mount", ref, str(stage.path), "--offline", *stage.options, env=stage.env)
        assert refused.returncode == Exit.UNREACHABLE, ref
        assert refused.stderr.count("\n") == 1
        assert os.listdir(stage.path) == []
    assert stage_of.hub.requests() == []


@pytest.mark.parametrize("arguments", [("--offline",), ()], ids=["offline", "hub down"])
def test_a_private_repo_in_the_cache_is_for_its_token_alone(doomed: Staged, arguments: tuple[str, ...]) -> None:
    contents = {"first.bin": doomed.contents["weights/first.bin"], "README.md": b"# Private\n"}
    with mounted(doomed, "private", ref=PRIVATE, token=OWNER) as stage:
        check_whole(stage.path, contents)
    doomed.hub.stop()
    for token in ("", GUEST, OWNER[:-1]):
        env = {**stage.env, "HF_TOKEN": token}
        refused = run_xetfs("mount", PRIVATE, str(stage.path), *arguments, *stage.options, env=env)
        assert refused.returncode == Exit.UNREACHABLE
        assert os.listdir(stage.path) == []
    stage.start(*arguments)
    try:
        check_whole(stage.path, contents)
        stage.stop()
        stage.judge([] if arguments else ["the Hub cannot be reached"])
    finally:
        stage.clean_up()
