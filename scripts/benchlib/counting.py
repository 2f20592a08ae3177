"""Counts of one version of xetfs.

Requests and bytes come from the hub's log, round trips too (with latency, as they mean nothing without); page faults, memory and
CPU time from the kernel. Instructions of the engine are counted by `perf stat` where the processor lets itself be counted, else
by valgrind's cachegrind where that is installed, on a small file and without a mount, which valgrind cannot hold.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchlib.data import MIB
from benchlib.lab import COMMAND_S, Lab, Mounted, Sample

Counts = dict[str, float]
ENGINE_READ: Final = Path(__file__).with_name("engine_read.py")
RTT: Final = {"latency_s": 0.020}
SHORT: Final = 16 * MIB
"""Bytes read from the beginning of a file, cold: enough for windows to grow to their full size, and few enough for valgrind."""
PAGE: Final = 4096
OPENING: Final = "opening a file"
COUNTED_READS: Final = (
    (OPENING, 0, MIB),
    (f"cold read of {SHORT // MIB} MiB", SHORT, MIB),
    ("the same warm", SHORT, MIB),
    ("the same warm, 4 KiB at a time", SHORT, PAGE),
)
"""Length and block of the reads whose instructions are counted, one after the other with one cache; the first reads nothing."""


def count_traffic(lab: Lab) -> Counts:
    """Run one round of everything that goes through mounts."""
    noise, model = lab.data.noise, lab.data.model
    counts: Counts = {}
    with lab.mount_cold(noise.repo) as mounted:
        path = str(mounted.path / noise.file)
        with lab.hub.shaped(RTT):
            sample = lab.measure(lambda: lab.read("random_reads", path=path, length=PAGE, count=8, seed=1), mounted)
            counts |= _of("8 cold reads of 4 KiB", sample)
            counts |= _of("cold read of a file", _read_all(lab, mounted, path, MIB))
        lab.quiet()
        counts |= _of("second pass", _read_all(lab, mounted, path, MIB // 8), round_trips=False)
    with lab.mount_cold(model.repo) as mounted, lab.hub.shaped(RTT):
        path = str(mounted.path / model.file)
        sample = lab.measure(lambda: lab.read("tensors", path=path, share=0.25, seed=2), mounted)
        counts |= _of("a quarter of a model", sample)
    with lab.mount_cold(lab.data.files_repo) as mounted:
        sample = lab.measure(lambda: lab.read("names", path=str(mounted.path / "data")), mounted)
        counts |= _of("listing", sample, round_trips=False)
    return counts


def _read_all(lab: Lab, mounted: Mounted, path: str, block: int) -> Sample:
    return lab.measure(lambda: lab.read("sequential", path=path, block=block), mounted)


def _of(what: str, sample: Sample, *, round_trips: bool = True) -> Counts:
    counts = {
        f"{what}: requests": float(sample.traffic.requests_all),
        f"{what}: bytes": float(sample.traffic.bytes_all),
        f"{what}: page faults": float(sample.faults),
        f"{what}: peak memory": float(sample.peak_bytes["daemon"]),
        f"{what}: CPU s": sample.cpu_s["daemon"],
    }
    return counts | ({f"{what}: round trips": float(sample.traffic.round_trips)} if round_trips else {})


# Instructions


@dataclass(frozen=True, slots=True)
class Counter:
    """A program that counts the instructions of another. read: returns the count of the last one that ended."""

    name: str
    prefix: tuple[str, ...]
    read: Callable[[], float]


def count_instructions(lab: Lab, counter: Counter, say: Callable[[str], None]) -> Counts:
    """Return the instructions of a process that opens a repo and a file, Python's start included, and of each read on top."""
    noise = lab.data.noise
    counts: Counts = {}
    with tempfile.TemporaryDirectory(prefix="counted-", dir=lab.base) as cache:
        for what, length, block in COUNTED_READS:
            program = [lab.python, "-P", str(ENGINE_READ), lab.hub.endpoint, noise.repo, noise.file, f"{cache}/chunks"]
            command = [*counter.prefix, *program, str(length), str(block)]
            done = subprocess.run(command, env=lab.env(), check=False, timeout=COMMAND_S)
            if done.returncode:
                say(f"instructions are not counted: {what} ended with {done.returncode}")
                return {}
            counts[f"{what}: instructions"] = counter.read() - counts.get(f"{OPENING}: instructions", 0.0)
    return counts


def find_counter(base: Path) -> Counter | None:
    """Return a counter that works on this machine, if there is one. base: where it may write."""
    out = base / "instructions"
    if shutil.which("perf"):
        perf = ("perf", "stat", "-x", ",", "-e", "instructions:u", "-o", str(out))
        subprocess.run([*perf, "true"], check=False, capture_output=True)
        if out.exists() and parse_perf(out.read_text()) is not None:
            return Counter("perf", perf, lambda: parse_perf(out.read_text()) or 0.0)
    if shutil.which("valgrind"):
        log = base / "valgrind"
        tool = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
        prefix = ("valgrind", *tool, "--fair-sched=try", f"--log-file={log}")
        return Counter("cachegrind", prefix, lambda: parse_cachegrind(log.read_text()))
    return None


def parse_perf(text: str) -> float | None:
    """Return the count from `perf stat -x ,`, or None where the processor has no counters."""
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2].startswith("instructions"):
            return float(fields[0]) if fields[0].isdigit() else None
    return None


def parse_cachegrind(text: str) -> float:
    """Return the count from valgrind's log. Raises ValueError if it has none."""
    found = re.search(r"I\s+refs:\s+([\d,]+)", text)
    if found is None:
        raise ValueError("cachegrind gave no count")
    return float(found[1].replace(",", ""))
