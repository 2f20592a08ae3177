"""Arguments, order and output of scripts/bench."""

from __future__ import annotations

import argparse
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

from benchlib.compare import NEEDS, compare, describe
from benchlib.curves import Curve
from benchlib.data import MIB, QUICK, Data, Sizes, prepare
from benchlib.figures import Figure
from benchlib.hub import Hub
from benchlib.lab import Lab, ReaderFailed, Sample
from benchlib.outcome import Outcome
from benchlib.profile import profile
from benchlib.quiet import wait_for_quiet
from benchlib.scenarios import SCALE, Scenario, Unproven, all_scenarios, run_rounds

ROOT: Final = Path(__file__).resolve().parent.parent.parent
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 3
UNITS: Final = {"stream": MIB, "large": MIB, "model": MIB, "files": 1}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure xetfs beside what people use instead, in one run against one local hub.",
        epilog="Run it as root, or the page cache cannot be dropped and the warm figures are meaningless.",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and exit")
    parser.add_argument(
        "--only", metavar="SCENARIO", action="append", help="run only this scenario or group; may be given several times"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"passes of each system ({ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--quick", action="store_true", help="smaller files and fewer rounds: minutes")
    parser.add_argument("--profile", action="store_true", help="profile the daemon in one more pass after each scenario")
    parser.add_argument("--compare", metavar="REVISION", help="compare counts with those of REVISION; exit with 1 if worse")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="directory for the results (bench-out)")
    parser.add_argument(
        "--data", type=Path, default=default_data(os.environ), help="directory in which test data is kept between runs"
    )
    parser.add_argument("--docs", action="store_true", help="write figures, curves and pictures into docs/ and README.md too")
    for field in fields(Sizes):
        unit = "files" if field.name == "files" else "MiB"
        parser.add_argument(f"--{field.name}", type=int, metavar="N", help=f"{_SIZE_HELP[field.name]}, in {unit}")
    return parser.parse_args(arguments)


_SIZE_HELP: Final = {
    "stream": "size of the files read from end to end",
    "large": "size of the file for random reads",
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


def main(given: Sequence[str] | None = None) -> int:
    """Run the bench. given: arguments in place of those of the process. Returns the exit status."""
    arguments = parse(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, which takes down mounts and the hub
    scenarios = all_scenarios()
    if arguments.list:
        for scenario in scenarios.values():
            print(f"{scenario.name:<14} {scenario.title}" + (f" (in the group {scenario.group})" if scenario.group else ""))
        return 0
    wanted = [scenario for scenario in scenarios.values() if not arguments.only or is_named(scenario, arguments.only)]
    unknown = [name for name in arguments.only or () if not any(is_named(scenario, [name]) for scenario in wanted)]
    if unknown:
        print(f"bench: no scenario {', '.join(unknown)}; --list names them", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.data.mkdir(parents=True, exist_ok=True)
    lacking = {scenario.name: scenario.missing() for scenario in wanted}
    for name, missing in lacking.items():
        if missing:
            say(f"skipping {name}: {missing}")
    wanted = [scenario for scenario in wanted if not lacking[scenario.name]]
    if not wanted:
        return 2
    needs = NEEDS if arguments.compare else {part for scenario in wanted for part in scenario.needs}
    data = prepare(arguments.data, sizes_of(arguments), needs, say)
    if arguments.compare:
        return compare_with(arguments, data)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.data))
    try:
        with Hub(data.hub_directory) as hub:
            outcome = measure(arguments, wanted, Lab(hub, data, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    outcome.write(arguments.out)
    if arguments.docs:
        measurable = [scenario for scenario in scenarios.values() if not lacking.get(scenario.name)]
        parts = {is_scale: {s.name for s in measurable if (s.group == SCALE) == is_scale} for is_scale in (True, False)}
        whole = {is_scale: names <= outcome.samples.keys() for is_scale, names in parts.items()}
        outcome.write_documents(ROOT, figures=whole[False], curves=whole[True])
        if not all(whole.values()):
            say("not everything was measured: the rest of the documents is unchanged")
    print(outcome.text)
    print(outcome.profiles, end="")
    print(f"\n{outcome.note}; {outcome.facts['minutes']} minutes\nwritten to {arguments.out}/")
    return int(bool(outcome.failed))


def is_named(scenario: Scenario, names: Sequence[str]) -> bool:
    return scenario.name in names or scenario.group in names


def compare_with(arguments: argparse.Namespace, data: Data) -> int:
    """Return 1 if a count got worse since the revision."""
    found = compare(ROOT, arguments.compare, data, arguments.data, say)
    text = describe(found, arguments.compare)
    (arguments.out / "compare.txt").write_text(f"{text}\n")
    print(text)
    return int(any(change.worse for change in found))


def measure(arguments: argparse.Namespace, wanted: Sequence[Scenario], lab: Lab) -> Outcome:
    """Run the scenarios. One that fails is reported and has no figures."""
    if os.geteuid() != 0:
        say("not root: the page cache is not dropped between passes")
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    figures: list[Figure] = []
    curves: list[Curve] = []
    samples: dict[str, dict[str, list[Sample]]] = {}
    profiles = ""
    failed: list[str] = []
    facts = machine(rounds, lab)
    began = time.monotonic()
    for scenario in wanted:
        try:
            with scenario.setting(lab):
                passes = run_rounds(scenario, lab, rounds, say)
                figures += scenario.figures(lab, passes)
                curves += scenario.curves(passes)
                samples[scenario.name] = passes
                if arguments.profile and scenario.profiled:
                    profiles += profile(scenario, lab, arguments.out)
        except (ReaderFailed, Unproven) as exc:
            failed.append(f"{scenario.name} FAILED: {exc}")
            say(failed[-1])
    facts["minutes"] = round((time.monotonic() - began) / 60)
    if revision() != facts["revision"]:
        facts["revision"] += f" to {revision()}, changed while it was measured"
    titles = {scenario.name: scenario.title for scenario in wanted}
    return Outcome(titles, figures, curves, samples, failed, facts, profiles)


def machine(rounds: int, lab: Lab) -> dict[str, Any]:
    memory = Path("/proc/meminfo").read_text().split(maxsplit=2)[1]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(),
        "cpus": os.cpu_count(),
        "kernel": f"Linux {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "memory_gib": round(int(memory) / 1024**2, 1),
        "busy_before": wait_for_quiet(say),
        "rounds": rounds,
        "sizes": lab.data.sizes.name(),
    }


def revision() -> str:
    """Return the revision of the checkout that is measured."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def say(text: str) -> None:
    print(f"· {text}", file=sys.stderr, flush=True)
