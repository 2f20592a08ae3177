"""Faults seen through a real mount: errnos as programs get them, and stalled readers who hold up nobody else."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import KIB, MANY, SHARD_BYTES, SHARDS, Stage, Staged, mounted, staged, staging

IS_RAISED = os.geteuid() == 0 or os.path.ismount("/sys/fs/fuse/connections")
"""Whether a mount may raise the kernel's limit of a dozen reads at a time. Beyond it, reads wait in the kernel."""
READERS = 95 if IS_RAISED else 8
IN_FLIGHT = min(READERS, 32)
"""Of those who read, so many are sure to wait for the transfer host: as many as there are connections to it."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Staged]:
    with staging("faults") as base, staged(base) as ready:
        yield ready


@pytest.fixture
def mount(stage: Staged, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage.hub.reset()
    with mounted(stage, request.node.name) as ready:
        yield ready
        stage.hub.reset()


def shard(number: int) -> str:
    return f"shards/{number:03}.bin"


def read(mount: Stage, path: str, offset: int, length: int) -> bytes:
    """From the daemon, not from the kernel's pages."""
    fd = os.open(mount.path / path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def read_or_errno(mount: Stage, stage: Staged, path: str) -> int:
    """0 if what is read is right."""
    try:
        assert read(mount, path, 0, 4096) == stage.contents[path][:4096]
    except OSError as exc:
        return exc.errno or -1
    return 0


def waiting_in_the_kernel(mount: Stage) -> int | None:
    """Requests that the kernel has sent and not had answered; None where fusectl is not mounted."""
    place = Path(f"/sys/fs/fuse/connections/{os.minor(os.stat(mount.path).st_dev)}/waiting")
    return int(place.read_text()) if place.exists() else None


FAULTS: list[tuple[str, dict[str, Any], int]] = [  # 0: read all the same, through the Hub or without proof
    ("a flipped byte", {"action": "flip", "origin": "transfer", "offset": 1000}, errno.EIO),
    ("expired URLs", {"action": "expire", "origin": "transfer"}, errno.EACCES),
    ("another Content-Range", {"action": "content_range", "origin": "transfer", "body": "bytes 1-2/3"}, errno.EIO),
    ("a redirect inside", {"action": "redirect", "origin": "transfer", "location": "http://10.0.0.1/"}, errno.EIO),
    ("no reconstruction", {"action": "answer", "origin": "cas", "path": "/reconstructions/", "status": 404}, 0),
    ("no rights", {"action": "answer", "origin": "cas", "path": "/reconstructions/", "status": 403}, 0),
    ("an offset below zero", {"action": "rewrite", "origin": "cas", "path": "/reconstructions/",
                              "members": {"offset_into_first_range": -1}}, errno.EIO),
    ("a proof of another size", {"action": "rewrite", "origin": "cas", "path": "/file-chunk-hashes/",
                                 "members": {"fileSize": 7}}, 0),
    ("a portal", {"action": "answer", "origin": "cas", "status": 200, "body": "<html>Log in</html>"}, errno.EIO),
]  # fmt: skip


@pytest.mark.production
def test_programs_get_the_errnos_of_the_table(mount: Stage, stage: Staged) -> None:
    mount.expected += ["operation=read", "corrupt data, fetching again", "read through the Hub instead"]
    assert sorted(os.listdir(mount.path / "shards")) == sorted(stage.listing("shards"))
    for number, (name, fault, expected) in enumerate(FAULTS):
        stage.hub.control("POST", "faults", fault)
        assert read_or_errno(mount, stage, shard(number)) == expected, name
        stage.hub.control("DELETE", "faults", {})
        other = shard(number + len(FAULTS))
        assert read(mount, other, 0, 4096) == stage.contents[other][:4096], name


def test_stalled_readers_hold_up_nobody_else(mount: Stage, stage: Staged) -> None:
    """While many reads wait for a transfer host that is silent, what is held is read and what is listed is told."""
    held = "weights/first.bin"
    for number in range(10):  # so that the transfer host's usual times are known
        assert read(mount, held, number * 300 * KIB, 4096)
    assert len(os.listdir(mount.path / "shards")) == SHARDS
    assert len(os.listdir(mount.path / "many")) == MANY
    stage.hub.control("POST", "faults", {"action": "stall", "origin": "transfer"})
    places = [(shard(number % SHARDS), number // SHARDS * (SHARD_BYTES - 8 * KIB)) for number in range(READERS)]
    command = [sys.executable, str(Path(__file__).with_name("stalled_readers.py")), str(mount.path)]
    output = mount.log_file.with_name("readers")
    with output.open("wb") as file, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file) as readers:
        assert readers.stdin is not None
        try:
            readers.stdin.write("".join(f"{path} {offset} 4096\n" for path, offset in places).encode())
            readers.stdin.close()
            _wait_until_silent(stage, mount)
            assert read(mount, held, 0, 4096) == stage.contents[held][:4096]
            for number in range(MANY):
                assert os.stat(mount.path / f"many/{number:03}.txt").st_size == len(stage.contents[f"many/{number:03}.txt"])
            assert output.read_bytes() == b"", "a stalled read was over before the others"
            assert waiting_in_the_kernel(mount) in (None, *range(IN_FLIGHT, 10 * READERS))
            stage.hub.control("DELETE", "faults", {})
            assert readers.wait(60) == 0
        finally:
            readers.kill()
    found = {tuple(line.split()) for line in output.read_text().splitlines()}
    right = {(path, str(at), "0", hashlib.sha256(stage.contents[path][at : at + 4096]).hexdigest()) for path, at in places}
    assert found == right
    assert waiting_in_the_kernel(mount) in (None, 0)


def _wait_until_silent(stage: Staged, mount: Stage) -> None:
    """Until the host is silent to as many requests as there are connections."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        silent = [asked for asked in stage.hub.requests("transfer") if asked["end"] is None]
        if len(silent) >= IN_FLIGHT:
            return
    raise AssertionError(f"only {len(silent)} requests; {mount.log()[-2000:]}")
