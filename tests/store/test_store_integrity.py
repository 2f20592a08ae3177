"""Whatever happens to the files of a store, no wrong byte comes out, nothing is executed, and what is lost can be put again."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_samples import make_block, xorb_named

from xetfs import telemetry
from xetfs.errors import CorruptData
from xetfs.protocol.ranges import ChunkRange
from xetfs.store.backing import FIRST_SWEEP_S
from xetfs.store.disk import DiskStore
from xetfs.store.index import block_key, record_key
from xetfs.store.sweep import SWEEP_INTERVAL_S, SWEPT
from xetfs.store.values import VALUE_NAME
from xetfs.telemetry import Counters

OpenStore = Callable[..., DiskStore]

BLOCKS = [make_block(number, first) for number in range(5) for first in (0, 4)]
RECORDS = {f"key {size}": random.Random(size).randbytes(size) for size in (0, 10, 5000, 40_000)}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: hundreds of indexes are made here, and a disk would have to sync each of them."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def fill(store: DiskStore) -> None:
    for block in BLOCKS:
        store.put(block)
    for key, value in RECORDS.items():
        store.put_record("map", key, value)


def read_all(store: DiskStore) -> tuple[int, int]:
    """How many blocks and records are held and right. Fails if one is held and wrong."""
    blocks = records = 0
    for block in BLOCKS:
        found = store.find(block.xorb, block.chunks.start)
        if found is None:
            continue
        try:
            assert bytes(found.read(500, 80_000)) == bytes(block.data[500:80_000])
            assert bytes(found.read(0, len(block.data))) == bytes(block.data)
        except CorruptData:
            store.drop(found)
            assert store.find(block.xorb, block.chunks.start) is None
        else:
            blocks += 1
    for key, value in RECORDS.items():
        got = store.get_record("map", key)
        assert got in (None, value), key
        records += got is not None
    return blocks, records


def value_files(cache: Path) -> list[Path]:
    return sorted(cache.glob("??/*.val"))


def rows(cache: Path, statement: str, *arguments: object) -> None:
    connection = sqlite3.connect(cache / "cache.db")
    connection.execute(statement, arguments)
    connection.commit()
    connection.close()


@pytest.fixture
def cache(tmp_path: Path, open_store: OpenStore) -> Path:
    """The directory of a store that was filled and closed."""
    store = open_store()
    fill(store)
    store.close()
    return tmp_path / "cache"


def test_all_is_there_after_a_restart(cache: Path, open_store: OpenStore, counters: Counters) -> None:
    assert read_all(open_store()) == (len(BLOCKS), len(RECORDS))
    assert counters[telemetry.STORE_CORRUPT] == 0


@pytest.mark.parametrize("part", ["values", "index"])
def test_flipped_bytes_never_come_out(part: str, cache: Path, tmp_path: Path, open_store: OpenStore, counters: Counters) -> None:
    intact = tmp_path / "intact"
    shutil.move(cache, intact)
    lost = 0
    for seed in range(150):
        rng = random.Random(f"{part} {seed}")
        shutil.copytree(intact, cache)
        file = rng.choice(value_files(cache)) if part == "values" else cache / "cache.db"
        data = bytearray(file.read_bytes())
        region = len(data) if seed % 2 or part == "index" else min(400, len(data))
        for _ in range(rng.choice((1, 1, 1, 3, 20))):
            data[rng.randrange(region)] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        store = open_store()
        blocks, records = read_all(store)
        lost += (blocks, records) != (len(BLOCKS), len(RECORDS))
        for _ in range(2):  # the first may be what finds an index damaged, and the second what begins a new one
            fill(store)
        assert read_all(store) == (len(BLOCKS), len(RECORDS)), seed
        store.close()
        shutil.rmtree(cache)
    assert lost >= (145 if part == "values" else 10)
    assert counters[telemetry.STORE_CORRUPT] >= (145 if part == "values" else 0)


def test_flips_in_an_index_that_was_not_closed_never_come_out(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store()
    fill(store)
    crashed = tmp_path / "crashed"
    shutil.copytree(tmp_path / "cache", crashed)
    store.close()
    assert (crashed / "cache.db-wal").stat().st_size > 0
    for seed in range(100):
        rng = random.Random(seed)
        copy = tmp_path / f"copy {seed}"
        shutil.copytree(crashed, copy)
        file = copy / rng.choice(("cache.db", "cache.db-wal", "cache.db-shm"))
        data = bytearray(file.read_bytes())
        for _ in range(rng.choice((1, 10))):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data) + 1)))])
        damaged = open_store(cache_dir=copy)
        read_all(damaged)
        for _ in range(2):
            fill(damaged)
        assert read_all(damaged) == (len(BLOCKS), len(RECORDS)), seed
        damaged.close()
        shutil.rmtree(copy)


def test_a_store_that_crashed_has_all_that_was_put(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store()
    fill(store)
    shutil.copytree(tmp_path / "cache", tmp_path / "crashed")
    assert read_all(open_store(cache_dir=tmp_path / "crashed")) == (len(BLOCKS), len(RECORDS))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.999])
def test_files_cut_short_are_dropped(keep: float, cache: Path, open_store: OpenStore, counters: Counters) -> None:
    for file in value_files(cache):
        os.truncate(file, int(file.stat().st_size * keep))
    store = open_store()
    assert read_all(store) == (0, 3)  # three records are in the index itself
    assert counters[telemetry.STORE_CORRUPT] == len(BLOCKS) + 1
    assert [path for path in value_files(cache) if path.exists()] == []


def test_a_file_with_a_tail_is_dropped(cache: Path, open_store: OpenStore) -> None:
    for file in value_files(cache):
        with file.open("ab") as end:
            end.write(b"x")
    assert read_all(open_store()) == (0, 3)


def test_a_file_that_shrinks_while_it_is_open_is_an_error_and_dropped(cache: Path, open_store: OpenStore) -> None:
    store = open_store()
    found = store.find(BLOCKS[0].xorb, 0)
    assert found is not None
    assert bytes(found.read(0, 101001)) == bytes(BLOCKS[0].data)
    for file in value_files(cache):
        os.truncate(file, 2000)
    assert found.read_nowait(50_000, 60_000) is None
    with pytest.raises(CorruptData):
        found.read(50_000, 60_000)


def test_swapped_files_are_told_apart(cache: Path, open_store: OpenStore) -> None:
    files = value_files(cache)
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)
    assert read_all(open_store()) == (0, 3)


def test_swapped_records_are_told_apart(cache: Path, open_store: OpenStore, counters: Counters) -> None:
    first, second = record_key("map", "key 10"), record_key("map", "key 5000")
    rows(cache, "UPDATE Cache SET value = (SELECT value FROM Cache WHERE key = ?) WHERE key = ?", first, second)
    store = open_store()
    assert store.get_record("map", "key 5000") is None
    assert store.get_record("map", "key 10") == RECORDS["key 10"]
    assert counters[telemetry.STORE_CORRUPT] == 1


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("raw", [0, 1])
@pytest.mark.parametrize("mode", [4, 3, 0, 99, -1, "4", None])
def test_rows_that_ask_for_pickle_are_not_obeyed(
    mode: object, raw: int, cache: Path, tmp_path: Path, open_store: OpenStore
) -> None:
    trap = pickle.dumps(Touch(tmp_path / "executed"))
    rows(cache, "UPDATE Cache SET mode = ?, filename = NULL, value = ?, raw = ?", mode, trap, raw)
    assert read_all(open_store()) == (0, 0)
    assert not (tmp_path / "executed").exists()


def test_pickles_in_value_files_are_not_obeyed(cache: Path, tmp_path: Path, open_store: OpenStore) -> None:
    rows(cache, "UPDATE Cache SET mode = 4")
    for file in value_files(cache):
        file.write_bytes(pickle.dumps(Touch(tmp_path / "executed")))
    assert read_all(open_store()) == (0, 0)
    assert not (tmp_path / "executed").exists()


def test_pickles_as_keys_and_settings_are_not_obeyed(cache: Path, tmp_path: Path, open_store: OpenStore) -> None:
    trap = pickle.dumps(Touch(tmp_path / "executed"))
    rows(cache, "UPDATE Cache SET key = ? || rowid, raw = 0", trap)
    rows(cache, "UPDATE Settings SET value = ? WHERE key = 'disk_pickle_protocol'", trap)
    store = open_store()
    read_all(store)
    fill(store)
    assert read_all(store) == (len(BLOCKS), len(RECORDS))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "..", "", "aa/../../secret", "00/" + "0" * 30 + ".val\n", b"\xff", 7]
)
def test_rows_cannot_name_files_outside(name: object, cache: Path, tmp_path: Path, open_store: OpenStore) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"not ours")
    rows(cache, "UPDATE Cache SET filename = ? WHERE filename IS NOT NULL", name)
    store = open_store(cache_bytes_max=2_000_000)
    assert read_all(store) == (0, 3)
    for number in range(100, 130):
        store.put(make_block(number))  # evicts those rows that are left
    assert secret.read_bytes() == b"not ours"
    assert Path("/etc/passwd").exists()


def test_links_pipes_and_folders_in_place_of_value_files_are_dropped(
    cache: Path, tmp_path: Path, open_store: OpenStore, counters: Counters
) -> None:
    for number, file in enumerate(value_files(cache)):
        content = file.read_bytes()
        file.unlink()
        if number % 3 == 0:
            (tmp_path / f"target {number}").write_bytes(content)
            file.symlink_to(tmp_path / f"target {number}")
        elif number % 3 == 1:
            os.mkfifo(file)
        else:
            file.mkdir()
    assert read_all(open_store()) == (0, 3)
    assert counters[telemetry.STORE_CORRUPT] == len(BLOCKS) + 1
    assert len(list(tmp_path.glob("target *"))) == 4


SABOTAGE: dict[str, Callable[[Path], object]] = {
    "garbage": lambda db: db.write_bytes(random.Random(1).randbytes(50_000)),
    "empty": lambda db: db.write_bytes(b""),
    "cut short": lambda db: os.truncate(db, db.stat().st_size // 2),
    "one page": lambda db: os.truncate(db, 4096),
    "a folder": lambda db: (db.unlink(), db.mkdir()),
    "a link": lambda db: (db.rename(db.parent.parent / "elsewhere.db"), db.symlink_to(db.parent.parent / "elsewhere.db")),
    "a trigger": lambda db: rows(db.parent, "CREATE TRIGGER t AFTER UPDATE ON Cache BEGIN DELETE FROM Settings; END"),
    "a view": lambda db: rows(db.parent, "CREATE VIEW v AS SELECT 1"),
    "another table": lambda db: rows(db.parent, "CREATE TABLE more (x)"),
    "no table": lambda db: rows(db.parent, "DROP TABLE Cache"),
    "no settings": lambda db: rows(db.parent, "DROP TABLE Settings"),
    "a strange setting": lambda db: rows(db.parent, "INSERT INTO Settings VALUES ('_sql', 'x')"),
    "a pragma": lambda db: rows(db.parent, "INSERT INTO Settings VALUES ('sqlite_journal_mode = off; --', 'x')"),
    "a changed setting": lambda db: rows(db.parent, "UPDATE Settings SET value = 'none' WHERE key = 'eviction_policy'"),
    "an absurd sum": lambda db: rows(db.parent, "UPDATE Settings SET value = -1 WHERE key = 'size'"),
    "no sum": lambda db: rows(db.parent, "DELETE FROM Settings WHERE key = 'size'"),
    "a sum of text": lambda db: rows(db.parent, "UPDATE Settings SET value = 'x' WHERE key = 'size'"),
}


@pytest.mark.parametrize("how", SABOTAGE)
def test_an_unusable_index_is_set_aside_and_a_new_one_begun(
    how: str, cache: Path, open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    SABOTAGE[how](cache / "cache.db")
    store = open_store()
    assert store.statistics().state == "ok"
    assert read_all(store) == (0, 0)
    fill(store)
    assert read_all(store) == (len(BLOCKS), len(RECORDS))
    assert (cache / "cache.db").is_file()
    assert not (cache / "cache.db").is_symlink()
    told = [record for record in caplog.records if "set aside" in record.getMessage()]
    assert len(told) == (0 if how == "empty" else 1)


def test_an_index_damaged_while_in_use_is_set_aside(cache: Path, open_store: OpenStore) -> None:
    store = open_store()
    assert store.find(BLOCKS[0].xorb, 0) is not None
    size = (cache / "cache.db").stat().st_size
    (cache / "cache.db").write_bytes(random.Random(3).randbytes(size))
    for suffix in ("-wal",):
        os.truncate(cache / f"cache.db{suffix}", 0)
    read_all(store)
    for _ in range(3):
        fill(store)
    assert read_all(store) == (len(BLOCKS), len(RECORDS))


def test_the_files_of_an_index_that_was_set_aside_are_swept(cache: Path, open_store: OpenStore) -> None:
    (cache / "cache.db").write_bytes(b"garbage" * 1000)
    store = open_store()
    store.put(BLOCKS[0])
    old = len(value_files(cache)) - 1
    assert store.sweep() == 0  # too young to be sure
    assert store.sweep(age_s=-10) == old == len(BLOCKS) + 1
    assert len(value_files(cache)) == 1
    assert read_all(store) == (1, 0)


def test_of_many_that_open_a_cache_one_sweeps_within_an_hour(cache: Path, open_store: OpenStore) -> None:
    def stray() -> Path:
        folder = next(cache.glob("??"))
        left = folder / f"{'0' * 30}.val"
        left.write_bytes(b"of a process that was killed")
        assert VALUE_NAME.fullmatch(f"{folder.name}/{left.name}")
        os.utime(left, (1, 1))
        return left

    def swept() -> bool:
        """Whether a process that opens the cache and stays for a while sweeps it."""
        left = stray()
        now = 0.0
        store = open_store(clock=lambda: now)
        store.maintain()
        assert left.exists(), "at first it has better things to do"
        now = FIRST_SWEEP_S
        store.maintain()
        store.close()
        return not left.exists()

    assert swept()
    assert not swept()
    hour_ago = time.time() - SWEEP_INTERVAL_S
    os.utime(cache / SWEPT, (hour_ago, hour_ago))
    assert swept()
    os.utime(cache / SWEPT, (2 * time.time(), 2 * time.time()))
    assert swept(), "a clock that was wrong once must not end it for ever"
    assert not swept()
    (cache / "cache.db").write_bytes(b"garbage" * 1000)
    assert swept(), "an index that was set aside leaves all its files behind"


def test_a_sweep_puts_wrong_sums_right(cache: Path, open_store: OpenStore) -> None:
    rows(cache, "UPDATE Settings SET value = value + 1000000 WHERE key = 'size'")
    store = open_store()
    store.sweep()
    files = sum(file.stat().st_size for file in value_files(cache))
    assert 0 < store.statistics().bytes - files < 200_000
    assert store.statistics().blocks_and_records == len(BLOCKS) + len(RECORDS)


def test_keys_that_no_store_writes_are_passed_over(cache: Path, open_store: OpenStore) -> None:
    key = block_key(xorb_named(0), ChunkRange(0, 4))
    for strange in (key[:-1], key + "0", key.replace("-", "+"), key[:-5] + "00000", key[:67] + "99999-00001", key.upper()):
        rows(cache, "INSERT INTO Cache (key, raw, mode, filename, size) VALUES (?, 1, 2, '../x', 0)", strange)
    store = open_store()
    assert list(store.held(xorb_named(0))) == [ChunkRange(0, 4), ChunkRange(4, 8)]
    assert read_all(store) == (len(BLOCKS), len(RECORDS))
