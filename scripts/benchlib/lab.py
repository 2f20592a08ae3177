"""The hub, mounts of xetfs with their daemons, readers, and the cost of a pass.

A pass begins with a quiet machine: written data flushed, page cache dropped (as root), what the hub will serve brought back into
it, and memory touched that a pass of much data will need. Cold means a fresh --cache-dir for xetfs, and a fresh HF_HOME for the
Hub's client; warm means a new mount on a cache directory that holds everything. Nothing is timed but what the reader itself
times, or what is said so.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchlib.data import Data
from benchlib.hub import Hub
from benchlib.processes import account, peak_bytes, reset_peak, settle
from benchlib.quiet import touch_memory
from benchlib.records import Traffic
from benchlib.scale_data import Scale

COMMAND_S = 120
END_S = 20
PASS_S = 900
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
GB = 1e9
COPIES = 3
_PIECE = 4 * 1024 * 1024


class ReaderFailed(RuntimeError):
    """A program could not read what it should, or a daemon did not end."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One pass of one system. seconds and bytes as the reader saw them; CPU and peak by process: reader, daemon, hub, and server
    where data comes from another one than the hub. cpu_s has the daemon's event loop too, as "loop", which is part of "daemon".

    The servers' share is not the system's fault, but worth seeing: they run on the same cores."""

    seconds: float
    bytes: int
    cpu_s: Mapping[str, float]
    peak_bytes: Mapping[str, int]
    faults: int
    traffic: Traffic
    seen: Mapping[str, float] = field(default_factory=dict)

    @property
    def bytes_s(self) -> float:
        return self.bytes / self.seconds

    @property
    def cpu_s_gb(self) -> float:
        """CPU seconds per 10⁹ bytes read, of reader and daemon together."""
        return (self.cpu_s["reader"] + self.cpu_s.get("daemon", 0.0)) / (self.bytes / GB)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mounted repo and its daemon, which is our child."""

    path: Path
    pid: int
    cache_dir: Path
    log: Path


class Lab:
    """See the module. watch: called with the pid of a daemon when a pass begins; returns what to call when it ends. passes: a
    number for passes that must differ from those before. server_pid: of a server beside the hub."""

    def __init__(self, hub: Hub, data: Data, base: Path, *, xetfs: Sequence[str] = (sys.executable, "-m", "xetfs")) -> None:
        self.hub = hub
        self.data = data
        self.base = base
        self.warm_caches: dict[str, Path] = {}
        self.passes = 0
        self.server_pid: int | None = None
        self.watch: Callable[[int], Callable[[], None]] | None = None
        self._xetfs = tuple(xetfs)

    # A pass

    def quiet(self, served: Iterable[Path] = (), moved: int = 0) -> None:
        """Prepare a pass: flush what was written, drop the page cache, and read the files `served` back into it for the hub.

        moved: about how many bytes the pass reads; memory for three copies of them is touched, which is what a download has of
        them that then are loaded.
        """
        os.sync()
        with suppress(PermissionError):
            DROP_CACHES.write_text("3")
        for path in served:
            with path.open("rb", buffering=0) as file:
                while file.read(_PIECE):
                    pass
        touch_memory(COPIES * moved)

    def measure(self, read: Callable[[], list[dict[str, float]]], mounted: Mounted | None = None) -> Sample:
        """Run `read`, which returns what each of its readers measured, and add its cost. Simultaneous readers count together."""
        pids = {"hub": self.hub.pid} | ({"daemon": mounted.pid} if mounted else {})
        pids |= {"server": self.server_pid} if self.server_pid else {}
        for pid in pids.values():
            reset_peak(pid)
        self.hub.reset()
        ended = self.watch(mounted.pid) if self.watch and mounted else None
        before = {name: account(pid) for name, pid in pids.items()}
        seen = read()
        for pid in pids.values():
            settle(pid)
        spent = {name: account(pid).since(before[name]) for name, pid in pids.items()}
        if ended:
            ended()
        cpu_s = {name: one.cpu_s for name, one in spent.items()} | {"reader": sum(one["cpu_s"] for one in seen)}
        if mounted:
            cpu_s["loop"] = spent["daemon"].main_thread_s
        peaks = {name: peak_bytes(pid) for name, pid in pids.items()} | {"reader": int(max(one["peak_bytes"] for one in seen))}
        return Sample(
            seconds=max(one["seconds"] for one in seen),
            bytes=int(sum(one["bytes"] for one in seen)),
            cpu_s=cpu_s,
            peak_bytes=peaks,
            faults=spent["daemon"].faults if mounted else 0,
            traffic=self.hub.traffic(),
            seen=seen[0],
        )

    def read(self, reader: str, /, env: Mapping[str, str] | None = None, **arguments: Any) -> list[dict[str, float]]:
        """Run one reader in a fresh process."""
        return self.read_all([(reader, arguments)], env)

    def read_all(
        self, readers: Sequence[tuple[str, Mapping[str, Any]]], env: Mapping[str, str] | None = None
    ) -> list[dict[str, float]]:
        """Run several readers at the same time, each in a fresh process; return what each measured."""
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "benchlib.readers", name, json.dumps(arguments)],
                env={**os.environ, **(env or {})},
                stdout=subprocess.PIPE,
                text=True,
            )
            for name, arguments in readers
        ]
        try:
            outputs = [process.communicate(timeout=PASS_S)[0] for process in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
        for process, (name, _) in zip(running, readers, strict=True):
            if process.returncode:
                raise ReaderFailed(f"the reader {name} ended with {process.returncode}")
        return [json.loads(output) for output in outputs]

    @contextmanager
    def client_env(self) -> Iterator[dict[str, str]]:
        """The environment for a process of the Hub's client with an empty HF_HOME."""
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self.base))
        try:
            yield self.hub.client_env(home)
        finally:
            shutil.rmtree(home)

    # Mounts

    @property
    def scale(self) -> Scale:
        """The repos and files of many sizes. Raises RuntimeError if they were not prepared."""
        if self.data.scale is None:
            raise RuntimeError("the files of many sizes were not prepared")
        return self.data.scale

    @property
    def python(self) -> str:
        """The interpreter that xetfs runs in."""
        return self._xetfs[0]

    def command(self, *arguments: str) -> list[str]:
        return [*self._xetfs, *arguments]

    def env(self) -> dict[str, str]:
        """Return the environment of xetfs: this hub, no token, and none of the user's own settings."""
        own = self.hub.client_env(self.base / "no-home")
        return {**os.environ, **own, "XDG_STATE_HOME": str(self.base / "state"), "XDG_CACHE_HOME": str(self.base / "cache")}

    @contextmanager
    def mount(self, repo: str, cache_dir: Path, *arguments: str) -> Iterator[Mounted]:
        """Mount a repo; the daemon stays in the foreground, so that it is one process whose pid is known."""
        here = Path(tempfile.mkdtemp(prefix="mount-", dir=self.base))
        path, log = here / "at", here / "log"
        path.mkdir()
        options = ["--foreground", "--cache-dir", str(cache_dir), "--log-file", str(log), *arguments]
        command = self.command("mount", repo, str(path), *options)
        with self._serving(command, path, log, self.command("umount", str(path))) as pid:
            yield Mounted(path, pid, cache_dir, log)
        shutil.rmtree(here)

    @contextmanager
    def mount_bare(self, file: Path) -> Iterator[Mounted]:
        """Mount a file system of one file, with the bytes of a plain one, that does no more than pyfuse3 needs."""
        here = Path(tempfile.mkdtemp(prefix="bare-", dir=self.base))
        path, log = here / "at", here / "log"
        path.mkdir()
        command = [sys.executable, "-m", "benchlib.bare_mount", str(file), str(path)]
        with self._serving(command, path, log, ["umount", str(path)]) as pid:
            yield Mounted(path, pid, here, log)
        shutil.rmtree(here)

    @contextmanager
    def _serving(self, command: Sequence[str], path: Path, log: Path, unmount: Sequence[str]) -> Iterator[int]:
        """Run a daemon that serves a file system at `path`, and prints "mounted …" when it does; its pid."""
        daemon = subprocess.Popen(command, env=self.env(), stdout=subprocess.PIPE)
        assert daemon.stdout is not None
        try:
            ready = select.select([daemon.stdout], [], [], COMMAND_S)[0]
            if not ready or not daemon.stdout.readline().startswith(b"mounted"):
                raise RuntimeError(f"nothing was mounted by {' '.join(command)}:\n{_tail(log)}")
            try:
                yield daemon.pid
            except ReaderFailed as exc:
                raise ReaderFailed(f"{exc}; the end of the daemon's log:\n{_tail(log)}") from exc
            subprocess.run(unmount, env=self.env(), check=True, timeout=COMMAND_S)
            try:
                daemon.wait(COMMAND_S)
            except subprocess.TimeoutExpired:
                found = f"what it does:\n{_stacks(daemon.pid)}\nthe end of its log:\n{_tail(log)}"
                raise ReaderFailed(f"the daemon at {path} does not end after umount; {found}") from None
        finally:
            if daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(END_S)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
                    subprocess.run(["umount", "--lazy", str(path)], check=False)
            daemon.stdout.close()

    @contextmanager
    def cold_cache(self) -> Iterator[Path]:
        """An empty cache directory, which is removed afterwards."""
        cache = Path(tempfile.mkdtemp(prefix="cold-", dir=self.base))
        try:
            yield cache
        finally:
            shutil.rmtree(cache, ignore_errors=True)

    @contextmanager
    def mount_cold(self, repo: str, *arguments: str) -> Iterator[Mounted]:
        """Mounted on an empty cache directory."""
        with self.cold_cache() as cache, self.mount(repo, cache, *arguments) as mounted:
            yield mounted

    def warm_cache(self, repo: str, file: str) -> Path:
        """Return a cache directory that holds all of a file; it is filled at the first call."""
        if repo not in self.warm_caches:
            cache = Path(tempfile.mkdtemp(prefix="warm-", dir=self.base))
            with self.mount(repo, cache) as mounted:
                self.read("sequential", path=str(mounted.path / file), block=1024 * 1024)
                settle(mounted.pid)
            self.warm_caches[repo] = cache
        return self.warm_caches[repo]


def _stacks(pid: int) -> str:
    """Return the stack of each thread of a Python process."""
    spy = Path(sys.executable).with_name("py-spy")
    return subprocess.run([str(spy), "dump", "--pid", str(pid)], capture_output=True, text=True, check=False).stdout


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-20:]) if log.exists() else "(no log)"
