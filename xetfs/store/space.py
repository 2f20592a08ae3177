"""How much of a disk the store may still take."""

from __future__ import annotations

import os
from pathlib import Path


def free_for_store(directory: Path, free_share: float) -> int:
    """Bytes that are free beyond the share of the disk that is always left; negative when less is free. Raises OSError."""
    status = os.statvfs(directory)
    return int(status.f_bavail * status.f_frsize - free_share * status.f_blocks * status.f_frsize)
