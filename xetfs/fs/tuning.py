"""What the kernel can be asked to do better on a mount, where we may ask.

Read-ahead decides how large the kernel's requests are; only root may change it. `max_background` decides how many reads through
the page cache are under way at once: 12 unless raised. The next ones wait in the kernel, where no deadline of ours reaches them;
so a dozen stalled reads would hold up all others, those of held bytes included. Whoever mounted may change it where fusectl is
mounted, as on ordinary systems; root may where it is not, as in most containers, from a mount namespace that nobody else sees.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

BACKGROUND_MAX: Final = 512
"""Background requests of one mount: more than readers, and fewer than the daemon answers at a time."""
CONGESTED_AT: Final = 384
"""From here on the kernel calls the device congested and reads ahead less: the kernel's own three quarters."""

COMMAND_S: Final = 5.0


def tune(device: str, *, read_ahead_kb: int, sys: Path = Path("/sys")) -> None:
    """Raise read-ahead and background requests of the mount `major:minor`; says once what could not be done. May block."""
    if not _write(sys / "class" / "bdi" / device / "read_ahead_kb", read_ahead_kb):
        log.info(
            "read-ahead stays at the kernel's default, sequential reads are slower wanted_kb=%d device=%s", read_ahead_kb, device
        )
    connection = sys / "fs" / "fuse" / "connections" / device.rpartition(":")[2]
    limits = {connection / "max_background": BACKGROUND_MAX, connection / "congestion_threshold": CONGESTED_AT}
    if connection.is_dir():
        raised = all(_write(path, value) for path, value in limits.items())
    else:
        raised = _write_unseen(connection.parent, limits)
    if not raised:
        log.info("a dozen stalled reads will hold up others: fusectl is not mounted, or not ours to write device=%s", device)


def _write_unseen(fusectl: Path, values: Mapping[Path, int]) -> bool:
    """Write files of fusectl, mounted at its usual place for only as long as that takes, and for nobody else to see."""
    if os.geteuid() != 0 or not fusectl.is_dir():
        return False
    writes = [f"echo {value} > {shlex.quote(str(path))}" for path, value in values.items()]
    script = " && ".join([f"mount -t fusectl fusectl {shlex.quote(str(fusectl))}", *writes])
    try:
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        log.debug("not set: background requests (%s)", exc)
        return False
    return done.returncode == 0


def _write(path: Path, value: int) -> bool:
    """Whether the number could be written."""
    try:
        path.write_text(str(value))
    except OSError as exc:
        log.debug("not set: %s=%d (%s)", path, value, exc.strerror)
        return False
    return True
