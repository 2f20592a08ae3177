"""What the kernel accounts to a process: CPU time, memory, page faults.

CPU time is that of the process's own clock, in nanoseconds: the ticks in /proc/PID/stat are of 10 ms, which is more than an
operation takes.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

_SCHEDULED = 2
_SETTLE_STEP_S = 0.1
_SETTLED_STEPS = 3
_SETTLE_S = 15.0
_IDLE_CPU_S = 0.002
"""CPU time of a step in which nothing was done but to look whether there is something to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """CPU seconds, user and system, of a process and of its main thread; page faults that needed no disk, which is the price of
    fresh memory."""

    cpu_s: float
    main_thread_s: float
    faults: int

    def since(self, before: Account) -> Account:
        return Account(self.cpu_s - before.cpu_s, self.main_thread_s - before.main_thread_s, self.faults - before.faults)


def cpu_s(pid: int) -> float:
    """CPU time of a process, by the clock that clock_getcpuclockid(3) gives for it. Raises OSError when there is none."""
    return time.clock_gettime(~pid << 3 | _SCHEDULED)


def parse_faults(stat: str) -> int:
    """Page faults of a process and its ended children, from the content of /proc/PID/stat; the name in it may hold spaces and
    parentheses."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[7]) + int(fields[8])


def parse_peak(status: str) -> int:
    """VmHWM in bytes, from the content of /proc/PID/status; 0 for a process without memory (a zombie)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def account(pid: int) -> Account:
    scheduled = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text()
    return Account(cpu_s(pid), int(scheduled.split()[0]) / 1e9, parse_faults(Path(f"/proc/{pid}/stat").read_text()))


def peak_bytes(pid: int) -> int:
    return parse_peak(Path(f"/proc/{pid}/status").read_text())


def reset_peak(pid: int) -> None:
    """Let VmHWM begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def settle(pid: int) -> None:
    """Wait until a process has been idle for a moment: what it still does for a pass belongs to the pass."""
    end = time.monotonic() + _SETTLE_S
    idle, last = 0, cpu_s(pid)
    while idle < _SETTLED_STEPS and time.monotonic() < end:
        time.sleep(_SETTLE_STEP_S)
        now = cpu_s(pid)
        idle = idle + 1 if now - last < _IDLE_CPU_S else 0
        last = now
