"""Where things lie and are mounted: nothing is made before all is checked, and nothing is in anybody's way."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import HERE, Command, wait_readable

from xetfs.cli.exits import Exit
from xetfs.fs import mountpoint as outside

MOUNT_FLAGS: dict[str, tuple[bytes, int]] = {"tmpfs": (b"tmpfs", 0), "bind": (b"", 0x1000)}
USER = 65534


def mount(source: Path | str, target: Path, kind: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fs_type, flags = MOUNT_FLAGS[kind]
    failed = libc.mount(os.fsencode(source), os.fsencode(target), fs_type, ctypes.c_ulong(flags), None)
    assert not failed, os.strerror(ctypes.get_errno())


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """A second directory to mount on; nothing stays mounted there."""
    path = tmp_path / "other"
    path.mkdir()
    yield path
    while outside.mount_at(path):
        outside.unmount(path, lazily=True)


# Nothing is made before all is checked


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["--cache-dir", "{M}/c"], {}),
        (["--cache-dir", "{M}"], {}),
        (["--log-file", "{M}/log"], {}),
        ([], {"HOME": "{M}"}),
        ([], {"XDG_STATE_HOME": "{M}/state"}),
        (["--foreground"], {"XDG_STATE_HOME": "{M}/state"}),
    ],
)
def test_what_would_lie_inside_the_mount_is_refused_and_not_made(
    command: Command, mountpoint: Path, options: list[str], env: dict[str, str]
) -> None:
    code, output, complaints = command.run(
        "mount",
        "owner/repo",
        mountpoint,
        *(option.replace("{M}", str(mountpoint)) for option in options),
        engine="works",
        **{name: value.replace("{M}", str(mountpoint)) for name, value in env.items()},
    )
    assert (code, output) == (Exit.USAGE, "")
    assert complaints.count("\n") == 1
    assert "would lie inside the mount; " in complaints
    assert os.listdir(mountpoint) == []
    assert not (command.home / ".local").exists()


def test_a_refused_directory_leaves_no_trace(command: Command) -> None:
    (command.home / "full").mkdir()
    (command.home / "full/file").touch()
    before = set(command.home.rglob("*"))
    for name in ("full", "full/file", "absent"):
        assert command.run("mount", "owner/repo", name, engine="works")[0] == Exit.MOUNTPOINT
        assert command.run("mount", "owner/repo", name, "--log-file", "new/log", engine="works")[0] == Exit.MOUNTPOINT
    assert set(command.home.rglob("*")) == before


@pytest.mark.root
def test_root_leaves_the_home_of_a_user_alone(command: Command, mountpoint: Path) -> None:
    """As under sudo -E."""
    home, run = command.home / "home", command.home / "run"
    for path in (home, run):
        path.mkdir()
        os.chown(path, USER, USER)
    env = {"HOME": str(home), "XDG_RUNTIME_DIR": str(run)}
    assert command.run("mount", "owner/repo", mountpoint, engine="works", **env)[0] == 0
    assert f'"mountpoint": "{mountpoint}"' in command.run("status", "--json", mountpoint, **env)[1]
    assert command.run("umount", mountpoint, **env) == (0, "", "")
    assert list(home.rglob("*")) == []
    assert list(run.rglob("*")) == []


@pytest.mark.root
def test_what_root_makes_in_a_home_because_it_was_told_to_belongs_to_its_user(command: Command, mountpoint: Path) -> None:
    home = command.home / "home"
    home.mkdir()
    os.chown(home, USER, USER)
    log = home / "new/deep/log"
    assert command.run("mount", "owner/repo", mountpoint, "--log-file", log, engine="works")[0] == 0
    assert command.run("umount", mountpoint)[0] == 0
    assert [(home / made).stat().st_uid for made in ("new", "new/deep")] == [USER, USER]


# Directories that are mounts themselves


@pytest.mark.root
def test_an_empty_mount_of_something_else_will_do(command: Command, mountpoint: Path) -> None:
    mount("none", mountpoint, "tmpfs")
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    assert (mountpoint / "config.json").read_bytes() == b"{}"
    assert command.run("umount", mountpoint) == (0, "", "")
    below = outside.mount_at(mountpoint)
    assert below is not None
    assert below.fs_type == "tmpfs"
    (mountpoint / "file").touch()
    code, _, complaints = command.run("mount", "owner/repo", mountpoint, engine="works")
    assert code == Exit.MOUNTPOINT
    assert "is not empty" in complaints


# Two at the same time


SLOW = """
import sys
sys.path[:0] = {paths!r}
import pyfuse3
real = pyfuse3.init

def init(*arguments):
    print("mounting", file=sys.stderr, flush=True)
    sys.stdin.readline()
    real(*arguments)

pyfuse3.init = init
import fake_engine
from xetfs.cli.main import main
fake_engine.install("works")
sys.exit(main(["mount", "owner/first", sys.argv[1], "--foreground"]))
"""


def test_of_two_mounts_at_the_same_time_one_wins(command: Command, mountpoint: Path) -> None:
    program = SLOW.format(paths=[str(HERE), str(HERE.parent / "fs")])
    first = subprocess.Popen(
        [sys.executable, "-c", program, str(mountpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=command.env,
        bufsize=0,
    )
    assert first.stderr is not None
    assert first.stdout is not None
    assert first.stdin is not None
    assert first.stderr.readline() == b"mounting\n"
    code, output, complaints = command.run("mount", "owner/second", mountpoint, engine="works")
    assert (code, output) == (Exit.MOUNTPOINT, "")
    assert complaints == f"xetfs: another process is mounting on {mountpoint}; 'xetfs status' shows what it mounted\n"
    first.stdin.write(b"\n")
    assert first.stdout.readline().startswith(b"mounted owner/first")
    assert len([found for found in outside.mounts() if found.path == str(mountpoint)]) == 1
    code, _, complaints = command.run("mount", "owner/second", mountpoint, engine="works")
    assert code == Exit.MOUNTPOINT
    assert "already a mount" in complaints
    first.terminate()
    first.communicate(timeout=60)
    assert first.returncode == 0


# Taking down what is held


@pytest.mark.root
def test_umount_names_the_bind_mounts(command: Command, mountpoint: Path, other: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    mount(mountpoint / "deep", other, "bind")
    code, _, complaints = command.run("umount", mountpoint)
    assert code == Exit.MOUNTPOINT
    assert complaints == (
        f"xetfs: {mountpoint} is also mounted at {other}; unmount that first; --lazy unmounts this one, and the rest goes on\n"
    )
    assert (mountpoint / "config.json").read_bytes() == b"{}"
    assert str(other) not in command.run("status")[1]
    assert command.run("umount", other) == (0, "", "")
    assert command.run("umount", mountpoint) == (0, "", "")
    assert command.daemons() == []


@pytest.mark.root
def test_a_mount_that_was_propagated_goes_as_it_came(command: Command, mountpoint: Path, other: Path) -> None:
    """A bind mount of the folder above, made before, shows it too where mounts are shared, as systemd has them."""
    above = mountpoint.parent / "above"
    (above / "model").mkdir(parents=True)
    try:
        subprocess.run(["mount", "--bind", above, above], check=True)
        subprocess.run(["mount", "--make-shared", above], check=True)
        subprocess.run(["mount", "--bind", above, other], check=True)
        assert command.run("mount", "owner/repo", above / "model", engine="works")[0] == 0
        assert (other / "model/config.json").read_bytes() == b"{}"
        assert command.run("umount", above / "model") == (0, "", "")
        assert outside.mount_at(other / "model") is None
        assert command.daemons() == []
    finally:
        outside.unmount(above)


@pytest.mark.root
def test_a_lazy_umount_says_what_goes_on_and_so_does_status(command: Command, mountpoint: Path, other: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    [pid] = command.daemons()
    mount(mountpoint, other, "bind")
    code, output, complaints = command.run("umount", "--lazy", mountpoint)
    assert (code, output) == (0, "")
    assert complaints.startswith(f"xetfs: unmounted, but process {pid} goes on: its mount is still there for {other}\n")
    assert outside.mount_at(mountpoint) is None
    assert (other / "config.json").read_bytes() == b"{}"
    code, output, _ = command.run("status", mountpoint)
    assert code == Exit.MOUNTPOINT
    assert f"{mountpoint}: detached" in output
    document = json.loads(command.run("status", mountpoint, "--json")[1])["mounts"][0]
    assert document["state"] == "detached"
    # A program that made a mount namespace of its own meanwhile, as other tests do, holds a copy, and is named with its process.
    assert [holder for holder in document["held_by"] if "(" not in holder] == [str(other)]
    ended = os.pidfd_open(pid)
    outside.unmount(other)
    wait_readable(ended)


def test_umount_from_within_the_mount(command: Command, mountpoint: Path) -> None:
    """The shell that it was typed into holds the mount. The command itself does not."""
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    line = f"cd {mountpoint}/deep && exec {sys.executable} -m xetfs umount {mountpoint}"
    done = subprocess.run(["sh", "-c", line], env=command.env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_lazy_umount_of_a_mount_in_use(command: Command, mountpoint: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    with open(mountpoint / "deep/data.bin", "rb") as file:
        code, _, complaints = command.run("umount", mountpoint)
        assert code == Exit.MOUNTPOINT
        assert "--lazy unmounts it" in complaints
        code, _, complaints = command.run("umount", "-l", mountpoint)
        assert code == 0
        assert "goes on: programs use what they have open, or it is still ending\n" in complaints
        assert file.read() == b"x" * 100_000
        assert "detached" in command.run("status")[1]
    while command.daemons():
        pass
    assert str(mountpoint) not in command.run("status")[1]


@pytest.mark.root
def test_umount_names_a_container_that_has_a_copy(command: Command, mountpoint: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    hold = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; read line"]
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as container:
        assert container.stdout is not None
        assert container.stdout.readline()
        code, _, complaints = command.run("umount", mountpoint)
        assert code == 0
        assert f"its mount is still there for {mountpoint} (sh, process {container.pid})" in complaints
        container.communicate(b"\n")
    while command.daemons():
        pass


# Cache directories


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--no-cache", "--cache-dir", "c"], "--no-cache leaves no cache to choose"),
        (["--no-cache", "--offline"], "offline, with --no-cache there is nothing to serve"),
        (["--no-cache", "--prefetch", "*"], "--prefetch fills the cache, and --no-cache has none"),
    ],
)
def test_choices_that_exclude_each_other(command: Command, mountpoint: Path, options: list[str], complaint: str) -> None:
    code, _, complaints = command.run("mount", "owner/repo", mountpoint, *options, engine="works")
    assert code == Exit.USAGE
    assert complaint in complaints


@pytest.mark.root
def test_a_device_is_a_log(command: Command, mountpoint: Path) -> None:
    null = command.home / "null"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(null, 0o666)
    assert command.run("mount", "owner/repo", mountpoint, "--log-file", null, engine="works")[0] == 0
    assert stat.S_IMODE(null.stat().st_mode) == 0o666
    assert command.run("umount", mountpoint)[0] == 0


def test_a_fifo_is_no_log(command: Command, mountpoint: Path) -> None:
    os.mkfifo(command.home / "fifo")
    code, _, complaints = command.run("mount", "owner/repo", mountpoint, "--log-file", "fifo", engine="works")
    assert code == Exit.USAGE
    assert "is neither a file nor a character device" in complaints
    assert complaints.count("\n") == 1
