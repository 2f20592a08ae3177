"""How mounts end, and how they do not begin: crashes, refusals, hostile repos."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

import mount_data
import pytest
from mount_hub import Everything, HubProcess
from mount_user import XETFS, MountRepo, is_mounted, run_xetfs

from xetfs.cli.exits import Exit
from xetfs.testhub import HubOptions, TestHub

# --- the daemon dies


@pytest.mark.production
def test_after_a_kill_readers_get_an_error_and_the_next_mount_takes_over(
    everything: Everything, hub: HubProcess, mount_repo: MountRepo
) -> None:
    mounted = mount_repo(hub.endpoint, foreground=True)
    fd = os.open(mounted.path / "weights/noise.bin", os.O_RDONLY)
    assert os.pread(fd, 10, 0)
    mounted.kill()
    for touch in (lambda: os.listdir(mounted.path), lambda: os.statvfs(mounted.path), lambda: os.pread(fd, 10, 20_000_000)):
        with pytest.raises(OSError) as caught:
            touch()
        assert caught.value.errno == errno.ENOTCONN
    with suppress(OSError):  # it says so once more
        os.close(fd)
    mounted.mount(mount_data.REPO, [])
    subprocess.run(["diff", "-r", everything.folder / "weights", mounted.path / "weights"], check=True, timeout=60)
    mounted.umount()
    assert not is_mounted(mounted.path)


def test_umount_takes_down_a_dead_mount(hub: HubProcess, mount_repo: MountRepo) -> None:
    mounted = mount_repo(hub.endpoint, foreground=True)
    mounted.kill()
    mounted.umount()
    assert os.listdir(mounted.path) == []


@pytest.mark.production
def test_a_cache_survives_a_kill(everything: Everything, hub: HubProcess, mount_repo: MountRepo) -> None:
    mounted = mount_repo(hub.endpoint, foreground=True)
    reading = subprocess.Popen(["cat", mounted.path / "weights/noise.bin"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reading.stdout is not None
    assert reading.stdout.read(8 * 1024 * 1024)
    mounted.kill()
    reading.communicate()
    again = mount_repo(hub.endpoint)
    subprocess.run(["diff", "-r", everything.folder, again.path], check=True, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(hub: HubProcess, mount_repo: MountRepo, number: int) -> None:
    mounted = mount_repo(hub.endpoint, foreground=True)
    assert os.listdir(mounted.path)
    assert mounted.end(number) == Exit.OK
    assert not is_mounted(mounted.path)
    assert os.listdir(mounted.path) == []


# --- taking it down


def test_umount_says_who_uses_it(hub: HubProcess, mount_repo: MountRepo) -> None:
    mounted = mount_repo(hub.endpoint)
    user = subprocess.Popen(["sh", "-c", "exec 3<config.json; echo; read line"], cwd=mounted.path, stdin=PIPE, stdout=PIPE)
    assert user.stdout is not None
    assert user.stdout.readline()
    refused = mounted.run("umount", str(mounted.path))
    user.communicate(b"end\n")
    assert refused.returncode == Exit.MOUNTPOINT
    assert f"sh ({user.pid})" in refused.stderr
    mounted.umount()


def test_umount_from_inside_the_mount(hub: HubProcess, mount_repo: MountRepo) -> None:
    mounted = mount_repo(hub.endpoint)
    subprocess.run([*XETFS, "umount", "."], cwd=mounted.path, check=True)
    assert not is_mounted(mounted.path)


def test_umount_of_what_is_not_mounted(tmp_path: Path) -> None:
    done = run_xetfs("umount", str(tmp_path), env={})
    assert done.returncode == Exit.MOUNTPOINT
    assert done.stderr.count("\n") == 1


# --- what cannot be mounted


OWNER, GUEST = "hf_ownerownerowner", "hf_guestguestguest"


@pytest.fixture(scope="module")
def guarded(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub that knows its users; `owner` has a private, a gated and a disabled repo."""
    directory = base / "guarded hub"
    seeded = TestHub(directory, HubOptions(), seed=0)
    seeded.accounts.add_token(OWNER, "owner")
    seeded.accounts.add_token(GUEST, "guest", "read")
    for name in ("public", "private", "gated", "disabled"):
        repo = seeded.storage.create_repo("model", f"owner/{name}", private=name == "private", author="owner")
        seeded.storage.commit_files(repo, {"config.json": b"{}"})
        seeded.storage.update_repo(repo, gated="manual" if name == "gated" else None, disabled=name == "disabled" or None)
    seeded.storage.close()
    hub = HubProcess(directory)
    folder = tmp_path_factory.mktemp("upload")
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 1000)
    try:
        for name in ("public", "private", "gated"):
            hub.upload(f"owner/{name}", folder, token=OWNER)
        yield hub
    finally:
        hub.stop()
        shutil.rmtree(directory)


REFUSALS = {
    "no such repo": ("owner/absent", OWNER, Exit.NOT_FOUND),
    "no such repo, anonymous": ("owner/absent", "", Exit.NOT_FOUND),
    "no such revision": ("owner/public@absent", OWNER, Exit.NOT_FOUND),
    "no such folder": ("owner/public/absent", OWNER, Exit.NOT_FOUND),
    "a file as folder": ("owner/public/config.json", OWNER, Exit.NOT_FOUND),
    "a kind in the singular": ("dataset/owner/public", OWNER, Exit.NOT_FOUND),
    "private, anonymous": ("owner/private", "", Exit.NOT_FOUND),
    "private, somebody else": ("owner/private", GUEST, Exit.NOT_FOUND),
    "gated, anonymous": ("owner/gated", "", Exit.REFUSED),
    "gated, not let in": ("owner/gated", GUEST, Exit.REFUSED),
    "disabled": ("owner/disabled", OWNER, Exit.REFUSED),
    "wrong token": ("owner/public", "hf_unknownunknown", Exit.REFUSED),
    "not a name": ("owner/public/../../etc", OWNER, Exit.USAGE),
    "not a revision": ("owner/public@", OWNER, Exit.USAGE),
}


@pytest.mark.production
@pytest.mark.parametrize(("ref", "token", "code"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_comes_at_once_in_one_line_and_leaves_nothing(
    guarded: HubProcess, tmp_path: Path, ref: str, token: str, code: Exit
) -> None:
    path = tmp_path / "mount"
    path.mkdir()
    env = {"HF_ENDPOINT": guarded.endpoint, "HF_TOKEN": token, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = run_xetfs("mount", ref, str(path), "--cache-dir", str(tmp_path / "cache"), env=env)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("xetfs: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert not token or token not in done.stderr
    assert not is_mounted(path)
    assert os.listdir(path) == []


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("owner/public/weights.bin", "name a folder, not a file, or mount all of owner/public"),
        ("dataset/owner/public", "did you mean datasets/owner/public?"),
    ],
)
def test_what_was_probably_meant_is_named(guarded: HubProcess, tmp_path: Path, ref: str, hint: str) -> None:
    (tmp_path / "mount").mkdir()
    env = {"HF_ENDPOINT": guarded.endpoint, "HF_TOKEN": OWNER, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = run_xetfs("mount", ref, str(tmp_path / "mount"), "--cache-dir", str(tmp_path / "cache"), env=env)
    assert done.returncode == Exit.NOT_FOUND
    assert done.stderr.endswith(f"; {hint}\n")


def test_an_unreachable_hub(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "XDG_STATE_HOME": str(tmp_path)}
    done = run_xetfs("mount", "a/b", str(tmp_path / "mount"), "--cache-dir", str(tmp_path / "cache"), env=env)
    assert done.returncode == Exit.UNREACHABLE
    assert done.stderr.count("\n") == 1
    assert not is_mounted(tmp_path / "mount")


@pytest.mark.parametrize("kind", ["missing", "a file", "not empty"])
def test_an_unusable_mountpoint(guarded: HubProcess, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mount"
    if kind == "a file":
        path.touch()
    if kind == "not empty":
        path.mkdir()
        (path / "something").touch()
    env = {"HF_ENDPOINT": guarded.endpoint, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = run_xetfs("mount", "owner/public", str(path), "--cache-dir", str(tmp_path / "cache"), env=env)
    assert done.returncode == Exit.MOUNTPOINT
    assert done.stderr.count("\n") == 1


def test_a_second_mount_on_a_living_one_is_refused(hub: HubProcess, mount_repo: MountRepo, tmp_path: Path) -> None:
    mounted = mount_repo(hub.endpoint)
    done = mounted.run("mount", mount_data.REPO, str(mounted.path), "--cache-dir", str(tmp_path / "cache"))
    assert done.returncode == Exit.MOUNTPOINT
    assert "already a mount" in done.stderr
    assert os.listdir(mounted.path)


def test_who_may_read_reads(guarded: HubProcess, mount_repo: MountRepo) -> None:
    for ref, token in (("owner/public", ""), ("owner/public", GUEST), ("owner/private", OWNER), ("owner/gated", OWNER)):
        mounted = mount_repo(guarded.endpoint, ref, token=token, cache=f"cache of {token or 'nobody'}")
        assert (mounted.path / "weights.bin").read_bytes() == bytes(range(256)) * 1000
        mounted.umount()


@pytest.mark.production
def test_a_private_repo_in_the_cache_is_not_shown_to_others(guarded: HubProcess, mount_repo: MountRepo) -> None:
    mounted = mount_repo(guarded.endpoint, "owner/private", token=OWNER)
    assert (mounted.path / "weights.bin").read_bytes()
    mounted.umount()
    for arguments in ([], ["--offline"]):
        command = ["mount", "owner/private", str(mounted.path), "--cache-dir", str(mounted.cache_dir), *arguments]
        done = mounted.run(*command, env={"HF_TOKEN": GUEST})
        assert done.returncode in (Exit.NOT_FOUND, Exit.UNREACHABLE)
        assert not is_mounted(mounted.path)


# --- names that are not to be served


HOSTILE = {
    "../escape": b"1",
    "other/..": b"2",
    ".": b"3",
    "sub/../../../etc/passwd": b"4",
    "nul\0byte": b"5",
    "n" * 256: b"6",
    "ä" * 128: b"7",
    "good": b"good",
    "new\nline": b"line",
    "-rf": b"dash",
    "tab\tand \x1b[31mcolour": b"colour",
    "sub/good": b"also good",
}


def test_hostile_names_do_not_escape_and_hurt_no_others(base: Path, mount_repo: MountRepo) -> None:
    directory = base / "hostile hub"
    seeded = TestHub(directory, HubOptions(), seed=0)
    repo = seeded.storage.create_repo("model", "local/hostile")
    seeded.storage.commit_files(repo, HOSTILE)
    seeded.storage.close()
    hub = HubProcess(directory)
    try:
        mounted = mount_repo(hub.endpoint, "local/hostile")
        mounted.expected.append("cannot be served")
        names = os.listdir(mounted.path)
        assert (mounted.path / "good").read_bytes() == b"good"
        assert (mounted.path / "sub" / "good").read_bytes() == b"also good"
        for name in names:
            assert "/" not in name
            assert name not in (".", "..")
            assert len(os.fsencode(name)) <= 255
            found = (mounted.path / name).lstat()
            assert stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
        for root, _, files in os.walk(mounted.path):
            for file in files:
                assert Path(root, file).resolve().is_relative_to(mounted.path)
        assert {"good", "-rf", "sub"} <= set(names)
        mounted.umount()
    finally:
        hub.stop()
        shutil.rmtree(directory)
