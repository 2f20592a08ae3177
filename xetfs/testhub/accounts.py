"""Who asks, and what they may see and change.

A hub without users takes any token for that of its one administrator, `local`, and lets everybody read what is public: enough
for a hub on one's own machine. As soon as a user is added, tokens must be known. Tokens are kept as SHA-256 digests.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Literal

from xetfs.testhub.messages import Problem, Request
from xetfs.testhub.records import Repo
from xetfs.testhub.storage import Storage

Role = Literal["read", "write"]
LOCAL_USER: Final = "local"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: a user through a token of some role, or nobody (name "")."""

    name: str = ""
    role: Role = "read"
    admin: bool = False
    organizations: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        return bool(self.name) and (self.admin or namespace == self.name or namespace in self.organizations)


class Accounts:
    """Users and their tokens, in the hub's database."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add_user(self, name: str, *, admin: bool = False, organizations: tuple[str, ...] = ()) -> None:
        with self._storage.transaction() as database:
            database.execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?)", (name, admin, json.dumps(organizations)))

    def add_token(self, token: str, user: str, role: Role = "write") -> None:
        """Let `token` stand for `user`, who is added if unknown."""
        if self._storage.row("SELECT 1 FROM users WHERE name = ?", user) is None:
            self.add_user(user)
        with self._storage.transaction() as database:
            database.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", (_digest(token), user, role))

    def remove_token(self, token: str) -> None:
        with self._storage.transaction() as database:
            database.execute("DELETE FROM tokens WHERE digest = ?", (_digest(token),))

    def grant_access(self, repo: Repo, user: str) -> None:
        """Let a user through the gate of a gated repo."""
        with self._storage.transaction() as database:
            database.execute("INSERT OR IGNORE INTO access VALUES (?, ?)", (repo.id, user))

    def caller(self, request: Request) -> Caller:
        """Raises Problem (401) for a token that is not known."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return Caller()
        if scheme.lower() == "bearer" and token:
            if self._storage.row("SELECT 1 FROM users") is None:
                return Caller(LOCAL_USER, "write", admin=True)
            row = self._storage.row("SELECT user, role FROM tokens WHERE digest = ?", _digest(token))
            if row is not None:
                return self._user(str(row[0]), "write" if row[1] == "write" else "read")
        raise Problem(401, "Invalid credentials in Authorization header")

    def _user(self, name: str, role: Role) -> Caller:
        row = self._storage.row("SELECT admin, organizations FROM users WHERE name = ?", name)
        admin, organizations = row if row is not None else (0, "[]")
        return Caller(name, role, bool(admin), tuple(json.loads(str(organizations))))

    def may_see(self, caller: Caller, repo: Repo) -> bool:
        return not repo.private or caller.owns(repo.name.partition("/")[0])

    def check_content(self, caller: Caller, repo: Repo) -> None:
        """Refuse content and CAS tokens of a gated repo to whom its gate is closed, and of a disabled one to all. Raises
        Problem."""
        if repo.disabled:
            raise Problem(403, "Access to this resource is disabled.")
        if not repo.gated or caller.owns(repo.name.partition("/")[0]):
            return
        message = f"Access to {repo.kind} {repo.name} is restricted"
        if not caller.name:
            raise Problem(401, f"{message}. You must have access to it and be authenticated to access it.", code="GatedRepo")
        if self._storage.row("SELECT 1 FROM access WHERE repo = ? AND user = ?", repo.id, caller.name) is None:
            raise Problem(403, f"{message} and you are not in the authorized list.", code="GatedRepo")

    def check_write(self, caller: Caller, namespace: str) -> None:
        """Raises Problem: 401 for nobody, 403 for a read token or somebody else's namespace."""
        if not caller.name:
            raise Problem(401, "Invalid username or password.")
        if caller.role != "write":
            raise Problem(403, "Forbidden: this token may only read; a token with write access is required.")
        if not caller.owns(namespace):
            raise Problem(403, f"You don't have the rights to write under the namespace {namespace!r}.")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
