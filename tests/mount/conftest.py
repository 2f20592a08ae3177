"""Real mounts of repos that the real client uploaded: a hub in a process of its own, `xetfs mount` as a user runs it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mount_data
import pytest
from mount_hub import Everything, HubProcess
from mount_user import Mount, MountRepo, is_mounted, sweep

from xetfs.testhub import HubOptions, TestHub

TEST_S = 400
BASE_PREFIX = "xetfs-tests-mount-"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Much data is moved here, and a machine may be busy: a limit for what hangs, not for what is slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """Where these tests mount and keep files, apart from pytest's own directories: deleting those would walk into a mount."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    temporary = Path(tempfile.gettempdir())
    for left in temporary.glob(f"{BASE_PREFIX}*"):
        pid = left.name.removeprefix(BASE_PREFIX).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            sweep(left)
            shutil.rmtree(left, ignore_errors=True)
    base = Path(tempfile.mkdtemp(prefix=f"{BASE_PREFIX}{os.getpid()}-"))
    yield base
    left_over = sweep(base)
    shutil.rmtree(base)
    assert left_over == []


@pytest.fixture(scope="session")
def everything(base: Path) -> Iterator[Everything]:
    folder, old, seeded = base / "source", base / "old", base / "seeded"
    hub = TestHub(base / "hub", HubOptions(), seed=0)
    mount_data.seed_scattered(hub, seeded)
    hub.storage.close()
    running = HubProcess(base / "hub")
    try:
        mount_data.make_old_lfs(old)
        running.upload(mount_data.REPO, old, xet=False)
        mount_data.make_files(folder)
        commit = running.upload(mount_data.REPO, folder)
        for part in (old, seeded):
            shutil.copytree(part, folder, dirs_exist_ok=True)
        mount_data.write_checksums(folder, base / "sums")
        yield Everything(running, folder, base / "sums", commit)
    finally:
        running.stop()


@pytest.fixture(scope="session")
def big(base: Path, everything: Everything) -> Path:
    """A file of 1 GiB, which the hub has as `local/big`, uploaded by the real client."""
    folder = base / "big"
    folder.mkdir()
    mount_data.make_big(folder / mount_data.BIG)
    everything.hub.upload(mount_data.BIG_REPO, folder)
    return folder / mount_data.BIG


@pytest.fixture
def hub(everything: Everything) -> HubProcess:
    """The hub that serves it, with an empty log and no faults."""
    everything.hub.reset()
    return everything.hub


@pytest.fixture
def mount_repo(base: Path, request: pytest.FixtureRequest) -> Iterator[MountRepo]:
    """Mount a repo; every mount is taken down at the end, and its log read. A cache directory may be shared by name."""
    mounts: list[Mount] = []
    here = Path(tempfile.mkdtemp(dir=base))

    def mount(
        endpoint: str,
        ref: str = mount_data.REPO,
        *arguments: str,
        cache: str = "cache",
        token: str = "",
        foreground: bool = False,
    ) -> Mount:
        env = {"HF_ENDPOINT": endpoint, "HF_TOKEN": token, "XDG_STATE_HOME": str(here / "state")}
        mounted = Mount(here / str(len(mounts)), here / cache, env)
        mounts.append(mounted)
        start = mounted.mount_in_foreground if foreground else mounted.mount
        start(ref, arguments)
        return mounted

    try:
        yield mount
        for mounted in mounts:
            if is_mounted(mounted.path):
                mounted.umount()
            assert mounted.unexpected() == []
    finally:
        for mounted in mounts:
            mounted.clean_up()
        shutil.rmtree(here)
