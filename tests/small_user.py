"""A user of the small hub: a home, and the command. Fixtures, for the conftest of whoever needs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import small_hub

from xetfs.errors import MountpointUnusable
from xetfs.fs import mountpoint as outside

RunXetfs = Callable[..., subprocess.CompletedProcess[str]]
TOKEN = "hf_canaryCanaryCanary0123456789"


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    with small_hub.running(tmp_path / "hub") as endpoint:
        yield endpoint


@pytest.fixture
def home() -> Iterator[Path]:
    """A user's home, apart from pytest's directories, since it has a mount point in it."""
    home = Path(tempfile.mkdtemp(prefix="xetfs-tests-control-"))
    yield home
    for mount in [mount for mount in outside.mounts() if mount.path.startswith(f"{home}/")]:
        with suppress(MountpointUnusable):
            outside.unmount(Path(mount.path), lazily=True)
    shutil.rmtree(home)


@pytest.fixture
def run_xetfs(endpoint: str, home: Path) -> RunXetfs:
    """Run a command as the user of that home."""

    def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        clean = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN}
        command = [sys.executable, "-m", "xetfs", *map(str, arguments)]
        return subprocess.run(command, env={**clean, **env}, capture_output=True, text=True, timeout=60, check=False, cwd=home)

    return run


def status(run_xetfs: RunXetfs, path: Path) -> dict[str, Any]:
    """What `xetfs status` says of one mount."""
    done = run_xetfs("status", "--json", path)
    assert done.returncode == 0, done.stderr
    [document] = json.loads(done.stdout)["mounts"]
    return document
