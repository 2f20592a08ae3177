"""Repos, commits and stored objects, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xetfs.protocol.names import RepoKind

Gated = Literal["", "auto", "manual"]


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
