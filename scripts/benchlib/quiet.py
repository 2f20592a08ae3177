"""Whether anything else runs on this machine: what is timed beside other work is worth little."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

STAT: Final = Path("/proc/stat")
BUSY_SHARE: Final = 0.10
"""Of all cores; a desktop that is left alone stays below."""
LOOK_S: Final = 2.0
WAIT_S: Final = 60.0
"""Longest wait for a quiet machine: long enough for what somebody just ran to end."""
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
