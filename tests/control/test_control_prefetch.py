"""`xetfs mount --prefetch`, as a user meets it: what is said at the mount and by `status`, and what is in the cache then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_hub
from small_user import RunXetfs, status

from xetfs.cli.exits import Exit
from xetfs.telemetry import NET_REQUESTS

STATUS_MAX = 200


@pytest.fixture
def mountpoint(home: Path, run_xetfs: RunXetfs) -> Iterator[Path]:
    path = home / "model"
    path.mkdir()
    yield path
    run_xetfs("umount", path)


def ended(run_xetfs: RunXetfs, path: Path) -> dict[str, Any]:
    """What the mount tells of its prefetching when that is over."""
    for _ in range(STATUS_MAX):
        prefetch = status(run_xetfs, path)["prefetch"]
        if prefetch["state"] not in ("matching", "fetching"):
            return prefetch
    raise AssertionError(f"it does not end: {prefetch}")


def test_prefetched_files_cost_nothing_later(run_xetfs: RunXetfs, mountpoint: Path) -> None:
    done = run_xetfs("mount", small_hub.REPO, mountpoint, "--prefetch", "*.bin", "--prefetch", "*.gguf")
    assert done.returncode == 0
    assert done.stdout.startswith(f"mounted {small_hub.REPO}@main (")
    assert done.stderr == "xetfs: warning: --prefetch '*.gguf' matches no file\n"
    chosen = [name for name in small_hub.content_of() if name.endswith(".bin")]
    size = sum(len(small_hub.content_of()[name]) for name in chosen)
    prefetch = ended(run_xetfs, mountpoint)
    room = prefetch.pop("room_bytes")
    assert room > size
    assert prefetch == {
        "globs": ["*.bin", "*.gguf"], "unmatched": ["*.gguf"], "state": "done", "reason": "",
        "files": 3, "files_done": 3, "files_failed": 0, "bytes": size, "bytes_done": size,
    }  # fmt: skip
    before = status(run_xetfs, mountpoint)["counters"][NET_REQUESTS]
    for name in chosen:
        assert (mountpoint / name).read_bytes() == small_hub.content_of()[name]
    assert status(run_xetfs, mountpoint)["counters"][NET_REQUESTS] == before
    words = dict(line.strip().split(maxsplit=1) for line in run_xetfs("status", mountpoint).stdout.splitlines()[1:])
    assert words["prefetch"] == "1.8 MiB of 1.8 MiB, 3 of 3 files (*.bin *.gguf), done, nothing matches *.gguf"


def test_without_it_nothing_is_said_of_it(run_xetfs: RunXetfs, mountpoint: Path) -> None:
    done = run_xetfs("mount", small_hub.REPO, mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert status(run_xetfs, mountpoint)["prefetch"] is None
    assert "prefetch" not in run_xetfs("status", mountpoint).stdout


def test_an_unmount_does_not_wait_for_it(run_xetfs: RunXetfs, mountpoint: Path) -> None:
    assert run_xetfs("mount", small_hub.REPO, mountpoint, "--prefetch", "*").returncode == 0
    done = run_xetfs("umount", mountpoint)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_empty_glob_is_refused(run_xetfs: RunXetfs, mountpoint: Path) -> None:
    done = run_xetfs("mount", small_hub.REPO, mountpoint, "--prefetch", "")
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("xetfs: --prefetch is empty")
