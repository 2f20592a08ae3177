"""Reading 4 KiB here and there: cold and warm."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

from benchlib.bare_mount import NAME
from benchlib.data import LARGE, NOISE
from benchlib.figures import Figure, at_least, at_most, each, ratios
from benchlib.lab import Lab, Mounted, ReaderFailed, Sample
from benchlib.processes import settle
from benchlib.records import Traffic, traffic_of, within
from benchlib.scenarios import XETFS, Pass, Samples, Scenario
from benchlib.scenarios_stream import size_text

PAGE: Final = 4096
PLACES: Final = 32
RTT: Final = 0.040
RANGES: Final = "HfFileSystem"
NO_PROOF: Final = "xetfs, no proofs offered"
WARM_READS: Final = 20_000
BARE: Final = "bare pyfuse3"


def places(size: int, *, seed: int) -> list[int]:
    """Far from each other and from both ends, on no boundary in particular; the same for every system."""
    chance = random.Random(seed)
    step = size // (PLACES + 1)
    found = [step // 2 + number * step + chance.randrange(step // 4) for number in range(PLACES)]
    chance.shuffle(found)
    return found


@dataclass(frozen=True, slots=True)
class OneRead:
    """A read that nothing prepared, and what it cost. round_trips: of what it waited for; traffic: all that the daemon asked for
    on account of it, afterwards too."""

    seconds: float
    round_trips: int
    traffic: Traffic


def cold_places(*, proof: bool) -> Pass:
    """4 KiB at each place, one after the other, through one mount and one descriptor that was open before."""

    def take(lab: Lab) -> Sample:
        content = lab.data.large
        with lab.mount_cold(content.repo) as mounted, nullcontext() if proof else lab.hub.without_proofs():
            lab.quiet(content.xorbs)
            with lab.hub.shaped({"latency_s": RTT}):
                reads: list[OneRead] = []
                sample = lab.measure(lambda: [_read_places(lab, mounted, reads)], mounted)
        # The first read of a mount brings its own requests (a token for the CAS); it is told apart.
        rest = reads[1:]
        return Sample(
            seconds=sample.seconds,
            bytes=sample.bytes,
            cpu_s=sample.cpu_s,
            peak_bytes=sample.peak_bytes,
            faults=sample.faults,
            traffic=sample.traffic,
            seen={
                "first_round_trips": reads[0].round_trips,
                "first_s": reads[0].seconds,
                "round_trips": median(read.round_trips for read in rest),
                "round_trips_most": max(read.round_trips for read in rest),
                "moved": median(read.traffic.bytes_all for read in rest),
                "moved_mean": sum(read.traffic.bytes_all for read in rest) / len(rest),
                "moved_most": max(read.traffic.bytes_all for read in rest),
                "requests": max(read.traffic.requests_all for read in rest),
                "seconds": sorted(read.seconds for read in rest)[len(rest) // 2],
            },
        )

    return take


def _read_places(lab: Lab, mounted: Mounted, reads: list[OneRead]) -> dict[str, float]:
    content = lab.data.large
    file = os.open(mounted.path / content.file, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    for place in places(content.size, seed=6):
        lab.hub.reset()
        began = time.perf_counter()
        got = os.pread(file, PAGE, place // PAGE * PAGE)
        seconds = time.perf_counter() - began
        if len(got) != PAGE:
            raise ReaderFailed(f"{len(got)} bytes of {PAGE} at {place}")
        settle(mounted.pid)
        records = lab.hub.records()
        reads.append(OneRead(seconds, traffic_of(within(records, seconds)).round_trips, traffic_of(records)))
    os.close(file)
    return {"seconds": sum(read.seconds for read in reads), "bytes": PAGE * PLACES, "cpu_s": 0.0, "peak_bytes": 0}


def hf_places(lab: Lab) -> Sample:
    """The same places by HfFileSystem, as it comes."""
    content = lab.data.large
    with lab.client_env() as env, lab.hub.shaped({"latency_s": RTT}):
        lab.quiet(content.xorbs)
        arguments = {"repo": content.repo, "file": content.file, "length": PAGE, "places": places(content.size, seed=6)}
        return lab.measure(lambda: lab.read("ranges", env, **arguments))


def cold_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, bare, theirs = samples[XETFS], samples[NO_PROOF], samples[RANGES]
    what = f"4 KiB at {PLACES} far places of a file of {size_text(lab.data.large)}, empty cache, 40 ms round trip, after open"
    figure = partial(Figure, "random")
    return [
        figure("time / HfFileSystem", f"{what}; all places, beside seek and read of HfFileSystem", "×",
               ratios(each(ours, lambda s: s.seconds), each(theirs, lambda s: s.seconds))),
        figure("sequential round trips", f"{what}; median of the places but the mount's first, by the hub's log", "",
               each(ours, lambda s: s.seen["round_trips"]), at_most(2)),
        figure("sequential round trips, at most", "the most of any but the first", "",
               each(ours, lambda s: s.seen["round_trips_most"])),
        figure("sequential round trips of the first", "of the first read of the mount", "",
               each(ours, lambda s: s.seen["first_round_trips"]), at_most(2)),
        figure("moved, with proof", f"{what}; of all answers until the daemon is idle, median of all but the first", "KB",
               each(ours, lambda s: s.seen["moved"] / 1e3), at_most(400)),
        figure("requests", "the most of any read but the first", "", each(ours, lambda s: s.seen["requests"])),
        figure("moved, with proof, mean", "the mean of all but the first", "KB",
               each(ours, lambda s: s.seen["moved_mean"] / 1e3)),
        figure("moved, with proof, at most", "the most of any but the first: the server says how far a proof reaches", "KB",
               each(ours, lambda s: s.seen["moved_most"] / 1e3)),
        figure("moved, without", "the same where the server offers no proofs", "KB",
               each(bare, lambda s: s.seen["moved"] / 1e3), at_most(160)),
        figure("moved, HfFileSystem", "for all places, per place", "KB",
               each(theirs, lambda s: s.traffic.bytes_all / PLACES / 1e3)),
        figure("time", "median of the places but the first", "ms", each(ours, lambda s: 1e3 * s.seen["seconds"])),
        figure("time of the first", "of the first read of the mount", "ms", each(ours, lambda s: 1e3 * s.seen["first_s"])),
        figure("time, HfFileSystem", "mean of the places", "ms", each(theirs, lambda s: 1e3 * s.seconds / PLACES)),
    ]  # fmt: skip


def warm_places(lab: Lab) -> Sample:
    """4 KiB reads past the page cache of the mount, of what was read so before: that is on this disk and in its page cache.

    A read from end to end would not bring it there: the blocks would be read past the page cache of the disk.
    """
    content = lab.data.noise
    with lab.mount(content.repo, lab.warm_cache(content.repo, content.file)) as mounted:
        path = str(mounted.path / content.file)
        read = partial(lab.read, "random_reads", path=path, length=PAGE, count=WARM_READS, seed=7)
        read()
        return lab.measure(read, mounted)


def bare_places(lab: Lab) -> Sample:
    """The same reads of the plain file through a file system that does nothing else."""
    with lab.mount_bare(lab.data.noise.plain) as mounted:
        read = partial(lab.read, "random_reads", path=str(mounted.path / NAME), length=PAGE, count=WARM_READS, seed=7)
        read()
        return lab.measure(read, mounted)


def warm_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, bare = samples[XETFS], samples[BARE]
    what = f"{WARM_READS} reads of 4 KiB at random pages of {size_text(lab.data.noise)}, one job, O_DIRECT, read once before"
    figure = partial(Figure, "iops")
    return [
        figure("reads per second / bare pyfuse3", f"{what}; beside them the plain file through a file system of one file",
               "×", ratios(each(ours, _reads_s), each(bare, _reads_s))),
        figure("reads per second", what, "/s", each(ours, _reads_s), at_least(20_000)),
        figure("reads per second, bare pyfuse3", "what kernel, libfuse, pyfuse3 and trio leave of this machine", "/s",
               each(bare, _reads_s)),
        figure("CPU of the daemon per read", what, "µs", each(ours, _cpu_us)),
        figure("CPU of the daemon per read, bare pyfuse3", "the same", "µs", each(bare, _cpu_us)),
    ]  # fmt: skip


def _reads_s(sample: Sample) -> float:
    return sample.seen["count"] / sample.seconds


def _cpu_us(sample: Sample) -> float:
    return 1e6 * sample.cpu_s["daemon"] / sample.seen["count"]


SCENARIOS: Final = (
    Scenario(
        "random",
        "Cold 4 KiB reads at random places",
        {XETFS: cold_places(proof=True), NO_PROOF: cold_places(proof=False), RANGES: hf_places},
        cold_figures,
        needs=(LARGE,),
    ),
    Scenario("iops", "Warm random 4 KiB reads, one job", {XETFS: warm_places, BARE: bare_places}, warm_figures, needs=(NOISE,)),
)
