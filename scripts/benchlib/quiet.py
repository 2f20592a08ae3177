"""What makes passes alike: nothing else that runs on this machine, and memory that is there when it is asked for."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

STAT: Final = Path("/proc/stat")
MEMINFO: Final = Path("/proc/meminfo")
BUSY_SHARE: Final = 0.10
"""Of all cores; a desktop that is left alone stays below."""
LOOK_S: Final = 2.0
WAIT_S: Final = 60.0
"""Longest wait for a quiet machine: long enough for what somebody just ran to end."""
PAGE_BYTES: Final = 4096
AVAILABLE_SHARE: Final = 0.5
"""Of the memory that is free or can be freed: as much may be touched before a pass."""
_IDLE_FIELDS: Final = (3, 4)  # idle, and waiting for a disk


def busy_share(before: str, after: str) -> float:
    """Share of all cores' time in which they had work, between two contents of /proc/stat."""
    then, now = (list(map(int, text.splitlines()[0].split()[1:9])) for text in (before, after))
    spent = [late - early for early, late in zip(then, now, strict=True)]
    idle = sum(spent[field] for field in _IDLE_FIELDS)
    return (sum(spent) - idle) / sum(spent) if sum(spent) else 0.0


def wait_for_quiet(say: Callable[[str], None]) -> float:
    """Wait until others leave the cores alone, WAIT_S at most; the share that they took last."""
    end = time.monotonic() + WAIT_S
    told = False
    while True:
        before = STAT.read_text()
        time.sleep(LOOK_S)
        share = busy_share(before, STAT.read_text())
        if share <= BUSY_SHARE:
            return share
        if time.monotonic() >= end:
            say(f"WARNING: other programs still take {share:.0%} of the cores: trust what is counted, not what is timed")
            return share
        if not told:
            say(f"other programs take {share:.0%} of the cores; waiting for them, {WAIT_S:.0f} s at most")
            told = True


def touch_memory(size: int) -> int:
    """Touch so many bytes of free memory, at most half of what is available, and give them back; how many that were.

    A virtual machine whose host takes free memory back waits for the host at the first touch of a page, which takes longer than
    to fill it: on one such machine 2.5 s for 1 GiB, in place of 0.5. Every pass reads into pages that the one before has freed,
    so that this would be most of what is measured, of a plain file too. In pages, as what is given back in larger pieces goes
    to the host at once.
    """
    size = min(size, int(available_bytes(MEMINFO.read_text()) * AVAILABLE_SHARE)) // PAGE_BYTES * PAGE_BYTES
    if size:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
    return size


def available_bytes(meminfo: str) -> int:
    """What programs can have without others being swapped out, from the content of /proc/meminfo."""
    return next(int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
