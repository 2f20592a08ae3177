"""A mount as the lower layer of an overlay, bind-mounted, as a source of disk images, behind a web server, lazily unmounted."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mount_user import Mount, is_mounted
from software_runs import Software, environment, output

PAST_THE_READAHEAD = 2 * 1024 * 1024

# aiohttp serves static files with sendfile(2).
SERVER = """
import sys
from aiohttp import web
app = web.Application()
app.add_routes([web.static("/", sys.argv[1])])
web.run_app(app, host="127.0.0.1", port=0, print=lambda text: print(text, flush=True))
"""


@contextmanager
def mounted_as_well(base: Path, *options: str | Path) -> Iterator[Path]:
    """Mount something on a new directory with mount(8)."""
    place = base / "place"
    place.mkdir()
    subprocess.run(["mount", *options, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def assert_same(left: Path, right: Path) -> None:
    assert output(["diff", "-r", "--exclude=lost+found", left, right], cwd=left) == b""


@pytest.mark.root
def test_lower_layer_of_a_writable_overlay(software: Software, mount: Mount, tmp_path: Path) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    layers = f"lowerdir={mount.path},upperdir={upper},workdir={work}"
    with mounted_as_well(tmp_path, "-t", "overlay", "overlay", "-o", layers) as merged:
        assert_same(software.plain, merged)
        text, before = merged / "plain/text.txt", (software.plain / "plain/text.txt").read_bytes()
        with text.open("ab") as file:
            file.write(b"one more\n")
        assert text.read_bytes() == before + b"one more\n"
        (merged / "plain/small-03.txt").unlink()
        (merged / "plain/noise.bin").rename(merged / "package/noise.bin")
        with closing(sqlite3.connect(merged / "databases/wal.sqlite")) as database:
            database.execute("delete from words where number < 10000")
            database.commit()
            assert database.execute("select count(*) from words").fetchone() == (20_000,)
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        output(["git", "-C", "project.git", "update-ref", "refs/heads/new", "older"], cwd=merged)
        assert "small-03.txt" not in os.listdir(merged / "plain")
    assert_same(software.plain, mount.path)


@pytest.mark.root
def test_bind_mount_of_a_folder(software: Software, mount: Mount, tmp_path: Path) -> None:
    """As a container gets a directory of its host."""
    with mounted_as_well(tmp_path, "--bind", "-o", "ro,nosuid,nodev", mount.path / "plain") as place:
        assert_same(software.plain / "plain", place)
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").touch()
    assert is_mounted(mount.path)


@pytest.mark.root
def test_loop_mount_of_an_image_in_the_mount(software: Software, mount: Mount, tmp_path: Path) -> None:
    with mounted_as_well(tmp_path, "-o", "loop,ro", mount.path / "archives/plain.ext4") as place:
        assert_same(software.plain / "plain", place)


def test_web_server_with_sendfile_and_ranges(software: Software, mount: Mount) -> None:
    command = [sys.executable, "-c", SERVER, str(mount.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as server:
        try:
            assert server.stdout is not None
            endpoint = server.stdout.readline().split()[-2]
            content = (software.plain / "plain/noise.bin").read_bytes()
            for header, expected in (
                ("bytes=0-", content),
                ("bytes=1000001-2000007", content[1000001:2000008]),
                ("bytes=-7", content[-7:]),
            ):
                request = urllib.request.Request(f"{endpoint}/plain/noise.bin", headers={"Range": header})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    assert answer.read() == expected
        finally:
            server.terminate()


def test_lazy_unmount_keeps_open_files_readable(software: Software, mount: Mount) -> None:
    """`fusermount3 -uz` detaches the mount at once; open files stay readable, and the daemon exits when the last is closed."""
    content = (software.plain / "plain/noise.bin").read_bytes()
    with (mount.path / "plain/noise.bin").open("rb", buffering=0) as file:
        assert file.read(10) == content[:10]
        subprocess.run(["fusermount3", "-u", "-z", mount.path], check=True)
        assert os.listdir(mount.path) == []
        assert os.pread(file.fileno(), len(content), PAST_THE_READAHEAD) == content[PAST_THE_READAHEAD:]
        assert os.fstat(file.fileno()).st_size == len(content)
        os.kill(mount.pid, 0)
    assert mount.ended() == 0
    assert mount.unexpected() == []
