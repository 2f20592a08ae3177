"""A real mount, and what it tells of itself."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small_hub
from small_user import TOKEN, RunXetfs, status

from xetfs.cli.exits import Exit
from xetfs.control.client import ask
from xetfs.telemetry import NET_BYTES, NET_REQUESTS
from xetfs.units import MIB


@pytest.fixture
def mountpoint(home: Path) -> Path:
    path = home / "model"
    path.mkdir()
    return path


@pytest.fixture
def mounted(run_xetfs: RunXetfs, mountpoint: Path) -> Iterator[Path]:
    done = run_xetfs("mount", small_hub.REPO, mountpoint)
    assert done.returncode == 0, done.stderr
    yield mountpoint
    run_xetfs("umount", mountpoint)


def verified(path: Path) -> str:
    return os.getxattr(path, "user.xetfs.verified").decode()


def test_how_sure_each_file_is(run_xetfs: RunXetfs, mounted: Path) -> None:
    names = (small_hub.XET, small_hub.NESTED, small_hub.PLAIN, small_hub.LFS, small_hub.EMPTY)
    assert [verified(mounted / name) for name in names] == ["none", "none", "none", "none", "file"]
    for path in (mounted / small_hub.XET, mounted):
        assert "user.xetfs.commit" in os.listxattr(path)
        assert "user.xetfs.verified" not in os.listxattr(path)  # or copies would carry it
    requests = status(run_xetfs, mounted)["counters"][NET_REQUESTS]
    for name in names:
        with (mounted / name).open("rb") as file:
            assert file.read(1000) == small_hub.content_of()[name][:1000]
    # The LFS file is smaller than a window: it has become known whole, and is checked in the background.
    found = [verified(mounted / name) for name in names]
    assert found[:3] == ["proof", "proof", "file"]
    assert found[3] in ("framing", "file")
    after = status(run_xetfs, mounted)
    assert after["counters"][NET_REQUESTS] > requests
    assert after["files"]["proof"] == 2
    for _ in range(5):
        for name in names:
            verified(mounted / name)
    assert status(run_xetfs, mounted)["counters"][NET_REQUESTS] == after["counters"][NET_REQUESTS]


def test_what_a_mount_tells(run_xetfs: RunXetfs, mounted: Path, endpoint: str, home: Path) -> None:
    (mounted / small_hub.XET).read_bytes()
    document = status(run_xetfs, mounted)
    # Without a directory all mounts are told, those of others' tests among them.
    everything = json.loads(run_xetfs("status", "--json").stdout)["mounts"]
    assert document["pid"] in [other.get("pid") for other in everything]
    assert document["state"] == "serving"
    assert document["mountpoint"] == str(mounted)
    assert document["repo"] == small_hub.REPO
    assert len(document["commit"]) == 40
    assert Path(f"/proc/{document['pid']}/cmdline").exists()
    assert document["endpoint"] == endpoint
    assert (document["verify"], document["offline"]) == ("auto", False)
    assert document["files"] == {"proof": 1, "file": 0, "xorb": 0, "framing": 0, "none": 0}
    assert document["counters"][NET_BYTES] > 1_000_000
    assert 0 < document["memory"]["bytes_most"] <= document["memory"]["bytes_max"]
    assert document["memory"]["resident_bytes"] > 10_000_000
    assert document["store"]["state"] == "ok"
    assert document["store"]["bytes_max"] > 0
    assert 0 < document["uptime_s"] < 120
    assert document["cache_dir"] == str(home / ".cache/xetfs")


def test_it_tells_no_secret(run_xetfs: RunXetfs, mounted: Path) -> None:
    (mounted / small_hub.XET).read_bytes()
    for done in (run_xetfs("status"), run_xetfs("status", "--json")):
        shown = done.stdout + done.stderr
        assert TOKEN not in shown
        assert "ignature" not in shown
        assert "?" not in shown


def test_it_tells_people_in_words(run_xetfs: RunXetfs, mounted: Path) -> None:
    (mounted / small_hub.XET).read_bytes()
    done = run_xetfs("status", mounted)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first == f"{mounted}: serving"
    words = dict(line.split(maxsplit=1) for line in lines)
    assert words["repo"].startswith(f"{small_hub.REPO}@main (")
    assert words["verified"] == "1 proof (--verify auto)"
    assert " requests" in words["fetched"]
    assert words["cache"].startswith("1.")


def test_proof_is_chosen_and_shown(run_xetfs: RunXetfs, mountpoint: Path) -> None:
    assert run_xetfs("mount", small_hub.REPO, mountpoint, "--verify", "proof").returncode == 0
    assert status(run_xetfs, mountpoint)["verify"] == "proof"
    assert (mountpoint / small_hub.XET).read_bytes() == small_hub.content_of()[small_hub.XET]
    with pytest.raises(OSError, match="Input/output error"):
        (mountpoint / small_hub.LFS).read_bytes()
    assert run_xetfs("umount", mountpoint).returncode == 0


def test_nothing_mounted(run_xetfs: RunXetfs, mountpoint: Path) -> None:
    done = run_xetfs("status", "--json", mountpoint)
    assert done.returncode == Exit.MOUNTPOINT
    assert done.stderr.startswith(f"xetfs: no mount of yours is at {mountpoint}")


def test_a_killed_daemon_is_told_as_dead(run_xetfs: RunXetfs, mounted: Path, home: Path) -> None:
    pid = status(run_xetfs, mounted)["pid"]
    end = os.pidfd_open(pid)
    signal.pidfd_send_signal(end, signal.SIGKILL)
    assert select.select([end], [], [], 20)[0]
    os.close(end)
    done = run_xetfs("status", mounted, "--json")
    assert done.returncode == Exit.MOUNTPOINT
    [document] = json.loads(done.stdout)["mounts"]
    assert (document["state"], document["pid"], document["mountpoint"]) == ("dead", pid, str(mounted))
    assert "to do     xetfs umount" in run_xetfs("status", mounted).stdout
    assert len(list((home / ".local").rglob("*.sock"))) == 1
    assert run_xetfs("umount", mounted).returncode == 0
    assert run_xetfs("status", mounted).returncode == Exit.MOUNTPOINT
    # The next mount takes away what it left.
    assert run_xetfs("mount", small_hub.REPO, mounted).returncode == 0
    [left] = (home / ".local").rglob("*.sock")
    assert ask(left, "status")["pid"] == status(run_xetfs, mounted)["pid"]


def test_a_stopped_daemon_is_told_as_silent(
    run_xetfs: RunXetfs, mounted: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    from xetfs.cli import status as command
    from xetfs.control import client

    pid = status(run_xetfs, mounted)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        ask: Callable[..., dict[str, object]] = client.ask
        monkeypatch.setattr(client, "ask", lambda path, op: ask(path, op, timeout_s=0.2))
        [document] = command.describe_mounts({"HOME": str(home), "XDG_STATE_HOME": str(home / ".local/state")}, mounted)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (document["state"], document["pid"]) == ("silent", pid)
    assert "does not answer" in document["reason"]
    assert "reason    " in command.in_words(document)


def test_a_mount_without_a_record_is_told_as_unknown(run_xetfs: RunXetfs, mounted: Path, home: Path) -> None:
    done = run_xetfs("status", mounted, "--json", XDG_STATE_HOME=str(home / "elsewhere"))
    [document] = json.loads(done.stdout)["mounts"]
    assert document == {"state": "unknown", "mountpoint": str(mounted)}


def test_the_socket_lies_in_the_runtime_directory_where_there_is_one(run_xetfs: RunXetfs, mountpoint: Path, home: Path) -> None:
    run = home / "run"
    run.mkdir(mode=0o700)
    assert run_xetfs("mount", small_hub.REPO, mountpoint, XDG_RUNTIME_DIR=str(run)).returncode == 0
    [path] = (run / "xetfs").iterdir()
    assert ask(path, "status")["pid"] == status(run_xetfs, mountpoint)["pid"]
    assert run_xetfs("umount", mountpoint).returncode == 0
    assert list((home / ".local").rglob("*.sock")) == []


def test_a_mount_without_a_cache_leaves_nothing_on_the_disk(run_xetfs: RunXetfs, mountpoint: Path, home: Path) -> None:
    done = run_xetfs("mount", small_hub.REPO, mountpoint, "--no-cache")
    assert (done.returncode, done.stderr) == (0, "")
    for path, content in small_hub.content_of().items():
        assert (mountpoint / path).read_bytes() == content
    document = status(run_xetfs, mountpoint)
    assert document["cache_dir"] is None
    assert document["store"]["bytes"] <= document["store"]["bytes_max"] == 64 * MIB
    assert "in memory (--no-cache)" in run_xetfs("status", mountpoint).stdout
    assert not (home / ".cache").exists()
    assert run_xetfs("umount", mountpoint).returncode == 0


def test_a_cache_on_an_open_volume(run_xetfs: RunXetfs, mountpoint: Path, home: Path) -> None:
    """As a pod has it: an emptyDir has mode 0777, with an fsGroup 2777."""
    volume = home / "volume"
    volume.mkdir()
    volume.chmod(0o2777)
    for cache, kept in ((volume / "c", "c/cache.db"), (volume, f"xetfs-{os.geteuid()}/cache.db")):
        done = run_xetfs("mount", small_hub.REPO, mountpoint, "--cache-dir", cache)
        assert (done.returncode, done.stderr) == (0, "")
        assert (mountpoint / small_hub.XET).read_bytes()
        assert (volume / kept).exists()
        assert run_xetfs("umount", mountpoint).returncode == 0
