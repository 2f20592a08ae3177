"""kill -9 of the daemon while programs read, and what the next mount makes of it.

XETFS_KILLS says how often, XETFS_KILLS_SEED when; the seed of a run is printed.
"""

from __future__ import annotations

import errno
import os
import random
import time
from pathlib import Path

import pytest
from load import Load, check_whole
from mount_user import run_xetfs
from stage import REPO, Stage, Staged, block_files

from xetfs.fs import mountpoint as outside
from xetfs.settings import StoreSettings
from xetfs.store.disk import DiskStore
from xetfs.telemetry import Counters

KILLS = int(os.environ.get("XETFS_KILLS", "12"))
SEED = int(os.environ.get("XETFS_KILLS_SEED", random.SystemRandom().randrange(2**32)))

READERS = 6
END_S = 2.0
"""How soon readers must hear of it."""
REMOUNT_S = 3.0
"""How soon the next mount must be there."""
AFTER_DEATH = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
"""ECONNABORTED is what the kernel says of a request that was under way."""


def mounts_at(path: Path) -> int:
    return sum(mount.path == str(path) for mount in outside.mounts())


def processes_of(base: Path) -> list[int]:
    """Daemons that serve something under `base`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"\0mount\0" in command and os.fsencode(base) in command:
            found.append(int(entry.name))
    return found


@pytest.mark.timeout(120 + 10 * KILLS)
def test_kills_at_random_moments_cost_time_and_nothing_else(stage_of: Staged) -> None:
    print(f"XETFS_KILLS_SEED={SEED}")
    choose = random.Random(SEED)
    stage = Stage(stage_of, "kills")
    slowest_end = slowest_mount = 0.0
    try:
        stage.start()
        for number in range(KILLS):
            with Load(stage.path, stage_of.contents, readers=READERS, seed=choose.randrange(2**32)) as load:
                load.wait_done(choose.choice((1, 10, 100, 300)) + choose.randrange(20))
                stage.kill()
                killed_s = time.monotonic()
                load.join(END_S)
            assert {exc.errno for exc, _ in load.errors} <= AFTER_DEATH
            assert len(load.errors) == READERS
            assert load.wrong == []
            slowest_end = max(slowest_end, *(when - killed_s for _, when in load.errors))
            began_s = time.monotonic()
            stage.start()
            slowest_mount = max(slowest_mount, time.monotonic() - began_s)
            assert slowest_mount < REMOUNT_S
            assert mounts_at(stage.path) == 1
            assert processes_of(stage_of.base / "kills") == [stage.pid]
            some = set(choose.sample(sorted(stage_of.contents), 20)) | ({*stage_of.contents} if number == KILLS - 1 else set())
            check_whole(stage.path, stage_of.contents, some.__contains__)
            stage.judge()
        stage.stop()
        stage.judge()
    finally:
        stage.clean_up()
    print(f"{KILLS} kills: readers ended within {slowest_end:.2f} s, mounted again within {slowest_mount:.2f} s")
    assert mounts_at(stage.path) == 0
    assert processes_of(stage_of.base / "kills") == []
    assert sorted(file.suffix for file in (stage_of.base / "kills" / "state").rglob("*.json")) == []
    check_no_strays(stage.cache_dir)


def check_no_strays(cache: Path) -> None:
    """What a kill left between a block's file and its row is found by a sweep; nothing else is in the directory."""
    store = DiskStore(StoreSettings(cache_dir=cache), Counters())
    try:
        store.sweep(age_s=-1.0)
        assert store.sweep(age_s=-1.0) == 0
        assert store.statistics().state == "ok"
    finally:
        store.close()
    others = {path.name for path in cache.iterdir() if not path.is_dir()}
    assert others <= {"cache.db", "cache.db-wal", "cache.db-shm", "lock", "swept"}
    assert len(block_files(cache)) > 10


def test_a_daemon_that_hangs_is_not_taken_for_a_dead_one(stage_of: Staged) -> None:
    """A mount that answers is left alone, and nothing is stacked on it."""
    stage = Stage(stage_of, "stacked")
    try:
        stage.start()
        refused = run_xetfs("mount", REPO, str(stage.path), "--cache-dir", str(stage.cache_dir), env=stage.env)
        assert refused.returncode == 6
        assert "already a mount" in refused.stderr
        assert mounts_at(stage.path) == 1
        check_whole(stage.path, stage_of.contents, lambda path: path.startswith("deep/"))
        stage.stop()
        stage.judge()
    finally:
        stage.clean_up()
