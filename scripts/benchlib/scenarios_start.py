"""Starting, mounting, and listing a large directory."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchlib.data import FILES, MIB, NOISE
from benchlib.figures import Figure, at_most, each, ratios
from benchlib.lab import COMMAND_S, Lab, Sample
from benchlib.records import traffic_of
from benchlib.scenarios import XETFS, Samples, Scenario

LIST_TREE: Final = "list_repo_tree"
PLAIN: Final = "plain directory"
STARTS: Final = 5
"""Starts in a round, of which the median counts: each takes only a moment."""


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def run(*command: str, env: dict[str, str] | None = None) -> None:
    """Run a command that is timed. Waiting with a timeout would look for its end every 50 ms, and not find it sooner."""
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        alarm = threading.Timer(COMMAND_S, process.kill)
        alarm.start()
        try:
            code = process.wait()
        finally:
            alarm.cancel()
    if code:
        raise subprocess.CalledProcessError(code, command)


def _bare(seconds: float, seen: dict[str, float]) -> Sample:
    return Sample(seconds, 0, {}, {}, 0, traffic_of([]), seen)


def start(lab: Lab) -> Sample:
    """`xetfs --help`, and `xetfs mount` to the end of `ls` of a repo whose tree is cached."""
    cache = lab.warm_cache(lab.data.noise.repo, lab.data.noise.file)
    helps = sorted(_timed(lambda: run(*lab.command("--help"), env=lab.env())) for _ in range(STARTS))
    mounts = sorted(_mount_and_list(lab, lab.data.noise.repo, cache) for _ in range(STARTS))
    return _bare(mounts[STARTS // 2], {"help_s": helps[STARTS // 2]})


def _mount_and_list(lab: Lab, repo: str, cache: Path) -> float:
    path = Path(tempfile.mkdtemp(prefix="start-", dir=lab.base))
    mount = lab.command("mount", repo, str(path), "--cache-dir", str(cache))

    def mount_and_list() -> None:
        run(*mount, env=lab.env())
        run("ls", str(path))

    try:
        return _timed(mount_and_list)
    finally:
        run(*lab.command("umount", str(path)), env=lab.env())
        path.rmdir()


def start_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours = samples[XETFS]
    how = f"wall time of the command, median of {STARTS} in each round"
    return [
        Figure("start", "xetfs --help", how, "ms", each(ours, lambda s: 1e3 * s.seen["help_s"]), at_most(150)),
        Figure("start", "xetfs mount and ls, tree cached", f"{how}, from `xetfs mount` (in the background) to the end of `ls`",
               "ms", each(ours, lambda s: 1e3 * s.seconds), at_most(600)),
    ]  # fmt: skip


def directory(lab: Lab) -> Sample:
    """`ls -f` of a directory that was never listed, then `ls -l` of it."""
    with lab.mount_cold(lab.data.files_repo) as mounted:
        path = str(mounted.path / "data")
        lab.quiet()

        def read() -> list[dict[str, float]]:
            names_s = _timed(lambda: run("ls", "-f", path))
            long_s = _timed(lambda: run("ls", "-l", path))
            return [{"seconds": long_s, "names_s": names_s, "bytes": 0, "cpu_s": 0.0, "peak_bytes": 0}]

        return lab.measure(read, mounted)


def hf_directory(lab: Lab) -> Sample:
    """What the Hub's client takes to list the same, which is mostly the hub's time."""
    with lab.client_env() as env:
        lab.quiet()
        return lab.measure(lambda: lab.read("tree", env, repo=lab.data.files_repo))


def plain_directory(lab: Lab) -> Sample:
    """`ls -l` of as many files on this disk, after `ls -f` of them."""
    lab.quiet()
    path = str(lab.data.files_plain / "data")
    os.listdir(path)
    return _bare(_timed(lambda: run("ls", "-l", path)), {})


def directory_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, theirs, plain = samples[XETFS], samples[LIST_TREE], samples[PLAIN]
    what = f"a directory of {lab.data.sizes.files:,} files, empty cache, loopback"
    figure = partial(Figure, "directory")
    return [
        figure("ls -l / of a plain directory", f"{what}; `ls -l` after `ls -f`, beside the same on this disk", "×",
               ratios(each(ours, lambda s: s.seconds), each(plain, lambda s: s.seconds))),
        figure("ls -l after listing", f"{what}; wall time of `ls -l` after `ls -f`", "s",
               each(ours, lambda s: s.seconds), at_most(1)),
        figure("first listing", f"{what}; wall time of the first `ls -f`, most of it the hub's own for its pages", "s",
               each(ours, lambda s: s.seen["names_s"])),
        figure("first listing over list_repo_tree", "`ls -f` less what huggingface_hub takes for the same pages", "s",
               tuple(a.seen["names_s"] - b.seconds for a, b in zip(ours, theirs, strict=True)), at_most(1)),
        figure("list_repo_tree", "of huggingface_hub, for all of it", "s", each(theirs, lambda s: s.seconds)),
        figure("peak memory", f"{what}; VmHWM of the daemon after both", "MiB",
               each(ours, lambda s: s.peak_bytes["daemon"] / MIB), at_most(150)),
        figure("requests", "by the hub's log", "", each(ours, lambda s: s.traffic.requests_all)),
    ]  # fmt: skip


SCENARIOS: Final = (
    Scenario("start", "Start and mount", {XETFS: start}, start_figures, needs=(NOISE,), profiled=""),
    Scenario(
        "directory",
        "A directory of many files",
        {XETFS: directory, LIST_TREE: hf_directory, PLAIN: plain_directory},
        directory_figures,
        needs=(FILES,),
    ),
)
