"""The index on a file system that other machines share: no WAL, whose shared memory is of one kernel."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import make_block

from xetfs.store import opening
from xetfs.store.directory import shared_file_system
from xetfs.store.disk import DiskStore

OpenStore = Callable[..., DiskStore]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """shared(kind): from now on every directory is on a file system of that kind; "" for the machine's own."""

    def set_kind(kind: str) -> None:
        monkeypatch.setattr(opening, "shared_file_system", lambda path: kind)

    return set_kind


def journal_of(cache: Path) -> str:
    with sqlite3.connect(f"file:{cache}/cache.db?mode=ro", uri=True) as connection:
        found: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    return found


def test_on_a_shared_file_system_there_is_no_shared_memory(
    tmp_path: Path, open_store: OpenStore, shared: Callable[[str], None]
) -> None:
    shared("nfs")
    first, second = open_store(), open_store()
    for number in range(20):
        (first, second)[number % 2].put(make_block(number))
        first.put_record("map", str(number), b"value")
    for number in range(20):
        found = (second, first)[number % 2].find(make_block(number).xorb, 0)
        assert found is not None
        assert bytes(found.read(0, 1000)) == bytes(make_block(number).data[:1000])
    assert second.get_record("map", "3") == b"value"
    assert first.statistics().state == second.statistics().state == "ok"
    assert not list((tmp_path / "cache").glob("*-shm"))
    assert not list((tmp_path / "cache").glob("*-wal"))
    first.close()
    second.close()
    assert journal_of(tmp_path / "cache") == "delete"
    assert open_store().get_record("map", "3") == b"value"


def test_what_was_made_on_this_machine_alone_is_not_opened_there(
    tmp_path: Path, open_store: OpenStore, shared: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    local = open_store()
    local.put_record("map", "key", b"value")
    local.close()
    assert journal_of(tmp_path / "cache") == "wal"
    shared("cifs")
    moved = open_store()
    assert moved.get_record("map", "key") is None
    assert "was made on a file system of this machine alone" in caplog.text
    moved.put_record("map", "key", b"value")
    moved.close()
    shared("")
    back = open_store()
    assert back.get_record("map", "key") == b"value"
    back.put_record("map", "other", b"value")
    back.close()
    assert journal_of(tmp_path / "cache") == "wal"


def test_kinds_of_file_systems(tmp_path: Path) -> None:
    assert [shared_file_system(Path(path)) for path in ("/proc", "/sys", tmp_path)] == ["", "", ""]
    with pytest.raises(FileNotFoundError):
        shared_file_system(tmp_path / "absent")
