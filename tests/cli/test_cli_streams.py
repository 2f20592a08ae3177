"""Commands whose standard streams are closed, full, or read no further."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import HERE, Command

from xetfs.cli.exits import Exit
from xetfs.fs import mountpoint as outside

STREAMS = {
    "no input": "<&-",
    "no output": ">&-",
    "no errors": "2>&-",
    "nothing at all": "<&- >&- 2>&-",
    "full output": ">/dev/full",
    "all full": ">/dev/full 2>/dev/full",
    "nobody reads": "| true",
}


def shell(command: Command, line: str, streams: str) -> tuple[int, str]:
    """Run a command of xetfs in a shell; its exit code, and what arrived at the shell's own stderr."""
    redirected = f"{line} {streams}" if not streams.startswith("|") else f"( trap - PIPE; {line}; echo $? >code ) {streams}"
    script = redirected if streams.startswith("|") else f"{redirected}; echo $? >code"
    code = command.home / "code"
    code.unlink(missing_ok=True)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=command.home,
        env=command.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return int(code.read_text()), done.stderr.decode()


def xetfs(*arguments: str) -> str:
    return " ".join([sys.executable, "-m", "xetfs", *arguments])


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS.keys())
def test_a_mount_does_not_need_its_streams(command: Command, mountpoint: Path, streams: str) -> None:
    line = " ".join([sys.executable, str(HERE / "fake_engine.py"), "works", "mount", "owner/repo", str(mountpoint)])
    code, complaints = shell(command, line, streams)
    assert (code, complaints) == (0, "")
    assert (mountpoint / "config.json").read_bytes() == b"{}"
    assert "Traceback" not in command.logs
    [pid] = command.daemons()
    assert all(os.readlink(f"/proc/{pid}/fd/{fd}") in ("/dev/null", *map(str, command.home.rglob("*.log"))) for fd in (0, 1, 2))
    assert shell(command, xetfs("umount", str(mountpoint)), streams) == (0, "")
    assert outside.mount_at(mountpoint) is None


@pytest.mark.parametrize("streams", ["", ">/dev/full"], ids=["good", "full"])
def test_a_mount_in_the_foreground_neither(command: Command, mountpoint: Path, streams: str) -> None:
    program = " ".join([sys.executable, str(HERE / "fake_engine.py"), "works", "mount", "owner/repo", str(mountpoint), "-f"])
    process = subprocess.Popen(["sh", "-c", f"exec {program} {streams} 2>/dev/full"], env=command.env, cwd=command.home)
    while outside.mount_at(mountpoint) is None:
        assert process.poll() is None
    assert (mountpoint / "config.json").read_bytes() == b"{}"
    process.terminate()
    assert process.wait(60) == 0


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("--help",), ("mount", "--help"), ("--version",)])
def test_output_that_is_lost_is_one_line_at_most(command: Command, arguments: tuple[str, ...], streams: str) -> None:
    code, complaints = shell(command, xetfs(*arguments), streams)
    assert "Traceback" not in complaints
    assert "Exception ignored" not in complaints
    if "full" in streams:
        assert code == Exit.MACHINE
        assert complaints == ("" if "2>" in streams else "xetfs: standard output cannot be written: No space left on device\n")
    else:
        assert (code, complaints) == (0, "")


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS.keys())
def test_a_refusal_keeps_its_code(command: Command, streams: str) -> None:
    for arguments, expected in ((("mount", "a/b", "no"), Exit.MOUNTPOINT), (("mount", "a"), Exit.USAGE), (("mout",), Exit.USAGE)):
        code, complaints = shell(command, xetfs(*arguments), streams)
        assert code == expected
        assert complaints.count("\n") == (0 if "2>" in streams else 1)


def test_a_directory_whose_name_is_no_text(command: Command, mountpoint: Path) -> None:
    path = mountpoint.parent / os.fsdecode(b"n\xff")
    os.rename(mountpoint, path)
    try:
        code, output, complaints = command.run("mount", "owner/repo", path, engine="works", LC_ALL="C.UTF-8")
        assert (code, complaints) == (0, "")
        assert "n\\udcff; log: " in output
        assert command.run("status")[0] == 0
        assert command.run("umount", path) == (0, "", "")
    finally:
        os.rename(path, mountpoint)
