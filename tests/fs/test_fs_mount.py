"""A real mount of a view without a Hub, served by another process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount_program import FILES

from xetfs.errors import MountpointUnusable
from xetfs.fs import mountpoint as outside

HERE = Path(__file__).parent
END_S = 20


class Daemon:
    def __init__(self, path: Path, mode: str = "") -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "mount_program.py"), str(path), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # so that what follows the first line is left for communicate()
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline().decode().strip()

    def finish(self) -> tuple[str, str]:
        """Wait for its end; what else it printed, and its log."""
        output, log = self.process.communicate(timeout=END_S)
        return output.decode(), log.decode()

    def end(self, number: int = signal.SIGTERM) -> tuple[str, str]:
        self.process.send_signal(number)
        return self.finish()


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mount, with a blank"
    path.mkdir()
    yield path
    while outside.mount_at(path):
        outside.unmount(path, lazily=True)


@contextlib.contextmanager
def mounted(path: Path, mode: str = "") -> Iterator[Daemon]:
    daemon = Daemon(path, mode)
    try:
        assert daemon.first_line == "ready", daemon.finish()
        yield daemon
    finally:
        daemon.process.kill()
        daemon.process.communicate()


def tree(path: Path) -> dict[str, bytes]:
    return {str(found.relative_to(path)): found.read_bytes() for found in path.rglob("*") if found.is_file()}


def test_programs_see_plain_files(mountpoint: Path) -> None:
    with mounted(mountpoint) as daemon:
        assert tree(mountpoint) == FILES
        assert sorted(os.listdir(mountpoint)) == sorted({path.split("/")[0] for path in FILES})
        found = os.stat(mountpoint / "deep/er/data.bin")
        assert stat.S_IMODE(found.st_mode) == 0o644
        assert (found.st_size, found.st_blocks, found.st_nlink) == (1 << 20, 2048, 1)
        assert os.getxattr(mountpoint / "config.json", "user.xetfs.repo") == b"owner/repo"
        with pytest.raises(FileNotFoundError):
            os.stat(mountpoint / "no")
        with pytest.raises(OSError) as caught:
            (mountpoint / "new").write_bytes(b"")
        assert caught.value.errno == errno.EROFS
        output, _ = daemon.end()
        assert output == "ended\n"
    assert outside.mount_at(mountpoint) is None


def test_the_mount_is_read_only_and_trusts_nothing(mountpoint: Path) -> None:
    with mounted(mountpoint):
        mount = outside.mount_at(mountpoint)
        assert mount is not None
        assert mount.fs_type == "fuse.xetfs"
        assert mount.source == "xetfs:owner/repo@0123456789ab"
        assert {"ro", "nosuid", "nodev"} <= mount.options
        [line] = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(mountpoint.parent) in line]
        assert "default_permissions" in line
        assert "allow_other" not in line


def test_reads_ask_for_a_mebibyte_at_a_time_where_we_may(mountpoint: Path) -> None:
    with mounted(mountpoint) as daemon:
        mount = outside.mount_at(mountpoint)
        assert mount is not None
        setting = Path("/sys/class/bdi") / mount.device / "read_ahead_kb"
        if os.access(setting, os.W_OK):
            assert setting.read_text().strip() == "1024"
        else:
            assert "read-ahead stays" in daemon.end()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount_also_while_a_file_is_open(mountpoint: Path, number: int) -> None:
    with mounted(mountpoint) as daemon:
        fd = os.open(mountpoint / "config.json", os.O_RDONLY)
        output, log = daemon.end(number)
        with contextlib.suppress(OSError):
            os.close(fd)
        assert output == "ended\n"
        assert daemon.process.returncode == 0
        assert "Traceback" not in log
    assert outside.mount_at(mountpoint) is None
    assert os.listdir(mountpoint) == []


def test_a_signal_ends_reads_that_wait(mountpoint: Path) -> None:
    with mounted(mountpoint, "stall") as daemon:
        reader = subprocess.Popen(["cat", str(mountpoint / "config.json")], stderr=subprocess.PIPE)
        output, _ = daemon.end()
        assert output == "ended\n"
        _, complaint = reader.communicate(timeout=END_S)
        assert reader.returncode != 0
        assert complaint


def test_the_daemon_ends_when_somebody_else_unmounts(mountpoint: Path) -> None:
    with mounted(mountpoint) as daemon:
        outside.unmount(mountpoint)
        output, log = daemon.finish()
        assert output == "ended\n"
        assert log.count("unmounted path=") == 1


def test_closing_and_syncing_succeed(mountpoint: Path) -> None:
    with mounted(mountpoint):
        for path in (mountpoint / "config.json", mountpoint / "deep"):
            for _ in range(2):
                fd = os.open(path, os.O_RDONLY)
                os.fsync(fd)
                os.fdatasync(fd)
                os.close(fd)


def test_a_mount_in_use_is_not_unmounted_unless_lazily(mountpoint: Path) -> None:
    with mounted(mountpoint) as daemon:
        with open(mountpoint / "config.json", "rb") as file:
            with pytest.raises(MountpointUnusable, match="is in use") as caught:
                outside.unmount(mountpoint)
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.EBUSY
            assert file.read() == b"{}"
        outside.unmount(mountpoint)
        assert daemon.finish()[0] == "ended\n"


def test_what_nobody_foresaw_costs_one_errno(mountpoint: Path) -> None:
    with mounted(mountpoint, "bug") as daemon:
        for _ in range(3):
            with pytest.raises(OSError) as caught:
                (mountpoint / "config.json").read_bytes()
            assert caught.value.errno == errno.EIO
        assert os.stat(mountpoint / "näme ☃").st_size == 4
        output, log = daemon.end()
        assert output == "ended\n"
        assert "a bug: operation=read path='config.json' errno=EIO" in log
        assert "ValueError: a slip" in log


def test_a_read_that_waits_for_ever_is_told_so_in_time(mountpoint: Path) -> None:
    with mounted(mountpoint, "stall"):
        # O_DIRECT, as the kernel asks twice for a page that fails.
        fd = os.open(mountpoint / "config.json", os.O_RDONLY | os.O_DIRECT)
        try:
            with pytest.raises(OSError) as caught:
                os.read(fd, 4096)
        finally:
            os.close(fd)
        assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("mode", ["", "crash"])
def test_a_dead_mount_stays_until_the_next_replaces_it(mountpoint: Path, mode: str) -> None:
    with mounted(mountpoint, mode) as daemon:
        if mode != "crash":
            daemon.process.kill()
        output, _ = daemon.finish()
        assert output == ("failed\n" if mode == "crash" else "")
    with pytest.raises(OSError) as caught:
        os.listdir(mountpoint)
    assert caught.value.errno == errno.ENOTCONN
    assert outside.state_of(mountpoint) == "dead"
    with mounted(mountpoint):
        assert tree(mountpoint) == FILES
        assert len([mount for mount in outside.mounts() if mount.path == str(mountpoint)]) == 1


@pytest.mark.root
def test_something_foreign_on_a_dead_mount_is_left_alone(mountpoint: Path) -> None:
    with mounted(mountpoint) as daemon:
        libc = ctypes.CDLL(None, use_errno=True)
        source, kind = b"x", b"tmpfs"
        daemon.process.kill()
        daemon.finish()
        assert libc.mount(source, os.fsencode(mountpoint), kind, 0, b"size=4k") == 0, os.strerror(ctypes.get_errno())
    refused = Daemon(mountpoint)
    assert refused.first_line.startswith("refused MountpointUnusable: ")
    assert "is already a mount (x, tmpfs) above one of xetfs" in refused.first_line
    refused.finish()
    outside.unmount(mountpoint)
    with mounted(mountpoint):
        assert tree(mountpoint) == FILES


def test_a_live_mount_is_not_mounted_upon(mountpoint: Path) -> None:
    with mounted(mountpoint):
        second = Daemon(mountpoint)
        assert second.first_line.startswith("refused MountpointUnusable: ")
        assert "is already a mount (xetfs:owner/repo@0123456789ab, fuse.xetfs); unmount it first" in second.first_line
        second.finish()
        assert tree(mountpoint) == FILES


def test_numbers_are_the_same_after_a_remount(mountpoint: Path) -> None:
    found: list[dict[str, int]] = []
    for order in (sorted(FILES), sorted(FILES, reverse=True)):
        with mounted(mountpoint) as daemon:
            found.append({path: os.stat(mountpoint / path).st_ino for path in order})
            daemon.end()
    assert found[0] == found[1]


@pytest.mark.root
def test_file_handles_outlive_the_cache_of_the_kernel(mountpoint: Path) -> None:
    """As a server of NFS, or a program that watches a tree by handle, uses them."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mounted(mountpoint):
        for path, is_directory in (("config.json", False), ("deep/er/data.bin", False), ("deep/er", True)):
            handle, mount_id = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 8 + 128), ctypes.c_int()
            named = libc.name_to_handle_at(-100, os.fsencode(mountpoint / path), handle, ctypes.byref(mount_id), 0)
            assert named == 0, os.strerror(ctypes.get_errno())
            wanted = os.stat(mountpoint / path).st_ino
            root = os.open(mountpoint, os.O_RDONLY)
            try:
                Path("/proc/sys/vm/drop_caches").write_text("2")
                fd = libc.open_by_handle_at(root, handle, os.O_RDONLY)
                assert fd >= 0, os.strerror(ctypes.get_errno())
                try:
                    assert os.fstat(fd).st_ino == wanted
                    assert is_directory or os.read(fd, 2**21) == FILES[path]
                    assert not is_directory or os.listdir(fd) == ["data.bin"]
                finally:
                    os.close(fd)
            finally:
                os.close(root)


def test_a_copy_can_be_deleted_by_the_user_who_made_it(mountpoint: Path) -> None:
    with tempfile.TemporaryDirectory() as base, mounted(mountpoint):
        copy = Path(base, "copy")
        subprocess.run(["cp", "-rp", str(mountpoint), str(copy)], check=True, timeout=60)
        as_user: dict[str, int] = {}
        if os.geteuid() == 0:  # root could delete anything
            as_user = {"user": 65534, "group": 65534}
            os.chmod(base, 0o711)
            subprocess.run(["chown", "-R", "65534:65534", str(copy)], check=True)
        subprocess.run(["rm", "-r", *os.listdir(copy)], cwd=copy, check=True, timeout=60, **as_user)  # type: ignore[call-overload]
        assert os.listdir(copy) == []


def test_a_long_directory_is_listed_whole(mountpoint: Path) -> None:
    with mounted(mountpoint, "large"):
        listing = subprocess.run(["ls", "-l", str(mountpoint)], capture_output=True, check=True, timeout=60)
        assert len(listing.stdout.splitlines()) == 20_001
        found = subprocess.run(["find", str(mountpoint), "-type", "f"], capture_output=True, check=True, timeout=60)
        assert len(found.stdout.splitlines()) == 20_000


def test_find_descends_into_every_directory(mountpoint: Path) -> None:
    with mounted(mountpoint):
        found = subprocess.run(["find", ".", "-name", "data.bin"], cwd=mountpoint, capture_output=True, check=True, timeout=60)
        assert found.stdout == b"./deep/er/data.bin\n"
