"""Reading from end to end: cold, over a far link, warm, and by many at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchlib.data import FLOATS, LARGE, MIB, NOISE, Content
from benchlib.figures import Figure, at_least, at_most, each, ratios
from benchlib.lab import GB, Lab, Sample
from benchlib.processes import settle
from benchlib.scenarios import XETFS, Pass, Samples, Scenario, Unproven

HF: Final = "hf_hub_download"
PLAIN: Final = "plain file"
Link = Mapping[str, float]
FAR_LINK: Final[Link] = {"latency_s": 0.040, "connection_bytes_s": 25e6, "total_bytes_s": 250e6}
FAR: Final = "40 ms round trip, 25 MB/s per connection, 250 MB/s in all"
LOOPBACK: Final[Link] = {}
PARALLEL: Final = 8
NO_PROOF: Final = "xetfs --verify off"


def size_text(content: Content) -> str:
    return f"{content.size / MIB:,.0f} MiB"


def cold_read(name: str, link: Link = LOOPBACK, *arguments: str) -> Pass:
    """Through a fresh mount with an empty cache, 1 MiB at a time. arguments: of `xetfs mount`."""

    def take(lab: Lab) -> Sample:
        content = lab.data.content(name)
        with lab.mount_cold(content.repo, *arguments) as mounted:
            lab.quiet(content.xorbs, content.size)
            path = str(mounted.path / content.file)
            with lab.hub.shaped(link):
                return lab.measure(lambda: lab.read("sequential", path=path, block=MIB), mounted)

    return take


def hf_download(name: str, link: Link = LOOPBACK) -> Pass:
    """By hf_hub_download with hf_xet, in a fresh process with an empty HF_HOME."""

    def take(lab: Lab) -> Sample:
        content = lab.data.content(name)
        with lab.client_env() as env, lab.hub.shaped(link):
            lab.quiet(content.xorbs, content.size)
            return lab.measure(lambda: lab.read("download", env, repo=content.repo, file=content.file, block=MIB))

    return take


def cold_figures(
    scenario: str, name: str, kind: str, target: float, lab: Lab, samples: Samples, *, where: str = "loopback"
) -> Sequence[Figure]:
    """target: of the rate over that of hf_hub_download."""
    content = lab.data.content(name)
    ours, theirs = proven(samples[XETFS]), samples[HF]
    what = f"one file of {size_text(content)} ({kind}) in 1 MiB reads, empty cache, {where}, proof on"
    peer = f"{what}; hf_hub_download of it into an empty HF_HOME, without reading it afterwards"
    figure = partial(Figure, scenario)
    return [
        figure("rate / hf_hub_download", peer, "×", ratios(each(ours, rate), each(theirs, rate)), at_least(target)),
        figure(
            "rate / (hf_hub_download + read)",
            f"{what}; beside it the download and one read of the result",
            "×",
            ratios(each(ours, rate), each(theirs, lambda s: s.bytes / (s.seconds + s.seen["read_s"]))),
        ),
        figure("CPU / hf_hub_download", f"{what}, daemon and reader; beside it the downloading process, before it reads the file",
               "×", ratios(each(ours, lambda s: s.cpu_s_gb), each(theirs, lambda s: s.cpu_s_gb)), at_most(0.8)),
        figure("bytes fetched / stored", f"{what}; body bytes of all answers over the stored (compressed) size", "×",
               each(ours, lambda s: s.traffic.bytes_all / content.stored_bytes), at_most(1.02)),
        figure("bytes fetched / stored, hf_hub_download", "the same for the download", "×",
               each(theirs, lambda s: s.traffic.bytes_all / content.stored_bytes)),
        figure("CPU", f"{what}; user and system time of daemon and reader until the daemon is idle again", "s/GB",
               each(ours, lambda s: s.cpu_s_gb)),
        figure("CPU of the daemon", "its share", "s/GB", each(ours, cpu_of("daemon"))),
        figure("CPU of the event loop", "of the daemon's main thread, which runs trio; part of the daemon's", "s/GB",
               each(ours, cpu_of("loop")), at_most(1.0)),
        figure("CPU of the hub", "what the server took for it, on the same cores", "s/GB",
               each(ours, cpu_of("hub"))),
        figure("CPU, hf_hub_download", "user and system time of the downloading process", "s/GB",
               each(theirs, lambda s: s.cpu_s_gb)),
        figure("rate", what, "MB/s", each(ours, lambda s: rate(s) / 1e6)),
        figure("rate, hf_hub_download", "the download alone", "MB/s", each(theirs, lambda s: rate(s) / 1e6)),
        figure("peak memory", f"{what}; VmHWM of the daemon", "MiB", each(ours, _peak("daemon")), at_most(350)),
        figure("peak memory, hf_hub_download", "VmHWM of the downloading process", "MiB", each(theirs, _peak("reader"))),
        figure("requests per GB", f"{what}; of the daemon, by the hub's log", "", each(ours, requests_gb)),
        figure("range proofs among them", "by the hub's log", "", each(ours, lambda s: s.traffic.proofs)),
        figure("requests per GB, hf_hub_download", "by the hub's log", "", each(theirs, requests_gb)),
    ]  # fmt: skip


def proven(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Raises Unproven."""
    if any(sample.traffic.proofs == 0 for sample in samples):
        raise Unproven("no range proof was asked for")
    return samples


def cpu_of(process: str) -> Callable[[Sample], float]:
    """Its CPU seconds per 10⁹ bytes read."""
    return lambda sample: sample.cpu_s[process] / (sample.bytes / GB)


def requests_gb(sample: Sample) -> float:
    return sample.traffic.requests_all / (sample.bytes / GB)


def link_share(sample: Sample) -> float:
    """Percent of the far link's bandwidth that file bytes took, from open to end."""
    return 100 * sample.bytes_s / FAR_LINK["total_bytes_s"]


def link_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    content = lab.data.noise
    ours, theirs = proven(samples[XETFS]), samples[HF]
    what = f"{size_text(content)} that do not compress, empty cache, {FAR}"
    figure = partial(Figure, "link")
    return [
        figure("share of the link", f"{what}; file bytes per second over 250 MB/s, from open to end", "%",
               each(ours, link_share), at_least(88)),
        figure("share of the link, hf_hub_download", "the download alone", "%", each(theirs, link_share)),
        figure("rate / hf_hub_download", what, "×", ratios(each(ours, rate), each(theirs, rate))),
        figure("bytes fetched / stored", "hedged and repeated requests included", "×",
               each(ours, lambda s: s.traffic.bytes_all / content.stored_bytes), at_most(1.02)),
        figure("sequential round trips", "the longest chain of requests that waited for each other, by the hub's log", "",
               each(ours, lambda s: s.traffic.round_trips)),
        figure("requests per GB", "by the hub's log", "", each(ours, requests_gb)),
        figure("peak memory", "VmHWM of the daemon", "MiB", each(ours, _peak("daemon")), at_most(350)),
    ]  # fmt: skip


def proof_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, bare = proven(samples[XETFS]), samples[NO_PROOF]
    what = f"one file of {size_text(lab.data.noise)} in 1 MiB reads, empty cache, loopback; beside it with --verify off"
    more = tuple(a - b for a, b in zip(each(ours, cpu_of("daemon")), each(bare, cpu_of("daemon")), strict=True))
    return [
        Figure("proof", "rate / rate without proof", what, "×", ratios(each(ours, rate), each(bare, rate)), at_least(0.92)),
        Figure("proof", "CPU of the daemon, more than without", what, "s/GB", more, at_most(0.15)),
    ]


def warm_read(lab: Lab) -> Sample:
    """Everything in the cache directory, nothing in the page cache."""
    content = lab.data.noise
    with lab.mount(content.repo, lab.warm_cache(content.repo, content.file)) as mounted:
        path = str(mounted.path / content.file)
        lab.quiet(moved=content.size)
        return lab.measure(lambda: lab.read("sequential", path=path, block=MIB), mounted)


def warm_read_hot(lab: Lab) -> Sample:
    """A new mount, with the files of the cache directory in the page cache."""
    content = lab.data.noise
    cache = lab.warm_cache(content.repo, content.file)
    with lab.mount(content.repo, cache) as mounted:
        lab.quiet(moved=content.size)
        for path in cache.rglob("*"):
            if path.is_file():
                path.read_bytes()
        target = str(mounted.path / content.file)
        return lab.measure(lambda: lab.read("sequential", path=target, block=MIB), mounted)


def plain_read(lab: Lab) -> Sample:
    """The same file as a plain file on this disk, not in the page cache."""
    content = lab.data.noise
    lab.quiet(moved=content.size)
    return lab.measure(lambda: lab.read("sequential", path=str(content.plain), block=MIB))


HOT: Final = "xetfs, blocks in memory"
FIRST: Final = "first pass after the fetch"
LATER: Final = "later pass"


def after_fetch(lab: Lab, passes: int) -> Sample:
    """A pass by the daemon that fetched the file, the kernel's pages of the mount dropped, not those of its cache directory.
    passes: 1 for the first pass after the fetch, 2 for the one after that."""
    content = lab.data.noise
    with lab.mount_cold(content.repo) as mounted:
        lab.quiet(content.xorbs, content.size)
        path = mounted.path / content.file
        for _ in range(passes):
            lab.read("sequential", path=str(path), block=MIB)
            settle(mounted.pid)
            drop_pages(path)
        return lab.measure(lambda: lab.read("sequential", path=str(path), block=MIB), mounted)


def drop_pages(path: Path) -> None:
    """Have the kernel forget what it holds of one file."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def after_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    first, later, plain = samples[FIRST], samples[LATER], samples[PLAIN]
    what = f"{size_text(lab.data.noise)} in 1 MiB reads by the daemon that fetched it, its blocks in the page cache"
    beside = f"{what}; beside it the same file on this disk, page cache dropped"
    figure = partial(Figure, "after-fetch")
    return [
        figure("first pass / plain file", beside, "×", ratios(each(first, rate), each(plain, rate)), at_least(0.8)),
        figure("later pass / plain file", beside, "×", ratios(each(later, rate), each(plain, rate)), at_least(0.85)),
        figure("rate of the first pass", what, "MB/s", each(first, lambda s: rate(s) / 1e6)),
        figure("rate of a later pass", what, "MB/s", each(later, lambda s: rate(s) / 1e6)),
        figure("rate, plain file", "what this disk gives", "MB/s", each(plain, lambda s: rate(s) / 1e6)),
        figure("CPU of the daemon, first pass", what, "s/GB", each(first, cpu_of("daemon"))),
        figure("CPU of the daemon, later pass", what, "s/GB", each(later, cpu_of("daemon"))),
        figure("bytes fetched", "by the hub's log", "", each(first, lambda s: s.traffic.bytes_all), at_most(0)),
    ]


def warm_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, hot, plain = samples[XETFS], samples[HOT], samples[PLAIN]
    what = f"{size_text(lab.data.noise)}, second mount, all of it in the cache directory, page cache dropped, 1 MiB reads"
    figure = partial(Figure, "warm")
    return [
        figure("rate / plain file", f"{what}; beside it the same file on the same disk, page cache dropped", "×",
               ratios(each(ours, rate), each(plain, rate)), at_least(0.6)),
        figure("rate", what, "MB/s", each(ours, lambda s: rate(s) / 1e6), at_least(1500)),
        figure("rate, blocks in memory", "the same, but the files of the cache directory are in the page cache",
               "MB/s", each(hot, lambda s: rate(s) / 1e6)),
        figure("rate, plain file", "what this disk gives", "MB/s", each(plain, lambda s: rate(s) / 1e6)),
        figure("bytes fetched", "by the hub's log", "", each(ours, lambda s: s.traffic.bytes_all), at_most(0)),
        figure("CPU", "of daemon and reader", "s/GB", each(ours, lambda s: s.cpu_s_gb)),
        figure("CPU, plain file", "of the reader", "s/GB", each(plain, lambda s: s.cpu_s_gb)),
    ]  # fmt: skip


def second_pass(lab: Lab) -> Sample:
    """All blocks of 256 KiB in a random order, after a pass from end to end in 1 MiB reads, page cache dropped between."""
    content = lab.data.noise
    with lab.mount(content.repo, lab.warm_cache(content.repo, content.file)) as mounted:
        path = str(mounted.path / content.file)
        lab.quiet(moved=content.size)
        return lab.measure(lambda: lab.read("shuffled", path=path, block=MIB // 4, seed=5), mounted)


def second_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours = samples[XETFS]
    what = f"{size_text(lab.data.noise)} read in 1 MiB order, page cache dropped, then in 256 KiB blocks at random"
    return [
        Figure("second", "bytes fetched", what, "", each(ours, lambda s: s.traffic.bytes_all), at_most(0)),
        Figure("second", "requests", what, "", each(ours, lambda s: s.traffic.requests_all), at_most(0)),
        Figure("second", "rate", what, "MB/s", each(ours, lambda s: rate(s) / 1e6)),
    ]


def many_readers(lab: Lab) -> Sample:
    """Eight processes, each its own eighth of one file."""
    content = lab.data.large
    with lab.mount_cold(content.repo) as mounted:
        lab.quiet(content.xorbs, content.size)
        path, part = str(mounted.path / content.file), content.size // PARALLEL
        readers = [
            ("sequential", {"path": path, "block": MIB, "start": number * part, "end": (number + 1) * part})
            for number in range(PARALLEL)
        ]
        return lab.measure(lambda: lab.read_all(readers), mounted)


def many_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours = samples[XETFS]
    what = f"{PARALLEL} processes at once, each {lab.data.large.size / PARALLEL / MIB:,.0f} MiB of a file, empty cache, loopback"
    return [
        Figure("readers", "peak memory", f"{what}; VmHWM of the daemon", "MiB", each(ours, _peak("daemon")), at_most(350)),
        Figure("readers", "bytes fetched / stored", what, "×",
               each(ours, lambda s: s.traffic.bytes_all / lab.data.large.stored_bytes), at_most(1.02)),
        Figure("readers", "rate", f"{what}; all together", "MB/s", each(ours, lambda s: rate(s) / 1e6)),
        Figure("readers", "CPU", "of daemon and readers", "s/GB", each(ours, lambda s: s.cpu_s_gb)),
    ]  # fmt: skip


def rate(sample: Sample) -> float:
    return sample.bytes_s


def _peak(process: str) -> Callable[[Sample], float]:
    return lambda sample: sample.peak_bytes[process] / MIB


SCENARIOS: Final = (
    Scenario(
        "cold",
        "Cold sequential read, beside hf_hub_download",
        {XETFS: cold_read(NOISE), HF: hf_download(NOISE)},
        partial(cold_figures, "cold", NOISE, "does not compress", 1.6),
        needs=(NOISE,),
    ),
    Scenario(
        "cold-floats",
        "Cold sequential read of float32 weights",
        {XETFS: cold_read(FLOATS), HF: hf_download(FLOATS)},
        partial(cold_figures, "cold-floats", FLOATS, "float32 weights", 1.6),
        needs=(FLOATS,),
    ),
    Scenario(
        "link",
        "Cold sequential read over a far link",
        {XETFS: cold_read(NOISE, FAR_LINK), HF: hf_download(NOISE, FAR_LINK)},
        link_figures,
        needs=(NOISE,),
    ),
    Scenario(
        "proof",
        "Cold sequential read with and without proof",
        {XETFS: cold_read(NOISE), NO_PROOF: cold_read(NOISE, LOOPBACK, "--verify", "off")},
        proof_figures,
        needs=(NOISE,),
    ),
    Scenario(
        "warm",
        "Warm read, page cache dropped",
        {XETFS: warm_read, PLAIN: plain_read, HOT: warm_read_hot},
        warm_figures,
        needs=(NOISE,),
    ),
    Scenario(
        "after-fetch",
        "Warm read by the daemon that fetched the file",
        {FIRST: partial(after_fetch, passes=1), LATER: partial(after_fetch, passes=2), PLAIN: plain_read},
        after_figures,
        needs=(NOISE,),
        profiled=FIRST,
    ),
    Scenario("second", "Second pass in another order and block size", {XETFS: second_pass}, second_figures, needs=(NOISE,)),
    Scenario("readers", "Eight readers at full speed", {XETFS: many_readers}, many_figures, needs=(LARGE,)),
)
