"""Whole files of several sizes, each from its first byte to its last, as most programs read; and several at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from benchlib.data import ALIKE, ALIKE_MB, FIRST, MIB, NOISE, WHOLE, WHOLE_MB, alike_name, whole_name
from benchlib.figures import Figure, at_least, at_most, each, ratios
from benchlib.lab import Lab, Mounted, Sample
from benchlib.scenarios import Pass, Samples, Scenario
from benchlib.scenarios_stream import LOOPBACK, Link, cold_read, proven, rate

NEAR_LINK: Final[Link] = {"latency_s": 0.020}
GOOD_BYTES_S: Final = 400e6
"""Rate at which a file should come after its two round trips."""
ROUND_TRIPS: Final[Mapping[float, int]] = {1: 2, 5: 3, 10: 3, 30: 3, 100: 5}
REQUESTS: Final[Mapping[float, int]] = {1: 3, 5: 6, 10: 6, 30: 10, 100: 20}
CPU_MS: Final[Mapping[float, float]] = {1: 8, 10: 40}
"""Targets by size in MB."""
SIDE_BY_SIDE: Final = "side by side"
BY_TURNS: Final = "by turns"
STREAM: Final = "one stream"
GROUP: Final = "whole"


def label(megabytes: float) -> str:
    return f"{megabytes:g} MB"


def begin(lab: Lab, mounted: Mounted) -> None:
    """Read what only the first read of a mount waits for: a listing and a token."""
    lab.read("sequential", path=str(mounted.path / FIRST), block=MIB)
    lab.quiet(lab.data.content(FIRST).xorbs)


def whole_file(megabytes: float, link: Link) -> Pass:
    """A file in 1 MiB reads through a fresh mount with an empty cache."""

    def take(lab: Lab) -> Sample:
        content = lab.data.content(whole_name(megabytes))
        with lab.mount_cold(content.repo) as mounted:
            begin(lab, mounted)
            path = str(mounted.path / content.file)
            with lab.hub.shaped(link):
                return lab.measure(lambda: lab.read("sequential", path=path, block=MIB), mounted)

    return take


def near_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    figures = []
    for size in WHOLE_MB:
        ours = proven(samples[label(size)])
        what = f"a file of {label(size)} from end to end, empty cache, 20 ms round trip"
        good_s = 2 * NEAR_LINK["latency_s"] + size * 1e6 / GOOD_BYTES_S
        trips, requests = ROUND_TRIPS.get(size), REQUESTS.get(size)
        figure = partial(Figure, "whole")
        figures += [
            figure(f"{label(size)}: sequential round trips", f"{what}; by the hub's log", "",
                   each(ours, lambda s: s.traffic.round_trips), at_most(trips) if trips else None),
            figure(f"{label(size)}: requests", f"{what}; by the hub's log", "",
                   each(ours, lambda s: s.traffic.requests_all), at_most(requests) if requests else None),
            figure(f"{label(size)}: time / (two round trips + bytes at 400 MB/s)", what, "×",
                   each(ours, partial(_time_over, good_s)), at_most(1.6)),
            figure(f"{label(size)}: time", what, "ms", each(ours, lambda s: 1e3 * s.seconds)),
        ]  # fmt: skip
    return figures


def _time_over(seconds: float, sample: Sample) -> float:
    return sample.seconds / seconds


def loopback_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    figures = []
    for size in WHOLE_MB:
        ours = proven(samples[label(size)])
        what = f"a file of {label(size)} from end to end, empty cache, loopback"
        most = CPU_MS.get(size)
        figure = partial(Figure, "whole-loopback")
        figures += [
            figure(f"{label(size)}: CPU of the daemon", f"{what}; until it is idle again", "ms",
                   each(ours, lambda s: 1e3 * s.cpu_s["daemon"]), at_most(most) if most else None),
            figure(f"{label(size)}: time", what, "ms", each(ours, lambda s: 1e3 * s.seconds)),
            figure(f"{label(size)}: requests", f"{what}; by the hub's log", "", each(ours, lambda s: s.traffic.requests_all)),
        ]  # fmt: skip
    return figures


def alike(reader: str, **arguments: Any) -> Pass:
    """Some files of the same size at the same time, through a fresh mount with an empty cache, over loopback."""

    def take(lab: Lab) -> Sample:
        content = lab.data.content(FIRST)
        with lab.mount_cold(content.repo) as mounted:
            begin(lab, mounted)
            paths = [str(mounted.path / alike_name(number)) for number in range(ALIKE)]
            return lab.measure(lambda: lab.read(reader, paths=paths, block=MIB, **arguments), mounted)

    return take


def alike_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    stream = proven(samples[STREAM])
    figure = partial(Figure, "alike")
    figures = [figure("rate of one stream", "of a large file", "MB/s", each(stream, lambda s: rate(s) / 1e6))]
    for way in (SIDE_BY_SIDE, BY_TURNS):
        ours = proven(samples[way])
        what = f"{ALIKE} files of {ALIKE_MB} MB read {way} in 1 MiB reads, empty cache, loopback"
        fetched = tuple(sample.traffic.bytes_all / sample.bytes for sample in ours)
        figures += [
            figure(f"{way}: rate / one stream", f"{what}; beside them one large file from end to end", "×",
                   ratios(each(ours, rate), each(stream, rate)), at_least(0.8)),
            figure(f"{way}: rate", what, "MB/s", each(ours, lambda s: rate(s) / 1e6)),
            figure(f"{way}: bytes fetched / read", what, "×", fetched, at_most(1.02)),
            figure(f"{way}: requests", what, "", each(ours, lambda s: s.traffic.requests_all)),
            figure(f"{way}: CPU of the daemon", what, "ms", each(ours, lambda s: 1e3 * s.cpu_s["daemon"])),
        ]  # fmt: skip
    return figures


SCENARIOS: Final = (
    Scenario(
        "whole",
        "Whole files, cold, 20 ms away",
        {label(size): whole_file(size, NEAR_LINK) for size in WHOLE_MB},
        near_figures,
        needs=(WHOLE,),
        profiled=label(10),
    ),
    Scenario(
        "whole-loopback",
        "Whole files, cold",
        {label(size): whole_file(size, LOOPBACK) for size in WHOLE_MB},
        loopback_figures,
        needs=(WHOLE,),
        profiled=label(10),
        group=GROUP,
    ),
    Scenario(
        "alike",
        f"{ALIKE} files of {ALIKE_MB} MB at the same time, cold",
        {
            SIDE_BY_SIDE: alike("together", threads=ALIKE),
            BY_TURNS: alike("by_turns"),
            STREAM: cold_read(NOISE),
        },
        alike_figures,
        needs=(WHOLE, NOISE),
        profiled=SIDE_BY_SIDE,
        group=GROUP,
    ),
)
