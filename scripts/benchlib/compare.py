"""Compare counts of this checkout with those of another revision: other programs on the machine do not affect them.

What is counted, and how: counting.py. Here: how much more of each is worse, and the other revision beside this one.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchlib.counting import Counter, Counts, count_instructions, count_traffic, find_counter
from benchlib.data import FILES, MODEL, NOISE, Data
from benchlib.figures import number
from benchlib.hub import Hub
from benchlib.lab import Lab

ROUNDS: Final = 3
NEEDS: Final = (NOISE, MODEL, FILES)
"""Parts of the data that the counted reads need."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Growth that does not count as worse: a share of the base, plus an amount, since small counts vary by one. A hint is shown
    but decides nothing: even CPU time depends on what else runs."""

    share: float
    amount: float
    is_hint: bool = False

    def limit(self, base: float) -> float:
        return base * (1 + self.share) + self.amount


TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "requests": Tolerance(0.10, 2),
    "bytes": Tolerance(0.03, 16_384),
    "round trips": Tolerance(0.10, 1),
    "instructions": Tolerance(0.05, 3_000_000),  # housekeeping runs on its own schedule
    "page faults": Tolerance(0.25, 2_000),
    "peak memory": Tolerance(0.15, 8 * 1024 * 1024),
    "CPU s": Tolerance(0.30, 0.02, is_hint=True),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One count of both revisions. kind: the key of its tolerance."""

    name: str
    base: float
    now: float

    @property
    def kind(self) -> str:
        return self.name.rpartition(": ")[2]

    @property
    def limit(self) -> float:
        """Maximum value that does not count as worse."""
        return TOLERANCES[self.kind].limit(self.base)

    @property
    def grew(self) -> bool:
        """True if the growth exceeds its tolerance."""
        return self.now > self.limit

    @property
    def worse(self) -> bool:
        return self.grew and not TOLERANCES[self.kind].is_hint

    @property
    def verdict(self) -> str:
        if self.grew:
            return "WORSE" if self.worse else "more, a hint"
        return "better" if self.base > TOLERANCES[self.kind].limit(self.now) else ""


def changes(base: Mapping[str, float], now: Mapping[str, float]) -> list[Change]:
    """Return the counts that both revisions have; the others cannot be compared."""
    return [Change(name, base[name], now[name]) for name in now if name in base]


def describe(found: Sequence[Change], revision: str) -> str:
    """Return one line for each change, and a summary of what got worse."""
    lines = [f"  {'':<46} {revision:>14.14} {'here':>14} {'allowed':>14}"]
    for change in found:
        values = f"{number(change.base):>14} {number(change.now):>14} {number(change.limit):>14}"
        lines.append(f"  {change.name:<46.46} {values}  {change.verdict}".rstrip())
    worse = [change for change in found if change.worse]
    lines.append(f"{len(worse)} of {len(found)} got worse by more than is allowed" if worse else "nothing got worse")
    lines += [
        f"  worse: {change.name}: {number(change.base)} → {number(change.now)} (≤ {number(change.limit)})" for change in worse
    ]
    return "\n".join(lines)


def medians(rounds: Sequence[Mapping[str, float]]) -> Counts:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def compare(root: Path, revision: str, data: Data, work: Path, say: Callable[[str], None]) -> list[Change]:
    """Count with both revisions in turns, against the hub of this checkout."""
    with tempfile.TemporaryDirectory(prefix="compare-", dir=work) as name:
        base = Path(name)
        counter = find_counter(base)
        say(f"instructions are counted by {counter.name}" if counter else "instructions are not counted: no perf, no valgrind")
        say(f"installing {revision} and this checkout, each in an environment of its own")
        with checked_out(root, revision, base / "tree") as tree:
            commands = [installed(source, base / place) for source, place in ((tree, "base"), (root, "here"))]
        with Hub(data.hub_directory) as hub:
            return compare_both(*(Lab(hub, data, base, xetfs=command) for command in commands), counter=counter, say=say)


@contextmanager
def checked_out(root: Path, revision: str, tree: Path) -> Iterator[Path]:
    """Check out a revision for a while."""
    git = ["git", "-C", str(root), "worktree"]
    subprocess.run([*git, "add", "--detach", str(tree), revision], check=True, capture_output=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True, capture_output=True)


def installed(source: Path, venv: Path) -> list[str]:
    """Install the xetfs of a tree; return its command. Both are installed, so that neither compiles while it is counted."""
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", str(source)]
    subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    return [python, "-P", "-m", "xetfs"]


def compare_both(base: Lab, now: Lab, *, counter: Counter | None, say: Callable[[str], None]) -> list[Change]:
    """Return the counts of both, A B A B; the instructions once, as they are the same each time."""
    rounds: tuple[list[Counts], list[Counts]] = ([], [])
    for number_of in range(ROUNDS):
        say(f"counting, round {number_of + 1}/{ROUNDS}")
        for lab, own in zip((base, now), rounds, strict=True):
            own.append(count_traffic(lab))
    counted = [medians(own) for own in rounds]
    if counter is not None:
        for lab, counts in zip((base, now), counted, strict=True):
            say("counting instructions")
            counts.update(count_instructions(lab, counter, say))
    return changes(*counted)
