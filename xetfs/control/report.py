"""What an engine answers: its status, its metrics, and what a verification found. No tokens, no URLs but the Hub's own.

Sizes in bytes, times in seconds. The members are for programs to read, so none is renamed or given another meaning;
docs/status.schema.json describes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xetfs import __version__, telemetry
from xetfs.reader.filemap import Level, level_name
from xetfs.telemetry import SECONDS, Value

if TYPE_CHECKING:
    from xetfs.repo import Engine, RepoView
    from xetfs.repo.engine import EngineStatistics
    from xetfs.repo.verify import Report

LEVELS_SHOWN = (Level.PROOF, Level.FILE, Level.XORB, Level.FRAMING, None)


async def describe_engine(engine: Engine, views: Sequence[RepoView], *, uptime_s: float) -> dict[str, object]:
    """The status of an engine. views: the repos that are open. Takes one hop to a thread."""
    statistics = await engine.statistics()
    settings = engine.settings
    return {
        "version": 1,
        "xetfs": __version__,
        "pid": os.getpid(),
        "uptime_s": round(uptime_s, 3),
        "offline": settings.offline,
        "verify": settings.reader.verify,
        "cache_dir": str(settings.store.cache_dir) if settings.store.cache_dir is not None else None,
        "cache_bytes_max": settings.store.cache_bytes_max,
        "repos": [describe_view(view) for view in views],
        "detours": dict(statistics.detours),
        "files": _files(statistics),
        "memory": {**asdict(statistics.memory), "resident_bytes": _resident_bytes()},
        "store": asdict(statistics.store),
        "counters": dict(statistics.counters),
        "histograms": {
            name: {"bounds": SECONDS, "counts": found.counts, "sum": found.sum}
            for name, found in engine.counters.distributions().items()
        },
    }


def describe_view(view: RepoView) -> dict[str, object]:
    return {
        "repo": str(view.repo),
        "subfolder": view.ref.subfolder,
        "revision": view.ref.revision,
        "commit": view.commit,
        "endpoint": view.hub.endpoint,
    }


async def metrics_of(engine: Engine, *, uptime_s: float) -> dict[str, Value]:
    """All metrics of an engine, for `telemetry.exposition`. Takes one hop to a thread."""
    statistics = await engine.statistics()
    return {
        **statistics.counters,
        **engine.counters.distributions(),
        telemetry.STORE_BYTES: statistics.store.bytes,
        telemetry.STORE_BYTES_MAX: statistics.store.bytes_max,
        telemetry.STORE_FAILING: int(statistics.store.state == "failing"),
        telemetry.READER_MEMORY_BYTES: statistics.memory.bytes,
        telemetry.READER_MEMORY_BYTES_MAX: statistics.memory.bytes_max,
        telemetry.READER_FILES: _files(statistics),
        telemetry.READER_DETOURS: len(statistics.detours),
        telemetry.PROCESS_RESIDENT_BYTES: _resident_bytes(),
        telemetry.PROCESS_UPTIME_SECONDS: round(uptime_s, 3),
    }


def describe_report(report: Report, view: RepoView, path: str, *, deep: bool) -> dict[str, Any]:
    """What a verification found. Messages are as the errors have them."""
    return {
        "repo": str(view.repo),
        "commit": view.commit,
        "path": path,
        "deep": deep,
        "files": report.files,
        "bytes": report.bytes,
        "right": report.kinds["right"],
        "corrupt": report.kinds["corrupt"],
        "failed": report.kinds["failed"],
        "nameless": report.kinds["nameless"],
        "unchecked": report.unchecked,
        "replaced": report.again,
        "names": {kind: report.names[kind] for kind in ("file_id", "sha256", "git_oid")},
        "failures": [
            {
                "path": verdict.path,
                "kind": verdict.kind,
                "error": type(verdict.error).__name__,
                "message": str(verdict.error),
            }
            for verdict in sorted(report.wrong, key=lambda verdict: verdict.path)
        ],
    }


def _files(statistics: EngineStatistics) -> Mapping[str, int]:
    return {level_name(level): statistics.files.get(level, 0) for level in LEVELS_SHOWN}


def _resident_bytes() -> int:
    """Memory of this process, as the kernel counts it."""
    fields = Path("/proc/self/statm").read_bytes().split()
    return int(fields[1]) * os.sysconf("SC_PAGESIZE")
