"""What a mount tells of itself. No tokens, no URLs but the Hub's origin.

Sizes in bytes, times in seconds. The members are for programs to read, so none is renamed or given another meaning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from xetfs import __version__
from xetfs.reader.filemap import Level, level_name
from xetfs.settings import Settings

if TYPE_CHECKING:
    from xetfs.repo import Engine, RepoView
    from xetfs.repo.preload import Progress

LEVELS_SHOWN = (Level.PROOF, Level.FILE, Level.XORB, Level.FRAMING, None)


async def describe_mount(
    engine: Engine, view: RepoView, mountpoint: Path, settings: Settings, prefetch: Progress | None, *, uptime_s: float
) -> Mapping[str, object]:
    """The document of one mount. prefetch: how far what was asked for with --prefetch is. Takes one hop to a thread."""
    statistics = await engine.statistics()
    return {
        "version": 1,
        "xetfs": __version__,
        "pid": os.getpid(),
        "uptime_s": round(uptime_s, 3),
        "mountpoint": str(mountpoint),
        "repo": str(view.repo),
        "subfolder": view.ref.subfolder,
        "revision": view.ref.revision,
        "commit": view.commit,
        "endpoint": view.hub.endpoint,
        "offline": settings.offline,
        "verify": settings.reader.verify,
        "cache_dir": str(settings.store.cache_dir) if settings.store.cache_dir is not None else None,
        "cache_bytes_max": settings.store.cache_bytes_max,
        "prefetch": asdict(prefetch) if prefetch is not None else None,
        "detours": dict(statistics.detours),
        "files": {level_name(level): statistics.files.get(level, 0) for level in LEVELS_SHOWN},
        "memory": {**asdict(statistics.memory), "resident_bytes": _resident_bytes()},
        "store": asdict(statistics.store),
        "counters": dict(statistics.counters),
    }


def _resident_bytes() -> int:
    """Memory of this process, as the kernel counts it."""
    fields = Path("/proc/self/statm").read_bytes().split()
    return int(fields[1]) * os.sysconf("SC_PAGESIZE")
