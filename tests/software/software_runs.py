"""Run a program on the plain files and on a mount of the same files, and compare the results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mount_hub import HubProcess
from mount_user import Mount

REPO: Final = "local/software"
PROGRAM_S: Final = 100
Answer = Callable[[Path], Any]
"""Runs a program on a folder and returns its result."""
PROBES: Final = Path(__file__).with_name("software_probes.py")


@dataclass(frozen=True)
class Software:
    """plain: folder with the files. hub: test hub with the same files, uploaded by the real client."""

    base: Path
    plain: Path
    hub: HubProcess

    @contextmanager
    def mounted(self) -> Iterator[Mount]:
        """Mount the repo with an empty cache. Prints the end of the log if the block raises."""
        here = Path(tempfile.mkdtemp(dir=self.base))
        mount = Mount(here, here / "cache", {"HF_ENDPOINT": self.hub.endpoint, "XDG_STATE_HOME": str(here / "state")})
        try:
            mount.mount_in_foreground(REPO, [])
            yield mount
        except BaseException:
            print(mount.log()[-5000:])
            raise
        finally:
            mount.clean_up()


def environment(**more: str) -> dict[str, str]:
    """Environment for programs: no requests to a Hub, no user or system configuration of git, a fixed locale."""
    quiet = {"HF_HUB_OFFLINE": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "LC_ALL": "C.UTF-8"}
    return {**os.environ, **quiet, **more}


def run(command: Sequence[str | Path], *, cwd: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a directory. more: additional environment variables."""
    return subprocess.run(command, cwd=cwd, capture_output=True, timeout=PROGRAM_S, check=False, env=environment(**more))


def output(command: Sequence[str | Path], *, cwd: Path, **more: str) -> bytes:
    """Return the standard output of a program that must succeed."""
    done = run(command, cwd=cwd, **more)
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def functions(path: Path) -> list[str]:
    """Return the names of the functions in a shell script."""
    return re.findall(r"^(\w+)\(\) \{", path.read_text(), re.MULTILINE)


def script(path: Path, name: str) -> list[str | Path]:
    """Return the command that runs one function of a shell script."""
    return ["bash", "-euo", "pipefail", "-c", 'source "$0"; "$1"', path, name]


@contextmanager
def probing(name: str) -> Iterator[Answer]:
    """Start a probe in a process of its own, and yield a function that runs it on a folder."""
    command = [sys.executable, str(PROBES), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def probe(folder: Path) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, f"{name} ended with {process.wait(PROGRAM_S)}"
            return json.loads(line)

        try:
            yield probe
        except BaseException:
            process.kill()
            raise


def forget_pages(folder: Path) -> None:
    """Drop the files from the page cache, so that the next read reaches the daemon."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def compare(mount: Mount, plain: Path, answer: Answer) -> None:
    """Assert that a program gives the same result on the plain files and on the mount: cold, warm, and from the page cache."""
    expected = answer(plain)
    assert expected
    assert ("cold", answer(mount.path)) == ("cold", expected)
    forget_pages(mount.path)
    assert ("warm", answer(mount.path)) == ("warm", expected)
    assert ("from the page cache", answer(mount.path)) == ("from the page cache", expected)
