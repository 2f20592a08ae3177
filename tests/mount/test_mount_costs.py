"""What reading costs: requests and bytes by the hub's own log, and memory of the daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mount_data
import pytest
from mount_hub import Everything, HubProcess
from mount_user import MountRepo, run_xetfs

from xetfs.testhub import HubOptions, TestHub

MIB = 1024 * 1024
GIB = 1024 * MIB
MEMORY_MAX = 350 * MIB
MEMORY_OF_A_LISTING_MAX = 200 * MIB
PLACES = (0, 12_345_678, GIB // 2 + 7, GIB - 4096)
MANY = 120_000
CPU_OF_A_LISTING_MAX_S = 5.0
"""What the daemon may take for a first listing: it takes 1.5 s on a machine that does nothing else."""


def pread(path: Path, offset: int, length: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def pread_without_read_ahead(path: Path, offset: int, length: int) -> bytes:
    """Exactly these bytes, as a program that seeks about reads them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def test_opening_and_stat_cost_nothing_once_a_directory_is_listed(hub: HubProcess, mount_repo: MountRepo) -> None:
    path = mount_repo(hub.endpoint).path
    os.listdir(path / "weights")
    hub.reset()
    for name in os.listdir(path / "weights"):
        (path / "weights" / name).stat()
        os.close(os.open(path / "weights" / name, os.O_RDONLY))
    assert not (path / "weights" / "absent").exists()
    asked = [request["path"] for request in hub.requests()]
    assert len(asked) <= 1
    assert all("/xet-read-token/" in path for path in asked)  # had when a file is opened first, as it will be read


@pytest.mark.parametrize("offset", PLACES)
@pytest.mark.parametrize("read", [pread, pread_without_read_ahead], ids=["plain", "random"])
def test_the_first_4_kib_of_a_large_file(
    hub: HubProcess, mount_repo: MountRepo, big: Path, read: Callable[[Path, int, int], bytes], offset: int
) -> None:
    """One range proof if the server gives any, a reconstruction of what is asked for and one of what the proof may reach, all at
    the same time; and one request for data, or one more for what it did reach."""
    path = mount_repo(hub.endpoint, mount_data.BIG_REPO).path / mount_data.BIG
    assert path.stat().st_size == GIB
    hub.reset()
    length = min(4096, GIB - offset)
    assert read(path, offset, length) == pread(big, offset, length)
    asked = hub.requests("cas")
    assert 1 <= len([request for request in asked if "/reconstructions/" in request["path"]]) <= 2
    assert len([request for request in asked if "/file-chunk-hashes/" in request["path"]]) <= 1
    assert 1 <= len(hub.requests("transfer")) <= 2
    assert sum(request["bytes_sent"] for request in hub.requests("transfer")) <= 512 * 1024
    assert len(hub.requests("hub")) <= 1  # the token for the CAS
    hub.reset()
    assert read(path, offset, length) == pread(big, offset, length)
    assert hub.requests() == []


def test_a_whole_file_is_fetched_once(hub: HubProcess, mount_repo: MountRepo, everything: Everything) -> None:
    """In any order and block size; what is incompressible costs its size and little more."""
    path = mount_repo(hub.endpoint).path / "weights/noise.bin"
    size = path.stat().st_size
    hub.reset()
    subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True, timeout=60)
    assert size <= sum(request["bytes_sent"] for request in hub.requests("transfer")) <= 1.02 * size
    hub.reset()
    content = (everything.folder / "weights/noise.bin").read_bytes()
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for offset in reversed(range(0, size, 777_777)):
        assert os.pread(fd, 5000, offset) == content[offset : offset + 5000]
    os.close(fd)
    assert hub.requests() == []


@pytest.fixture
def passing_hub(base: Path) -> Iterator[HubProcess]:
    """A hub that a test may take off the network."""
    directory = base / "passing hub"
    hub = HubProcess(directory)
    try:
        yield hub
    finally:
        hub.stop()
        shutil.rmtree(directory)


@pytest.mark.production
@pytest.mark.parametrize("arguments", [[], ["--offline"]], ids=["hub gone", "offline by choice"])
def test_what_was_read_can_be_read_again_without_the_hub(
    everything: Everything, passing_hub: HubProcess, mount_repo: MountRepo, arguments: list[str]
) -> None:
    passing_hub.upload("local/kept", everything.folder / "weights")
    first = mount_repo(passing_hub.endpoint, "local/kept")
    subprocess.run(["diff", "-r", everything.folder / "weights", first.path], check=True, timeout=60)
    first.umount()
    passing_hub.stop()
    second = mount_repo(passing_hub.endpoint, "local/kept", *arguments)
    second.expected.append("the Hub cannot be reached, serving the last known commit")
    subprocess.run(["diff", "-r", everything.folder / "weights", second.path], check=True, timeout=60)


def test_offline_what_was_never_read_is_an_error_and_what_was_is_not(
    everything: Everything, passing_hub: HubProcess, mount_repo: MountRepo
) -> None:
    passing_hub.upload("local/kept", everything.folder / "weights")
    first = mount_repo(passing_hub.endpoint, "local/kept")
    expected = pread(everything.folder / "weights/noise.bin", 0, 4096)
    assert pread(first.path / "noise.bin", 0, 4096) == expected
    first.umount()
    passing_hub.stop()
    second = mount_repo(passing_hub.endpoint, "local/kept", "--offline")
    second.expected.append("offline")
    assert pread(second.path / "noise.bin", 0, 4096) == expected
    with pytest.raises(OSError, match="Network is unreachable"):
        pread(second.path / "noise.bin", 30 * MIB, 4096)


def test_offline_a_repo_that_was_never_mounted_is_refused(hub: HubProcess, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    env = {"HF_ENDPOINT": hub.endpoint, "XDG_STATE_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = run_xetfs("mount", mount_data.REPO, str(tmp_path / "mount"), "--cache-dir", str(tmp_path / "cache"), env=env)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert hub.requests() == []


LIST = "import os, sys; print(sum(entry.stat().st_size for entry in os.scandir(sys.argv[1])))"


def test_a_directory_of_120_000_files(base: Path, mount_repo: MountRepo) -> None:
    directory = base / "hub of many"
    seeded = TestHub(directory, HubOptions(), seed=0)
    repo = seeded.storage.create_repo("dataset", "local/many")
    seeded.storage.commit_files(repo, {f"all/{number:06d}.txt": b"%d" % number for number in range(MANY)})
    seeded.storage.close()
    hub = HubProcess(directory)
    try:
        mounted = mount_repo(hub.endpoint, "datasets/local/many", foreground=True)
        hub.reset()
        before_s = mounted.cpu_s()
        listed = os.listdir(mounted.path / "all")
        assert mounted.cpu_s() - before_s < CPU_OF_A_LISTING_MAX_S
        assert sorted(listed) == [f"{number:06d}.txt" for number in range(MANY)]
        pages = hub.requests("hub")
        assert len(pages) == MANY // 1000
        done = subprocess.run(
            [sys.executable, "-c", LIST, mounted.path / "all"], capture_output=True, text=True, check=True, timeout=60
        )
        assert int(done.stdout) == sum(len(str(number)) for number in range(MANY))
        assert len(hub.requests("hub")) == len(pages)
        assert mounted.peak_memory_bytes() < MEMORY_OF_A_LISTING_MAX
        mounted.umount()
        hub.reset()
        again = mount_repo(hub.endpoint, "datasets/local/many", cache="another cache")
        assert (again.path / "all" / f"{MANY - 1}.txt").read_bytes() == b"%d" % (MANY - 1)
        assert sum("/tree/" in request["path"] for request in hub.requests("hub")) == 1 + MANY // 1000
    finally:
        hub.stop()
        shutil.rmtree(directory)


def test_memory_while_four_readers_stream_4_gib(hub: HubProcess, mount_repo: MountRepo, big: Path) -> None:
    """Each reads the whole file, beginning at a quarter of its own, through a cache that holds a sixteenth of it."""
    mounted = mount_repo(hub.endpoint, mount_data.BIG_REPO, "--cache-size", "64M", foreground=True)

    def stream(quarter: int) -> int:
        done = 0
        with (mounted.path / mount_data.BIG).open("rb", buffering=0) as file, big.open("rb", buffering=0) as original:
            for start, end in ((quarter * GIB // 4, GIB), (0, quarter * GIB // 4)):
                file.seek(start)
                original.seek(start)
                while file.tell() < end:
                    piece = file.read(min(MIB, end - file.tell()))
                    assert piece == original.read(len(piece))
                    done += len(piece)
        return done

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(stream, range(4))) == [GIB] * 4
    assert mounted.peak_memory_bytes() < MEMORY_MAX
