"""What the Hub tells about a repo: info, listings page by page, paths, refs, commits.

Source: Hub API as used by huggingface_hub, hf_api.py; pages as recorded: at most 1000 entries, 50 with `expand`, `Link: <…>;
rel="next"`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from xetfs.errors import EntryNotFound, NotADirectory
from xetfs.testhub.database import Recent
from xetfs.testhub.hub_paths import Finder, Target, entry_not_found
from xetfs.testhub.messages import Problem, Request, Response, json_response
from xetfs.testhub.options import HubOptions, HubUrls
from xetfs.testhub.records import Commit, Repo
from xetfs.testhub.storage import Storage
from xetfs.testhub.trees import Entry, pointer_text

EXPANDED_PAGE_SIZE: Final = 50
PATHS_MAX: Final = 1000
_ENTRIES_CACHED = 500_000
Listing = Sequence[tuple[str, Entry]]


def iso_time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Listings:
    """The reading half of the Hub's API."""

    def __init__(self, storage: Storage, finder: Finder, options: HubOptions, urls: HubUrls) -> None:
        self._storage = storage
        self._finder = finder
        self._options = options
        self._urls = urls
        self._listings: Recent[tuple[str, str, bool], Listing] = Recent(_ENTRIES_CACHED)

    # Repo info

    def info(self, target: Target, request: Request, revision: str) -> Response:
        commit = self._finder.commit(target.repo, revision)
        info = self.summary(target.repo, commit)
        fields = request.query.get("expand", []) + request.query.get("expand[]", [])
        if not fields or "siblings" in fields:
            info["siblings"] = self._siblings(commit, blobs=request.flag("blobs"))
        if fields:
            info = {key: value for key, value in info.items() if key in ("_id", "id", *fields)}
        return json_response(info)

    def summary(self, repo: Repo, commit: Commit) -> dict[str, Any]:
        kind_fields = {"modelId": repo.name} if repo.kind == "model" else {}
        return {
            "_id": f"{repo.id:024x}",
            "id": repo.name,
            **kind_fields,
            "author": repo.name.partition("/")[0],
            "sha": commit.oid,
            "lastModified": iso_time(commit.time_s),
            "private": repo.private,
            "gated": repo.gated or False,
            "disabled": repo.disabled,
            "createdAt": iso_time(repo.created_s),
            "downloads": 0,
            "likes": 0,
            "tags": [],
        }

    def _siblings(self, commit: Commit, *, blobs: bool) -> list[dict[str, Any]]:
        files = [(path, entry) for path, entry in self._listing(commit, "", recursive=True) if not entry.is_directory]
        if not blobs:
            return [{"rfilename": path} for path, _ in files]
        return [
            {
                "rfilename": path,
                "size": entry.size,
                "blobId": entry.oid,
                **({"lfs": self._lfs(entry, "sha256")} if entry.sha256 else {}),
            }
            for path, entry in files
        ]

    def repos(self, request: Request, kind: str, repos: Sequence[Repo]) -> Response:
        """`/api/models?author=…&search=…`"""
        author, search = request.argument("author"), request.argument("search").lower()
        found = [repo for repo in repos if (not author or repo.name.startswith(f"{author}/")) and search in repo.name.lower()]
        start, size, link = self._page(request, len(found))
        shown = [self.summary(repo, self._finder.commit(repo, "main")) for repo in found[start : start + size]]
        return json_response(shown, headers=link)

    # Listings

    def tree(self, target: Target, request: Request, revision: str, path: str) -> Response:
        commit = self._finder.commit(target.repo, revision)
        expand = request.flag("expand")
        try:
            listing = self._listing(commit, path, recursive=request.flag("recursive"))
        except (EntryNotFound, NotADirectory) as error:
            raise entry_not_found(commit) from error
        start, size, link = self._page(request, len(listing), EXPANDED_PAGE_SIZE if expand else None)
        entries = [self._describe(target.repo, commit, at, entry, expand=expand) for at, entry in listing[start : start + size]]
        return json_response(entries, headers=[("X-Repo-Commit", commit.oid), *link])

    def _listing(self, commit: Commit, path: str, *, recursive: bool) -> Listing:
        key = (commit.tree, path, recursive)
        held = self._listings.get(key)
        if held is None:
            held = self._storage.listing(commit, path, recursive=recursive)
            self._listings.put(key, held, len(held) + 1)
        return held

    def _page(self, request: Request, total: int, size_max: int | None = None) -> tuple[int, int, list[tuple[str, str]]]:
        """Where the asked page starts, how long pages are, and the link to the next one. Raises Problem (400)."""
        size = min(size_max or self._options.page_size, self._options.page_size)
        limit = request.argument("limit")
        if limit:
            if not limit.isdigit() or limit == "0":
                raise Problem(400, f"not a limit: {limit:.20}")
            size = min(size, int(limit))
        cursor = request.argument("cursor")
        try:
            start = int(base64.urlsafe_b64decode(cursor).removeprefix(b"at:")) if cursor else 0
        except ValueError as error:
            raise Problem(400, "not a cursor of this hub") from error
        if start + size >= total:
            return start, size, []
        query = {**parse_qs(request.query_string), "cursor": [base64.urlsafe_b64encode(b"at:%d" % (start + size)).decode()]}
        base = self._options.link_url or f"{self._urls.hub}{self._options.path_prefix}"
        return start, size, [("Link", f'<{base}{request.path}?{urlencode(query, doseq=True)}>; rel="next"')]

    def _describe(self, repo: Repo, commit: Commit, path: str, entry: Entry, *, expand: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "type": "directory" if entry.is_directory else "file",
            "oid": entry.oid,
            "size": entry.size,
            "path": path,
        }
        if entry.sha256:
            shown["lfs"] = self._lfs(entry, "oid")
            held = self._storage.lfs(entry.sha256)
            if held is not None and held.file_id is not None:
                shown["xetHash"] = xet_text(held.file_id)
        if expand:
            last = self._storage.last_commits(repo, commit, path.rpartition("/")[0])[path.rpartition("/")[2]]
            shown["lastCommit"] = {"id": last.oid, "title": last.title, "date": iso_time(last.time_s)}
            if not entry.is_directory:
                shown["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
        return shown

    def _lfs(self, entry: Entry, digest_name: str) -> dict[str, Any]:
        return {digest_name: entry.sha256, "size": entry.size, "pointerSize": len(pointer_text(entry.sha256, entry.size))}

    async def paths_info(self, target: Target, request: Request, revision: str) -> Response:
        commit = self._finder.commit(target.repo, revision)
        if "json" in request.headers.get("content-type", ""):
            asked: Mapping[str, Any] = await request.read_json()
            paths, expand = asked.get("paths", []), bool(asked.get("expand"))
        else:
            form = parse_qs((await request.read()).decode("utf-8", "surrogateescape"), keep_blank_values=True)
            paths, expand = form.get("paths", []), form.get("expand", ["false"])[-1].lower() in ("true", "1")
        paths = [paths] if isinstance(paths, str) else paths
        if len(paths) > PATHS_MAX:
            raise Problem(413, "too many paths")
        shown = []
        for path in dict.fromkeys(str(path).strip("/") for path in paths):
            try:
                entry = self._storage.entry(commit, path)
            except EntryNotFound:
                continue
            if path:
                shown.append(self._describe(target.repo, commit, path, entry, expand=expand))
        return json_response(shown)

    # Refs and commits

    def refs(self, target: Target, request: Request) -> Response:
        shown: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
        if request.flag("include_prs"):
            shown["pullRequests"] = []
        places = (
            ("refs/heads/", "branches"),
            ("refs/tags/", "tags"),
            ("refs/convert/", "converts"),
            ("refs/pr/", "pullRequests"),
        )
        for ref, oid in self._storage.refs(target.repo).items():
            for prefix, place in places:
                if ref.startswith(prefix) and place in shown:
                    shown[place].append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid})
        return json_response(shown)

    def commits(self, target: Target, request: Request, revision: str) -> Response:
        history = list(self._storage.history(target.repo, self._finder.commit(target.repo, revision)))
        start, size, link = self._page(request, len(history), EXPANDED_PAGE_SIZE)
        shown = [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.message,
                "date": iso_time(commit.time_s),
                "authors": [{"user": commit.author}],
            }
            for commit in history[start : start + size]
        ]
        return json_response(shown, headers=[("X-Total-Count", str(len(history))), *link])


def xet_text(file_id: bytes) -> str:
    """A file id as text: each group of eight bytes reversed, as in every hash of the Xet protocol."""
    return b"".join(file_id[at : at + 8][::-1] for at in range(0, 32, 8)).hex()
