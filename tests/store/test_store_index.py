"""The index: its rows, how they are looked up, and that this does not get slower with their number."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import diskcache
import pytest
from store_samples import make_block, xorb_named

from xetfs.errors import CorruptData
from xetfs.protocol.ranges import ChunkRange
from xetfs.store.disk import DiskStore
from xetfs.store.index import KEYS_UP_TO, OLDEST, ROW_OF_KEY, TOUCH, Index, block_key, parse_block_key, xorb_of_key
from xetfs.store.schema import DATABASE, JOURNALS
from xetfs.store.values import StoredFile, new_name, row_of, value_of


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(tmp_path)
    yield opened
    opened.shut()


def plan_of(index: Index, statement: str) -> str:
    arguments = [0] * statement.count("?")
    with index.change() as connection:
        return " / ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", arguments))


def test_every_lookup_walks_an_index(index: Index) -> None:
    assert plan_of(index, KEYS_UP_TO) == "SEARCH Cache USING COVERING INDEX Cache_key_raw (key>? AND key<?)"
    assert plan_of(index, ROW_OF_KEY) == "SEARCH Cache USING INDEX Cache_key_raw (key=? AND raw=?)"
    assert plan_of(index, TOUCH) == "SEARCH Cache USING INDEX Cache_key_raw (key=? AND raw=?)"
    assert plan_of(index, OLDEST) == "SCAN Cache USING INDEX Cache_access_time"


def steps(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    """How many tens of SQLite's instructions something takes."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(step, 10)
    work()
    connection.set_progress_handler(None, 10)
    return count


def test_nothing_costs_more_among_500_000_blocks_than_among_few(tmp_path: Path, index: Index) -> None:
    def fill(rows_count: int) -> None:
        rows = (
            (f"b/{number * 2654435761 % 2**32:08x}{'5' * 56}/00000-00010", 1, number, 2, "00/" + "0" * 30 + ".val", 0)
            for number in range(rows_count)
        )
        with index.change() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO Cache (key, raw, access_time, mode, filename, size) VALUES (?, ?, ?, ?, ?, ?)", rows
            )

    wanted = xorb_of_key(f"b/{7 * 2654435761 % 2**32:08x}{'5' * 56}/00000-00010")
    reader = index._reader
    assert reader is not None

    def look_up() -> None:
        assert [parse_block_key(key) for key in index.covering(wanted, 5)] == [ChunkRange(0, 10)]
        assert index.row(block_key(wanted, ChunkRange(0, 10))) is not None
        assert index.ranges(xorb_named(1)) == []

    new = count(2)
    changes: list[Callable[[], object]] = [
        lambda: index.insert(block_key(xorb_named(next(new)), ChunkRange(0, 9)), StoredFile("11/" + "1" * 30 + ".val", 1000)),
        lambda: index.touch_keys([block_key(wanted, ChunkRange(0, 10))]),
        index.used_bytes,
        index.rows_count,
        lambda: index.evict(1, lambda key: None),
    ]

    def costs() -> list[int]:
        look_up()  # a schema that was changed is read again
        index.rows_count()
        with index.change() as writer:
            pass
        return [steps(reader, look_up), *(steps(writer, change) for change in changes)]

    fill(1_000)
    few = costs()
    # diskcache's triggers keep the sums row by row, which takes long for so many.
    with index.change() as connection:
        triggers = [row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
        for sql in triggers:
            connection.execute(f"DROP TRIGGER {sql.split()[2]}")
    fill(500_000)
    with index.change() as connection:
        for sql in triggers:
            connection.execute(sql)
    for among_few, among_many in zip(few, costs(), strict=True):
        assert 0 < among_many <= among_few + 2


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_new_database_is_a_diskcache_in_one_file(journal: str, tmp_path: Path) -> None:
    directory = tmp_path / "$HOME"  # which diskcache would take for another
    directory.mkdir()
    index = Index(directory, journal=journal)
    index.insert("r/x/y", b"value")
    index.shut()
    assert [path.name for path in directory.iterdir()] == [DATABASE]
    assert (directory / DATABASE).read_bytes()[18:20] == (b"\x02\x02" if journal == "wal" else b"\x01\x01")
    again = Index(directory, journal=journal)  # would refuse any other schema
    assert again.rows_count() == 1
    again.shut()
    os.rename(directory, tmp_path / "plain")
    with diskcache.Cache(str(tmp_path / "plain")) as cache:
        assert cache["r/x/y"] == b"value"
    with closing(sqlite3.connect(tmp_path / "plain" / DATABASE)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (1,)


def test_a_cache_directory_is_all_that_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    index = Index(tmp_path)
    assert index.rows_count() == 0
    index.shut()
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE]


def test_a_row_that_is_written_anew_lets_its_file_go(tmp_path: Path, index: Index) -> None:
    index.insert("r/x/y", index.values.write_file(new_name(), (b"old value",)))
    name = new_name()
    index.insert("r/x/y", index.values.write_file(name, (b"new",)))
    assert [f"{path.parent.name}/{path.name}" for path in tmp_path.glob("??/*.val")] == [name]
    assert index.rows_count() == 1
    size_with_file = index.used_bytes()
    index.insert("r/x/y", b"short")
    assert list(tmp_path.glob("??/*.val")) == []
    assert size_with_file - index.used_bytes() == 3
    row = index.row("r/x/y", value_bytes_max=10)
    assert row is not None
    assert value_of(row.mode, row.filename, row.value) == b"short"


def test_a_change_that_fails_leaves_nothing_behind(index: Index) -> None:
    index.insert("r/x/y", b"value")

    def fail() -> None:
        with index.change() as connection:
            connection.execute("DELETE FROM Cache")
            connection.execute("DELETE FROM Nothing")

    with pytest.raises(sqlite3.OperationalError):
        fail()
    assert index.rows_count() == 1
    index.insert("r/x/z", b"value")
    assert index.rows_count() == 2


def test_keys_are_read_as_they_are_written() -> None:
    for chunks in (ChunkRange(0, 1), ChunkRange(8191, 8192), ChunkRange(7, 8192)):
        key = block_key(xorb_named(3), chunks)
        assert parse_block_key(key) == chunks
        assert xorb_of_key(key) == xorb_named(3)
    for bad in (None, 5, b"b/", "", "b/x/00000-00001", block_key(xorb_named(3), ChunkRange(3, 4)) + "\n"):
        assert parse_block_key(bad) is None


def test_a_shut_index_is_an_error_and_not_opened_again(index: Index) -> None:
    index.shut()
    with pytest.raises(sqlite3.ProgrammingError):
        index.row("b/x")
    with pytest.raises(sqlite3.ProgrammingError):
        index.used_bytes()


def test_the_files_of_the_index_are_private(tmp_path: Path, index: Index) -> None:
    index.insert("r/x/y", b"value")
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize("value", [None, 1, 1.5, "text", [], object(), memoryview(b"x"), bytearray(b"x")])
def test_values_that_would_be_pickled_are_refused(value: object, index: Index) -> None:
    with pytest.raises(TypeError):
        index.insert("key", value)
    assert index.rows_count() == 0


def test_only_rows_that_the_store_made_have_a_value() -> None:
    name = new_name()
    assert row_of(StoredFile(name, 10)) == (10, 2, name, None)
    assert value_of(2, name, None) == name
    assert value_of(1, None, b"value") == b"value"
    for mode, filename, value in [
        (4, None, b"x"),
        (3, name, None),
        (2, "../x", None),
        (2, None, None),
        (1, None, "x"),
        (1, name, b"x"),
    ]:
        with pytest.raises(CorruptData):
            value_of(mode, filename, value)


def test_opening_does_not_read_all_rows(tmp_path: Path, index: Index, open_store: Callable[..., DiskStore]) -> None:
    rows = ((f"r/x/{number:064x}", 1, 1, b"v" * 100) for number in range(20_000))
    with index.change() as connection:
        connection.executemany("INSERT INTO Cache (key, raw, mode, value) VALUES (?, ?, ?, ?)", rows)
    index.shut()
    read_before = _bytes_read()
    opened = Index(tmp_path)
    assert _bytes_read() - read_before < (tmp_path / "cache.db").stat().st_size // 4
    assert opened.rows_count() == 20_000
    opened.shut()


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def test_a_block_is_served_from_a_store_of_many(open_store: Callable[..., DiskStore]) -> None:
    store = open_store()
    for number in range(300):
        store.put(make_block(number, 0, (100, 100)))
    for number in range(300):
        found = store.find(xorb_named(number), 1)
        assert found is not None
        assert bytes(found.read(0, 200)) == bytes(make_block(number, 0, (100, 100)).data)
