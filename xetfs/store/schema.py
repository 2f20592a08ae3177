"""The form of the index's database: the tables, triggers and settings of a diskcache, made by diskcache and by nothing else.

What is diskcache's: the table with a row for each block and record, the indexes on key and on time of last use, the triggers
that keep the count of rows and the sum of sizes, and the settings; so its tools can look into a cache. What is the store's: every
statement on the rows (index.py), and the value files (values.py). diskcache unpickles what a row says is a pickle
(CVE-2025-69872), so it only makes a new, empty database in a directory of its own, and never opens one that the store uses.

A database is not trusted. Before it is used its schema and settings must be exactly those that diskcache makes with our settings:
no trigger, view, pragma or attribute of somebody else's. Memory mapping is off, since a file cut short under a mapping kills the
process.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

import diskcache
from blake3 import blake3

BUSY_TIMEOUT_S: Final = 2.0
"""Longest wait for another process's transaction; they take milliseconds."""
DATABASE: Final = "cache.db"
JOURNALS: Final = ("wal", "delete")
"""Write-ahead log, or the rollback journal for file systems that other machines share."""

_SETTINGS: Final[dict[str, int | str]] = {
    "cull_limit": 0,  # eviction is the store's
    "disk_min_file_size": 0,
    "disk_pickle_protocol": 0,
    "eviction_policy": "least-recently-used",  # which makes the index on the time of last use
    "size_limit": 2**62,  # the limit moves with the free space of the disk, and differs between processes
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2048,  # pages of 4 KiB
    "sqlite_journal_mode": "delete",  # in the database that is copied
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "statistics": 0,
    "tag_index": 0,
}
_SUMS: Final = ("count", "hits", "misses", "size")
_WAL_VERSION: Final = b"\x02\x02"
"""What the header of a database in WAL mode has as versions for reading and writing (sqlite.org/fileformat.html, 1.3)."""
_SCHEMA_DIGEST: Final = "fd1cad882841802146e19b0dd0cc4bf9a2df8bd8aae8f4c6875e110048553abe"
"""BLAKE3 of the schema that diskcache 5.4 to 5.6 makes; pyproject.toml allows no other."""


class UnusableIndex(sqlite3.DatabaseError):
    """The database is damaged, or not one that this code made. Stays within the store."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection that any thread may use, in autocommit mode. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    for pragma in ("trusted_schema = 0", "cell_size_check = 1", "mmap_size = 0", "cache_size = 2048", "synchronous = 1"):
        connection.execute(f"PRAGMA {pragma}").close()
    return connection


def open_checked(path: Path, journal: str) -> sqlite3.Connection:
    """A connection to a database whose tables and settings are ours; those of one that has none are made.

    path: a file that exists, empty for a new database. journal: one of JOURNALS; a database in WAL mode is refused where another
    is asked for. Raises UnusableIndex, sqlite3.Error and OSError.
    """
    if journal != "wal" and _is_in_wal_mode(path):
        raise UnusableIndex("it was made on a file system of this machine alone")  # not to be opened where it is now
    connection = connect(path)
    try:
        if _schema_digest(connection) is None:
            _make(connection, path.parent)
        connection.execute(f"PRAGMA journal_mode = {journal}").close()
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Refuse a database that diskcache could not have made with our settings. Raises UnusableIndex."""
    if _schema_digest(connection) != _SCHEMA_DIGEST:
        raise UnusableIndex("its tables are not those of an index")
    settings = dict(connection.execute("SELECT key, value FROM Settings LIMIT 100").fetchall())
    sums = [settings.pop(name, None) for name in _SUMS]
    if settings.get("sqlite_journal_mode") in JOURNALS:
        settings["sqlite_journal_mode"] = _SETTINGS["sqlite_journal_mode"]
    if any(type(value) is not int or not 0 <= value < 2**62 for value in sums) or settings != _SETTINGS:
        raise UnusableIndex("its settings are not those of an index")


def _make(connection: sqlite3.Connection, directory: Path) -> None:
    """Copy the tables of a new, empty diskcache into an empty database, in one transaction.

    directory: of the store, as in a container nothing else may be writable.
    """
    is_literal = os.path.expandvars(directory) == str(directory)  # diskcache expands variables in the path that it is given
    with (
        tempfile.TemporaryDirectory(prefix="new-", dir=directory if is_literal else None) as scratch,
        diskcache.Cache(scratch, **_SETTINGS) as cache,
        closing(sqlite3.connect(Path(cache.directory, DATABASE))) as made,
    ):
        made.backup(connection)


def _schema_digest(connection: sqlite3.Connection) -> str | None:
    """BLAKE3 over the text of all tables, indexes, triggers and views; None if there are none."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name LIMIT 100").fetchall()
    return blake3(repr(rows).encode()).hexdigest() if rows else None


def _is_in_wal_mode(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(20)[18:] == _WAL_VERSION


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
