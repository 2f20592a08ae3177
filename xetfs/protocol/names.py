"""What repos, revisions and commits are called, and which names a file system can carry.

REPO as a user types it is `[datasets/|spaces/]owner/name[/subfolder][@revision]` or, as in URIs of huggingface_hub,
`[hf://][datasets/|spaces/]owner/name[@revision][/subfolder]`. Neither owner nor name contains an `@`; branches and folders may
contain `@` and `/`, so that `owner/name@a/b` is the branch `a/b`, or the folder `b` of the branch `a`. A text that can be read in
several ways is a RepoRef with `others`, and the Hub decides. Old models have no owner (`gpt2`), and then a subfolder must come
after the revision: `gpt2/onnx` is the repo `onnx` of `gpt2`.
Source: huggingface_hub, utils/_validators.py (repo ids) and utils/_hf_uris.py (URIs; `refs/convert/NAME` and `refs/pr/N` are one
revision, a slash in any other is written %2F); DuckDB documentation, "Hugging Face Support" (`@~parquet`); POSIX (file names).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NewType
from urllib.parse import unquote

from xetfs.errors import InvalidArgument, ProtocolViolation

RepoKind = Literal["model", "dataset", "space"]
CommitId = NewType("CommitId", str)

NAME_BYTES_MAX = 255
"""Longest name of one file or directory that Linux file systems carry."""
PATH_BYTES_MAX = 4096
"""Longest path that the kernel hands to open(2)."""

READINGS_MAX: Final = 8
"""Ways of reading one text that are tried: each may cost a request."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_KIND_OF_PREFIX: dict[str, RepoKind] = {"models": "model", "datasets": "dataset", "spaces": "space"}
_UNSUPPORTED = ("kernels", "buckets")
_SPECIAL_REVISION = re.compile(r"(refs/convert/[\w.-]+|refs/pr/[0-9]+|~[\w.-]+)(?:/(.*))?", re.ASCII | re.DOTALL)
_ALIAS = re.compile(r"~[\w.-]+", re.ASCII)


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
    others: tuple[RepoRef, ...] = field(default=(), compare=False, repr=False)
    """Other readings of what the user typed, for when the Hub knows nothing under this one."""

    @classmethod
    def parse(cls, text: str) -> RepoRef:
        """Read what a user typed (see above). Raises InvalidArgument."""
        text = text.removeprefix("hf://")
        if "://" in text:
            raise InvalidArgument("expected the name of a repo, not a URL", hint=f"write {_name_in(text)!r:.200}")
        parts = text.strip("/").split("/")
        if parts[0] in _UNSUPPORTED and len(parts) > 1:
            raise InvalidArgument(
                f"{parts[0]} of the Hub cannot be mounted: {text!r:.200}", hint="xetfs shows models, datasets and spaces"
            )
        kind = _KIND_OF_PREFIX.get(parts[0], "model")
        rest = "/".join(parts[1:] if parts[0] in _KIND_OF_PREFIX else parts)
        name, folders = _split_name(rest)
        repo = RepoId(kind, name)
        readings: list[RepoRef] = []
        problem: InvalidArgument | None = None
        for folder, revision in folders:
            try:
                reading = cls(repo, _checked_folder(folder), check_revision(revision))
            except InvalidArgument as error:
                problem = problem or error
                continue
            if reading not in readings and len(readings) < READINGS_MAX:
                readings.append(reading)
        if not readings:
            raise problem or InvalidArgument(f"not a repo name: {text!r:.200}")
        return cls(repo, readings[0].subfolder, readings[0].revision, tuple(readings[1:]))

    @property
    def readings(self) -> tuple[RepoRef, ...]:
        """All ways of reading what the user typed, in the order in which they are to be tried."""
        return (self, *self.others)

    def __str__(self) -> str:
        folder = f"/{self.subfolder}" if self.subfolder else ""
        return f"{self.repo}{folder}@{self.revision}"


def _name_in(url: str) -> str:
    """Return the REPO that the URL of a page of the Hub stands for, as far as it can be told from its path."""
    path = url.partition("://")[2].partition("/")[2].partition("?")[0].strip("/")
    return re.sub(r"/tree/", "@", re.sub(r"/(blob|resolve|discussions)/.*", "", path), count=1) or "owner/name"


def _split_name(text: str) -> tuple[str, Iterator[tuple[str, str]]]:
    """The name of the repo, and the ways of reading the rest as (folder, revision)."""
    segments = text.split("/")
    for count in (1, 2):
        name, at, revision = "/".join(segments[:count]).partition("@")
        if at:
            return name, _revision_first("/".join([revision, *segments[count:]]))
    return "/".join(segments[:2]), _revision_last("/".join(segments[2:]))


def _revision_first(text: str) -> Iterator[tuple[str, str]]:
    """`revision[/folder]`: a revision with all its slashes, then its first part alone, then what lies between."""
    special = _SPECIAL_REVISION.fullmatch(text)
    if special is not None:
        yield special[2] or "", special[1]
        return
    yield "", unquote(text)
    if "%" in text:
        yield "", text
    slashes = [at for at, char in enumerate(text) if char == "/"]
    for at in (*slashes[:1], *reversed(slashes[1:])):
        yield text[at + 1 :], unquote(text[:at])


def _revision_last(text: str) -> Iterator[tuple[str, str]]:
    """`[folder][@revision]`: what follows the last `@` is the revision, else what follows one before, else there is none."""
    ats = [at for at, char in enumerate(text) if char == "@"]
    for at in reversed(ats):
        yield text[:at], unquote(text[at + 1 :])
    yield text, "main"


def _checked_folder(folder: str) -> str:
    folder = folder.strip("/")
    if folder and not all(is_servable_name(name) for name in folder.split("/")):
        raise InvalidArgument(f"not a folder of a repo: {folder!r:.200}")
    return folder


def check_revision(revision: str) -> str:
    """The revision itself; refuse what git would not take as a branch, tag or commit name. Raises InvalidArgument.

    `~parquet` is the Hub's own short form of `refs/convert/parquet`.
    """
    bad = not revision or len(revision) > 255 or ".." in revision or revision.startswith(("/", "-")) or revision.endswith("/")
    if not _ALIAS.fullmatch(revision):
        bad = bad or any(ord(c) <= 0x20 or c in '\x7f~^:?*[\\"' for c in revision)
    if bad:
        raise InvalidArgument(f"not a revision: {revision!r:.200}", hint="expected a branch, a tag, a commit or refs/pr/N")
    return revision


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
