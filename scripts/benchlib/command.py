"""Arguments, order and output of scripts/bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from benchlib import report
from benchlib.compare import compare, describe
from benchlib.data import MIB, QUICK, Sizes, prepare
from benchlib.figures import Figure
from benchlib.hub import Hub
from benchlib.lab import Lab, ReaderFailed, Sample
from benchlib.picture import bars
from benchlib.profile import profile
from benchlib.scenarios import Scenario, Unproven, all_scenarios, run_rounds

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DOCS: Final = ROOT / "docs"
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 3
UNITS: Final = {"stream": MIB, "large": MIB, "model": MIB, "files": 1}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure xetfs beside what people use instead, in one run against one local hub.",
        epilog="Run it as root, or the page cache cannot be dropped and the warm figures mean little.",
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--only", metavar="SCENARIO", action="append", help="run this one; may be given several times")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"passes of each system ({ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--quick", action="store_true", help="smaller files and fewer rounds: minutes")
    parser.add_argument("--profile", action="store_true", help="after each scenario, profile the daemon in one more pass")
    parser.add_argument("--compare", metavar="REVISION", help="compare counted things with those at REVISION; exit 1 if worse")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where the results go (bench-out)")
    parser.add_argument("--data", type=Path, default=default_data(os.environ), help="where what is read is kept between runs")
    parser.add_argument("--docs", action="store_true", help="put the picture and the table into docs/ as well")
    for field in fields(Sizes):
        unit = "files" if field.name == "files" else "MiB"
        parser.add_argument(f"--{field.name}", type=int, metavar="N", help=f"{_SIZE_HELP[field.name]}, in {unit}")
    return parser.parse_args(arguments)


_SIZE_HELP: Final = {
    "stream": "size of the files read from end to end",
    "large": "size of the file in which places are picked",
    "model": "size of the model",
    "files": "files in the large directory",
}


def default_data(env: Mapping[str, str]) -> Path:
    cache = env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or "/tmp") / ".cache"
    return Path(cache) / "xetfs-bench"


def sizes_of(arguments: argparse.Namespace) -> Sizes:
    sizes = QUICK if arguments.quick else Sizes()
    given = {name: getattr(arguments, name) * unit for name, unit in UNITS.items() if getattr(arguments, name) is not None}
    return replace(sizes, **given)


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, which takes down mounts and the hub
    scenarios = all_scenarios()
    if arguments.list:
        print("\n".join(f"{scenario.name:<12} {scenario.title}" for scenario in scenarios.values()))
        return 0
    unknown = set(arguments.only or ()) - scenarios.keys()
    if unknown:
        print(f"bench: no scenario {', '.join(sorted(unknown))}; --list names them", file=sys.stderr)
        return 2
    wanted = [scenario for scenario in scenarios.values() if not arguments.only or scenario.name in arguments.only]
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.data.mkdir(parents=True, exist_ok=True)
    data = prepare(arguments.data, sizes_of(arguments), say)
    if arguments.compare:
        found = compare(ROOT, arguments.compare, data, arguments.data, say)
        print(describe(found, arguments.compare))
        return int(any(change.worse for change in found))
    work = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.data))
    try:
        with Hub(data.hub_directory) as hub:
            return 0 if measure(arguments, wanted, Lab(hub, data, work)) else 1
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure(arguments: argparse.Namespace, wanted: Sequence[Scenario], lab: Lab) -> bool:
    """Run, and write down what came out. Whether every scenario could be measured; what failed is not among the figures."""
    if os.geteuid() != 0:
        say("not root: the page cache is not dropped between passes")
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    titles = {scenario.name: scenario.title for scenario in wanted}
    figures: list[Figure] = []
    samples: dict[str, dict[str, list[Sample]]] = {}
    profiles = ""
    failed: list[str] = []
    facts = machine(rounds, lab)
    for scenario in wanted:
        try:
            samples[scenario.name] = run_rounds(scenario, lab, rounds, say)
            figures += scenario.figures(lab, samples[scenario.name])
            if arguments.profile:
                profiles += profile(scenario, lab, arguments.out)
        except (ReaderFailed, Unproven) as exc:
            failed.append(f"{scenario.name} FAILED: {exc}")
            say(failed[-1])
    if revision() != facts["revision"]:
        facts["revision"] += f" to {revision()}, changed while it was measured"
    text = "\n".join([report.table(figures, titles), *failed])
    note = f"{facts['cpus']} cores, {facts['kernel']}, {rounds} rounds, xetfs {facts['revision']}, {facts['date']}{_busy(facts)}"
    picture = bars(figures, titles, title="xetfs: measured against its targets", note=note)
    out: Path = arguments.out
    (out / "results.json").write_text(json.dumps(report.as_json(figures, samples, facts), indent=1) + "\n")
    (out / "results.txt").write_text(f"{note}\n{text}\n{profiles}")
    rows = report.markdown(figures, titles)
    (out / "results.md").write_text(rows)
    (out / "results.svg").write_text(picture)
    if arguments.docs:
        (DOCS / "performance.svg").write_text(picture)
        page = DOCS / "performance.md"
        page.write_text(report.with_figures(page.read_text(), f"{_described(facts)}\n\n{rows}"))
    print(text)
    print(profiles, end="")
    print(f"\n{note}\nwritten to {out}/results.{{json,md,svg,txt}}" + (" and profile-*" if profiles else ""))
    return not failed


def machine(rounds: int, lab: Lab) -> dict[str, Any]:
    memory = Path("/proc/meminfo").read_text().split(maxsplit=2)[1]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(),
        "cpus": os.cpu_count(),
        "kernel": f"Linux {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "memory_gib": round(int(memory) / 1024**2, 1),
        "load_before": os.getloadavg()[0],
        "rounds": rounds,
        "sizes": lab.data.sizes.name(),
    }


def revision() -> str:
    """Of the checkout that is measured."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _busy(facts: Mapping[str, Any]) -> str:
    """A remark, where other programs had the cores."""
    load = facts["load_before"]
    return f"; the machine was busy (load {load:.0f}), so times mean little" if load > facts["cpus"] else ""


def _described(facts: Mapping[str, Any]) -> str:
    stream, large, model, files = facts["sizes"].split("-")
    return (
        f"Measured on {facts['date']} with {facts['cpus']} cores and {facts['memory_gib']} GiB of memory, {facts['kernel']}, "
        f"Python {facts['python']}, xetfs {facts['revision']}, {facts['rounds']} rounds{_busy(facts)}. "
        f"Files: {stream} MiB from end to end, "
        f"{large} MiB for places in it, a model of {model} MiB, a directory of {int(files):,}."
    )


def say(text: str) -> None:
    print(f"· {text}", file=sys.stderr, flush=True)
