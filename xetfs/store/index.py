"""The index: which blocks and records there are, what they cost, and which were used last. diskcache on SQLite, made safe.

diskcache keeps the table, the sums of sizes and the order of use; here it gets one connection for writing and one for reading,
each under its own lock, so that looking something up never waits for a write. (diskcache's own connection per thread would be
opened anew for each of trio's passing threads.) SQLite in WAL mode does the same between processes. On a file system that other
machines share (directory.py) it is a rollback journal instead, which is slower and asks for no more than file locks. A lock that
another process holds for longer than BUSY_TIMEOUT_S is an error, and an error is a miss.

Keys: `b/<xorb hash>/<first chunk>-<end>` for blocks, numbers in five digits, so that the blocks of one xorb are one stretch of
the unique index on (key, raw), and `r/<kind>/<BLAKE3 of the key>` for records. All lookups walk that index.

The database is not trusted. Before diskcache sees it, its schema and settings must be exactly those that diskcache makes with our
settings: no trigger, view, pragma or attribute of somebody else's. Memory mapping is off, since a file cut short under a mapping
kills the process. Rows are checked one by one as they are used (rawdisk.py, blocks.py).
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diskcache
from blake3 import blake3

from xetfs.protocol.hashes import MerkleHash, XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.store.rawdisk import RawDisk, StoredFile

BUSY_TIMEOUT_S: Final = 2.0
"""Longest wait for another process's transaction; they take milliseconds."""
DATABASE: Final = "cache.db"

_SETTINGS: Final[dict[str, int | str]] = {
    "cull_limit": 0,  # eviction is asked for, before the write rather than after it
    "disk_min_file_size": 0,
    "disk_pickle_protocol": 0,
    "eviction_policy": "least-recently-used",
    "size_limit": 2**62,  # the limit moves with the free space of the disk, and differs between processes: it is an argument
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2048,  # pages of 4 KiB
    "sqlite_journal_mode": "wal",  # or "delete", see JOURNALS
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "statistics": 0,
    "tag_index": 0,
}
JOURNALS: Final = ("wal", "delete")
_WAL_VERSION: Final = b"\x02\x02"
"""What the header of a database in WAL mode has as versions for reading and writing (sqlite.org/fileformat.html, 1.3)."""
_METADATA: Final = frozenset(("count", "size", "hits", "misses"))
_SCHEMA_DIGEST: Final = "fd1cad882841802146e19b0dd0cc4bf9a2df8bd8aae8f4c6875e110048553abe"
"""BLAKE3 of the schema that diskcache 5.6.3 makes."""
_ROW_BYTES: Final = 300
"""What a row costs in the table and its indexes, roughly."""
_EVICT_ROWS_MAX: Final = 64
_BLOCK_KEY: Final = re.compile(r"b/[0-9a-f]{64}/([0-9]{5})-([0-9]{5})", re.ASCII)

INDEX_FAILURES: Final = (sqlite3.Error, UnicodeDecodeError, diskcache.Timeout)
"""What the calls of an index raise when it does not work; the second when SQLite quotes a damaged schema."""
_DAMAGE: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG))
"""A constraint can only fail when table and index disagree."""

KEYS_UP_TO: Final = "SELECT key FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key DESC"
ROW_OF_KEY: Final = (
    "SELECT rowid, mode, filename, CASE WHEN length(value) <= ? THEN value END FROM Cache WHERE key = ? AND raw = 1"
)
OLDEST: Final = "SELECT rowid, key, filename, size, length(value) FROM Cache ORDER BY access_time LIMIT ?"
TOUCH: Final = "UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1"
_DELETE: Final = "DELETE FROM Cache WHERE rowid = ? AND key IS ? AND filename IS ?"


class UnusableIndex(sqlite3.DatabaseError):
    """The database is damaged, or not one that this code made. Stays within the store."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as the database has it; mode, filename and value are not to be trusted before `RawDisk.fetch` has seen them."""

    rowid: int
    key: str
    mode: object
    filename: object
    value: object


def block_key(xorb: XorbHash, chunks: ChunkRange) -> str:
    return f"b/{xorb.hex()}/{chunks.start:05d}-{chunks.end:05d}"


def record_key(kind: str, key: str) -> str:
    return f"r/{kind}/{blake3(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


def xorb_of_key(key: str) -> XorbHash:
    """The xorb of a block's key, which `parse_block_key` must have accepted."""
    return XorbHash(MerkleHash.from_hex(key[2:66]))


def parse_block_key(key: object) -> ChunkRange | None:
    """The chunks of a block's key; None for a key that `block_key` cannot have made."""
    match = _BLOCK_KEY.fullmatch(key) if isinstance(key, str) else None
    if match is None or not int(match[1]) < int(match[2]):
        return None
    return ChunkRange(int(match[1]), int(match[2]))


class Index(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
    """The index of one directory, opened. Raises UnusableIndex, or sqlite3.Error and OSError when the disk does not work.

    To be opened under `directory_lock`. Thread-safe.
    """

    def __init__(self, directory: Path, *, journal: str = "wal") -> None:
        """journal: one of JOURNALS."""
        self.values = RawDisk(str(directory))
        self._path = directory / DATABASE
        self._writing = threading.RLock()
        self._reading = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._is_shut = False
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            if journal != "wal" and _is_in_wal_mode(self._path):
                raise UnusableIndex("it was made on a file system of this machine alone")  # not to be opened where it is now
            check_index(self._path)
            settings = {**_SETTINGS, "sqlite_journal_mode": journal}
            super().__init__(str(directory), timeout=BUSY_TIMEOUT_S, disk=RawDisk, **settings)
            self._reader = _connect(self._path)
            self._reader.execute("PRAGMA query_only = 1")
            self._identity = _identity(self._path)
        except BaseException:
            self.shut()
            raise

    # What diskcache asks of its subclass

    @property
    def _con(self) -> sqlite3.Connection:
        if self._is_shut:
            raise sqlite3.ProgrammingError("the index is closed")
        if self._connection is None:
            self._connection = _connect(self._path)
            self._connection.execute("PRAGMA synchronous = 1")
        return self._connection

    @property
    def _sql_retry(self) -> Callable[..., sqlite3.Cursor]:
        return self._con.execute  # SQLite waits by itself, and not for a minute

    def close(self) -> None:
        """Close the connection for writing; the next use opens it again (diskcache does that while it opens)."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # For the store

    def shut(self) -> None:
        """Close both connections for good. Waits for calls that are under way."""
        with self._writing, self._reading:
            self._is_shut = True
            self.close()
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    @property
    def is_in_place(self) -> bool:
        """Whether the database that is open is still the one that the directory has."""
        try:
            return _identity(self._path) == self._identity
        except OSError:
            return False

    def covering(self, xorb: XorbHash, chunk: int) -> Iterator[str]:
        """Keys of blocks that hold a chunk, those that begin nearest to it first."""
        prefix = f"b/{xorb.hex()}/"
        with self._read(KEYS_UP_TO, (prefix, f"{prefix}{chunk + 1:05d}")) as rows:
            keys = [key for (key,) in rows if (chunks := parse_block_key(key)) is not None and chunk < chunks.end]
        return iter(keys)

    def ranges(self, xorb: XorbHash) -> list[tuple[str, ChunkRange]]:
        """Keys and chunks of all blocks of a xorb, by start."""
        prefix = f"b/{xorb.hex()}/"
        with self._read(KEYS_UP_TO, (prefix, f"{prefix}~")) as rows:
            found = [(key, chunks) for (key,) in rows if (chunks := parse_block_key(key)) is not None]
        found.reverse()
        return found

    def row(self, key: str, *, value_bytes_max: int = 0) -> Row | None:
        """The row of a key; a value longer than the limit is not loaded."""
        with self._read(ROW_OF_KEY, (value_bytes_max, key)) as rows:
            found = rows.fetchone()
        return None if found is None else Row(found[0], key, *found[1:])

    @contextmanager
    def _read(self, statement: str, arguments: tuple[object, ...]) -> Iterator[sqlite3.Cursor]:
        with self._reading:
            if self._reader is None:
                raise sqlite3.ProgrammingError("the index is closed")
            cursor = self._reader.execute(statement, arguments)
            try:
                yield cursor
            finally:
                cursor.close()

    @contextmanager
    def _write(self) -> Iterator[None]:
        """The connection for writing, for oneself. After an error it is closed: diskcache may leave a transaction open in it."""
        with self._writing:
            try:
                yield
            except BaseException:
                self.close()
                raise

    def insert(self, key: str, value: StoredFile | bytes) -> None:
        """Make a row, or let an existing one have this value; a file that it had is removed."""
        with self._write():
            self.set(key, value)

    def delete_row(self, row: Row) -> bool:
        """Remove a row's file and, if it is still as it was read, the row. Returns whether it was."""
        self.values.remove(row.filename)
        with self._write(), self.transact():
            return bool(self._sql(_DELETE, (row.rowid, row.key, row.filename)).rowcount)

    def touch_keys(self, keys: Iterable[str]) -> None:
        """Let rows count as used just now."""
        now = time.time()
        with self._write(), self.transact():
            self._con.executemany(TOUCH, [(now, key) for key in keys])

    def evict(self, amount: int, let_go: Callable[[str], None]) -> int:
        """Remove the rows that were used least recently, until about `amount` bytes are free; at least one, at most 64.

        Files go before their rows: a row without a file is a miss, and on a full disk a row can only go when a file has.
        let_go: called with each key before its file goes, so that no open handle keeps the file's space. Returns how many rows.
        """
        victims = []
        with self._write(), self.transact():
            for rowid, key, filename, size, inline in self._sql(OLDEST, (_EVICT_ROWS_MAX,)).fetchall():
                victims.append((rowid, key, filename))
                amount -= max(size if type(size) is int else 0, 0) + (inline or 0) + _ROW_BYTES
                if amount <= 0:
                    break
            for _, key, filename in victims:
                if type(key) is str:
                    let_go(key)
                self.values.remove(filename)
            self._con.executemany("DELETE FROM Cache WHERE rowid = ?", [(rowid,) for rowid, _, _ in victims])
        return len(victims)

    def used_bytes(self) -> int:
        """What counts against the limit: value files, and the database. Files that no row names are not known here."""
        with self._write(), _sums():
            return int(self.volume())

    def rows_count(self) -> int:
        with self._write(), _sums():
            return len(self)

    def recount(self) -> None:
        """Set the sums that diskcache keeps to what the rows say."""
        with self._write(), self.transact():
            self._sql("UPDATE Settings SET value = (SELECT coalesce(sum(size), 0) FROM Cache) WHERE key = 'size'")
            self._sql("UPDATE Settings SET value = (SELECT count(*) FROM Cache) WHERE key = 'count'")

    def file_names(self) -> Iterator[str]:
        """The names of all value files, in pieces, so that nobody waits for long."""
        last = -1
        while True:
            with self._read("SELECT rowid, filename FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT 1000", (last,)) as rows:
                found = rows.fetchall()
            if not found:
                return
            last = found[-1][0]
            yield from (name for _, name in found if type(name) is str)

    def __reduce__(self) -> Any:
        raise TypeError("an Index cannot be pickled")


@contextmanager
def _sums() -> Iterator[None]:
    """diskcache takes it that its sums are there and are numbers."""
    try:
        yield
    except (TypeError, ValueError) as exc:
        raise UnusableIndex("its sums are not numbers") from exc


def check_index(path: Path) -> None:
    """Refuse a database that diskcache could not have made with our settings. Raises UnusableIndex."""
    connection = _connect(path)
    try:
        schema = schema_digest(connection)
        if schema is None:
            return
        if schema != _SCHEMA_DIGEST:
            raise UnusableIndex("its tables are not those of an index")
        settings = dict(connection.execute("SELECT key, value FROM Settings LIMIT 100").fetchall())
    finally:
        connection.close()
    sums = [settings.pop(name, None) for name in sorted(_METADATA)]
    if settings.get("sqlite_journal_mode") in JOURNALS:
        settings["sqlite_journal_mode"] = _SETTINGS["sqlite_journal_mode"]
    if any(type(value) is not int or not 0 <= value < 2**62 for value in sums) or settings != _SETTINGS:
        raise UnusableIndex("its settings are not those of an index")


def _is_in_wal_mode(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(20)[18:] == _WAL_VERSION


def schema_digest(connection: sqlite3.Connection) -> str | None:
    """BLAKE3 over the text of all tables, indexes, triggers and views; None if there are none."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name LIMIT 100").fetchall()
    return blake3(repr(rows).encode()).hexdigest() if rows else None


def is_damage(exc: BaseException) -> bool:
    """Whether an error says that the database, rather than the disk, is broken."""
    return any(
        isinstance(each, (UnusableIndex, UnicodeDecodeError))
        or _code(each) in _DAMAGE
        or (_code(each) == sqlite3.SQLITE_ERROR and "no such" in str(each))
        for each in _chain(exc)
    )


def is_busy(exc: BaseException) -> bool:
    """Whether an error says that another process holds the database."""
    return any(_code(each) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) for each in _chain(exc))


def is_full(exc: BaseException) -> bool:
    """Whether an error says that the disk, a quota or the inodes are full."""
    return any(
        _code(each) == sqlite3.SQLITE_FULL or (isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT))
        for each in _chain(exc)
    )


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it: diskcache tells of a failed rollback, or of a timeout, in place of what went wrong."""
    while exc is not None:
        yield exc
        exc = exc.__context__


def _code(exc: BaseException) -> int:
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    for pragma in ("trusted_schema = 0", "cell_size_check = 1", "mmap_size = 0", "cache_size = 2048"):
        connection.execute(f"PRAGMA {pragma}").close()
    return connection


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _identity(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
