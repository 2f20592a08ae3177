"""Settings of the process that serves a mount, which belongs to the command: limits, environment, garbage collection."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from typing import Final

FILES_OPEN_MAX: Final = 65536
GC_THRESHOLDS: Final = (5_000, 20, 20)
"""Allocations before the collector examines the youngest generation (700 by default), and how often before it examines older
ones. Only errors leave cycles, so little garbage accumulates meanwhile."""


def prepare_process() -> None:
    """Set limits and environment, before heavy modules are imported.

    No core dump: it would hold the token. SIGINT ends the process until the mount is there, which handles it then.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = FILES_OPEN_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_OPEN_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # numpy loads a library that starts a thread per core, each of which spins for 0.1 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # httpx imports its command line where it can; click, rich and pygments take 45 of its 100 ms of CPU. Click cannot be imported
    # after this, so it is for a process of our own only.
    sys.modules.setdefault("click", None)  # type: ignore[arg-type]  # documented: an import of it fails


def tune_garbage_collection() -> None:
    """Exempt what is loaded by now, which stays, and collect less often: this saves 2 % of the CPU time of reading."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
