"""The directory of a hub and the database in it: opening, locking, transactions.

One connection, guarded by a lock: everything may be called from the event loop and from worker threads. A second hub that opens
the same directory is told so.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from xetfs.errors import StoreFailed

SCHEMA_VERSION: Final = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB);
CREATE TABLE repos (id INTEGER PRIMARY KEY, kind TEXT, name TEXT, private INTEGER, gated TEXT, disabled INTEGER, created REAL,
                    pull_requests INTEGER DEFAULT 0, UNIQUE (kind, name));
CREATE TABLE old_names (kind TEXT, name TEXT, repo INTEGER, PRIMARY KEY (kind, name));
CREATE TABLE refs (repo INTEGER, ref TEXT, oid TEXT, PRIMARY KEY (repo, ref));
CREATE TABLE commits (repo INTEGER, oid TEXT, tree TEXT, parent TEXT, title TEXT, message TEXT, author TEXT, time_s INTEGER,
                      PRIMARY KEY (repo, oid));
CREATE TABLE trees (oid TEXT PRIMARY KEY, data BLOB);
CREATE TABLE blobs (oid TEXT PRIMARY KEY, data BLOB);
CREATE TABLE lfs (sha256 TEXT PRIMARY KEY, size INTEGER, file_id BLOB);
CREATE INDEX lfs_by_file ON lfs (file_id);
CREATE TABLE repo_lfs (repo INTEGER, sha256 TEXT, PRIMARY KEY (repo, sha256));
CREATE TABLE files (id BLOB PRIMARY KEY, size INTEGER, xorbs BLOB, terms BLOB);
CREATE TABLE dedup (chunk BLOB PRIMARY KEY, xorb BLOB);
CREATE TABLE users (name TEXT PRIMARY KEY, admin INTEGER, organizations TEXT);
CREATE TABLE tokens (digest TEXT PRIMARY KEY, user TEXT, role TEXT);
CREATE TABLE access (repo INTEGER, user TEXT, PRIMARY KEY (repo, user));
"""
K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A small cache of the most recently used values, each with a weight."""

    def __init__(self, weight_max: int) -> None:
        self._weight_max = weight_max
        self._weight = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        held = self._values.get(key)
        if held is None:
            return None
        self._values.move_to_end(key)
        return held[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        if key in self._values:
            return
        self._values[key] = (value, weight)
        self._weight += weight
        while self._weight > self._weight_max and len(self._values) > 1:
            self._weight -= self._values.popitem(last=False)[1][1]


class Database:
    """An open hub directory."""

    def __init__(self, directory: Path) -> None:
        """Open or create. Raises StoreFailed when the directory cannot be used or is another hub's."""
        self.directory = directory
        self.lock = threading.RLock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("lfs", "xorbs", "tmp"):
                (directory / name).mkdir(exist_ok=True)
            self.database = sqlite3.connect(directory / "hub.sqlite", timeout=0.2, check_same_thread=False, isolation_level=None)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise StoreFailed(
                f"cannot keep a hub in {directory}: {error}",
                hint="give a directory of your own that no other hub is using",
            ) from error

    def _prepare(self) -> None:
        self.database.execute("PRAGMA locking_mode=EXCLUSIVE")
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.execute("PRAGMA synchronous=NORMAL")
        version = self.database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise StoreFailed(f"{self.directory} was made by another version of the hub (format {version})")
        if version == 0:
            self.database.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT")
        with self.transaction():  # takes the exclusive lock now rather than at the first upload
            self.database.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (os.urandom(32),))
        for leftover in (self.directory / "tmp").iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def close(self) -> None:
        with self.lock:
            self.database.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            if self.database.in_transaction:
                yield self.database
                return
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield self.database
            except BaseException:
                self.database.execute("ROLLBACK")
                raise
            self.database.execute("COMMIT")

    def row(self, sql: str, *arguments: object) -> tuple[Any, ...] | None:
        with self.lock:
            found: tuple[Any, ...] | None = self.database.execute(sql, arguments).fetchone()
        return found

    def rows(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        with self.lock:
            return self.database.execute(sql, arguments).fetchall()

    @property
    def secret(self) -> bytes:
        """The key of this hub's signatures: URLs and tokens stay valid over a restart."""
        row = self.row("SELECT value FROM meta WHERE key = 'secret'")
        assert row is not None
        return bytes(row[0])

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"
