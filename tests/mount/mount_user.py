"""Mounting as a user does: `xetfs mount` and `xetfs umount`, looked at from outside.

The mount point is never touched by the process that serves it, and a mount that hangs must not hang the tests: each command has a
limit, and what is left over is taken down lazily.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from xetfs.errors import MountpointUnusable
from xetfs.fs import mountpoint as outside

COMMAND_S = 60
XETFS = [sys.executable, "-m", "xetfs"]
ALWAYS_EXPECTED = ("range proofs fail",) if os.environ.get("XETFS_TEST_PROFILE") == "production" else ()
"""Words of warnings that every mount gives under the profile of the hubs: production refuses proofs of large files."""
UNEXPECTED = re.compile(r" (WARNING|ERROR|CRITICAL) |Traceback")


def run_xetfs(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One command of xetfs, ended. Its output is read from files, as a daemon might keep a pipe open."""
    return subprocess.run(
        [*XETFS, *arguments], env={**os.environ, **env}, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )


def is_mounted(path: Path) -> bool:
    return outside.mount_at(path) is not None


class Mount:
    """One directory on which a repo is mounted, with the log of its daemon.

    expected: what may stand in a line of the log that is a warning or an error; any other such line fails the test.
    """

    def __init__(self, base: Path, cache_dir: Path, env: Mapping[str, str]) -> None:
        self.cache_dir = cache_dir
        self.path = base / "mount"
        self.path.mkdir(parents=True)
        self.log_file = base / "log"
        self.expected: list[str] = list(ALWAYS_EXPECTED)
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def mount(self, ref: str, arguments: Sequence[str]) -> None:
        """Into the background."""
        done = run_xetfs("mount", ref, str(self.path), *self._options(), *arguments, env=self._env)
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        assert done.stdout.startswith(f"mounted {ref}")
        assert os.listdir(self.path)

    def mount_in_foreground(self, ref: str, arguments: Sequence[str]) -> None:
        """With the daemon as our child, so that its pid is known."""
        command = [*XETFS, "mount", ref, str(self.path), "--foreground", *self._options(), *arguments]
        self._process = subprocess.Popen(command, env={**os.environ, **self._env}, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(b"mounted"), self.log()

    def _options(self) -> list[str]:
        return ["--log-file", str(self.log_file), "--cache-dir", str(self.cache_dir)]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def peak_memory_bytes(self) -> int:
        """VmHWM of the daemon."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def cpu_s(self) -> float:
        """User and system time of the daemon so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Another command of the same user."""
        return run_xetfs(*arguments, env={**self._env, **(env or {})})

    def end(self, number: int) -> int:
        """Send a signal to the daemon and wait for its end; its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(COMMAND_S)

    def ended(self) -> int:
        """Wait for the daemon to end by itself; its exit code."""
        assert self._process is not None
        return self._process.wait(COMMAND_S)

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(COMMAND_S)

    def umount(self) -> None:
        done = run_xetfs("umount", str(self.path), env=self._env)
        assert done.returncode == 0, done.stderr
        assert not is_mounted(self.path)
        self._reap()

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def unexpected(self) -> list[str]:
        """Warnings and errors in the log that nobody announced."""
        lines = [line for line in self.log().splitlines() if UNEXPECTED.search(line)]
        return [line for line in lines if not any(word in line for word in self.expected)]

    def clean_up(self) -> None:
        """Whatever happened: nothing mounted and no process left."""
        while is_mounted(self.path):
            with suppress(MountpointUnusable):
                outside.unmount(self.path, lazily=True)
        self._reap()

    def _reap(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise
        finally:
            self._process.communicate()
            self._process = None


MountRepo = Callable[..., Mount]
"""The fixture `mount_repo`."""


def sweep(base: Path) -> list[str]:
    """Take down every mount of ours under `base`; their paths."""
    left = [mount.path for mount in outside.mounts() if mount.fs_type == outside.FS_TYPE and mount.path.startswith(f"{base}/")]
    for path in reversed(left):
        with suppress(MountpointUnusable):
            outside.unmount(Path(path), lazily=True)
    return left
