"""Opening the index of a directory, and setting aside one that cannot be used."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
from pathlib import Path
from typing import Final

from xetfs.store.directory import directory_lock, shared_file_system
from xetfs.store.index import INDEX_FAILURES, Index, is_damage
from xetfs.store.schema import DATABASE, UnusableIndex
from xetfs.store.sweep import forget_swept

log = logging.getLogger(__name__)

_COMPANIONS: Final = ("-wal", "-shm", "-journal")
_ASIDE: Final = ".bad"
"""One index that was set aside is kept, for whoever wants to know what happened to it."""


def open_index(directory: Path, *, set_aside: bool) -> Index:
    """The index of a directory, a new one if there is none or it is unusable. The values of an old one are strays then.

    set_aside: begin a new one in any case. Raises OSError or sqlite3.Error if the disk does not work, StoreFailed if another
    process is stuck while opening it.
    """
    shared = shared_file_system(directory)
    journal = "delete" if shared else "wal"
    if shared:
        log.info("the cache is on a shared file system, its index is slower there directory=%s kind=%s", directory, shared)
    with directory_lock(directory):
        if set_aside:
            _set_aside(directory, "it was found damaged while in use")
        try:
            _check_files(directory)
            return Index(directory, journal=journal)
        except INDEX_FAILURES as exc:
            if not is_damage(exc):
                raise
            _set_aside(directory, str(exc))
        return Index(directory, journal=journal)


def _check_files(directory: Path) -> None:
    """Refuse database files that are links or belong to others. Raises UnusableIndex."""
    for suffix in ("", *_COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(directory / f"{DATABASE}{suffix}")
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise UnusableIndex(f"{DATABASE}{suffix} is not a plain file of ours")


def _set_aside(directory: Path, reason: str) -> None:
    log.warning("the store's index cannot be used and was set aside, beginning a new one directory=%s: %s", directory, reason)
    forget_swept(directory)
    for suffix in ("", *_COMPANIONS):
        path = directory / f"{DATABASE}{suffix}"
        aside = directory / f"{DATABASE}{_ASIDE}{suffix}"
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, aside)
