"""What repos, revisions and commits are called, and which names a file system can carry.

REPO as a user types it is `[datasets/|spaces/]owner/name[/subfolder][@revision]`. The revision is all that follows the last `@`,
slashes included (`refs/pr/1`); neither owner, name nor the usual subfolder contains one. Old models have no owner (`gpt2`),
and then there can be no subfolder: `gpt2/onnx` is the repo `onnx` of `gpt2`.
Source: huggingface_hub, utils/_validators.py (repo ids); POSIX (file names).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NewType

from xetfs.errors import InvalidArgument, ProtocolViolation

RepoKind = Literal["model", "dataset", "space"]
CommitId = NewType("CommitId", str)

NAME_BYTES_MAX = 255
"""Longest name of one file or directory that Linux file systems carry."""
PATH_BYTES_MAX = 4096
"""Longest path that the kernel hands to open(2)."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_KIND_OF_PREFIX: dict[str, RepoKind] = {"models": "model", "datasets": "dataset", "spaces": "space"}


def is_commit_id(text: str) -> bool:
    """Whether `text` is a full commit id, which never moves and needs no resolving."""
    return _COMMIT.fullmatch(text) is not None


def parse_commit_id(text: object) -> CommitId:
    """Check a commit id that came from a server. Raises ProtocolViolation."""
    if not isinstance(text, str) or not is_commit_id(text):
        raise ProtocolViolation(f"the Hub named a commit that is not 40 hex digits: {text!r:.80}")
    return CommitId(text)


@dataclass(frozen=True, slots=True)
class RepoId:
    """One repo of the Hub: its kind, and `owner/name` or, for some old models, only `name`."""

    kind: RepoKind
    name: str

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidArgument(
                f"not a repo name: {self.name!r:.200}",
                hint="expected [datasets/|spaces/]owner/name, of letters, digits, '-', '_' and '.'",
            )
        if "--" in self.name or ".." in self.name or self.name.endswith(".git"):
            raise InvalidArgument(f"not a repo name: {self.name!r:.200}", hint="'--', '..' and a final '.git' are not allowed")

    @property
    def api_path(self) -> str:
        """`/api/models/owner/name`: where the Hub answers questions about it."""
        return f"/api/{self.kind}s/{self.name}"

    @property
    def content_path(self) -> str:
        """`/owner/name`, `/datasets/owner/name`: what precedes `/resolve/…` in the URL of a file."""
        return f"/{self.name}" if self.kind == "model" else f"/{self.kind}s/{self.name}"

    def __str__(self) -> str:
        """The form that users type."""
        return self.content_path[1:]


@dataclass(frozen=True, slots=True)
class RepoRef:
    """What a user asked to see: a repo, perhaps only a folder of it, at a revision that may still move."""

    repo: RepoId
    subfolder: str = ""
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> RepoRef:
        """Read `[datasets/|spaces/]owner/name[/subfolder][@revision]`. Raises InvalidArgument."""
        path, at, revision = text.rpartition("@")
        if not at:
            path, revision = text, "main"
        check_revision(revision)
        parts = path.strip("/").split("/")
        kind: RepoKind = "model"
        if parts[0] in _KIND_OF_PREFIX:
            kind = _KIND_OF_PREFIX[parts.pop(0)]
        repo = RepoId(kind, "/".join(parts[:2]))
        for name in parts[2:]:
            if not is_servable_name(name):
                raise InvalidArgument(f"not a folder of a repo: {'/'.join(parts[2:])!r:.200}")
        return cls(repo, "/".join(parts[2:]), revision)

    def __str__(self) -> str:
        folder = f"/{self.subfolder}" if self.subfolder else ""
        return f"{self.repo}{folder}@{self.revision}"


def check_revision(revision: str) -> None:
    """Refuse what git would not take as a branch, tag or commit name. Raises InvalidArgument."""
    bad = not revision or len(revision) > 255 or ".." in revision or revision.startswith(("/", "-")) or revision.endswith("/")
    if bad or any(ord(c) <= 0x20 or c in '\x7f~^:?*[\\"' for c in revision):
        raise InvalidArgument(f"not a revision: {revision!r:.200}", hint="expected a branch, a tag, a commit or refs/pr/N")


def is_servable_name(name: str) -> bool:
    """Whether a file or directory of this name can be shown: one component, no special meaning, at most 255 bytes of UTF-8."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    if name.isascii():
        return len(name) <= NAME_BYTES_MAX
    try:
        return len(name.encode("utf-8")) <= NAME_BYTES_MAX
    except UnicodeEncodeError:  # a lone surrogate, which JSON can carry and a file name cannot
        return False
