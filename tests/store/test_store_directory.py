"""Which cache directories are taken."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from xetfs.errors import StoreFailed
from xetfs.store import directory
from xetfs.store.disk import DiskStore

OpenStore = Callable[..., DiskStore]


def test_a_directory_is_made_private_with_all_that_is_in_it(tmp_path: Path, open_store: OpenStore) -> None:
    old = os.umask(0)
    try:
        store = open_store(cache_dir=tmp_path / "a" / "b" / "cache")
        store.put_record("map", "a", bytes(100_000))
    finally:
        os.umask(old)
    made = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert len(made) > 6
    for path in made:
        expected = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_mode & 0o700 == expected & 0o700, path


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o2777, 0o1777, 0o720, 0o702])
def test_below_a_directory_that_others_can_write_to_a_private_one_is_used(
    mode: int, tmp_path: Path, open_store: OpenStore
) -> None:
    """A volume of a pod has such a mode, and cannot be given another."""
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(mode)
    open_store().put_record("map", "key", b"value")
    [private] = cache.iterdir()
    assert private.name == f"xetfs-{os.geteuid()}"
    assert stat.S_IMODE(private.stat().st_mode) & 0o777 == 0o700
    assert open_store().get_record("map", "key") == b"value"


@pytest.mark.parametrize("kind", ["a link", "open to others", "a file", "of somebody else"])
def test_a_private_directory_that_is_not_private_is_refused(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    private = cache / f"xetfs-{os.geteuid()}"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if kind == "a link":
        private.symlink_to(tmp_path / "elsewhere")
    elif kind == "a file":
        private.touch()
    else:
        private.mkdir()
        private.chmod(0o777 if kind == "open to others" else 0o700)
    if kind == "of somebody else":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        private.rename(cache / "xetfs-12345")
    with pytest.raises(StoreFailed) as caught:
        open_store()
    assert caught.value.hint
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_directory_that_the_user_trusts_is_used_as_it_is(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    open_store(cache_trusted=True).put_record("map", "key", b"value")
    assert (tmp_path / "cache/cache.db").exists()
    assert not list((tmp_path / "cache").glob("xetfs-*"))


@pytest.mark.root
def test_directories_that_root_makes_in_a_home_belong_to_its_user(tmp_path: Path, open_store: OpenStore) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, 54321)
    open_store(cache_dir=home / ".cache" / "deep" / "xetfs")
    owners = [(found.stat().st_uid, found.stat().st_gid) for found in (home / ".cache", home / ".cache/deep")]
    assert owners == [(12345, 54321)] * 2
    assert (home / ".cache/deep/xetfs").stat().st_uid == 0


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StoreFailed, match=f"belongs to user {os.getuid()}, not to 12345") as caught:
        open_store()
    assert "--cache-dir" in caught.value.hint


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path, open_store: OpenStore) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreFailed, match="symbolic link") as caught:
        open_store()
    assert str(tmp_path / "elsewhere") in caught.value.hint
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_to_nothing_is_refused(tmp_path: Path, open_store: OpenStore) -> None:
    (tmp_path / "cache").symlink_to(tmp_path / "nothing")
    with pytest.raises(StoreFailed):
        open_store()
    assert not (tmp_path / "nothing").exists()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path, open_store: OpenStore) -> None:
    (tmp_path / "cache").write_text("mine")
    with pytest.raises(StoreFailed, match="not a directory"):
        open_store()
    with pytest.raises(StoreFailed):
        open_store(cache_dir=tmp_path / "cache" / "below")
    assert (tmp_path / "cache").read_text() == "mine"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2777])
def test_a_private_directory_on_an_open_volume_is_used(tmp_path: Path, open_store: OpenStore, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    assert open_store(cache_dir=tmp_path / "open" / "cache").statistics().state == "ok"
    assert (tmp_path / "open/cache/cache.db").exists()


def test_a_name_with_a_variable_is_refused(tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSEWHERE", "x")
    with pytest.raises(StoreFailed, match="variable"):
        open_store(cache_dir=tmp_path / "$ELSEWHERE")


def test_a_directory_on_a_device_that_takes_none_is_refused(open_store: OpenStore) -> None:
    with pytest.raises(StoreFailed, match="cannot make") as caught:
        open_store(cache_dir=Path("/proc/cache"))
    assert "--cache-dir" in caught.value.hint


def test_a_directory_locked_by_a_process_that_is_stopped_is_a_store_that_fails(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_LOCK_TIMEOUT_S", 0.0)
    (tmp_path / "cache").mkdir(mode=0o700)
    with open(tmp_path / "cache" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = open_store()
        assert store.statistics().state == "failing"
        assert "lock" in store.statistics().failure


AS_A_USER = """
import os, sys
from pathlib import Path
from xetfs.settings import StoreSettings
from xetfs.store.disk import DiskStore
from xetfs.telemetry import Counters

os.setgroups([]); os.setgid(65534); os.setuid(65534)
for cache in sys.argv[1:]:
    store = DiskStore(StoreSettings(cache_dir=Path(cache), cache_free_share=0.0), Counters())
    store.put_record("map", "key", b"value")
    print(store.get_record("map", "key"), store.statistics().state)
    store.close()
"""


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o777, 0o2777])
def test_a_user_has_a_private_directory_on_a_volume_of_root(mode: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        os.chmod(base, 0o755)
        volume = Path(base, "volume")
        volume.mkdir()
        volume.chmod(mode)
        command = [sys.executable, "-c", AS_A_USER, str(volume / "c"), str(volume)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, "b'value' ok\n" * 2), done.stderr
        for private in (volume / "c", volume / "xetfs-65534"):
            assert stat.S_IMODE(private.stat().st_mode) & 0o777 == 0o700
            assert private.stat().st_uid == 65534
