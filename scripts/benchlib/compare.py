"""Counted things of this checkout beside those of another revision: what no other program on the machine can disturb.

Requests and bytes come from the hub's log, round trips too (with latency, as they mean nothing without); page faults from /proc.
Instructions of the engine are counted by `perf stat` where the processor lets itself be counted, else by valgrind's cachegrind
where that is installed, on a small file.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchlib.data import MIB, Data
from benchlib.figures import number
from benchlib.hub import Hub
from benchlib.lab import COMMAND_S, Lab, Mounted, Sample

Counts = dict[str, float]
ENGINE_READ: Final = Path(__file__).with_name("engine_read.py")
ROUNDS: Final = 3
RTT: Final = {"latency_s": 0.020}
SHORT: Final = 16 * MIB
"""What is read from the begin of a file, cold: past the growth of windows, and short under valgrind too."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much more is not yet worse: a share of what was, and an amount on top, since small counts move by one."""

    share: float
    amount: float


TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "requests": Tolerance(0.10, 2),
    "bytes": Tolerance(0.03, 16_384),
    "round trips": Tolerance(0.10, 1),
    "instructions": Tolerance(0.05, 0),
    "page faults": Tolerance(0.25, 2_000),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One counted thing at both. kind: the key of its tolerance."""

    name: str
    base: float
    now: float

    @property
    def kind(self) -> str:
        return self.name.rpartition(": ")[2]

    @property
    def worse(self) -> bool:
        allowed = TOLERANCES[self.kind]
        return self.now > self.base * (1 + allowed.share) + allowed.amount

    @property
    def better(self) -> bool:
        return Change(self.name, self.now, self.base).worse


def changes(base: Mapping[str, float], now: Mapping[str, float]) -> list[Change]:
    """What was counted at both; a thing that only one of them has is not compared."""
    return [Change(name, base[name], now[name]) for name in now if name in base]


def describe(found: Sequence[Change], revision: str) -> str:
    lines = [f"{'':<46} {revision:>16.16} {'here':>16}"]
    for change in found:
        verdict = "WORSE" if change.worse else "better" if change.better else ""
        lines.append(f"  {change.name:<44} {number(change.base):>16} {number(change.now):>16}  {verdict}".rstrip())
    worse = sum(change.worse for change in found)
    lines.append(f"{worse} of {len(found)} got worse by more than is allowed" if worse else "nothing got worse")
    return "\n".join(lines)


def medians(rounds: Sequence[Mapping[str, float]]) -> Counts:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


# Counting


def count(lab: Lab, say: Callable[[str], None]) -> Counts:
    """Everything for one version of xetfs."""
    rounds = []
    for number_of in range(ROUNDS):
        say(f"  counting, round {number_of + 1}/{ROUNDS}")
        rounds.append(_count_traffic(lab))
    return medians(rounds) | _count_instructions(lab, say)


def _count_traffic(lab: Lab) -> Counts:
    noise, model = lab.data.noise, lab.data.model
    counts: Counts = {}
    with lab.mount_cold(noise.repo) as mounted:
        path = str(mounted.path / noise.file)
        with lab.hub.shaped(RTT):
            sample = lab.measure(lambda: lab.read("random_reads", path=path, length=4096, count=8, seed=1), mounted)
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
    }
    return counts | ({f"{what}: round trips": float(sample.traffic.round_trips)} if round_trips else {})


def _count_instructions(lab: Lab, say: Callable[[str], None]) -> Counts:
    """Of a process that opens a repo and a file, and of one that reads too, cold; without a mount, which valgrind cannot hold."""
    counter = _find_counter(lab.base)
    if counter is None:
        say("  instructions are not counted: perf cannot here, and there is no valgrind")
        return {}
    say(f"  counting instructions with {counter.name}")
    noise = lab.data.noise
    counts: Counts = {}
    for what, length in (("opening a file", 0), (f"cold read of {SHORT // MIB} MiB", SHORT)):
        with tempfile.TemporaryDirectory(prefix="counted-", dir=lab.base) as cache:
            program = [
                lab.python,
                "-P",
                str(ENGINE_READ),
                lab.hub.endpoint,
                noise.repo,
                noise.file,
                f"{cache}/chunks",
                str(length),
            ]
            done = subprocess.run([*counter.prefix, *program], env=lab.env(), check=False, timeout=COMMAND_S)
        if done.returncode:
            say(f"  instructions are not counted: {what} ended with {done.returncode}")
            return {}
        counts[f"{what}: instructions"] = counter.read()
    return counts


@dataclass(frozen=True, slots=True)
class Counter:
    """A program that counts the instructions of another. read: the count of the last one that ended."""

    name: str
    prefix: tuple[str, ...]
    read: Callable[[], float]


def _find_counter(base: Path) -> Counter | None:
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
    """From `perf stat -x ,`; None where the processor does not count."""
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2].startswith("instructions"):
            return float(fields[0]) if fields[0].isdigit() else None
    return None


def parse_cachegrind(text: str) -> float:
    """From valgrind's log. Raises ValueError when there is no count in it."""
    found = re.search(r"I\s+refs:\s+([\d,]+)", text)
    if found is None:
        raise ValueError("cachegrind gave no count")
    return float(found[1].replace(",", ""))


# The other revision


@contextmanager
def checked_out(root: Path, revision: str, base: Path) -> Iterator[list[str]]:
    """The command of xetfs as it was at a revision, installed into an environment of its own."""
    tree, venv = base / "tree", base / "venv"
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "worktree", "add", "--detach", str(tree), revision], check=True, capture_output=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", str(tree)], check=True, stderr=subprocess.DEVNULL)
        yield [str(venv / "bin" / "python"), "-P", "-m", "xetfs"]
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True, capture_output=True)


def compare(root: Path, revision: str, data: Data, work: Path, say: Callable[[str], None]) -> list[Change]:
    """Count at both, against the hub of this checkout."""
    with tempfile.TemporaryDirectory(prefix="compare-", dir=work) as name:
        base = Path(name)
        say(f"installing {revision} in an environment of its own")
        with checked_out(root, revision, base) as command, Hub(data.hub_directory) as hub:
            found: dict[str, Counts] = {}
            for which, lab in (
                (revision, Lab(hub, data, base, xetfs=command)),
                ("here", Lab(hub, data, base, xetfs=[sys.executable, "-P", "-m", "xetfs"])),
            ):
                say(f"counting at {which}")
                found[which] = count(lab, say)
    return changes(found[revision], found["here"])
