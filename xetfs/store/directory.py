"""The cache directory: made private, refused when somebody else could write to it.

Whoever can write here decides what readers get: a block can be checked against its own hashes, not against somebody who made up
both. So the directory must belong to the user that runs xetfs, and nobody else may write to it. Below a directory that others may
write to a private one is used.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from xetfs.errors import StoreFailed

_HINT: Final = "name another with --cache-dir, or none with --no-cache"
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_LOCK_NAME: Final = "lock"
_LOCK_TIMEOUT_S: Final = 2.0
"""Opening an index takes milliseconds; whoever holds the lock for longer has been stopped."""
_LOCK_POLL_S: Final = 0.01


_SHARED_FILE_SYSTEMS: Final = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x01021997: "9p",
    0x65735546: "fuse",
    0x0BD00BD0: "lustre",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x6B414653: "kafs",
    0x73757245: "coda",
    0x564C: "ncp",
    0x7461636F: "ocfs2",
    0x01161970: "gfs2",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
    0xAAD7AAEA: "panfs",
    0x786F4256: "vboxsf",
    0xBACBACBC: "vmhgfs",
    0x6A656A63: "virtiofs",
}
"""f_type of file systems that another machine, or the host of a virtual one, may change as well (statfs(2), linux/magic.h, and
the clients of those that are not in the kernel). SQLite's shared memory is of one kernel, so that its WAL mode must not be used
there (sqlite.org/wal.html); and a mapping of a file that another machine truncates kills the process."""


def shared_file_system(path: Path) -> str:
    """Return the kind of file system at `path` if other machines may use it too, otherwise "". Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    answer = (ctypes.c_long * 64)()  # struct statfs is shorter; its first member is f_type, on every architecture
    if libc.statfs(os.fsencode(path), ctypes.byref(answer)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return _SHARED_FILE_SYSTEMS.get(answer[0] & 0xFFFFFFFF, "")


def prepare_directory(path: Path, *, trusted: bool) -> Path:
    """Make `path` (absolute) if it is not there, and see that what is in it is ours alone. Returns the directory to use.

    That is a private one below `path` where others may write to that: a volume that is mounted for all (a pod's emptyDir has mode
    0777, with an fsGroup 2777) or a directory of a group. trusted: use `path` whoever else may write there.
    Raises StoreFailed, with what the user can do about it.
    """
    if os.path.expandvars(path) != str(path):  # diskcache would expand it and use another directory
        raise StoreFailed(f"the cache directory's name contains a variable: {path}", hint="write out the name with --cache-dir")
    _make(path)
    if trusted:
        return path
    if _is_open_to_others(path):
        path /= f"xetfs-{os.geteuid()}"
        _make(path)
    _check_directory(path)
    return path


def _make(path: Path) -> None:
    try:
        make_directories(path, keep_last=True)
    except FileExistsError:
        raise StoreFailed(f"the cache directory is not a directory: {path}", hint=_HINT) from None
    except OSError as exc:
        raise StoreFailed(f"cannot make the cache directory {path}: {exc.strerror}", hint=_HINT) from None


def make_directories(path: Path, *, keep_last: bool = False) -> None:
    """Make a directory and those above it, for their owner alone. Raises OSError.

    Those that root makes in the directory of a user (a home without a `.cache`) belong to that user, who would be locked out of
    them otherwise. keep_last: all but the last, such as a cache, which must be the caller's own.
    """
    for made in (*reversed(path.parents), path):  # mkdir(parents=True) would leave the parents' modes to the umask
        if made.is_dir():
            continue
        try:
            made.mkdir(mode=0o700)
        except FileExistsError:
            if not made.is_dir():  # or another process was quicker
                raise
            continue
        above = made.parent.stat()
        if not (keep_last and made == path) and os.geteuid() == 0 and above.st_uid != 0:
            os.chown(made, above.st_uid, above.st_gid, follow_symlinks=False)


def _is_open_to_others(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISDIR(status.st_mode) and bool(status.st_mode & _WRITABLE_BY_OTHERS)


def _check_directory(path: Path) -> None:
    """Refuse a directory that is not ours alone to write. Its name can be given to another only where everybody may write above
    it, and that one would have to be ours as well."""
    if path.is_symlink():
        raise StoreFailed(
            f"the cache directory is a symbolic link: {path}", hint=f"name the directory itself: --cache-dir {path.resolve()}"
        )
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise StoreFailed(f"cannot open the cache directory {path}: {exc.strerror}", hint=_HINT) from None
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    if status.st_uid != os.geteuid():
        raise StoreFailed(
            f"the cache directory {path} belongs to user {status.st_uid}, not to {os.geteuid()}",
            hint="name a directory of your own with --cache-dir, or add --trust-cache-dir",
        )
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise StoreFailed(
            f"others may write to the cache directory {path}",
            hint=f"chmod 700 {path} after a look at what is in it, or add --trust-cache-dir",
        )


@contextmanager
def directory_lock(path: Path) -> Iterator[None]:
    """Hold the directory for oneself while its index is opened, looked at or set aside; other processes wait.

    Raises StoreFailed if another process does not let go in time, OSError if the lock file cannot be made.
    """
    fd = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreFailed(f"another process holds {path / _LOCK_NAME}") from None
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(fd)
