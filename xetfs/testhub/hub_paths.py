"""From the path of a request to the repo it is about, and whether the caller may know of it.

A repo is named by one or two segments, so a path is read with the help of the word that follows the name. What is said about a
repo that does not exist, and about one that is hidden, is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from xetfs.errors import EntryNotFound, NotADirectory, RevisionNotFound
from xetfs.protocol.names import RepoKind
from xetfs.testhub.accounts import Accounts, Caller
from xetfs.testhub.messages import Problem, Request
from xetfs.testhub.records import Commit, Repo
from xetfs.testhub.storage import Storage
from xetfs.testhub.trees import Entry

KINDS: Final[dict[str, RepoKind]] = {"models": "model", "datasets": "dataset", "spaces": "space"}
_API_WORDS = frozenset(
    ("revision", "tree", "paths-info", "refs", "commits", "preupload", "commit", "branch", "tag", "settings", "auth-check")
)
_TOKEN_WORDS = frozenset(("xet-read-token", "xet-write-token"))
_CONTENT_WORDS = frozenset(("resolve", "raw", "info"))


class Moved(Exception):
    """The repo is to be asked for under another name: the answer is a redirect."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


@dataclass(frozen=True, slots=True)
class Target:
    """A repo that the caller may see, and what is asked of it: the word after its name and the segments after that."""

    repo: Repo
    caller: Caller
    word: str
    rest: tuple[str, ...]


class Finder:
    """Finds the repo a path is about."""

    def __init__(self, storage: Storage, accounts: Accounts) -> None:
        self._storage = storage
        self._accounts = accounts

    def api_target(self, request: Request) -> Target:
        """The repo of `/api/models/…`. Raises Problem, Moved."""
        kind = KINDS[request.segments[1]]
        return self._target(request, kind, request.segments[2:], _API_WORDS | _TOKEN_WORDS, prefix=f"/api/{kind}s")

    def content_target(self, request: Request) -> Target:
        """The repo of `/owner/name/resolve/…`, `/datasets/…`. Raises Problem, Moved."""
        kind = KINDS.get(request.segments[0], "model")
        names = request.segments[1:] if request.segments[0] in KINDS else request.segments
        return self._target(request, kind, names, _CONTENT_WORDS, prefix="" if kind == "model" else f"/{kind}s")

    def _target(self, request: Request, kind: RepoKind, names: tuple[str, ...], words: frozenset[str], *, prefix: str) -> Target:
        caller = self._accounts.caller(request)
        single = len(names) == 1 or (names[1] in words and (len(names) < 3 or names[2] not in words))
        if single and len(names) == 2 and self._storage.repo(kind, "/".join(names)) is not None:
            single = False  # a repo called `refs`, `tree`…
        name, rest = ("/".join(names[:1]), names[1:]) if single else ("/".join(names[:2]), names[2:])
        git = name.endswith(".git")
        repo = self.find(caller, kind, name.removesuffix(".git"))
        if repo.name != name.removesuffix(".git"):
            tail = "".join("/" + quote(segment, safe="") for segment in rest)
            query = f"?{request.query_string}" if request.query_string else ""
            raise Moved(f"{prefix}/{repo.name}{'.git' if git else ''}{tail}{query}")
        return Target(repo, caller, rest[0] if rest else "", rest[1:])

    def find(self, caller: Caller, kind: RepoKind, name: str) -> Repo:
        """The repo of this name, present or old, if the caller may see it. Raises Problem (404, or 401 to nobody)."""
        repo = self._storage.repo(kind, name) or self._storage.repo_of_old_name(kind, name)
        if repo is None or not self._accounts.may_see(caller, repo):
            if caller.name:
                raise Problem(404, "Repository not found", code="RepoNotFound")
            raise Problem(401, "Invalid username or password.", code="RepoNotFound")
        return repo

    def commit(self, repo: Repo, revision: str) -> Commit:
        """Raises Problem (404)."""
        try:
            return self._storage.commit(repo, revision)
        except RevisionNotFound as error:
            raise Problem(404, f"Invalid rev id: {revision}", code="RevisionNotFound") from error

    def entry(self, commit: Commit, path: str) -> Entry:
        """Raises Problem (404)."""
        try:
            return self._storage.entry(commit, path)
        except (EntryNotFound, NotADirectory) as error:
            raise entry_not_found(commit) from error


def entry_not_found(commit: Commit) -> Problem:
    return Problem(404, "Entry not found", code="EntryNotFound", headers=[("X-Repo-Commit", commit.oid)])
