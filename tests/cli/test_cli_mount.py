"""`xetfs mount` and `umount` as a user meets them: exit codes, one line, nothing left behind."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command import TOKEN, Command

from xetfs import errors
from xetfs.cli.exits import EXIT, Exit
from xetfs.fs import mountpoint as outside

CONTENT = {"config.json": b"{}", "deep/data.bin": b"x" * 100_000}


def tree(path: Path) -> dict[str, bytes]:
    return {str(found.relative_to(path)): found.read_bytes() for found in path.rglob("*") if found.is_file()}


def one_line(complaints: str) -> str:
    assert complaints.startswith("xetfs")
    assert complaints.count("\n") == 1
    return complaints


def test_mount_read_umount(command: Command, mountpoint: Path) -> None:
    code, output, complaints = command.run("mount", "owner/repo@v1", mountpoint, engine="works")
    assert (code, complaints) == (0, "")
    assert output.startswith(f"mounted owner/repo@v1 (0123456789ab) at {mountpoint}; log: ")
    assert tree(mountpoint) == CONTENT
    assert len(command.daemons()) == 1
    code, output, complaints = command.run("umount", mountpoint)
    assert (code, output, complaints) == (0, "", "")
    assert outside.mount_at(mountpoint) is None
    assert command.daemons() == []
    assert list(command.home.rglob("*.json")) == []


def test_the_daemon_holds_nothing_of_the_shell(command: Command, mountpoint: Path) -> None:
    reader, writer = os.pipe()
    process = command.start("mount", "owner/repo", mountpoint, engine="works", hand_down=writer)
    os.close(writer)
    # That these end shows that the daemon keeps neither our pipe nor its output.
    assert process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert select.select([reader], [], [], 20)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)
    [pid] = command.daemons()
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/limits").read_text().split("Max core file size")[1].split()[:2] == ["0", "0"]
    assert command.run("umount", mountpoint)[0] == 0


def test_the_log_is_private_and_bounded_to_what_happened(command: Command, mountpoint: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works", HF_TOKEN=TOKEN)[0] == 0
    assert command.run("umount", mountpoint)[0] == 0
    [log] = command.home.rglob("*.log")
    assert log.parent == command.home / ".local/state/xetfs"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    lines = [line for line in log.read_text().splitlines() if " xetfs.fs.tuning: " not in line]  # what only root may raise
    assert ["INFO xetfs.fs.mount: mounted" in lines[0], "unmounted" in lines[-1]] == [True, True]
    assert not [line for line in lines if " WARNING " in line or " ERROR " in line]


def test_a_log_file_of_ones_own(command: Command, mountpoint: Path) -> None:
    assert "log: " in command.run("mount", "owner/repo", mountpoint, "--log-file", "here.log", engine="works")[1]
    assert command.run("umount", mountpoint)[0] == 0
    assert "mounted path=" in (command.home / "here.log").read_text()


NOT_OPENED = [
    errors.RepoNotFound,
    errors.RevisionNotFound,
    errors.EntryNotFound,
    errors.AuthRequired,
    errors.AccessDenied,
    errors.Unavailable,
    errors.RateLimited,
    errors.Offline,
    errors.CorruptData,
    errors.ProtocolViolation,
    errors.StoreFailed,
]


@pytest.mark.parametrize("kind", NOT_OPENED, ids=lambda kind: kind.__name__)
def test_what_cannot_be_opened_is_one_line_and_a_code(command: Command, mountpoint: Path, kind: type[errors.XetfsError]) -> None:
    code, output, complaints = command.run("mount", "owner/repo", mountpoint, engine=kind.__name__)
    assert code == EXIT[kind]
    assert output == ""
    assert one_line(complaints) == "xetfs: what happened\n"
    assert outside.mount_at(mountpoint) is None
    assert command.daemons() == []


@pytest.mark.parametrize(
    ("ref", "engine", "hint"),
    [
        ("model/acme/demo", "RepoNotFound", "; did you mean acme/demo?"),
        ("dataset/acme/demo", "RepoNotFound", "; did you mean datasets/acme/demo?"),
        ("space/acme/demo", "RepoNotFound", "; did you mean spaces/acme/demo?"),
        ("acme/demo/sub", "RepoNotFound", ""),
        ("acme/demo/sub@absent", "RevisionNotFound", ""),
        ("acme/demo/sub", "EntryNotFound", "; name a folder, not a file, or mount all of acme/demo"),
    ],
)
def test_what_was_probably_meant(command: Command, mountpoint: Path, ref: str, engine: str, hint: str) -> None:
    code, _, complaints = command.run("mount", ref, mountpoint, engine=engine)
    assert code == Exit.NOT_FOUND
    assert complaints == f"xetfs: what happened{hint}\n"


@pytest.mark.parametrize("extra", [[], ["--foreground"]], ids=["background", "foreground"])
def test_a_bug_is_told_as_one(command: Command, mountpoint: Path, extra: list[str]) -> None:
    code, _, complaints = command.run("mount", "owner/repo", mountpoint, *extra, engine="ValueError")
    assert code == Exit.BUG
    assert complaints.endswith("xetfs: a bug in xetfs: ValueError: what happened\n")
    assert "Traceback" in (complaints if extra else command.logs)


@pytest.mark.parametrize("extra", [[], ["--foreground"]], ids=["background", "foreground"])
def test_a_machine_that_is_too_small_is_no_bug(command: Command, mountpoint: Path, extra: list[str]) -> None:
    code, _, complaints = command.run("mount", "owner/repo", mountpoint, *extra, engine="MemoryError")
    assert code == Exit.MACHINE
    assert complaints == "xetfs: not enough memory; raise the limit of this process or container, or end others\n"
    assert "Traceback" not in command.logs


def test_a_daemon_that_dies_is_noticed(command: Command, mountpoint: Path) -> None:
    code, _, complaints = command.run("mount", "owner/repo", mountpoint, engine="dies")
    assert code == Exit.BUG
    assert "the mount's process ended with status 3; see " in one_line(complaints)


@pytest.mark.parametrize("extra", [[], ["--foreground"]], ids=["background", "foreground"])
def test_secrets_appear_nowhere(command: Command, mountpoint: Path, extra: list[str]) -> None:
    code, output, complaints = command.run("mount", "owner/repo", mountpoint, "-v", *extra, engine="leaks", HF_TOKEN=TOKEN)
    assert code == Exit.BUG
    everything = output + complaints + command.logs
    assert "hf_…" in everything
    assert "canary" not in everything


def test_the_command_line_of_the_daemon_shows_no_token(command: Command, mountpoint: Path) -> None:
    (command.home / "file").write_text(TOKEN)
    assert command.run("mount", "owner/repo", mountpoint, "--token-file", "file", engine="works")[0] == 0
    [pid] = command.daemons()
    assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert command.run("umount", mountpoint)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_ends_on_signals(command: Command, mountpoint: Path, number: int) -> None:
    process = command.start("mount", "owner/repo", mountpoint, "--foreground", engine="works")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"mounted owner/repo@main")
    assert tree(mountpoint) == CONTENT
    process.send_signal(number)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"unmounting signal=" in complaints
    assert outside.mount_at(mountpoint) is None


def test_interrupting_the_wait_ends_the_daemon_too(command: Command, mountpoint: Path) -> None:
    process = command.start("mount", "owner/repo", mountpoint, engine="hangs")
    while len(command.daemons()) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED
    command.wait_until_daemons_end()
    assert outside.mount_at(mountpoint) is None


def test_an_interruption_in_the_moment_of_the_fork_is_not_lost(command: Command, mountpoint: Path) -> None:
    """Where Python only prints what a hook raises."""
    code, _, complaints = command.run("mount", "owner/repo", mountpoint, engine="interrupted")
    assert (code, complaints) == (Exit.INTERRUPTED, "")
    assert command.daemons() == []


# The directory


def test_a_directory_that_is_not_there(command: Command) -> None:
    code, _, complaints = command.run("mount", "owner/repo", "no", engine="works")
    assert code == Exit.MOUNTPOINT
    assert "/no does not exist; create it first: mkdir -p" in one_line(complaints)


def test_the_directory_is_judged_before_the_hub_is_asked(command: Command) -> None:
    assert command.run("mount", "owner/repo", "no", engine="RepoNotFound")[0] == Exit.MOUNTPOINT


def test_a_mount_upon_a_mount(command: Command, mountpoint: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    code, _, complaints = command.run("mount", "owner/other", mountpoint, engine="works")
    assert code == Exit.MOUNTPOINT
    assert (
        f"is already a mount (xetfs:owner/repo@0123456789ab, fuse.xetfs); unmount it first: xetfs umount {mountpoint}"
        in complaints
    )
    assert tree(mountpoint) == CONTENT
    assert command.run("umount", mountpoint)[0] == 0


def test_a_dead_mount_is_replaced(command: Command, mountpoint: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    command.kill_daemons()
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    assert tree(mountpoint) == CONTENT
    assert len([mount for mount in outside.mounts() if mount.path == str(mountpoint)]) == 1
    assert command.run("umount", mountpoint)[0] == 0


# umount


def test_umount_clears_a_dead_mount_also_in_use(command: Command, mountpoint: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    fd = os.open(mountpoint / "deep", os.O_RDONLY)
    try:
        command.kill_daemons()
        assert command.run("umount", mountpoint) == (0, "", "")
        assert outside.mount_at(mountpoint) is None
    finally:
        os.close(fd)


def test_umount_names_who_uses_it(command: Command, mountpoint: Path) -> None:
    assert command.run("mount", "owner/repo", mountpoint, engine="works")[0] == 0
    with subprocess.Popen(["cat"], cwd=mountpoint / "deep", stdin=subprocess.PIPE) as user:
        code, _, complaints = command.run("umount", mountpoint)
        assert code == Exit.MOUNTPOINT
        assert (
            one_line(complaints)
            == f"xetfs: {mountpoint} is in use; used by cat ({user.pid}); --lazy unmounts it, and they go on\n"
        )
        assert tree(mountpoint) == CONTENT
        user.communicate(b"")
    assert command.run("umount", mountpoint)[0] == 0


def test_umount_of_what_is_not_mounted(command: Command, mountpoint: Path) -> None:
    code, _, complaints = command.run("umount", mountpoint)
    assert code == Exit.MOUNTPOINT
    assert "nothing is mounted at" in one_line(complaints)


def test_umount_of_something_else(command: Command) -> None:
    code, _, complaints = command.run("umount", "/proc")
    assert code == Exit.MOUNTPOINT
    assert "/proc is a mount of another kind (proc); use 'umount /proc'" in one_line(complaints)


SERVING_NUMPY = """
import os
from xetfs.cli.process import prepare_process

prepare_process()
before = len(os.listdir("/proc/self/task"))
import numpy
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_decoding_starts_no_threads_that_nobody_needs() -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", SERVING_NUMPY], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
