"""The index: its rows, how they are looked up, and that this does not get slower with their number."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_samples import make_block, xorb_named

from xetfs.errors import CorruptData
from xetfs.protocol.ranges import ChunkRange
from xetfs.store.disk import DiskStore
from xetfs.store.index import KEYS_UP_TO, OLDEST, ROW_OF_KEY, TOUCH, Index, block_key, parse_block_key, schema_digest, xorb_of_key
from xetfs.store.rawdisk import RawDisk, StoredFile


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(tmp_path)
    yield opened
    opened.shut()


def plan_of(index: Index, statement: str) -> str:
    arguments = [0] * statement.count("?")
    return " / ".join(row[3] for row in index._con.execute(f"EXPLAIN QUERY PLAN {statement}", arguments))


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
    def fill(count: int) -> None:
        rows = (
            (f"b/{number * 2654435761 % 2**32:08x}{'5' * 56}/00000-00010", 1, number, 2, "00/" + "0" * 30 + ".val", 0)
            for number in range(count)
        )
        with index.transact():
            index._con.executemany(
                "INSERT OR IGNORE INTO Cache (key, raw, access_time, mode, filename, size) VALUES (?, ?, ?, ?, ?, ?)", rows
            )

    wanted = xorb_of_key(f"b/{7 * 2654435761 % 2**32:08x}{'5' * 56}/00000-00010")
    reader = index._reader
    assert reader is not None

    def look_up() -> None:
        assert [parse_block_key(key) for key in index.covering(wanted, 5)] == [ChunkRange(0, 10)]
        assert index.row(block_key(wanted, ChunkRange(0, 10))) is not None
        assert index.ranges(xorb_named(1)) == []

    changes: list[Callable[[], object]] = [
        lambda: index.insert(block_key(xorb_named(2), ChunkRange(0, 9)), StoredFile("11/" + "1" * 30 + ".val", 1000)),
        lambda: index.touch_keys([block_key(wanted, ChunkRange(0, 10))]),
        index.used_bytes,
        index.rows_count,
        lambda: index.evict(1, lambda key: None),
    ]

    def costs() -> list[int]:
        look_up()  # a schema that was changed is read again
        index.rows_count()
        return [steps(reader, look_up), *(steps(index._con, change) for change in changes)]

    fill(1_000)
    few = costs()
    # diskcache's triggers keep the sums row by row, which takes long for so many.
    triggers = [row[0] for row in index._con.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
    with index.transact():
        for sql in triggers:
            index._con.execute(f"DROP TRIGGER {sql.split()[2]}")
    fill(500_000)
    with index.transact():
        for sql in triggers:
            index._con.execute(sql)
    for among_few, among_many in zip(few, costs(), strict=True):
        assert 0 < among_many <= among_few + 2


def test_the_schema_is_the_one_that_is_asked_for(tmp_path: Path, index: Index) -> None:
    index.shut()
    again = Index(tmp_path)  # would refuse any other
    assert schema_digest(again._con) is not None
    again.shut()


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
        index.set("key", value)


@pytest.mark.parametrize("key", [None, b"x", 1, 1.5, (1, 2), object()])
def test_keys_that_would_be_pickled_are_refused(key: object, index: Index) -> None:
    with pytest.raises(TypeError):
        index.set(key, b"value")
    with pytest.raises(CorruptData):
        index.values.get(key, 1)


def test_only_rows_that_store_made_are_fetched(tmp_path: Path) -> None:
    disk = RawDisk(str(tmp_path))
    name, _ = disk.filename()
    assert disk.store(StoredFile(name, 10), False) == (10, 2, name, None)
    assert disk.fetch(2, name, None, False) == StoredFile(name, -1)
    assert disk.fetch(1, None, b"value", False) == b"value"
    for mode, filename, value in [
        (4, None, b"x"),
        (3, name, None),
        (2, "../x", None),
        (2, None, None),
        (1, None, "x"),
        (1, name, b"x"),
    ]:
        with pytest.raises(CorruptData):
            disk.fetch(mode, filename, value, False)


def test_opening_does_not_read_all_rows(tmp_path: Path, index: Index, open_store: Callable[..., DiskStore]) -> None:
    rows = ((f"r/x/{number:064x}", 1, 1, b"v" * 100) for number in range(20_000))
    with index.transact():
        index._con.executemany("INSERT INTO Cache (key, raw, mode, value) VALUES (?, ?, ?, ?)", rows)
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
