"""Every byte of every kind of file is what was uploaded, however it is read."""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mount_data
import pytest
from mount_hub import Everything, HubProcess
from mount_user import MountRepo

from xetfs.store.directory import shared_file_system

COMPARE_S = 300
READERS = 8
READS_EACH = 150


def compare(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command that compares; it must find nothing to say."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=COMPARE_S, check=False)
    assert (done.returncode, done.stdout[-2000:], done.stderr[-2000:]) == (0, "", "")


def diff(folder: Path, mounted: Path) -> None:
    compare("diff", "-r", folder, mounted)


def check_sums(sums: Path, mounted: Path) -> None:
    compare("sha256sum", "--check", "--quiet", sums, cwd=mounted)


def rsync(folder: Path, mounted: Path) -> None:
    """Content by checksum, in both directions; each difference is a line. Not the times, which are the commit's."""
    compare("rsync", "-rcn", "--delete", "--out-format=%i %n", f"{folder}/", f"{mounted}/")


def forget_pages(mounted: Path) -> None:
    """Let the kernel drop what it holds of every file."""
    for path in mounted.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def test_the_repo_has_every_kind_of_file(everything: Everything, hub: HubProcess, mount_repo: MountRepo) -> None:
    """If the client or the hub changed their minds about what goes where, the other tests would test less."""
    path = mount_repo(hub.endpoint).path

    def kind(name: str) -> str:
        names = {attribute.removeprefix("user.xetfs.") for attribute in os.listxattr(path / name)}
        return "xet" if "hash" in names else "lfs" if "sha256" in names else "plain"

    assert {name: kind(name) for name in ("README.md", "empty.txt", "one.txt", mount_data.STRANGE)} == {
        "README.md": "plain", "empty.txt": "plain", "one.txt": "plain", mount_data.STRANGE: "plain"
    }  # fmt: skip
    assert kind(mount_data.OLD_LFS) == "lfs"
    for name in ("one.bin", "one_chunk.bin", "weights/noise.bin", "terms/fragmented.bin", mount_data.SCATTERED, mount_data.MODEL):
        assert kind(name) == "xet", name
    assert max(len(os.fsencode(name)) for name in os.listdir(path / "names")) == 255


@pytest.mark.production
@pytest.mark.parametrize("compare_all", [diff, rsync], ids=["diff", "rsync"])
def test_a_cold_mount_is_equal(
    everything: Everything, hub: HubProcess, mount_repo: MountRepo, compare_all: Callable[[Path, Path], None]
) -> None:
    compare_all(everything.folder, mount_repo(hub.endpoint).path)


@pytest.mark.production
def test_it_is_equal_cold_and_warm_and_after_a_remount(everything: Everything, hub: HubProcess, mount_repo: MountRepo) -> None:
    mounted = mount_repo(hub.endpoint)
    check_sums(everything.sums, mounted.path)
    hub.reset()
    forget_pages(mounted.path)
    check_sums(everything.sums, mounted.path)
    assert hub.requests() == []
    mounted.umount()
    again = mount_repo(hub.endpoint)
    hub.reset()
    check_sums(everything.sums, again.path)
    rsync(everything.folder, again.path)
    assert hub.requests() == []


def test_it_is_equal_with_a_cache_much_smaller_than_the_data(
    everything: Everything, hub: HubProcess, mount_repo: MountRepo
) -> None:
    mounted = mount_repo(hub.endpoint, mount_data.REPO, "--cache-size", "64M")
    for _ in range(2):
        diff(everything.folder, mounted.path)
        forget_pages(mounted.path)


def read_by_pread(path: Path, offset: int, length: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def read_by_mmap(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        return mapped[offset : offset + length]


@pytest.mark.parametrize(
    "cache_size", ["1G", pytest.param("64M", marks=pytest.mark.production)], ids=["large cache", "small cache"]
)
@pytest.mark.parametrize("read", [read_by_pread, read_by_mmap], ids=["pread", "mmap"])
def test_parallel_readers_at_random_offsets(
    everything: Everything, hub: HubProcess, mount_repo: MountRepo, read: Callable[[Path, int, int], bytes], cache_size: str
) -> None:
    mounted = mount_repo(hub.endpoint, mount_data.REPO, "--cache-size", cache_size)
    files = [path for path in sorted(everything.folder.rglob("*")) if path.is_file() and path.stat().st_size]

    def read_many(seed: int) -> list[str]:
        chance = random.Random(seed)
        wrong = []
        for _ in range(READS_EACH):
            original = chance.choice(files)
            size = original.stat().st_size
            offset = chance.randrange(size)
            length = chance.choice((1, 4096, 70_000, 1_000_000))
            name = original.relative_to(everything.folder)
            if read(mounted.path / name, offset, length) != read_by_pread(original, offset, length):
                wrong.append(f"{name} {offset}+{length}")
        return wrong

    with ThreadPoolExecutor(READERS) as pool:
        assert [wrong for found in pool.map(read_many, range(READERS)) for wrong in found] == []


@pytest.mark.production
def test_reads_at_and_past_the_end(everything: Everything, hub: HubProcess, mount_repo: MountRepo) -> None:
    path = mount_repo(hub.endpoint).path
    for name in ("weights/noise.bin", mount_data.OLD_LFS, "config.json", "one.bin"):
        content = (everything.folder / name).read_bytes()
        size = len(content)
        assert read_by_pread(path / name, size - 1, 10) == content[-1:]
        assert read_by_pread(path / name, size, 10) == b""
        assert read_by_pread(path / name, size + 1_000_000, 10) == b""
    assert read_by_pread(path / "empty.txt", 0, 10) == b""


@pytest.mark.production
def test_a_subfolder_a_commit_and_a_dataset(
    everything: Everything, hub: HubProcess, mount_repo: MountRepo, tmp_path: Path
) -> None:
    folder = mount_repo(hub.endpoint, f"{mount_data.REPO}/terms@{everything.commit}").path
    diff(everything.folder / "terms", folder)
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    hub.upload("local/table", tmp_path, kind="dataset")
    diff(tmp_path, mount_repo(hub.endpoint, "datasets/local/table").path)


def test_a_mount_stays_at_its_commit(everything: Everything, hub: HubProcess, mount_repo: MountRepo, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("before")
    before = hub.upload("local/moving", tmp_path)
    mounted = mount_repo(hub.endpoint, "local/moving")
    (tmp_path / "file.txt").write_text("after, and longer")
    hub.upload("local/moving", tmp_path)
    assert (mounted.path / "file.txt").read_text() == "before"
    assert os.getxattr(mounted.path, "user.xetfs.commit").decode() == before
    assert (mount_repo(hub.endpoint, "local/moving").path / "file.txt").read_text() == "after, and longer"


def test_what_stat_says(everything: Everything, hub: HubProcess, mount_repo: MountRepo) -> None:
    path = mount_repo(hub.endpoint).path
    for original in [everything.folder, *everything.folder.rglob("*")]:
        found = (path / original.relative_to(everything.folder)).stat()
        if original.is_dir():
            assert stat.S_ISDIR(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o755
        else:
            assert stat.S_ISREG(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o644
            assert found.st_size == original.stat().st_size
            assert found.st_blocks == -(-found.st_size // 512)
            assert found.st_nlink == 1
        assert found.st_mtime > 1_700_000_000


def test_extended_attributes_cost_no_request(everything: Everything, hub: HubProcess, mount_repo: MountRepo) -> None:
    path = mount_repo(hub.endpoint).path
    names = [name for name in os.listdir(path / "weights") if name.endswith(".bin")]
    hub.reset()
    sums = dict(line.split(maxsplit=1)[::-1] for line in everything.sums.read_text().splitlines())
    for name in names:
        assert os.getxattr(path / "weights" / name, "user.xetfs.sha256").decode() == sums[f"./weights/{name}"]
        assert len(os.getxattr(path / "weights" / name, "user.xetfs.hash")) == 64
        assert os.getxattr(path / "weights" / name, "user.xetfs.repo").decode() == mount_data.REPO
        assert os.getxattr(path / "weights" / name, "user.xetfs.commit").decode() == everything.commit
    with pytest.raises(OSError) as caught:
        os.getxattr(path / "config.json", "user.other")
    assert caught.value.errno == errno.ENODATA
    assert hub.requests() == []


WRITES: dict[str, Callable[[Path], object]] = {
    "create": lambda path: (path / "new").touch(),
    "open for writing": lambda path: os.open(path / "config.json", os.O_WRONLY),
    "append": lambda path: os.open(path / "config.json", os.O_RDWR | os.O_APPEND),
    "truncate": lambda path: os.truncate(path / "config.json", 0),
    "mkdir": lambda path: (path / "new").mkdir(),
    "rmdir": lambda path: (path / "names").rmdir(),
    "unlink": lambda path: (path / "config.json").unlink(),
    "rename": lambda path: (path / "config.json").rename(path / "new"),
    "link": lambda path: os.link(path / "config.json", path / "new"),
    "symlink": lambda path: os.symlink("config.json", path / "new"),
    "mkfifo": lambda path: os.mkfifo(path / "new"),
    "chmod": lambda path: (path / "config.json").chmod(0o600),
    "chown": lambda path: os.chown(path / "config.json", os.getuid(), os.getgid()),
    "utime": lambda path: os.utime(path / "config.json", (0, 0)),
    "setxattr": lambda path: os.setxattr(path / "config.json", "user.xetfs.repo", b"x"),
    "removexattr": lambda path: os.removexattr(path / "config.json", "user.xetfs.repo"),
}


def test_everything_that_writes_is_refused(everything: Everything, hub: HubProcess, mount_repo: MountRepo) -> None:
    path = mount_repo(hub.endpoint).path
    found = {}
    for name, write in WRITES.items():
        with pytest.raises(OSError) as caught:
            write(path)
        found[name] = errno.errorcode[caught.value.errno]  # type: ignore[index]
    assert found == dict.fromkeys(WRITES, "EROFS")
    diff(everything.folder / "names", path / "names")


def test_a_file_system_that_others_may_share_is_known_as_one(hub: HubProcess, mount_repo: MountRepo) -> None:
    """A mount of ours stands for all that is not of this kernel: NFS, SMB and the like cannot be had everywhere."""
    mounted = mount_repo(hub.endpoint)
    assert shared_file_system(mounted.path) == "fuse"
    assert shared_file_system(mounted.path.parent) != "fuse"
