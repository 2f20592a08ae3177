"""Runs the `xetfs` command in a process and environment of its own and, if wanted, over an engine without a Hub."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
TOKEN = "hf_canaryCanaryCanary0123456789"


class Command:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "fs")]),
        }

    def start(
        self, *arguments: str | Path, engine: str = "", hand_down: int | None = None, **env: str
    ) -> subprocess.Popen[bytes]:
        """engine: what the engine does in place of the real one (see fake_engine.py); "" for the real one.
        hand_down: a descriptor that the process inherits, as from a careless shell."""
        program = ["-m", "xetfs"] if not engine else [str(HERE / "fake_engine.py"), engine]
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.env, **env},
            cwd=self.home,
            bufsize=0,
            pass_fds=() if hand_down is None else (hand_down,),
        )

    def run(self, *arguments: str | Path, engine: str = "", **env: str) -> tuple[int, str, str]:
        """Exit code, what was printed, and the complaints."""
        process = self.start(*arguments, engine=engine, **env)
        output, complaints = process.communicate(timeout=60)
        return process.returncode, output.decode(), complaints.decode()

    @property
    def logs(self) -> str:
        return "".join(path.read_text() for path in self.home.rglob("*.log"))

    def daemons(self) -> list[int]:
        """Processes of this command that are still running."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"HOME={self.home}\0".encode() in environment and state != "Z":
                found.append(int(process.name))
        return found

    def wait_until_daemons_end(self) -> None:
        """Wait for processes that were told to end and may be about to; fails if one goes on."""
        for pid in self.daemons():
            with suppress(ProcessLookupError):
                wait_readable(os.pidfd_open(pid))

    def kill_daemons(self) -> None:
        for pid in self.daemons():
            fd = os.pidfd_open(pid)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            wait_readable(fd)


def wait_readable(fd: int) -> None:
    try:
        assert select.select([fd], [], [], 20)[0]
    finally:
        os.close(fd)
