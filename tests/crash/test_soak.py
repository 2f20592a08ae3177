"""A daemon under load for long, with a network that fails in two of a hundred requests: nothing grows.

XETFS_SOAK_SECONDS says for how long; a few seconds show only that it works.
"""

from __future__ import annotations

import errno
import os
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from load import Load
from stage import MIB, UNDER_FAULTS, Stage, Staged, block_files, mounted, open_files

SECONDS = float(os.environ.get("XETFS_SOAK_SECONDS", "8"))
LONG_S = 300.0
"""From here on growth is judged: before, caches are still filling."""
READS_PER_ROUND = 300
READERS = 6
GROWTH = 1.08
GROWTH_BYTES = 12 * MIB
"""How much larger the last third may be than the middle one, in its median."""
TOLD = frozenset({errno.EIO, errno.ETIMEDOUT, errno.EACCES})
NOISE = ("is not where it was a moment ago", *UNDER_FAULTS)
TWO_IN_A_HUNDRED = [
    {"action": "reset", "probability": 0.01},
    {"action": "close", "origin": "transfer", "after_bytes": 2000, "probability": 0.004},
    {"action": "answer", "status": 503, "probability": 0.01},
    {"action": "flip", "origin": "transfer", "path": "^/xorbs/", "probability": 0.004},
    {"action": "expire", "origin": "transfer", "path": "^/xorbs/", "probability": 0.004},
    {"action": "stall", "origin": "transfer", "seconds": 1.0, "after_bytes": 1000, "probability": 0.004},
]
"""Every request has a chance of 2 % to go wrong, one for data of 3.6 %."""


@dataclass(frozen=True)
class Sample:
    memory_bytes: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), open_files(pid), len(os.listdir(f"/proc/{pid}/task")))


def lose_blocks(stage: Stage, choose: random.Random) -> None:
    """Make room for what has to be fetched again."""
    blocks = block_files(stage.cache_dir)
    for block in choose.sample(blocks, len(blocks) // 3):
        block.unlink(missing_ok=True)


@pytest.mark.timeout(200 + int(SECONDS * 1.5))
def test_nothing_grows_under_load_and_faults(stage_of: Staged) -> None:
    choose = random.Random(8)
    samples: list[Sample] = []
    with mounted(stage_of, "soak") as stage:
        stage.expected = list(NOISE)
        for fault in TWO_IN_A_HUNDRED:
            stage_of.hub.control("POST", "faults", fault)
        until_s = time.monotonic() + SECONDS
        with Load(stage.path, stage_of.contents, readers=READERS, seed=8, tolerated=TOLD) as load:
            while time.monotonic() < until_s or len(samples) < 3:
                load.wait_done(load.done + READS_PER_ROUND)
                samples.append(Sample.of(stage.pid))
                lose_blocks(stage, choose)
                stage.judge(NOISE)
        assert load.wrong == []
        assert load.failed < load.done // 20
        fired = sum(fault["fired"] for fault in stage_of.hub.control("GET", "faults"))
        asked = len(stage_of.hub.requests())
    print(f"{load.done} reads in {SECONDS:.0f} s, {load.failed} failed; {fired} faults in {asked} requests")
    for name in ("memory_bytes", "files", "threads"):
        values = [getattr(sample, name) for sample in samples]
        third = len(values) // 3
        middle, last = statistics.median(values[third : 2 * third]), statistics.median(values[2 * third :])
        print(f"{name}: first {values[0]}, middle third {middle:.0f}, last third {last:.0f}, most {max(values)}")
        if SECONDS >= LONG_S:
            assert last <= middle * GROWTH + (GROWTH_BYTES if name == "memory_bytes" else 4)
