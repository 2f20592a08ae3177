"""What operations cost in large repos, in large files, in files of many terms, and with many shards read at once.

All through mounts, with proof, over loopback. CPU is that of the daemon, which is what grows if anything does; requests and bytes
are the hub's count.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from benchlib import scale_data
from benchlib.curves import COUNT_GROWTH_MAX, Curve, by_size
from benchlib.data import MIB
from benchlib.figures import Figure, at_most, each
from benchlib.lab import GB, Lab, Mounted, Sample
from benchlib.scenarios import SCALE, Pass, Samples, Scenario

PAGE: Final = 4096
LOOKED_UP: Final = 3000
"""Names looked up: all of them would be the listing again, and a hundred times as much work in the largest repo."""
PLACES: Final = 16
"""Places read cold in a large file: the smallest has 60 MB from one to the next, so that none brings another's bytes."""
TERM_PLACES: Final = 2
"""Places read cold in each file of few terms: the smallest file has 2.6 MB, and a cold read brings half a megabyte."""
AT_ONCE: Final = (1, 16, 64)
WARM_PLACES: Final = 64
WARM_PASSES: Final = 40


def labels(sizes: Sequence[int], unit: str) -> dict[str, int]:
    """The names of systems, with their sizes."""
    return {f"{size:,} {unit}": size for size in sizes}


def per_operation(sample: Sample, count: float) -> dict[str, float]:
    """What one of `count` operations cost."""
    return {
        "cpu_us": 1e6 * sample.cpu_s["daemon"] / count,
        "requests": sample.traffic.requests_all / count,
        "bytes": sample.traffic.bytes_all / count,
    }


def prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def seen(name: str, factor: float = 1.0) -> Callable[[Sample], float]:
    return lambda sample: sample.seen[name] * factor


def daemon_peak(sample: Sample) -> float:
    return sample.peak_bytes["daemon"] / MIB


# A repo of many files


def files_pass(count: int) -> Pass:
    """A directory listed for the first time, and again when the kernel has forgotten it; then, in a second mount, some names
    looked up of which the kernel knows nothing yet."""

    def take(lab: Lab) -> Sample:
        one, *names = random.Random(1).sample(list(map(scale_data.file_name, range(count))), min(count, LOOKED_UP))
        repo = scale_data.files_repo(count)
        with lab.cold_cache() as cache:
            with lab.mount(repo, cache) as mounted:
                path = str(mounted.path / "data")
                first = lab.measure(lambda: lab.read("names", path=path), mounted)
                lab.quiet()
                again = lab.measure(lambda: lab.read("names", path=path), mounted)
            with lab.mount(repo, cache) as mounted:
                path = str(mounted.path / "data")
                lab.read("statuses", directory=path, names=[one])  # the daemon recalls the listing
                looked_up = lab.measure(lambda: lab.read("statuses", directory=path, names=names), mounted)
        return replace(
            first,
            seen={
                **prefixed("first", per_operation(first, count)),
                **prefixed("again", per_operation(again, count)),
                **prefixed("lookup", per_operation(looked_up, len(names))),
            },
        )

    return take


FILES: Final = labels(scale_data.FILES, "files")


def files_curves(samples: Samples) -> Sequence[Curve]:
    curve = partial(Curve, "scale-files", axis="files")
    points = partial(by_size, samples, FILES)
    return [
        curve("lookup and stat", "lstat of names that the kernel does not know; CPU of the daemon for each", "µs",
              points=points(seen("lookup_cpu_us"))),
        curve("first listing, per file", "the first listdir, requests and parsing included; CPU of the daemon", "µs",
              points=points(seen("first_cpu_us"))),
        curve("listing again, per file", "once more, the page cache dropped; CPU of the daemon", "µs",
              points=points(seen("again_cpu_us"))),
        curve("memory", "VmHWM of the daemon at the first listing", "MiB", points=points(daemon_peak), growth_max=None),
    ]  # fmt: skip


# A file of many bytes


def size_pass(gigabytes: int) -> Pass:
    """4 KiB at far places, cold; then in another mount, where the store remembers the map of the file."""

    def take(lab: Lab) -> Sample:
        repo = scale_data.size_repo(gigabytes)
        lab.hub.grow_tree(repo, "large.bin")
        lab.quiet(lab.scale.xorbs)
        with lab.cold_cache() as cache:
            with lab.mount(repo, cache) as mounted:
                _begin(lab, mounted, "large.bin")
                cold = _places(lab, mounted, "large.bin", PLACES, 1)
            with lab.mount(repo, cache) as mounted:
                lab.quiet()
                again = _places(lab, mounted, "large.bin", PLACES, 1)
        values = {**prefixed("cold", per_operation(cold, PLACES)), **prefixed("again", per_operation(again, PLACES))}
        return replace(cold, seen=values)

    return take


def _begin(lab: Lab, mounted: Mounted, file: str) -> None:
    """What only the first read of a mount needs: a token."""
    lab.read("sequential", path=str(mounted.path / file), block=1, end=1)


def _places(lab: Lab, mounted: Mounted, file: str, places: int, passes: int) -> Sample:
    arguments: dict[str, Any] = {"path": str(mounted.path / file), "length": PAGE, "places": places, "passes": passes, "seed": 3}
    return lab.measure(lambda: lab.read("scattered", **arguments), mounted)


SIZES: Final = labels(scale_data.SIZES_GB, "GB")


def size_curves(samples: Samples) -> Sequence[Curve]:
    curve = partial(Curve, "scale-size", axis="GB")
    counted = partial(curve, growth_max=COUNT_GROWTH_MAX)
    points = partial(by_size, samples, SIZES)
    what = f"4 KiB at {PLACES} far places, empty cache"
    return [
        curve("cold read", f"{what}; CPU of the daemon for each", "ms", points=points(seen("cold_cpu_us", 1e-3))),
        counted("cold read: requests", f"{what}; for each", "", points=points(seen("cold_requests"))),
        counted("cold read: bytes", f"{what}; for each", "KB", points=points(seen("cold_bytes", 1e-3))),
        curve("second mount", "the same places in another mount, page cache dropped; CPU of the daemon for each", "ms",
              points=points(seen("again_cpu_us", 1e-3))),
        counted("second mount: requests", "for each", "", points=points(seen("again_requests"))),
        curve("memory", "VmHWM of the daemon over the cold reads", "MiB", points=points(daemon_peak)),
    ]  # fmt: skip


# A file of many terms


def terms_pass(count: int) -> Pass:
    """4 KiB here and there in several files, cold; then in one of them that was read whole before, again and again."""

    def take(lab: Lab) -> Sample:
        repo = scale_data.terms_repo(count)
        files = [f"{number}.bin" for number in range(scale_data.TERM_FILES)]
        lab.quiet(lab.scale.xorbs)
        with lab.mount_cold(repo) as mounted:
            for file in files:
                _begin(lab, mounted, file)
            paths = [str(mounted.path / file) for file in files]
            readers: list[dict[str, Any]] = [
                {"path": path, "length": PAGE, "places": TERM_PLACES, "passes": 1, "seed": 3} for path in paths
            ]
            cold = lab.measure(lambda: [seen for one in readers for seen in lab.read("scattered", **one)], mounted)
        with lab.mount(repo, lab.warm_cache(repo, files[0])) as mounted:
            _places(lab, mounted, files[0], WARM_PLACES, 2)  # opens their blocks, and recalls the whole map
            warm = _places(lab, mounted, files[0], WARM_PLACES, WARM_PASSES)
        values = prefixed("cold", per_operation(cold, TERM_PLACES * len(files)))
        return replace(cold, seen={**values, **prefixed("warm", per_operation(warm, WARM_PLACES * WARM_PASSES))})

    return take


TERMS: Final = labels(scale_data.TERMS, "terms")


def terms_curves(samples: Samples) -> Sequence[Curve]:
    curve = partial(Curve, "scale-terms", axis="terms")
    points = partial(by_size, samples, TERMS)
    what = f"4 KiB at {TERM_PLACES} places in each of {scale_data.TERM_FILES} files, empty cache"
    warm = f"4 KiB past the page cache at {WARM_PLACES} places of a file that is known whole and on disk"
    return [
        curve("cold read", f"{what}; CPU of the daemon for each", "ms", points=points(seen("cold_cpu_us", 1e-3))),
        curve("cold read: requests", f"{what}; for each", "", points=points(seen("cold_requests")), growth_max=COUNT_GROWTH_MAX),
        curve("warm read", f"{warm}; CPU of the daemon for each", "µs", points=points(seen("warm_cpu_us"))),
        curve("memory", "VmHWM of the daemon over the cold reads", "MiB", points=points(daemon_peak)),
    ]  # fmt: skip


# Many shards at once


def shards_pass(at_once: int) -> Pass:
    """The same shards from end to end, so many of them at the same time."""

    def take(lab: Lab) -> Sample:
        with lab.mount_cold(scale_data.SHARDS_REPO) as mounted:
            lab.quiet(lab.scale.xorbs)
            paths = sorted(str(path) for path in mounted.path.iterdir())
            return lab.measure(lambda: lab.read("together", paths=paths, threads=at_once, block=MIB), mounted)

    return take


SHARDS: Final = labels(AT_ONCE, "at once")


def shards_curves(samples: Samples) -> Sequence[Curve]:
    curve = partial(Curve, "scale-shards", axis="at once")
    points = partial(by_size, samples, SHARDS)
    what = f"{scale_data.SHARDS} shards of 5 MB from end to end, so many at a time, empty cache"
    return [
        curve("CPU", f"{what}; CPU of the daemon", "s/GB", points=points(lambda s: s.cpu_s["daemon"] / (s.bytes / GB))),
        curve("requests", what, "", points=points(lambda s: s.traffic.requests_all), growth_max=COUNT_GROWTH_MAX),
        curve("memory", f"{what}; VmHWM of the daemon", "MiB", points=points(daemon_peak), growth_max=None),
        curve("rate", f"{what}; all together", "MB/s", points=points(lambda s: s.bytes_s / 1e6), growth_max=None),
    ]


def shards_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    most = samples[list(SHARDS)[-1]]
    what = f"{scale_data.SHARDS} shards of 5 MB, all at once, empty cache"
    return [
        Figure("scale-shards", "peak memory", f"{what}; VmHWM of the daemon", "MiB", each(most, daemon_peak), at_most(350)),
        Figure("scale-shards", "bytes fetched / stored", what, "×",
               each(most, lambda s: s.traffic.bytes_all / lab.scale.shards_bytes), at_most(1.02)),
    ]  # fmt: skip


def _scenario(
    name: str,
    title: str,
    sizes: Mapping[str, int],
    take: Callable[[int], Pass],
    curves: Callable[[Samples], Sequence[Curve]],
) -> Scenario:
    systems = {label: take(size) for label, size in sizes.items()}
    return Scenario(name, title, systems, curves=curves, needs=(SCALE,), profiled=list(sizes)[-1], group=SCALE)


SCENARIOS: Final = (
    _scenario("scale-files", "Repos of many files", FILES, files_pass, files_curves),
    _scenario("scale-size", "Files of many bytes", SIZES, size_pass, size_curves),
    _scenario("scale-terms", "Files of many terms", TERMS, terms_pass, terms_curves),
    replace(_scenario("scale-shards", "Many shards at once", SHARDS, shards_pass, shards_curves), figures=shards_figures),
)
