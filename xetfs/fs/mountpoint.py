"""Directories to mount on, and mounts seen from outside.

After a daemon has died its mount stays: a `stat` of it may still succeed from the kernel's cache, and another mount on top
would stack. So a mount is judged by /proc/self/mountinfo, which touches no file system, and by statvfs, which always asks the
daemon. What may wait for a daemon (`state_of`, `prepare`) belongs in a thread with a limit.

Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from xetfs.errors import MachineUnfit, MountpointUnusable

FS_TYPE: Final = "fuse.xetfs"
AUTOMOUNT_TYPE: Final = "autofs"
FUSE_DEVICE: Final = Path("/dev/fuse")
STACKED_MAX: Final = 16
"""Dead mounts on one directory that are cleared in one go."""
FUSERMOUNT_S: Final = 10.0
REASON_CHARS_MAX: Final = 300
"""Of what fusermount3 says: a reason with a path."""

_DEAD: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_OWNER: Final = re.compile(r"(?:^|,)user_id=([0-9]+)(?:,|$)", re.ASCII)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    path: str
    fs_type: str
    source: str
    device: str
    """`major:minor`, as under /sys/class/bdi."""
    options: frozenset[str]
    owner: int | None = None
    """The user who mounted it, of those mounts that know."""
    number: str = ""
    parent: str = ""
    """The number of the mount that it lies on."""
    groups: frozenset[str] = frozenset()
    """Peer groups that it propagates to (`to:N`) and receives from (`from:N`); see mount_namespaces(7)."""


def mounts() -> Iterator[Mount]:
    """All mounts that this process sees, in the order in which they lie on each other."""
    text = Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape")
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) >= 6 and len(rest) >= 2:
            owner = _OWNER.search(rest[2]) if len(rest) >= 3 else None
            yield Mount(
                _unescape(fields[4]),
                rest[0],
                _unescape(rest[1]),
                fields[2],
                frozenset(fields[5].split(",")),
                int(owner[1]) if owner else None,
                fields[0],
                fields[1],
                frozenset(_groups(fields[6:])),
            )


def _groups(optional: Sequence[str]) -> Iterator[str]:
    for field in optional:
        kind, _, group = field.partition(":")
        if kind == "shared":
            yield from (f"to:{group}", f"from:{group}")
        elif kind == "master":
            yield f"from:{group}"


def mount_at(path: Path) -> Mount | None:
    """The topmost mount whose root is `path` (absolute, without links), or None."""
    found = None
    for mount in mounts():
        if mount.path == str(path):
            found = mount
    return found


def others_of(path: Path, device: str) -> list[str]:
    """Where else in this mount namespace a file system, or a part of it, is mounted: its bind mounts.

    Not where it came by propagation from `path`: it goes from there in the same way.
    """
    found = list(mounts())
    groups = {mount.number: mount.groups for mount in found}
    here = next((mount for mount in reversed(found) if mount.path == str(path)), None)
    reached = (
        {group.replace("to:", "from:") for group in groups.get(here.parent, ()) if group.startswith("to:")} if here else set()
    )
    return [
        mount.path
        for mount in found
        if mount.device == device and mount.path != str(path) and not reached & groups.get(mount.parent, frozenset())
    ]


def state_of(path: Path) -> Literal["alive", "dead"]:
    """Whether the mount at `path` answers. Waits for its daemon."""
    try:
        os.statvfs(path)
    except OSError as exc:
        if exc.errno in _DEAD:
            return "dead"
    return "alive"


def resolve(path: Path) -> Path:
    """Absolute and without links, also when what is mounted there is dead."""
    return Path(os.path.realpath(path))


def check(path: Path) -> Path:
    """Check that `path` can be mounted on; the path to mount on. Changes nothing: dead mounts of ours are passed over.

    An empty directory that is a mount of something else (a tmpfs, an automounter's placeholder) is as good as any other.
    Raises MountpointUnusable. May wait for the daemon of a foreign mount.
    """
    path = resolve(path)
    stack = [mount for mount in mounts() if mount.path == str(path)]
    topmost = stack[-1] if stack else None
    ours = [mount for mount in stack if mount.fs_type == FS_TYPE]
    if topmost is not None and topmost.fs_type == FS_TYPE:
        if state_of(path) == "alive":
            hint = f"unmount it first: xetfs umount {path}"
            raise MountpointUnusable(f"{path} is already a mount ({topmost.source}, {topmost.fs_type})", hint=hint)
        return path  # dead: what lies below it is seen when it is gone
    if topmost is not None and ours:
        hint = f"umount {path} twice, or choose another directory"
        raise MountpointUnusable(f"{path} is already a mount ({topmost.source}, {topmost.fs_type}) above one of xetfs", hint=hint)
    if topmost is None or topmost.fs_type != AUTOMOUNT_TYPE:  # to look into one would make it mount something
        _check_empty(path)
    return path


def does_not_answer(path: Path) -> MountpointUnusable:
    return MountpointUnusable(f"{path} does not answer", hint="another file system hangs there; choose another directory")


def _check_empty(path: Path) -> None:
    try:
        with os.scandir(path) as entries:
            if next(entries, None) is not None:
                raise MountpointUnusable(f"{path} is not empty", hint="mount on an empty directory")
    except FileNotFoundError:
        raise MountpointUnusable(f"{path} does not exist", hint=f"create it first: mkdir -p {path}") from None
    except NotADirectoryError:
        raise MountpointUnusable(f"{path} is not a directory", hint="mount on an empty directory") from None
    except OSError as exc:
        raise MountpointUnusable(f"{path} cannot be read: {exc.strerror}", hint="mount on an empty directory of yours") from None
    if os.geteuid() != 0 and not os.access(path, os.W_OK):
        raise MountpointUnusable(f"{path} is not yours to mount on", hint="choose a directory that you can write to")


def prepare(path: Path) -> Path:
    """Check as `check` does, and clear away dead mounts of ours; the path to mount on."""
    path = check(path)
    for _ in range(STACKED_MAX):
        mount = mount_at(path)
        if mount is None or mount.fs_type != FS_TYPE:
            break
        unmount(path, lazily=True)
        check(path)
    return path


@contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """Prepare `path`, and keep other processes of xetfs from mounting on it until the context ends.

    The lock is on the directory itself, so that it holds for every user and container that sees it, and leaves nothing behind.
    Raises MountpointUnusable, also when another process holds it.
    """
    path = prepare(path)
    topmost = mount_at(path)
    if topmost is not None and topmost.fs_type == AUTOMOUNT_TYPE:
        yield path
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise MountpointUnusable(f"{path} cannot be opened: {exc.strerror}", hint="choose another directory") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MountpointUnusable(
                f"another process is mounting on {path}", hint="'xetfs status' shows what it mounted"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield prepare(path)  # somebody may have mounted between the first look and the lock
    finally:
        os.close(fd)


def check_machine() -> None:
    """Raises MachineUnfit if this machine, or this user on it, cannot mount through FUSE."""
    if not FUSE_DEVICE.exists():
        raise MachineUnfit(f"there is no {FUSE_DEVICE}", hint="run 'modprobe fuse'; a container needs --device /dev/fuse")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MachineUnfit("there is no fusermount3", hint="install it: apt install fuse3")
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        hint = (
            "a container needs --device /dev/fuse and the right to mount" if os.geteuid() == 0 else "ask for rights to /dev/fuse"
        )
        raise MachineUnfit(f"{FUSE_DEVICE} cannot be opened: {exc.strerror}", hint=hint) from None


def unmount(path: Path, *, lazily: bool = False) -> None:
    """Take down the topmost mount at `path`; lazily: even while it is in use.

    Raises MountpointUnusable; the cause is an OSError with EBUSY when programs still use it.
    """
    number, reason = _umount2(path, lazily=lazily) if os.geteuid() == 0 else _fusermount(path, lazily=lazily)
    if number:
        problem = "is in use" if number == errno.EBUSY else f"cannot be unmounted: {reason}"
        raise MountpointUnusable(f"{path} {problem}") from OSError(number, reason)


def _umount2(path: Path, *, lazily: bool) -> tuple[int, str]:
    """The errno, 0 for none, and what it means."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0))
    number = ctypes.get_errno() if failed else 0
    return number, os.strerror(number)


def _fusermount(path: Path, *, lazily: bool) -> tuple[int, str]:
    """The same, as far as it can be told from what fusermount3 says."""
    command = ["fusermount3", "-u", *(["-z"] if lazily else []), "--", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=FUSERMOUNT_S, check=False, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        raise MachineUnfit("there is no fusermount3", hint="install it: apt install fuse3") from None
    except subprocess.TimeoutExpired:
        return errno.ETIMEDOUT, f"fusermount3 has not ended within {FUSERMOUNT_S:g} s"
    if done.returncode == 0:
        return 0, ""
    said = done.stderr.decode("utf-8", "backslashreplace").strip().rpartition("\n")[2]
    busy = "busy" in said.lower()
    return errno.EBUSY if busy else errno.EPERM, said[:REASON_CHARS_MAX] or f"fusermount3 ended with status {done.returncode}"


def _unescape(field: str) -> str:
    """mountinfo writes blanks, tabs, newlines and backslashes in octal."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
