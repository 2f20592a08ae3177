"""What the store's operations cost in a cache of many blocks, without a mount."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchlib.curves import Curve, by_size
from benchlib.data import MIB
from benchlib.lab import PASS_S, Lab, ReaderFailed, Sample
from benchlib.records import traffic_of
from benchlib.scenarios import SCALE, Pass, Samples, Scenario
from benchlib.scenarios_scale import labels, seen

BLOCKS: Final = (5_000, 50_000, 500_000)
SIZES: Final = labels(BLOCKS, "blocks")
PROGRAM: Final = Path(__file__).with_name("store_costs.py")


def cache_pass(blocks: int) -> Pass:
    """Open the store in a fresh process; find, miss and put. Filled at the first pass; each put evicts as much again."""

    def take(lab: Lab) -> Sample:
        directory = lab.base / f"blocks-{blocks}"
        if not directory.exists():
            _run(lab, "make", directory, blocks)
        lab.passes += 1
        seen = json.loads(_run(lab, "measure", directory, lab.passes))
        return Sample(seen["find_s"] + seen["put_s"], 0, {}, {}, 0, traffic_of([]), seen)

    return take


def _run(lab: Lab, what: str, directory: Path, number: int) -> str:
    command = [lab.python, "-P", str(PROGRAM), what, str(directory), str(number)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=PASS_S)
    if done.returncode:
        raise ReaderFailed(f"{PROGRAM.name} {what} ended with {done.returncode}")
    return done.stdout


def cache_curves(samples: Samples) -> Sequence[Curve]:
    curve = partial(Curve, "scale-cache", axis="blocks")
    points = partial(by_size, samples, SIZES)
    per_thousand = {size: tuple(1e6 * value / size for value in values) for size, values in points(seen("upkeep_s")).items()}
    return [
        curve("find", "a block that is there and not open: looked up, opened, its header checked; CPU", "µs",
              points=points(seen("find_s", 1e6))),
        curve("miss", "a block that is not there; CPU", "µs", points=points(seen("miss_s", 1e6))),
        curve("put with eviction", "a small block into a full store; CPU", "µs", points=points(seen("put_s", 1e6))),
        curve("opening", "what a mount waits for; CPU", "ms", points=points(seen("open_s", 1e3))),
        curve("upkeep, per 1,000 blocks", "in the background, once an hour: strays are looked for; CPU", "ms",
              points=per_thousand),
        curve("memory", "of a process that has only the store open", "MiB", points=points(seen("resident_bytes", 1 / MIB))),
    ]  # fmt: skip


SCENARIOS: Final = (
    Scenario(
        "scale-cache",
        "Caches of many blocks",
        {label: cache_pass(size) for label, size in SIZES.items()},
        curves=cache_curves,
        profiled="",
        group=SCALE,
    ),
)
