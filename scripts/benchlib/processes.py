"""What the kernel accounts to a process: CPU time, memory, page faults."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_S = os.sysconf("SC_CLK_TCK")
_SETTLE_STEP_S = 0.1
_SETTLED_STEPS = 3
_SETTLE_S = 15.0


@dataclass(frozen=True, slots=True)
class Account:
    """CPU seconds, user and system, of a process and its ended children; page faults that needed no disk, which is what fresh
    memory costs."""

    cpu_s: float
    faults: int

    def since(self, before: Account) -> Account:
        return Account(self.cpu_s - before.cpu_s, self.faults - before.faults)


def parse_stat(text: str) -> Account:
    """From the content of /proc/PID/stat; the name in it may hold spaces and parentheses."""
    fields = text.rpartition(")")[2].split()
    minor, minor_children = int(fields[7]), int(fields[8])
    ticks = sum(int(field) for field in fields[11:15])
    return Account(ticks / TICKS_S, minor + minor_children)


def parse_peak(status: str) -> int:
    """VmHWM in bytes, from the content of /proc/PID/status; 0 for a process without memory (a zombie)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def account(pid: int | str) -> Account:
    return parse_stat(Path(f"/proc/{pid}/stat").read_text())


def peak_bytes(pid: int | str) -> int:
    return parse_peak(Path(f"/proc/{pid}/status").read_text())


def reset_peak(pid: int) -> None:
    """Let VmHWM begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def settle(pid: int) -> None:
    """Wait until a process has been idle for a moment: what it still does for a pass belongs to the pass."""
    end = time.monotonic() + _SETTLE_S
    idle, last = 0, account(pid).cpu_s
    while idle < _SETTLED_STEPS and time.monotonic() < end:
        time.sleep(_SETTLE_STEP_S)
        now = account(pid).cpu_s
        idle = idle + 1 if now == last else 0
        last = now
