"""Equal conditions for every pass: an idle machine, and memory that the host has already provided."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

STAT: Final = Path("/proc/stat")
MEMINFO: Final = Path("/proc/meminfo")
BUSY_SHARE: Final = 0.10
"""Share of all cores; an unused desktop stays below it."""
LOOK_S: Final = 2.0
WAIT_S: Final = 60.0
"""Maximum wait for an idle machine: long enough for a command that somebody just started to end."""
PAGE_BYTES: Final = 4096
AVAILABLE_SHARE: Final = 0.5
"""Maximum share of the available memory to touch before a pass."""
_IDLE_FIELDS: Final = (3, 4)  # idle, and waiting for a disk


def busy_share(before: str, after: str) -> float:
    """Return the busy share of all cores between two contents of /proc/stat."""
    then, now = (list(map(int, text.splitlines()[0].split()[1:9])) for text in (before, after))
    spent = [late - early for early, late in zip(then, now, strict=True)]
    idle = sum(spent[field] for field in _IDLE_FIELDS)
    return (sum(spent) - idle) / sum(spent) if sum(spent) else 0.0


def wait_for_quiet(say: Callable[[str], None]) -> float:
    """Wait until other programs leave the cores idle, WAIT_S at most; return the share that they used last."""
    end = time.monotonic() + WAIT_S
    told = False
    while True:
        before = STAT.read_text()
        time.sleep(LOOK_S)
        share = busy_share(before, STAT.read_text())
        if share <= BUSY_SHARE:
            return share
        if time.monotonic() >= end:
            say(f"WARNING: other programs still take {share:.0%} of the cores: trust the counts, not the times")
            return share
        if not told:
            say(f"other programs take {share:.0%} of the cores; waiting for them, {WAIT_S:.0f} s at most")
            told = True


def touch_memory(size: int) -> int:
    """Touch this many bytes of free memory, at most half of what is available, and free them; return how many.

    A virtual machine whose host reclaims free memory waits for the host at the first touch of each page: on one such machine
    2.5 s for 1 GiB instead of 0.5. Every pass reads into pages that the previous one has freed, so this would dominate the
    measurement, for a plain file too. Touched in small pages, because larger ones return to the host as soon as they are freed.
    """
    size = min(size, int(available_bytes(MEMINFO.read_text()) * AVAILABLE_SHARE)) // PAGE_BYTES * PAGE_BYTES
    if size:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
    return size


def available_bytes(meminfo: str) -> int:
    """Return the memory that is available without swapping, from the content of /proc/meminfo."""
    return next(int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
