"""Programs that know nothing of xetfs, each in a fresh mount with an empty cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from mount_hub import HubProcess
from mount_user import Mount

REPO: Final = "local/models"
PROGRAM_S: Final = 120


class Loaders:
    """A hub with the files of `folder`."""

    def __init__(self, base: Path, folder: Path, hub: HubProcess) -> None:
        self.base = base
        self.folder = folder
        self.hub = hub
        self._runs = 0

    def run(self, program: str, *arguments: object, repo: str = REPO) -> tuple[str, int]:
        """Run a Python program in a fresh mount, with an empty cache and nothing known; what it printed, and the bytes of content
        that were moved until the mount was gone."""
        self._runs += 1
        here = self.base / f"run{self._runs}"
        mount = Mount(here, here / "cache", {"HF_ENDPOINT": self.hub.endpoint, "XDG_STATE_HOME": str(here / "state")})
        try:
            mount.mount_in_foreground(repo, [])
            self.hub.reset()
            command = [sys.executable, "-c", program, *map(str, arguments)]
            done = subprocess.run(
                command, cwd=mount.path, capture_output=True, text=True, timeout=PROGRAM_S, check=False, env=dict(os.environ)
            )
            assert done.returncode == 0, done.stderr
            mount.umount()
            assert mount.unexpected() == []
        finally:
            mount.clean_up()
        return done.stdout, self.moved()

    def moved(self) -> int:
        return sum(request["bytes_sent"] for request in self.hub.requests("transfer"))
