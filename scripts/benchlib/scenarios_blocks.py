"""Blocks read by many threads that share one descriptor: anywhere in a model, and in file order as streaming loaders read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from benchlib.data import MIB, MODEL, NOISE
from benchlib.figures import Figure, at_least, at_most, each, ratios
from benchlib.lab import Lab, Sample
from benchlib.scenarios import XETFS, Pass, Samples, Scenario
from benchlib.scenarios_stream import FAR, FAR_LINK, LOOPBACK, Link, cold_read, cpu_of, proven, rate, requests_gb, size_text
from benchlib.scenarios_whole import NEAR_LINK

STREAM: Final = "one stream"
ANYWHERE: Final = 48
"""Blocks of 4 MiB at random places: far enough apart, in a model of 512 MiB too, that none brings the bytes of another."""
THREADS: Final = 8
READS_PER_THREAD: Final = 12
LOADER_THREADS: Final = 16
ONE: Final = "xetfs, one thread"
DIRECT: Final = "xetfs, O_DIRECT"
GROUP: Final = "blocks"


def blocks(name: str, link: Link, **arguments: Any) -> Pass:
    """Through a fresh mount with an empty cache. arguments: of the reader."""

    def take(lab: Lab) -> Sample:
        content = lab.data.content(name)
        with lab.mount_cold(content.repo) as mounted:
            lab.quiet(content.xorbs, content.size)
            path = str(mounted.path / content.file)
            with lab.hub.shaped(link):
                return lab.measure(lambda: lab.read("blocks", path=path, seed=8, **arguments), mounted)

    return take


def fetched(lab: Lab, name: str, sample: Sample) -> float:
    """Bytes fetched over the stored bytes of what was read."""
    content = lab.data.content(name)
    return sample.traffic.bytes_all / (sample.bytes * content.stored_bytes / content.size)


def share_of_link(lab: Lab, name: str, sample: Sample) -> float:
    """Percent of the far link's bandwidth that the stored bytes of what was read took, from open to end."""
    content = lab.data.content(name)
    return 100 * sample.bytes_s * content.stored_bytes / content.size / FAR_LINK["total_bytes_s"]


def anywhere_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, stream = proven(samples[XETFS]), samples[STREAM]
    what = (
        f"{ANYWHERE} blocks of 4 MiB anywhere in a model of {size_text(lab.data.model)}, {THREADS} threads, empty cache, loopback"
    )
    figure = partial(Figure, "blocks-anywhere")
    return [
        figure("rate / one stream", f"{what}; beside it the model from end to end in 1 MiB reads", "×",
               ratios(each(ours, rate), each(stream, rate)), at_least(0.5)),
        figure("bytes fetched / read", f"{what}; read as stored", "×", each(ours, partial(fetched, lab, MODEL)), at_most(1.15)),
        figure("requests per block", "by the hub's log", "", each(ours, lambda s: s.traffic.requests_all / ANYWHERE), at_most(7)),
        figure("CPU of the daemon per block", "until it is idle again", "ms",
               each(ours, lambda s: 1e3 * s.cpu_s["daemon"] / ANYWHERE), at_most(50)),
        figure("rate", what, "MB/s", each(ours, lambda s: rate(s) / 1e6)),
        figure("rate, one stream", "of the same file", "MB/s", each(stream, lambda s: rate(s) / 1e6)),
    ]  # fmt: skip


def order_figures(scenario: str, name: str, what: str, systems: Sequence[str], lab: Lab, samples: Samples) -> Sequence[Figure]:
    """For blocks in file order over the far link; the systems but xetfs itself have their names in those of their figures."""
    figures: list[Figure] = []
    what = f"{what} of a file of {size_text(lab.data.content(name))}, empty cache, {FAR}"
    for system in systems:
        ours = proven(samples[system])
        suffix = "" if system == XETFS else system.removeprefix(XETFS)
        figure = partial(Figure, scenario)
        figures += [
            figure(f"share of the link{suffix}", f"{what}; stored bytes over 250 MB/s", "%",
                   each(ours, partial(share_of_link, lab, name)), at_least(80)),
            figure(f"bytes fetched / read{suffix}", f"{what}; read as stored", "×", each(ours, partial(fetched, lab, name)),
                   at_most(1.02)),
            figure(f"requests per GB{suffix}", "by the hub's log", "", each(ours, requests_gb)),
            figure(f"CPU of the daemon{suffix}", what, "s/GB", each(ours, cpu_of("daemon"))),
        ]  # fmt: skip
    return figures


def thread_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    many, one = proven(samples[XETFS]), proven(samples[ONE])
    what = f"cold 1 MiB reads anywhere in a model, one descriptor, 20 ms round trip, {READS_PER_THREAD} for each thread"
    figure = partial(Figure, "threads")
    return [
        figure(f"rate of {THREADS} threads / of one", what, "×", ratios(each(many, rate), each(one, rate)), at_least(5)),
        figure(f"rate of {THREADS} threads", what, "MB/s", each(many, lambda s: rate(s) / 1e6)),
        figure("time of one read, one thread", what, "ms", each(one, lambda s: 1e3 * s.seconds / s.seen["count"])),
        figure("bytes fetched / read", f"{what}; read as stored", "×", each(many, partial(fetched, lab, MODEL))),
        figure("requests per read", what, "", each(many, lambda s: s.traffic.requests_all / s.seen["count"])),
        figure("CPU of the daemon per read", what, "ms", each(many, lambda s: 1e3 * s.cpu_s["daemon"] / s.seen["count"])),
    ]


LOADER: Final = {"block": 2 * MIB, "threads": LOADER_THREADS}
LARGE_BLOCKS: Final = {"block": 16 * MIB, "threads": THREADS}
SCENARIOS: Final = (
    Scenario(
        "blocks-anywhere",
        "Blocks of 4 MiB anywhere in a model, eight threads, cold",
        {XETFS: blocks(MODEL, LOOPBACK, block=4 * MIB, threads=THREADS, count=ANYWHERE), STREAM: cold_read(MODEL)},
        anywhere_figures,
        needs=(MODEL,),
        group=GROUP,
    ),
    Scenario(
        "blocks-tensors",
        "A model in file order over a far link, 2 MiB blocks, 16 threads",
        {XETFS: blocks(MODEL, FAR_LINK, **LOADER)},
        partial(order_figures, "blocks-tensors", MODEL, f"2 MiB blocks in file order by {LOADER_THREADS} threads", (XETFS,)),
        needs=(MODEL,),
        group=GROUP,
    ),
    Scenario(
        "blocks-large",
        "A file in file order over a far link, 16 MiB blocks, eight threads",
        {XETFS: blocks(NOISE, FAR_LINK, **LARGE_BLOCKS), DIRECT: blocks(NOISE, FAR_LINK, direct=True, **LARGE_BLOCKS)},
        partial(order_figures, "blocks-large", NOISE, f"16 MiB blocks in file order by {THREADS} threads", (XETFS, DIRECT)),
        needs=(NOISE,),
        group=GROUP,
    ),
    Scenario(
        "threads",
        "1 MiB anywhere in a model, eight threads on one descriptor",
        {
            XETFS: blocks(MODEL, NEAR_LINK, block=MIB, threads=THREADS, count=READS_PER_THREAD * THREADS),
            ONE: blocks(MODEL, NEAR_LINK, block=MIB, threads=1, count=READS_PER_THREAD),
        },
        thread_figures,
        needs=(MODEL,),
        group=GROUP,
    ),
)
