"""The index: which blocks and records there are, what they cost, and which were used last.

An SQLite database of the form that schema.py describes, with one connection for writing and one for reading, each under its own
lock, so that a lookup never waits for a write. (A connection per thread, as diskcache has it, would be opened anew for each of
trio's passing threads.) SQLite in WAL mode does the same between processes. On a file system that other machines share
(directory.py) it is a rollback journal instead, which is slower and asks for no more than file locks. A lock that another process
holds for longer than BUSY_TIMEOUT_S is an error, and an error is a miss.

Keys: `b/<xorb hash>/<first chunk>-<end>` for blocks, numbers in five digits, so that the blocks of one xorb are one stretch of
the unique index on (key, raw), and `r/<kind>/<BLAKE3 of the key>` for records. All lookups walk that index, and ask for raw rows
only: the others are diskcache's for pickled keys. Rows are checked one by one as they are used (values.py, blocks.py).
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
from typing import Final

from blake3 import blake3

from xetfs.protocol.hashes import MerkleHash, XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.store.schema import DATABASE, UnusableIndex, connect, open_checked
from xetfs.store.values import StoredFile, ValueFiles, row_of

_ROW_BYTES: Final = 300
"""What a row costs in the table and its indexes, roughly."""
_EVICT_ROWS_MAX: Final = 64
_BLOCK_KEY: Final = re.compile(r"b/[0-9a-f]{64}/([0-9]{5})-([0-9]{5})", re.ASCII)

INDEX_FAILURES: Final = (sqlite3.Error, UnicodeDecodeError)
"""What the calls of an index raise when it does not work; the second when SQLite quotes a damaged schema."""
_DAMAGE: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG))
"""A constraint can only fail when table and index disagree."""

KEYS_UP_TO: Final = "SELECT key FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key DESC"
ROW_OF_KEY: Final = (
    "SELECT rowid, mode, filename, CASE WHEN length(value) <= ? THEN value END FROM Cache WHERE key = ? AND raw = 1"
)
OLDEST: Final = "SELECT rowid, key, filename, size, length(value) FROM Cache ORDER BY access_time LIMIT ?"
TOUCH: Final = "UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1"
_FILE_OF_KEY: Final = "SELECT filename FROM Cache WHERE key = ? AND raw = 1"
_SET: Final = (
    "INSERT INTO Cache (key, raw, store_time, access_time, size, mode, filename, value) VALUES (?, 1, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time, access_time = excluded.access_time, "
    "size = excluded.size, mode = excluded.mode, filename = excluded.filename, value = excluded.value"
)
_DELETE: Final = "DELETE FROM Cache WHERE rowid = ? AND key IS ? AND filename IS ?"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as the database has it; mode, filename and value are not to be trusted before `values.value_of` has seen them."""

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


class Index:
    """The index of one directory, opened. Raises UnusableIndex, or sqlite3.Error and OSError when the disk does not work.

    To be opened under `directory_lock`. Thread-safe.
    """

    def __init__(self, directory: Path, *, journal: str = "wal") -> None:
        """journal: one of JOURNALS."""
        self.values = ValueFiles(directory)
        self._path = directory / DATABASE
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._is_shut = False
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._writer: sqlite3.Connection | None = open_checked(self._path, journal)
        try:
            self._identity = _identity(self._path)
            self._reader = connect(self._path)
            self._reader.execute("PRAGMA query_only = 1")
        except BaseException:
            self.shut()
            raise

    def shut(self) -> None:
        """Close both connections for good. Waits for calls that are under way."""
        with self._writing, self._reading:
            self._is_shut = True
            self._close_writer()
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

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
    def _write(self) -> Iterator[sqlite3.Connection]:
        """The connection for writing, for oneself. After an error it is closed, and what it had begun is rolled back."""
        with self._writing:
            if self._is_shut:
                raise sqlite3.ProgrammingError("the index is closed")
            try:
                if self._writer is None:
                    self._writer = connect(self._path)
                yield self._writer
            except BaseException:
                self._close_writer()
                raise

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """The connection for writing, in a transaction of one's own that ends with the block."""
        with self._write() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def insert(self, key: str, value: StoredFile | bytes) -> None:
        """Make a row, or let an existing one have this value; a file that it had is removed."""
        now = time.time()
        row = (key, now, now, *row_of(value))
        with self.change() as connection:
            replaced = connection.execute(_FILE_OF_KEY, (key,)).fetchone()
            connection.execute(_SET, row)
        if replaced is not None:
            self.values.remove(replaced[0])

    def delete_row(self, row: Row) -> bool:
        """Remove a row's file and, if it is still as it was read, the row. Returns whether it was."""
        self.values.remove(row.filename)
        with self.change() as connection:
            return bool(connection.execute(_DELETE, (row.rowid, row.key, row.filename)).rowcount)

    def touch_keys(self, keys: Iterable[str]) -> None:
        """Let rows count as used just now."""
        now = time.time()
        with self.change() as connection:
            connection.executemany(TOUCH, [(now, key) for key in keys])

    def evict(self, amount: int, let_go: Callable[[str], None]) -> int:
        """Remove the rows that were used least recently, until about `amount` bytes are free; at least one, at most 64.

        Files go before their rows: a row without a file is a miss, and on a full disk a row can only go when a file has.
        let_go: called with each key before its file goes, so that no open handle keeps the file's space. Returns how many rows.
        """
        victims = []
        with self.change() as connection:
            for rowid, key, filename, size, inline in connection.execute(OLDEST, (_EVICT_ROWS_MAX,)).fetchall():
                victims.append((rowid, key, filename))
                amount -= max(size if type(size) is int else 0, 0) + (inline or 0) + _ROW_BYTES
                if amount <= 0:
                    break
            for _, key, filename in victims:
                if type(key) is str:
                    let_go(key)
                self.values.remove(filename)
            connection.executemany("DELETE FROM Cache WHERE rowid = ?", [(rowid,) for rowid, _, _ in victims])
        return len(victims)

    def used_bytes(self) -> int:
        """What counts against the limit: value files, and the database. Files that no row names are not known here."""
        with self._write() as connection:
            (pages,), (page_bytes,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
            return int(pages * page_bytes) + _sum(connection, "size")

    def rows_count(self) -> int:
        with self._write() as connection:
            return _sum(connection, "count")

    def recount(self) -> None:
        """Set the sums that the triggers keep to what the rows say."""
        with self.change() as connection:
            for name, value in (("size", "coalesce(sum(size), 0)"), ("count", "count(*)")):
                connection.execute(f"UPDATE Settings SET value = (SELECT {value} FROM Cache) WHERE key = '{name}'")

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


def _sum(connection: sqlite3.Connection, name: str) -> int:
    """A sum that the triggers keep."""
    found = connection.execute("SELECT value FROM Settings WHERE key = ?", (name,)).fetchone()
    if found is None or type(found[0]) is not int:
        raise UnusableIndex("its sums are not numbers")
    return found[0]


def is_damage(exc: BaseException) -> bool:
    """Whether an error says that the database, rather than the disk, is broken."""
    return (
        isinstance(exc, (UnusableIndex, UnicodeDecodeError))
        or _code(exc) in _DAMAGE
        or (_code(exc) == sqlite3.SQLITE_ERROR and "no such" in str(exc))
    )


def is_busy(exc: BaseException) -> bool:
    """Whether an error says that another process holds the database."""
    return _code(exc) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(exc: BaseException) -> bool:
    """Whether an error says that the disk, a quota or the inodes are full."""
    return _code(exc) == sqlite3.SQLITE_FULL or (isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT))


def _code(exc: BaseException) -> int:
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF


def _identity(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
