"""Removing value files that no row of the index names.

They are left by a process that was killed between writing a file and making its row, and by an index that was set aside. They
count against no budget until they are gone. Files younger than the limit are left alone: another process may be about to make
their rows. Takes the names in the index as 64 of their random bits each, 4 MB for 500,000 files.

When the last sweep ended is the time of an empty file beside the index, so that of many processes that use a cache, or open it
for a moment, one sweeps now and then.
"""

from __future__ import annotations

import os
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from xetfs.store.values import VALUE_NAME, ValueFiles

STRAY_AGE_S: Final = 600.0
"""A file's row follows its last byte within moments; ten minutes allow for a machine that was asleep in between."""
SWEEP_INTERVAL_S: Final = 3600.0
SWEPT: Final = "swept"


def is_swept(directory: Path) -> bool:
    """Whether somebody is known to have swept this cache within the interval."""
    try:
        age_s = time.time() - (directory / SWEPT).lstat().st_mtime
    except OSError:
        return False
    return 0 <= age_s < SWEEP_INTERVAL_S


def note_swept(directory: Path) -> None:
    """If it cannot be noted, the next one sweeps again."""
    with suppress(OSError):
        fd = os.open(directory / SWEPT, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.utime(fd)
        finally:
            os.close(fd)


def forget_swept(directory: Path) -> None:
    """There are strays now."""
    with suppress(OSError):
        (directory / SWEPT).unlink()


def remove_strays(values: ValueFiles, named: Iterable[str], *, age_s: float, stopped: Callable[[], bool]) -> int:
    """Remove value files older than age_s that are not among `named`. Returns how many. Raises OSError if the disk fails.

    stopped: asked before each folder; when true the rest is left for another time.
    """
    oldest_kept = time.time() - age_s  # before the names are read: a file whose row is made later is younger
    known = array("Q", sorted(_bits(name) for name in named if VALUE_NAME.fullmatch(name)))
    removed = 0
    for folder in values.folders():
        if stopped():
            break
        for file in _files(folder):
            name = f"{folder.name}/{file.name}"
            if VALUE_NAME.fullmatch(name) and not _holds(known, _bits(name)):
                try:
                    is_stray = file.stat(follow_symlinks=False).st_mtime < oldest_kept
                except FileNotFoundError:  # evicted meanwhile
                    continue
                if is_stray:
                    values.remove(name)
                    removed += 1
    return removed


def _files(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _bits(name: str) -> int:
    return int(name[3:19], 16)


def _holds(ordered: array[int], number: int) -> bool:
    at = bisect_left(ordered, number)
    return at < len(ordered) and ordered[at] == number
