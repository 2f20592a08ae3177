"""Where a user's logs and the records of running mounts lie: `$XDG_STATE_HOME/xetfs` (`~/.local/state/xetfs`); and their control
sockets: `$XDG_RUNTIME_DIR/xetfs` where there is one, otherwise the same.

A record says which process serves a directory. It is named after the directory, written when the mount is ready and removed when
it ends; one that a crash left behind is recognised by its process, whose start time it holds, as numbers of processes are used
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from xetfs.cli.config import base_dir


def state_dir(env: Mapping[str, str]) -> Path:
    return base_dir(env, "XDG_STATE_HOME", ".local/state") / "xetfs"


def file_for(mountpoint: Path, suffix: str, env: Mapping[str, str]) -> Path:
    """The log or record of a directory: readable, and one for each."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", str(mountpoint)).strip("-")[-60:]
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]
    return state_dir(env) / f"{readable}-{digest}{suffix}"


def control_socket(env: Mapping[str, str]) -> Path:
    """Where this process offers its control socket."""
    runtime = Path(env.get("XDG_RUNTIME_DIR", ""))
    usable = runtime.is_absolute() and os.access(runtime, os.W_OK)
    return (runtime / "xetfs" if usable else state_dir(env)) / f"{os.getpid()}.sock"


@dataclass(frozen=True, slots=True)
class MountRecord:
    """A running mount. started: the start time of its process, as the kernel counts it. control: its socket, or ""."""

    pid: int
    started: str
    mountpoint: str
    repo: str
    commit: str
    control: str = ""

    @classmethod
    def of_this_process(cls, mountpoint: Path, repo: str, commit: str, *, control: str = "") -> MountRecord:
        return cls(os.getpid(), _start_time(os.getpid()) or "", str(mountpoint), repo, commit, control)

    def write(self, path: Path) -> None:
        """Raises OSError."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{self.pid}")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8", errors="surrogateescape")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> MountRecord | None:
        """The record of a mount whose process still runs, otherwise None."""
        record = cls.read_any(path)
        return record if record is not None and record.is_running() else None

    @classmethod
    def read_any(cls, path: Path) -> MountRecord | None:
        """The record of a mount, also of one whose process was killed."""
        try:
            record = cls(**json.loads(path.read_text(encoding="utf-8", errors="surrogateescape")))
        except (OSError, ValueError, TypeError):
            return None
        texts = (record.started, record.mountpoint, record.repo, record.commit, record.control)
        return record if isinstance(record.pid, int) and all(isinstance(text, str) for text in texts) else None

    def is_running(self) -> bool:
        return _start_time(self.pid) == self.started

    def remove(self, path: Path) -> None:
        """Remove the record, if it is still this one."""
        if MountRecord.read(path) == self:
            with contextlib.suppress(OSError):
                path.unlink()

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait for the process to end; whether it did in time."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return True
        try:
            if not self.is_running():
                return True
            return bool(select.select([fd], [], [], timeout_s)[0])
        finally:
            os.close(fd)


def all_records(env: Mapping[str, str]) -> Iterator[MountRecord]:
    """The records of this user's mounts, those of killed processes included, by mount point."""
    found = (MountRecord.read_any(path) for path in state_dir(env).glob("*.json"))
    yield from sorted((record for record in found if record is not None), key=lambda record: record.mountpoint)


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; the second, the program's name, may hold blanks and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    return fields[19].decode() if len(fields) > 19 and fields[0] != b"Z" else None
