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
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xetfs.errors import EntryNotFound, NotADirectory, RepoNotFound, RevisionNotFound
from xetfs.protocol.names import RepoKind, is_commit_id
from xetfs.testhub.database import Database, Recent
from xetfs.testhub.records import Commit, Gated, LfsObject, Repo, StoredFile
from xetfs.testhub.trees import EMPTY_TREE_OID, Entry, Tree, TreeEditor, blob_oid, lfs_entry, load_tree, make_tree, walk

_TREE_ENTRIES_CACHED = 500_000
_REPO = "SELECT r.id, r.kind, r.name, private, gated, disabled, created FROM repos r"
_COMMIT = "SELECT oid, tree, parent, title, message, author, time_s FROM commits WHERE repo = ? AND "


class Storage(Database):
    """The content of one hub."""

    def __init__(self, directory: Path) -> None:
        """Open or create. Raises StoreFailed when the directory cannot be used or is another hub's."""
        super().__init__(directory)
        self._trees: Recent[str, Tree] = Recent(_TREE_ENTRIES_CACHED)
        self._last_commits: Recent[tuple[int, str, str], Mapping[str, Commit]] = Recent(64)

    # Repos

    def repo(self, kind: RepoKind, name: str) -> Repo | None:
        """The repo of exactly this name."""
        row = self.row(
            "SELECT id, kind, name, private, gated, disabled, created FROM repos WHERE kind = ? AND name = ?", kind, name
        )
        return _repo(row) if row else None

    def repo_of_old_name(self, kind: RepoKind, name: str) -> Repo | None:
        """The repo that once had this name, or has it as an alias."""
        row = self.row(f"{_REPO} JOIN old_names o ON o.repo = r.id WHERE o.kind = ? AND o.name = ?", kind, name)
        return _repo(row) if row else None

    def repos(self, kind: RepoKind) -> list[Repo]:
        return [_repo(row) for row in self.rows(f"{_REPO} WHERE kind = ? ORDER BY name", kind)]

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
        if revision.startswith("~"):  # as the real Hub's `~parquet`
            revision = f"refs/convert/{revision[1:]}"
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
        found = self.row(_COMMIT + "oid = ?", repo.id, oid)
        if found is None and 7 <= len(oid) < 40 and all(c in "0123456789abcdef" for c in oid):
            found = self.row(_COMMIT + "oid LIKE ?", repo.id, f"{oid}%")
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
