"""What the hub holds: repos, commits, directories and plain files, in one SQLite database; LFS objects as files beside it.

    DIR/hub.sqlite       repos, old names, refs, commits, trees, small blobs, accounts, and what is known of Xet files
    DIR/lfs/ab/abcd…     LFS objects that are not in Xet, by SHA-256
    DIR/xorbs/ab/abcd…   xorbs (xetstore.py)
    DIR/tmp/             uploads on their way; emptied at start

Everything survives a restart. One connection, guarded by a lock: methods may be called from the event loop and from worker
threads. Trees are immutable and kept in a bounded cache, since a large directory is listed page after page.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

from xetfs.errors import EntryNotFound, NotADirectory, RepoNotFound, RevisionNotFound, StoreFailed
from xetfs.protocol.names import RepoKind, is_commit_id
from xetfs.testhub.trees import EMPTY_TREE_OID, Entry, Tree, TreeEditor, blob_oid, lfs_entry, load_tree, make_tree, walk

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
_TREE_ENTRIES_CACHED = 500_000
Gated = Literal["", "auto", "manual"]
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Repo:
    """A repo as it is now, under its present name."""

    id: int
    kind: RepoKind
    name: str
    private: bool
    gated: Gated
    disabled: bool
    created_s: float

    @property
    def content_path(self) -> str:
        return f"/{self.name}" if self.kind == "model" else f"/{self.kind}s/{self.name}"

    @property
    def api_path(self) -> str:
        return f"/api/{self.kind}s/{self.name}"


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of a repo; history is a line of first parents ("" at its end)."""

    oid: str
    tree: str
    parent: str
    title: str
    message: str
    author: str
    time_s: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Content that is in the LFS or Xet part of the store and may be committed under a path."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class LfsObject:
    """What is known of a SHA-256. file_id is None for an object that is not in Xet."""

    sha256: str
    size: int
    file_id: bytes | None


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


class Storage:
    """The directory of one hub. Only one process may have it open."""

    def __init__(self, directory: Path) -> None:
        """Open or create. Raises StoreFailed when the directory cannot be used or is another hub's."""
        self.directory = directory
        self.lock = threading.RLock()
        self._trees: Recent[str, Tree] = Recent(_TREE_ENTRIES_CACHED)
        self._last_commits: Recent[tuple[int, str, str], Mapping[str, Commit]] = Recent(64)
        try:
            directory.mkdir(parents=True, exist_ok=True)
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

    # Repos

    def repo(self, kind: RepoKind, name: str) -> Repo | None:
        """The repo of exactly this name."""
        row = self.row(
            "SELECT id, kind, name, private, gated, disabled, created FROM repos WHERE kind = ? AND name = ?", kind, name
        )
        return _repo(row) if row else None

    def repo_of_old_name(self, kind: RepoKind, name: str) -> Repo | None:
        """The repo that once had this name, or has it as an alias."""
        row = self.row(
            "SELECT id, r.kind, r.name, private, gated, disabled, created FROM repos r JOIN old_names o ON o.repo = r.id"
            " WHERE o.kind = ? AND o.name = ?",
            kind,
            name,
        )
        return _repo(row) if row else None

    def repos(self, kind: RepoKind) -> list[Repo]:
        sql = "SELECT id, kind, name, private, gated, disabled, created FROM repos WHERE kind = ? ORDER BY name"
        return [_repo(row) for row in self.rows(sql, kind)]

    def create_repo(self, kind: RepoKind, name: str, *, private: bool = False, author: str = "local") -> Repo:
        """A new repo whose branch `main` holds one empty commit. Raises sqlite3.IntegrityError when the name is taken."""
        with self.transaction() as database:
            database.execute("DELETE FROM old_names WHERE kind = ? AND name = ?", (kind, name))
            database.execute(
                "INSERT INTO repos (kind, name, private, gated, disabled, created) VALUES (?, ?, ?, '', 0, ?)",
                (kind, name, private, time.time()),
            )
            repo = self.repo(kind, name)
            assert repo is not None
            self._save_trees({EMPTY_TREE_OID: make_tree({})[1]})
            self._add_commit(repo, "refs/heads/main", "", EMPTY_TREE_OID, "initial commit", "", author, None)
        return repo

    def update_repo(
        self, repo: Repo, *, private: bool | None = None, gated: Gated | None = None, disabled: bool | None = None
    ) -> None:
        for column, value in (("private", private), ("gated", gated), ("disabled", disabled)):
            if value is not None:
                with self.transaction() as database:
                    database.execute(f"UPDATE repos SET {column} = ? WHERE id = ?", (value, repo.id))

    def move_repo(self, repo: Repo, name: str) -> None:
        """Rename; the old name leads to the new one. Raises sqlite3.IntegrityError when it is taken."""
        with self.transaction() as database:
            database.execute("UPDATE repos SET name = ? WHERE id = ?", (name, repo.id))
            database.execute("DELETE FROM old_names WHERE kind = ? AND name = ?", (repo.kind, name))
            self.add_old_name(repo, repo.name)

    def add_old_name(self, repo: Repo, name: str) -> None:
        """Another name that redirects to the repo, such as one without an owner."""
        with self.transaction() as database:
            database.execute("INSERT OR REPLACE INTO old_names VALUES (?, ?, ?)", (repo.kind, name, repo.id))

    def delete_repo(self, repo: Repo) -> None:
        with self.transaction() as database:
            database.execute("DELETE FROM repos WHERE id = ?", (repo.id,))
            for table in ("old_names", "refs", "commits", "repo_lfs", "access"):
                database.execute(f"DELETE FROM {table} WHERE repo = ?", (repo.id,))

    # Refs and commits

    def refs(self, repo: Repo) -> dict[str, str]:
        return {str(ref): str(oid) for ref, oid in self.rows("SELECT ref, oid FROM refs WHERE repo = ? ORDER BY ref", repo.id)}

    def set_ref(self, repo: Repo, ref: str, oid: str) -> None:
        with self.transaction() as database:
            database.execute("INSERT OR REPLACE INTO refs VALUES (?, ?, ?)", (repo.id, ref, oid))

    def delete_ref(self, repo: Repo, ref: str) -> None:
        with self.transaction() as database:
            database.execute("DELETE FROM refs WHERE repo = ? AND ref = ?", (repo.id, ref))

    def resolve_ref(self, repo: Repo, revision: str) -> str | None:
        """The full name of the ref that a revision names, if it names one."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if self.row("SELECT 1 FROM refs WHERE repo = ? AND ref = ?", repo.id, ref):
                return ref
        return None

    def commit(self, repo: Repo, revision: str) -> Commit:
        """The commit that a branch, a tag, a full ref or a commit id (at least 7 digits of it) stands for. Raises
        RevisionNotFound."""
        ref = self.resolve_ref(repo, revision)
        row = self.row("SELECT oid FROM refs WHERE repo = ? AND ref = ?", repo.id, ref) if ref else None
        oid = str(row[0]) if row else revision
        sql = "SELECT oid, tree, parent, title, message, author, time_s FROM commits WHERE repo = ? AND "
        found = self.row(sql + "oid = ?", repo.id, oid)
        if found is None and 7 <= len(oid) < 40 and all(c in "0123456789abcdef" for c in oid):
            found = self.row(sql + "oid LIKE ?", repo.id, f"{oid}%")
        if found is None:
            raise RevisionNotFound(f"no revision {revision} in {repo.name}")
        return Commit(*found)

    def history(self, repo: Repo, commit: Commit) -> Iterator[Commit]:
        """The commit and its ancestors."""
        while True:
            yield commit
            if not is_commit_id(commit.parent):
                return
            commit = self.commit(repo, commit.parent)

    def commit_files(
        self,
        repo: Repo,
        files: Mapping[str, bytes | StoredFile],
        *,
        deleted_files: Iterable[str] = (),
        deleted_folders: Iterable[str] = (),
        branch: str = "main",
        title: str = "Add files",
        message: str = "",
        author: str = "local",
        time_s: int | None = None,
    ) -> Commit:
        """Commit to a branch (or a full ref): bytes become plain git files, StoredFiles LFS or Xet files. Deletions come first.

        100,000 small files take about a second. Paths are taken as they are: a test may commit names that no client would send.
        Raises RevisionNotFound, EntryNotFound (a deletion), NotADirectory, IsADirectory.
        """
        ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
        with self.transaction() as database:
            parent = self.commit(repo, ref)
            editor = TreeEditor(self.tree, parent.tree)
            for path in deleted_folders:
                editor.delete_folder(path)
            for path in deleted_files:
                editor.delete_file(path)
            blobs: list[tuple[str, bytes]] = []
            for path, content in files.items():
                if isinstance(content, StoredFile):
                    editor.put(path, lfs_entry("", content.sha256, content.size))
                    database.execute("INSERT OR IGNORE INTO repo_lfs VALUES (?, ?)", (repo.id, content.sha256))
                else:
                    oid = blob_oid(content)
                    blobs.append((oid, content))
                    editor.put(path, Entry("", False, oid, len(content)))
            database.executemany("INSERT OR IGNORE INTO blobs VALUES (?, ?)", blobs)
            root = editor.write(self._save_tree)
            return self._add_commit(repo, ref, parent.oid, root, title, message, author, time_s)

    def _add_commit(
        self, repo: Repo, ref: str, parent: str, tree: str, title: str, message: str, author: str, time_s: int | None
    ) -> Commit:
        time_s = int(time.time()) if time_s is None else time_s
        who = f"{author} <{author}@localhost> {time_s} +0000"
        parents = f"parent {parent}\n" if parent else ""
        text = f"tree {tree}\n{parents}author {who}\ncommitter {who}\n\n{title}\n\n{message}\n".encode()
        # The repo is part of the id: two repos with the same first commit must not share it.
        oid = hashlib.sha1(b"commit %d\0repo %d\n" % (len(text), repo.id) + text).hexdigest()
        commit = Commit(oid, tree, parent, title, message, author, time_s)
        with self.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (repo.id, oid, tree, parent, title, message, author, time_s),
            )
            self.set_ref(repo, ref, oid)
        return commit

    def new_pull_request(self, repo: Repo, start: Commit) -> tuple[int, str]:
        """Open a pull request at a commit: its number and its ref."""
        with self.transaction() as database:
            database.execute("UPDATE repos SET pull_requests = pull_requests + 1 WHERE id = ?", (repo.id,))
            row = self.row("SELECT pull_requests FROM repos WHERE id = ?", repo.id)
            assert row is not None
            number = int(row[0])
            self.set_ref(repo, f"refs/pr/{number}", start.oid)
        return number, f"refs/pr/{number}"

    # Trees and blobs

    def tree(self, oid: str) -> Tree:
        tree = self._trees.get(oid)
        if tree is None:
            row = self.row("SELECT data FROM trees WHERE oid = ?", oid)
            if row is None:
                raise EntryNotFound(f"no tree {oid}")
            tree = load_tree(row[0])
            self._trees.put(oid, tree, len(tree) + 1)
        return tree

    def _save_tree(self, oid: str, stored: bytes, tree: Tree) -> None:
        self._save_trees({oid: stored})
        self._trees.put(oid, tree, len(tree) + 1)

    def _save_trees(self, trees: Mapping[str, bytes]) -> None:
        with self.transaction() as database:
            database.executemany("INSERT OR IGNORE INTO trees VALUES (?, ?)", list(trees.items()))

    def entry(self, commit: Commit, path: str) -> Entry:
        """A file or directory of a commit; "" is the root. Raises EntryNotFound."""
        entry = Entry("", True, commit.tree)
        for name in path.split("/") if path else []:
            found = self.tree(entry.oid).get(name) if entry.is_directory else None
            if found is None:
                raise EntryNotFound(f"no entry {path}")
            entry = found
        return entry

    def listing(self, commit: Commit, path: str, *, recursive: bool) -> Sequence[tuple[str, Entry]]:
        """(path, entry) of all in a directory. Raises EntryNotFound, NotADirectory."""
        directory = self.entry(commit, path)
        if not directory.is_directory:
            raise NotADirectory(f"{path} is a file")
        return list(walk(self.tree, directory.oid, path, recursive=recursive))

    def last_commits(self, repo: Repo, commit: Commit, directory: str) -> Mapping[str, Commit]:
        """For each name in a directory, the latest commit that changed it."""
        key = (repo.id, commit.oid, directory)
        held = self._last_commits.get(key)
        if held is not None:
            return held
        wanted = dict(self.tree(self.entry(commit, directory).oid))
        found: dict[str, Commit] = {}
        history = self.history(repo, commit)
        current = next(history)
        for older in history:
            before = self._tree_at(older, directory)
            for name in [name for name, entry in wanted.items() if before.get(name) != entry]:
                found[name] = current
                del wanted[name]
            if not wanted:
                break
            current = older
        found.update(dict.fromkeys(wanted, current))
        self._last_commits.put(key, found)
        return found

    def _tree_at(self, commit: Commit, directory: str) -> Tree:
        try:
            entry = self.entry(commit, directory)
        except EntryNotFound:
            return {}
        return self.tree(entry.oid) if entry.is_directory else {}

    def blob(self, oid: str) -> bytes:
        """The content of a plain file. Raises EntryNotFound."""
        row = self.row("SELECT data FROM blobs WHERE oid = ?", oid)
        if row is None:
            raise EntryNotFound(f"no blob {oid}")
        return bytes(row[0])

    # LFS objects

    def lfs(self, sha256: str) -> LfsObject | None:
        row = self.row("SELECT sha256, size, file_id FROM lfs WHERE sha256 = ?", sha256)
        return LfsObject(*row) if row else None

    def lfs_path(self, sha256: str) -> Path:
        return self.directory / "lfs" / sha256[:2] / sha256

    def add_lfs(self, sha256: str, size: int, content: Path | None = None, *, file_id: bytes | None = None) -> StoredFile:
        """Make an object known: `content` (moved here) or, with a file id, a Xet file. Content known both ways is a Xet file."""
        if content is not None:
            target = self.lfs_path(sha256)
            target.parent.mkdir(exist_ok=True)
            content.replace(target)
        with self.transaction() as database:
            database.execute(
                "INSERT INTO lfs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET file_id = coalesce(excluded.file_id, file_id)",
                (sha256, size, file_id),
            )
        return StoredFile(sha256, size)

    def reaches_file(self, repo_id: int, file_id: bytes) -> bool:
        """Whether a commit of the repo holds this Xet file."""
        sql = "SELECT 1 FROM lfs JOIN repo_lfs USING (sha256) WHERE file_id = ? AND repo = ?"
        return self.row(sql, file_id, repo_id) is not None

    def require_repo(self, kind: RepoKind, name: str) -> Repo:
        repo = self.repo(kind, name)
        if repo is None:
            raise RepoNotFound(f"no {kind} {name}")
        return repo


def _repo(row: tuple[Any, ...]) -> Repo:
    number, kind, name, private, gated, disabled, created = row
    return Repo(number, kind, name, bool(private), gated, bool(disabled), created)
