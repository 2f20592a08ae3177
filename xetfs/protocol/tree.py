"""What the Hub tells about a repo: its commit, the entries of its tree, the files' headers, and the token for the CAS.

Everything is checked for shape here, and nothing for policy: whether a name can be shown as a file is decided in repo/, whether a
host may be asked in hub/ and cas/. Paths are relative to the root of the repo and use `/`.

A catalogue is read leniently: one odd entry must not hide the directory that it is in, nor a missing field that only decorates
end a mount. What a byte is checked against is read strictly: a hash is one or is not there, and a size that cannot be right
leaves its file out. Mirrors and self-hosted Hubs leave fields out; the Hub itself has masked hashes with asterisks, and knows
entries that are neither files nor directories.

Header mappings are looked up with names in lower case: give a case-insensitive mapping or one whose names are in lower case.
Source: Hub API as used by huggingface_hub, hf_api.py and file_download.py; Xet spec, "Authentication".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from xetfs.errors import InvalidArgument, ProtocolViolation
from xetfs.protocol.dates import http_date_s
from xetfs.protocol.hashes import FileId, MerkleHash
from xetfs.protocol.json_values import as_int, as_list, as_object, as_text, load_json, shown
from xetfs.protocol.names import CommitId, RepoId, parse_commit_id
from xetfs.protocol.urls import split_url
from xetfs.secret import Secret

PAGE_ENTRIES_MAX: Final = 10_000
"""Entries of one page of a listing. The Hub sends at most 1000."""
PATH_CHARACTERS_MAX: Final = 16 * 1024
"""Longest path believed: four times what Linux can open, so that repo/ leaves out one odd entry rather than the page failing."""
HEADER_CHARACTERS_MAX: Final = 64 * 1024
"""Longest header taken apart: it may hold a signed URL."""

_TIME_MAX_S = (2**63 - 1) // 10**9  # as nanoseconds it still fits 64 bits: the year 2262
_HEX_40 = re.compile(r"[0-9a-f]{40}", re.ASCII)
_HEX_64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,16}", re.ASCII)
_LINK = re.compile(r"\s*<([^<>]*)>((?:[^,\"]|\"[^\"]*\")*)(?:,|$)")
_PARAMETER = re.compile(r";\s*([^\s=;\"]+)\s*(?:=\s*(?:\"([^\"]*)\"|([^\s;\"]*)))?")


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file or directory at one commit.

    size: bytes of the content; 0 for directories. oid: git id, 40 hex digits or "" (of LFS and Xet files that of the pointer).
    file_id: None for a file that is not in Xet, and for one whose hash the Hub does not give. sha256: 32 raw bytes, of LFS and
    Xet files only. mtime_s: unix time, if the listing tells.
    """

    path: str
    kind: Literal["file", "directory"]
    size: int
    oid: str = ""
    file_id: FileId | None = None
    sha256: bytes | None = None
    mtime_s: int | None = None


@dataclass(frozen=True, slots=True)
class ParsedPage:
    """One page of a listing. odd: for each entry that was left out, or of which something was ignored, what is wrong with it."""

    entries: tuple[TreeEntry, ...]
    odd: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """A repo under its canonical name, and the commit that the revision asked for stands for.

    modified_s: unix time, or None where the Hub does not tell. private: whether it may be hidden from others; True where the Hub
    does not tell.
    """

    repo: RepoId
    commit: CommitId
    modified_s: int | None
    private: bool
    gated: bool
    disabled: bool


@dataclass(frozen=True, slots=True)
class XetToken:
    """Access to the CAS for one repo and revision. cas_url has no trailing slash; expires_s is unix time.

    issued_s: the server's own time when it answered, likewise unix time, or None if the answer does not tell it.
    """

    cas_url: str
    access_token: Secret
    expires_s: int
    issued_s: int | None = None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What the headers of a `/resolve/` answer tell about a file; None or "" for what they do not tell.

    location: where the bytes are, perhaps relative and perhaps signed, so kept out of repr.
    token_url: where a token for the CAS is to be had (only with a file_id).
    """

    commit: CommitId | None
    size: int | None
    etag: str
    file_id: FileId | None
    sha256: bytes | None
    location: Secret | None
    token_url: str | None


def parse_tree_page(body: bytes) -> ParsedPage:
    """Read one page of a listing, in its order, without the entries that make no sense.

    Raises ProtocolViolation for what is not a JSON list of entries, or a longer one than any Hub sends. A list of something else
    must not pass for an empty directory: whoever mirrors it would delete files.
    """
    page = as_list(load_json(body, "tree page"), "tree page", count_max=PAGE_ENTRIES_MAX)
    if page and not any(type(value) is dict and "path" in value and "type" in value for value in page):
        raise ProtocolViolation("tree page: a list of something other than entries")
    entries: list[TreeEntry] = []
    odd: list[str] = []
    for value in page:
        try:
            entries.append(_parse_entry(value, odd))
        except ProtocolViolation as error:
            odd.append(error.message)
    return ParsedPage(tuple(entries), tuple(odd))


def _parse_entry(value: object, odd: list[str]) -> TreeEntry:
    entry = as_object(value, "tree entry")
    path = as_text(entry.get("path"), "tree entry: path", length_max=PATH_CHARACTERS_MAX)
    try:
        return _entry_at(path, entry, odd)
    except ProtocolViolation as error:  # named only now: a listing has a hundred thousand of them, nearly all good
        raise ProtocolViolation(f"tree entry {path!r:.200}: {error.message}") from None


def _entry_at(path: str, entry: dict[str, object], odd: list[str]) -> TreeEntry:
    """The entry. What only decorates it, or names its content in a way that cannot be read, is noted in `odd` and ignored."""
    kind = entry.get("type")
    if kind not in ("file", "directory"):
        raise ProtocolViolation(f"neither file nor directory: {shown(kind)}")
    ignored: list[str] = []
    oid = _git_oid(entry.get("oid"), ignored)
    mtime_s = _commit_time(entry.get("lastCommit"), ignored)
    if kind == "directory":
        parsed = TreeEntry(path, "directory", 0, oid, mtime_s=mtime_s)
    else:
        size, sha256, file_id = _content(entry, ignored)
        if sha256 is None and file_id is None and (entry.get("lfs") is not None or entry.get("xetHash") is not None):
            oid = ""  # that of a pointer, which says nothing of the content
        parsed = TreeEntry(path, "file", size, oid, file_id, sha256, mtime_s)
    if ignored:
        odd.append(f"tree entry {path!r:.200}: {', '.join(ignored)}")
    return parsed


def _git_oid(oid: object, ignored: list[str]) -> str:
    if oid is None or oid == "":
        return ""
    if type(oid) is str and _HEX_40.fullmatch(oid):
        return oid
    ignored.append(f"not a git oid: {shown(oid)}")
    return ""


def _content(entry: dict[str, object], ignored: list[str]) -> tuple[int, bytes | None, FileId | None]:
    """Size, SHA-256 and file id of a file. Raises ProtocolViolation for a size that cannot be right."""
    size: object = entry.get("size")
    sha256 = None
    if entry.get("lfs") is not None:
        lfs = as_object(entry["lfs"], "lfs")
        # Beside it, `size` may be that of the pointer.
        size = lfs.get("size", size)
        try:
            sha256 = _parse_sha256(lfs.get("oid"), "lfs")
        except ProtocolViolation as error:
            ignored.append(error.message)
    file_id = None
    try:
        file_id = _parse_file_id(entry.get("xetHash"), "xetHash")
    except ProtocolViolation as error:  # masked with asterisks, for one
        ignored.append(error.message)
    return as_int(size, "size"), sha256, file_id


def _parse_file_id(text: object, what: str) -> FileId | None:
    if text is None:
        return None
    if type(text) is not str:
        raise ProtocolViolation(f"{what}: not a xet hash: {shown(text)}")
    try:
        return FileId(MerkleHash.from_hex(text))
    except ProtocolViolation as error:
        raise ProtocolViolation(f"{what}: not a xet hash: {shown(text)}") from error


def _parse_sha256(text: object, what: str) -> bytes:
    if type(text) is not str or not _HEX_64.fullmatch(text):
        raise ProtocolViolation(f"{what}: not a SHA-256: {shown(text)}")
    return bytes.fromhex(text)


def _commit_time(commit: object, ignored: list[str]) -> int | None:
    if commit is None:
        return None
    try:
        return _parse_time(as_object(commit, "lastCommit").get("date"), "lastCommit")
    except ProtocolViolation as error:
        ignored.append(error.message)
        return None


def _parse_time(text: object, what: str) -> int:
    """ISO 8601 to unix seconds, rounded down; UTC where no offset is given; the nearest that a file system can carry."""
    stamp = as_text(text, what, length_max=64)
    try:
        moment = datetime.fromisoformat(stamp)
        seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)
    except (ValueError, OverflowError) as error:
        raise ProtocolViolation(f"{what}: not a time: {shown(stamp)}") from error
    return max(0, min(seconds, _TIME_MAX_S))


def parse_next_link(link_header: str | None) -> str | None:
    """The URL of the next page, as given (the caller checks where it leads); None on the last page.

    Raises ProtocolViolation for a header that cannot be read: taking it for "no next page" would cut a listing short.
    """
    return _link(link_header, "next")


def _link(header: str | None, relation: str) -> str | None:
    return next((url for url, relations in _links(header or "") if relation in relations), None)


def _links(header: str) -> Iterator[tuple[str, list[str]]]:
    """The links of a Link header (RFC 8288) with their relations, in lower case. URLs may hold commas and semicolons."""
    if len(header) > HEADER_CHARACTERS_MAX:
        raise ProtocolViolation("a Link header that is too long")
    header, place = header.rstrip(), 0
    while place < len(header):
        match = _LINK.match(header, place)
        if match is None:
            raise ProtocolViolation("a Link header that cannot be read")
        relations = [quoted or plain for name, quoted, plain in _PARAMETER.findall(match[2]) if name.lower() == "rel"]
        yield match[1], relations[0].lower().split() if relations else []
        place = match.end()


def parse_repo_info(body: bytes, asked: RepoId) -> RepoInfo:
    """Read the answer about a repo at a revision; its name may differ from the one asked for.

    Raises ProtocolViolation for an answer without a commit, or with a name that is none. Whatever else is missing or odd costs
    nothing but what it would tell.
    """
    what = f"repo info of {asked}"
    info = as_object(load_json(body, what), what)
    repo = asked
    if info.get("id") is not None:
        name = as_text(info["id"], f"{what}: id", length_max=256)
        try:
            repo = RepoId(asked.kind, name)
        except InvalidArgument as error:
            raise ProtocolViolation(f"{what}: not a repo name: {shown(name)}") from error
    try:
        modified_s = _parse_time(info.get("lastModified"), f"{what}: lastModified")
    except ProtocolViolation:
        modified_s = None
    return RepoInfo(
        repo=repo,
        commit=parse_commit_id(info.get("sha")),
        modified_s=modified_s,
        private=info.get("private") is not False,  # where nothing is told, the careful reading: see repo/revisions.py
        gated=bool(info.get("gated")),  # false, "auto" or "manual" at the Hub; true or null at others
        disabled=info.get("disabled") is True,  # spaces leave it out
    )


def parse_xet_token(body: bytes, headers: Mapping[str, str]) -> XetToken:
    """Read the answer to a request for a CAS token: from the headers where they carry it, else from the JSON body.

    Raises ProtocolViolation. No message holds any part of the token.
    """
    what = "xet token"
    url: object
    token: object
    if "x-xet-access-token" in headers:
        url, token = headers.get("x-xet-cas-url"), headers["x-xet-access-token"]
        expires_s = _parse_count(headers.get("x-xet-token-expiration"), f"{what}: expiration")
    else:
        answer = as_object(load_json(body, what), what)
        url, token = answer.get("casUrl"), answer.get("accessToken")
        expires_s = as_int(answer.get("exp"), f"{what}: exp")
    parts = split_url(url, f"{what}: CAS URL")
    if url != parts.shown:
        raise ProtocolViolation(f"{what}: the CAS URL has a query: {parts.shown:.200}")
    if type(token) is not str or len(token) > HEADER_CHARACTERS_MAX or not _TOKEN.fullmatch(token):
        raise ProtocolViolation(f"{what}: not a token")  # it goes into a header, where a line break would begin another
    return XetToken(parts.shown.rstrip("/"), Secret(token), expires_s, _server_time_s(headers))


def _server_time_s(headers: Mapping[str, str]) -> int | None:
    """Unix time at the server now, by its `Date` and, if a cache kept the answer, its `Age`; None if it does not tell.

    Source: RFC 9110 §6.6.1, RFC 9111 §5.1.
    """
    date_s, age = http_date_s(headers.get("date", "")), headers.get("age", "0").strip()
    if date_s is None:
        return None
    return date_s + (int(age) if _DIGITS.fullmatch(age) else 0)


def parse_resolve_headers(headers: Mapping[str, str]) -> FileInfo:
    """Read the headers of a HEAD or GET of `/resolve/…`, taken from the first answer, not from where it redirects to.

    Raises ProtocolViolation for a header that is there and malformed.
    """
    what = "resolve answer"
    commit = headers.get("x-repo-commit")
    etag = _strip_etag(headers.get("x-linked-etag") or headers.get("etag") or "")
    size = headers.get("x-linked-size")
    if size is None and "location" not in headers and "content-encoding" not in headers:
        size = headers.get("content-length")  # of a redirect or a compressed body it would be something else
    file_id = _parse_file_id(headers.get("x-xet-hash"), what)
    token_url = _link(headers.get("link"), "xet-auth") or headers.get("x-xet-refresh-route")
    location = headers.get("location")
    return FileInfo(
        commit=parse_commit_id(commit) if commit is not None else None,
        size=_parse_count(size, f"{what}: size") if size is not None else None,
        etag=etag,
        file_id=file_id,
        sha256=bytes.fromhex(etag) if _HEX_64.fullmatch(etag) else None,
        location=Secret(location) if location else None,
        token_url=token_url if file_id is not None else None,
    )


def _strip_etag(etag: str) -> str:
    """An etag without its weakness mark and quotes."""
    return etag.strip().removeprefix("W/").strip('"')


def _parse_count(text: str | None, what: str) -> int:
    if text is None or not _DIGITS.fullmatch(text):
        raise ProtocolViolation(f"{what}: expected a number, got {shown(text)}")
    return as_int(int(text), what)
