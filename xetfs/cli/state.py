"""Where a user's logs and the records of running mounts lie: `$XDG_STATE_HOME/xetfs` (`~/.local/state/xetfs`); and their control
sockets: `$XDG_RUNTIME_DIR/xetfs` where there is one, otherwise the same.

A record says which process serves a directory. It is written when the mount is ready and removed when it ends; one that a crash
left behind is recognised by its process, whose start time it holds, as numbers of processes are used again.

Several containers, and several machines, may share a home directory, and mount on directories of the same name. A process number
means something in its own PID namespace only. So a record is named after the directory and the namespace, and is read only where
its numbers are understood; a socket is named after the directory, with random letters.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import select
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from xetfs.config import own_base_dir


def state_dir(env: Mapping[str, str]) -> Path:
    return own_base_dir(env, "XDG_STATE_HOME", ".local/state") / "xetfs"


def log_file(mountpoint: Path, env: Mapping[str, str]) -> Path:
    """The log of a directory: readable, and one for each."""
    return state_dir(env) / f"{_readable(mountpoint)}-{_digest(mountpoint)}.log"


def record_file(mountpoint: Path, env: Mapping[str, str]) -> Path:
    """The record of the mount that processes of this PID namespace have on a directory."""
    return state_dir(env) / f"{_readable(mountpoint)}-{_digest(mountpoint, os.uname().nodename, _pid_namespace())}.json"


def control_socket(mountpoint: Path, env: Mapping[str, str]) -> Path:
    """A new name for a control socket of this process."""
    runtime = Path(env.get("XDG_RUNTIME_DIR", ""))
    # sudo -E keeps the variable: what root made there would be in the user's way.
    usable = runtime.is_absolute() and os.access(runtime, os.W_OK) and runtime.stat().st_uid == os.geteuid()
    # The boot comes first: whether somebody listens can be told of sockets of the same kernel only (control/server.py).
    name = f"{_boot_id()[:8]}-{_digest(mountpoint)}-{secrets.token_hex(4)}.sock"
    return (runtime / "xetfs" if usable else state_dir(env)) / name


def namespace() -> str:
    """Name the PID namespace of this process: the boot of its kernel, and the number that has there."""
    return f"{_boot_id()} {_pid_namespace()}"


def _readable(mountpoint: Path) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", str(mountpoint)).strip("-")[-60:]


def _digest(mountpoint: Path, *more: str) -> str:
    digest = hashlib.sha256(os.fsencode(mountpoint))
    for text in more:
        digest.update(b"\0" + text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:8]


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class MountRecord:
    """A running mount. started: the start time of its process, as the kernel counts it. control: its socket, or "". namespace:
    that of `pid`, see there; device: `major:minor` of the mount, or ""."""

    pid: int
    started: str
    mountpoint: str
    repo: str
    commit: str
    control: str = ""
    namespace: str = ""
    device: str = ""

    @classmethod
    def of_this_process(cls, mountpoint: Path, repo: str, commit: str, *, control: str = "", device: str = "") -> MountRecord:
        started = _start_time(os.getpid()) or ""
        return cls(os.getpid(), started, str(mountpoint), repo, commit, control, namespace(), device)

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
        texts = (
            record.started, record.mountpoint, record.repo, record.commit, record.control, record.namespace, record.device
        )  # fmt: skip
        return record if isinstance(record.pid, int) and all(isinstance(text, str) for text in texts) else None

    @property
    def is_ours(self) -> bool:
        """Whether the number of its process means that process here. Earlier versions did not write down where it does."""
        return self.namespace in ("", namespace())

    def is_running(self) -> bool:
        return self.is_ours and _start_time(self.pid) == self.started

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
    """The records of this user's mounts in this PID namespace, those of killed processes included, by mount point."""
    found = (MountRecord.read_any(path) for path in state_dir(env).glob("*.json"))
    yield from sorted((record for record in found if record is not None and record.is_ours), key=lambda record: record.mountpoint)


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; the second, the program's name, may hold blanks and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    return fields[19].decode() if len(fields) > 19 and fields[0] != b"Z" else None
