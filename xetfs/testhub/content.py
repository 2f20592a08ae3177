"""`/resolve/` and `/raw/`: headers that tell all about a file, and its bytes or the way to them.

Xet and LFS files are redirected (302) to signed URLs of the transfer host; plain files are answered here or, as at the real Hub,
sent on to `/api/resolve-cache/` (307).
Source: huggingface_hub, file_download.py (which headers it reads); recorded answers.
"""

from __future__ import annotations

from urllib.parse import quote

from xetfs.testhub.accounts import Accounts
from xetfs.testhub.hub_paths import KINDS, Finder, Target, entry_not_found
from xetfs.testhub.listings import xet_text
from xetfs.testhub.messages import Problem, Request, Response, clip_range, redirect
from xetfs.testhub.options import HubOptions, HubUrls
from xetfs.testhub.records import Commit, Repo
from xetfs.testhub.storage import Storage
from xetfs.testhub.trees import Entry, pointer_text
from xetfs.testhub.uploads import Uploads, disposition


class Content:
    """The content half of the Hub."""

    def __init__(
        self, storage: Storage, accounts: Accounts, finder: Finder, uploads: Uploads, options: HubOptions, urls: HubUrls
    ) -> None:
        self._storage = storage
        self._accounts = accounts
        self._finder = finder
        self._uploads = uploads
        self._options = options
        self._urls = urls

    def resolve(self, target: Target, request: Request) -> Response:
        """`/owner/name/resolve/revision/path`. Raises Problem."""
        self._accounts.check_content(target.caller, target.repo)
        commit, path, entry = self._find(target)
        if entry.sha256:
            return self._redirect_to_object(target.repo, commit, path, entry)
        if self._options.plain_files == "redirect":
            place = f"/api/resolve-cache/{target.repo.kind}s/{target.repo.name}/{commit.oid}/{quote(path)}"
            etag = quote(f'"{entry.oid}"', safe="")
            return redirect(307, f"{place}?{target.repo.content_path[1:]}&etag={etag}", [*_plain_headers(commit, entry)])
        return self._plain(request, commit, path, entry)

    def resolve_cache(self, request: Request) -> Response:
        """`/api/resolve-cache/models/owner/name/commit/path`. Raises Problem."""
        if len(request.segments) < 7 or request.segments[2] not in KINDS:
            raise Problem(404, "Not Found")
        _, _, kind, owner, name, revision, *rest = request.segments
        caller = self._accounts.caller(request)
        repo = self._finder.find(caller, KINDS[kind], f"{owner}/{name}")
        self._accounts.check_content(caller, repo)
        commit = self._finder.commit(repo, revision)
        path = "/".join(rest)
        entry = self._finder.entry(commit, path)
        if entry.is_directory or entry.sha256:
            raise entry_not_found(commit)
        return self._plain(request, commit, path, entry)

    def raw(self, target: Target, request: Request) -> Response:
        """`/owner/name/raw/revision/path`: what git holds, so pointers of LFS files. Raises Problem."""
        self._accounts.check_content(target.caller, target.repo)
        commit, _, entry = self._find(target)
        data = pointer_text(entry.sha256, entry.size) if entry.sha256 else self._storage.blob(entry.oid)
        return Response(200, [("Content-Type", "text/plain; charset=utf-8"), ("X-Repo-Commit", commit.oid)], [data])

    def _find(self, target: Target) -> tuple[Commit, str, Entry]:
        if not target.rest:
            raise Problem(404, "Not Found")
        commit = self._finder.commit(target.repo, target.rest[0])
        path = "/".join(target.rest[1:])
        entry = self._finder.entry(commit, path)
        if entry.is_directory:
            raise entry_not_found(commit)
        return commit, path, entry

    def _redirect_to_object(self, repo: Repo, commit: Commit, path: str, entry: Entry) -> Response:
        held = self._storage.lfs(entry.sha256)
        if held is None:
            raise Problem(404, "Object does not exist")
        headers = [
            ("X-Repo-Commit", commit.oid),
            ("X-Linked-Size", str(entry.size)),
            ("X-Linked-ETag", f'"{entry.sha256}"'),
            ("Accept-Ranges", "bytes"),
        ]
        if held.file_id is not None:
            file = xet_text(held.file_id)
            token = f"{self._urls.hub}{repo.api_path}/xet-read-token/{commit.oid}"
            headers += [
                ("X-Xet-Hash", file),
                (
                    "Link",
                    f'<{token}>; rel="xet-auth", <{self._urls.cas}/v1/reconstructions/{file}>; rel="xet-reconstruction-info"',
                ),
            ]
        name = path.rpartition("/")[2]
        return redirect(302, self._uploads.download_url(entry.sha256, held.file_id, name), headers)

    def _plain(self, request: Request, commit: Commit, path: str, entry: Entry) -> Response:
        headers = [
            *_plain_headers(commit, entry),
            ("Content-Type", "application/octet-stream"),
            ("Content-Disposition", disposition(path.rpartition("/")[2])),
        ]
        if request.headers.get("if-none-match", "").removeprefix("W/") == f'"{entry.oid}"':
            return Response(304, headers)
        data = self._storage.blob(entry.oid)
        part = None if request.ignore_range else clip_range(request.headers.get("range"), len(data))
        if part is None:
            return Response(200, headers, [data])
        first, last = part
        return Response(206, [*headers, ("Content-Range", f"bytes {first}-{last}/{len(data)}")], [data[first : last + 1]])


def _plain_headers(commit: Commit, entry: Entry) -> list[tuple[str, str]]:
    return [
        ("X-Repo-Commit", commit.oid),
        ("ETag", f'"{entry.oid}"'),
        ("Accept-Ranges", "bytes"),
        ("X-Linked-Size", str(entry.size)),
    ]
