"""A profile of the daemon during a pass: py-spy for its Python code, `perf`, if installed, for C and the kernel.

A profiled pass is a pass of its own and no figure comes from it, as being watched costs time.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchlib.lab import Lab
from benchlib.scenarios import Scenario
from benchlib.stacks import flame_graph, parse_stacks, top_self, top_total

RATE: Final = 250
SHOWN: Final = 25
END_S: Final = 60


def profile(scenario: Scenario, lab: Lab, out: Path) -> str:
    """Profile one pass with each profiler; the top entries. Leaves profile-NAME.{stacks,svg,perf.txt} in `out`."""
    take = scenario.systems[scenario.profiled]
    stacks_file = out / f"profile-{scenario.name}.stacks"
    lab.watch = lambda pid: _spy(pid, stacks_file)
    try:
        take(lab)
        text = _describe(scenario.name, stacks_file)
        if shutil.which("perf"):
            perf_data = lab.base / "perf.data"
            lab.watch = lambda pid: _perf(pid, perf_data)
            take(lab)
            text += _symbols(perf_data, out / f"profile-{scenario.name}.perf.txt")
    finally:
        lab.watch = None
    return text


def _spy(pid: int, stacks: Path) -> Callable[[], None]:
    spy = Path(sys.executable).with_name("py-spy")
    command = [str(spy), "record", "--pid", str(pid), "--format", "raw", "--rate", str(RATE), "--threads", "--nonblocking"]
    return _recorder([*command, "--output", str(stacks)])


def _perf(pid: int, data: Path) -> Callable[[], None]:
    """By the clock, which every machine has, rather than by cycles."""
    return _recorder(["perf", "record", "--quiet", "-e", "cpu-clock", "-F", str(RATE), "-g", "-p", str(pid), "-o", str(data)])


def _recorder(command: list[str]) -> Callable[[], None]:
    recording = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def end() -> None:
        recording.send_signal(signal.SIGINT)
        recording.wait(END_S)

    return end


def _describe(name: str, stacks_file: Path) -> str:
    stacks = parse_stacks(stacks_file.read_text().splitlines())
    stacks_file.with_suffix(".svg").write_text(flame_graph(stacks, f"xetfs daemon, {name}"))
    lines = [f"\nProfile of the daemon in {name}: {sum(stacks.values())} samples (threads that run)", "  in the frame itself"]
    lines += [f"    {100 * share:5.1f} %  {frame}" for frame, share in top_self(stacks, SHOWN)]
    lines += ["  in the frame and what it calls"]
    lines += [f"    {100 * share:5.1f} %  {frame}" for frame, share in top_total(stacks, SHOWN)]
    return "\n".join(lines) + "\n"


def _symbols(data: Path, text_file: Path) -> str:
    """The functions of C, libraries and kernel in which the time went."""
    report = ["perf", "report", "--stdio", "--no-children", "-g", "none", "--sort", "dso,symbol", "-i", str(data)]
    text = subprocess.run(report, capture_output=True, text=True, check=False).stdout
    text_file.write_text(text)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return "\n".join(["  by perf (library, function)", *(f"    {line.rstrip(' -').strip()}" for line in lines[:SHOWN])]) + "\n"
