"""What the kernel can be asked to do better on a mount, where we may ask.

Read-ahead decides how large the kernel's requests are; `max_background` how many of them, read-ahead included, are under way
at once (12 unless raised: a dozen stalled ones and nothing else is read ahead). Both are files that only root may write, and the
second is there only where fusectl is mounted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

BACKGROUND_MAX: Final = 64
"""Background requests of one mount: what other network file systems ask for."""
CONGESTED_AT: Final = 48
"""From here on the kernel calls the device congested and reads ahead less: the kernel's own three quarters."""


def tune(device: str, *, read_ahead_kb: int, sys: Path = Path("/sys")) -> None:
    """Raise read-ahead and background requests of the mount `major:minor`; says once what could not be done."""
    if not _write(sys / "class" / "bdi" / device / "read_ahead_kb", read_ahead_kb):
        log.info(
            "read-ahead stays at the kernel's default, sequential reads are slower wanted_kb=%d device=%s", read_ahead_kb, device
        )
    connection = sys / "fs" / "fuse" / "connections" / device.rpartition(":")[2]
    if connection.is_dir():
        _write(connection / "max_background", BACKGROUND_MAX)
        _write(connection / "congestion_threshold", CONGESTED_AT)


def _write(path: Path, value: int) -> bool:
    """Whether the number could be written."""
    try:
        path.write_text(str(value))
    except OSError as exc:
        log.debug("not set: %s=%d (%s)", path, value, exc.strerror)
        return False
    return True
