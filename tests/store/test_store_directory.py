"""Which cache directories are taken."""

from __future__ import annotations

import fcntl
import os
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


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o720, 0o702])
def test_a_directory_that_others_can_write_to_is_refused(mode: int, tmp_path: Path, open_store: OpenStore) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(StoreFailed, match="others may write") as caught:
        open_store()
    assert f"chmod 700 {cache}" in caught.value.hint
    assert list(cache.iterdir()) == []


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


def test_a_directory_that_anybody_could_replace_is_refused(tmp_path: Path, open_store: OpenStore) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StoreFailed, match="anybody could replace"):
        open_store(cache_dir=tmp_path / "open" / "cache")
    (tmp_path / "open").chmod(0o1777)
    assert open_store(cache_dir=tmp_path / "open" / "cache").statistics().state == "ok"


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
