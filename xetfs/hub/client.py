"""HubClient: questions to the Hub about one repo at one commit, and the bytes of files that are not in Xet.

One request per question, apart from redirects (a renamed repo, a file's storage). The Hub's token goes to the Hub's own origin
and nowhere else; the CAS token that it answers with is passed on, never used here. The endpoint may have a path, as that of a
repository manager which stands in for the Hub.
Source: huggingface_hub, hf_api.py and file_download.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from xetfs.errors import AccessDenied, EntryNotFound, Offline, ProtocolViolation, Unavailable, XetfsError
from xetfs.hub.endpoint import Hub
from xetfs.hub.locations import Locations
from xetfs.hub.quota import Quotas
from xetfs.hub.refusals import error_of_refusal
from xetfs.net.bodies import take_range
from xetfs.net.client import Answer, HttpClient
from xetfs.net.download import Download
from xetfs.net.failures import error_of_status, is_retried_status
from xetfs.net.origins import Bearer, Origin
from xetfs.net.writers import BufferWriter
from xetfs.protocol.names import CommitId, RepoId, check_revision
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.tree import ParsedPage, RepoInfo, XetToken, parse_next_link, parse_repo_info, parse_tree_page, parse_xet_token
from xetfs.protocol.urls import split_url
from xetfs.secret import Secret
from xetfs.telemetry import HUB_BYTES, HUB_REQUESTS, HUB_TOKEN_REFRESHES

PAGE_ENTRIES: Final = 1000
"""Entries asked for per page: the most that the Hub gives."""
PAGES_MAX: Final = 10_000
"""Pages of one directory: a hundred entries a page are enough for the largest."""
ENTRIES_MAX: Final = 1_000_000
"""Entries of one directory: a hundred times as many as the Hub advises, which does not enforce it, and some 200 MiB of memory
(repo/entries.py)."""


@dataclass(slots=True)
class TreeCursor:
    """How far the pages of one directory have been taken. Given to `tree_pages` again, they go on from there.

    seen: hashes of the URLs that were asked for, which may be long.
    """

    url: str = ""
    seen: set[int] = field(default_factory=set)
    entries: int = 0

    @property
    def pages(self) -> int:
        """Pages taken, and one that failed."""
        return len(self.seen)

    @property
    def more(self) -> bool:
        """Whether the page that was taken last names another."""
        return hash(self.url) not in self.seen


class HubClient:
    """One per Hub value: what it has been sent to (signed URLs) is for its credentials only."""

    def __init__(self, http: HttpClient, hub: Hub) -> None:
        """http: a client for the endpoint and host policy of `hub`."""
        self._http = http
        self._endpoint = hub.endpoint
        self._path = urlsplit(self._endpoint).path
        self._locations = Locations()
        self.quotas = Quotas()
        self._credentials = None if hub.credentials is None else Bearer(Origin.of(self._endpoint), hub.credentials)

    def __repr__(self) -> str:
        return f"HubClient({self._endpoint})"

    async def repo_info(self, repo: RepoId, revision: str) -> RepoInfo:
        """The repo under its canonical name, and the commit that `revision` stands for now.

        Raises RepoNotFound, RevisionNotFound, AuthRequired, AccessDenied (disabled), and what the network brings.
        """
        check_revision(revision)
        what = f"{repo}@{revision}"
        answer = await self._ask(self._url(f"{repo.api_path}/revision/{_segment(revision)}"), repo, what)
        info = parse_repo_info(answer.body, repo)
        if info.disabled:
            raise AccessDenied(f"{info.repo} is disabled by the Hub")
        return info

    async def check_readable(self, info: RepoInfo) -> None:
        """Raise now what the first read would: a gated repo may be listed by everybody, and read only by some.

        One request, and none for a repo that is open to all. A CAS token is asked for, because it is granted by the same rule as
        the content. A Hub without Xet answers 404 to that: then the first byte of one of the repo's files is asked for.
        Raises AuthRequired, AccessDenied, RepoNotFound.
        """
        if not info.gated and not info.private:
            return
        try:
            await self.xet_token(info.repo, info.commit)
        except EntryNotFound:
            await self._check_some_file(info)

    async def _check_some_file(self, info: RepoInfo) -> None:
        """Ask for a file of the root folder; where there is none, nothing is known until the first read."""
        async with aclosing(self.tree_pages(info.repo, info.commit, "")) as pages:
            async for page in pages:
                for entry in page.entries:
                    if entry.kind == "file":
                        await self.check_file(info.repo, info.commit, entry.path)
                        return

    async def check_file(self, repo: RepoId, commit: CommitId, path: str) -> None:
        """Return if a file may be read: ask for its first byte. Its storage need not be reached, as the Hub has agreed when it
        redirects there.

        Not a HEAD request, which mirrors and proxies may not answer. Raises AuthRequired, AccessDenied, RepoNotFound,
        EntryNotFound.
        """
        url = self._content_url(repo, commit, path)
        what = f"{path!r:.200} of {repo}"
        first_byte = {"range": "bytes=0-0"}

        async def attempt(number: int) -> None:
            self._http.counters.add(HUB_REQUESTS)
            async with self._http.stream(
                url, what, headers=first_byte, credentials=self._credentials, follow=False, attempt=number
            ) as download:
                if is_retried_status(download.status):
                    raise error_of_status(download.status, download.headers, what)
                if download.status >= 400 and download.status != 416:  # which says that the file is empty
                    raise self._refusal(download, repo, what)

        await self._http.retrying(attempt)

    async def tree_pages(
        self, repo: RepoId, commit: CommitId, path: str, cursor: TreeCursor | None = None, *, recursive: bool = False
    ) -> AsyncGenerator[ParsedPage, None]:
        """The entries of one directory ("" is the root), a page at a time, in the Hub's order.

        Take it to its end, or within `contextlib.aclosing`. cursor: moves with the pages, and lets another call go on after an
        error at the page that failed. recursive: with the entries of all directories below; such a question is work in the
        background, and leaves room in the Hub's quotas for others.
        Raises EntryNotFound if there is no such directory, ProtocolViolation for one that leads to something else or has no end.
        """
        what = f"listing of {path!r:.200} in {repo}"
        folder = f"/{_path(path)}" if path else ""
        cursor = cursor or TreeCursor()
        cursor.url = cursor.url or self._url(
            f"{repo.api_path}/tree/{commit}{folder}?recursive={str(recursive).lower()}&expand=false&limit={PAGE_ENTRIES}"
        )
        while len(cursor.seen) < PAGES_MAX:
            cursor.seen.add(hash(cursor.url))
            if recursive:
                await self.quotas.leave_room()
            answer = await self._ask(cursor.url, repo, what)
            page = parse_tree_page(answer.body)
            cursor.entries += len(page.entries) + len(page.odd)
            if cursor.entries > ENTRIES_MAX and not recursive:
                raise ProtocolViolation(f"{what}: more than {ENTRIES_MAX} entries")
            following = parse_next_link(answer.headers.get("link"))
            if following is None:
                yield page
                return
            cursor.url = self._next_page(answer.url, following, repo, what)
            yield page
            if hash(cursor.url) in cursor.seen:
                raise ProtocolViolation(f"{what}: its pages go round in a circle")
        raise ProtocolViolation(f"{what}: more than {PAGES_MAX} pages")

    def _next_page(self, current: str, following: str, repo: RepoId, what: str) -> str:
        """The next page at the endpoint, whatever server the link names.

        Mirrors and proxies hand on the Hub's own link, with its host and without a path of theirs. The token stays at the
        endpoint.
        """
        try:
            url = urljoin(current, following)
            parts = urlsplit(url)
        except ValueError:
            raise ProtocolViolation(f"{what}: its next page is at something that is not a URL") from None
        split_url(url, f"{what}: next page")
        _, api, rest = parts.path.removeprefix(self._path).partition(f"/api/{repo.kind}s/")
        if "/tree/" not in rest:
            raise ProtocolViolation(f"{what}: its next page is no listing, but at {parts.path:.200}")
        return self._url(f"{api}{rest}?{parts.query}")

    async def xet_token(self, repo: RepoId, commit: CommitId) -> XetToken:
        """Access to the CAS for this commit. Asks every time; CasClient keeps what it got.

        Raises AuthRequired, AccessDenied (gated), RepoNotFound, EntryNotFound (the Hub knows no Xet).
        """
        what = f"CAS token for {repo}"
        answer = await self._ask(self._url(f"{repo.api_path}/xet-read-token/{commit}"), repo, what)
        self._http.counters.add(HUB_TOKEN_REFRESHES)
        token = parse_xet_token(answer.body, answer.headers)
        self._http.policy.check_url(token.cas_url, f"{what}: CAS URL")
        return token

    async def fetch_file(
        self, repo: RepoId, commit: CommitId, path: str, ranges: ByteRange | None, size: int, into: memoryview
    ) -> None:
        """Fill `into` with bytes of a file that is not in Xet: `ranges` of it, or all of it with None.

        size: of the whole file, as listed. `into` is as long as what is asked for. After an error its content is undefined.
        Raises EntryNotFound, AuthRequired, AccessDenied, ProtocolViolation (a length that is not as listed), Unavailable.
        """
        wanted = ranges or ByteRange(0, size)
        if len(wanted) != len(into) or wanted.end > size:
            raise ValueError(f"{wanted} of {size} bytes do not make {len(into)}")
        if not wanted:
            return
        url = self._content_url(repo, commit, path)
        what = f"{path!r:.200} of {repo}"

        async def attempt(number: int) -> None:
            for last in (False, True):  # a URL that is refused may have ended: it is asked for once more
                location = await self._locations.claim(url)
                if location is None or location.url is None:
                    break
                try:
                    if await self._fetch_kept(location.url, what, wanted, size, into, number):
                        return
                except Offline:  # that storage is gone, but the Hub may name another
                    if last:
                        raise
                except Unavailable:
                    self._locations.forget(url, location)  # for the next attempt
                    raise
                self._locations.forget(url, location)
            else:
                raise Unavailable(f"{what}: its storage refused two signed URLs")
            try:
                await self._fetch_resolved(url, repo, what, wanted, size, into, number)
            finally:
                if location is None:
                    self._locations.release(url)

        await self._http.retrying(attempt)

    async def _fetch_kept(self, location: Secret, what: str, wanted: ByteRange, size: int, into: memoryview, number: int) -> bool:
        """One attempt at the storage, where an earlier request was sent to. False if it refuses."""
        async with self._http.stream(location.reveal(), what, headers=_range(wanted, size), attempt=number) as download:
            if is_retried_status(download.status):
                raise error_of_status(download.status, download.headers, what)
            if download.status not in (200, 206):
                return False
            await take_range(download, wanted, size, BufferWriter(into))
            self._http.counters.add(HUB_BYTES, len(into))
            return True

    async def _fetch_resolved(
        self, url: str, repo: RepoId, what: str, wanted: ByteRange, size: int, into: memoryview, number: int
    ) -> None:
        """One attempt by way of the Hub. Where that leads is kept."""
        self._http.counters.add(HUB_REQUESTS)
        headers = _range(wanted, size)
        async with self._http.stream(url, what, headers=headers, credentials=self._credentials, attempt=number) as download:
            if is_retried_status(download.status):
                raise error_of_status(download.status, download.headers, what)
            elsewhere = Origin.of(download.url) != Origin.of(self._endpoint)
            if elsewhere and download.status == 403:
                raise Unavailable(f"{what}: its storage refused the signed URL")  # a new redirect brings a new one
            if download.status not in (200, 206):
                raise self._refusal(download, repo, what)
            self._locations.keep(url, download.url if elsewhere else None, download.headers)
            self._locations.release(url)
            await take_range(download, wanted, size, BufferWriter(into))
            self._http.counters.add(HUB_BYTES, len(into))

    async def _ask(self, url: str, repo: RepoId, what: str) -> Answer:
        self._http.counters.add(HUB_REQUESTS)
        answer = await self._http.request(url, what, credentials=self._credentials)
        self._http.counters.add(HUB_BYTES, len(answer.body))
        self.quotas.note(answer.headers)
        if answer.status != 200:
            raise self._refusal(answer, repo, what)
        return answer

    def _refusal(self, answer: Answer | Download, repo: RepoId, what: str) -> XetfsError:
        """What a refusal means: by the Hub's rules if the Hub sent it, by those of HTTP if it came from a file's storage."""
        if Origin.of(answer.url) != Origin.of(self._endpoint):
            return error_of_status(answer.status, answer.headers, what)
        return error_of_refusal(answer, repo, what, endpoint=self._endpoint, anonymous=self._credentials is None)

    def _content_url(self, repo: RepoId, commit: CommitId, path: str) -> str:
        return self._url(f"{repo.content_path}/resolve/{commit}/{_path(path)}")

    def _url(self, path: str) -> str:
        """A path of the Hub, and its query, at the endpoint."""
        return self._endpoint + path


def _range(wanted: ByteRange, size: int) -> dict[str, str]:
    """The header for a range. Without it a whole file comes as 200, which is also what a Hub without ranges sends."""
    return {} if len(wanted) == size else {"range": f"bytes={wanted.to_http()}"}


def _segment(text: str) -> str:
    """One segment of a URL's path: a revision with its slashes."""
    return quote(text, safe="")


def _path(path: str) -> str:
    """A path inside a repo, its slashes kept. Raises EntryNotFound for one that no URL can carry as it is."""
    if any(name in ("", ".", "..") for name in path.split("/")):
        raise EntryNotFound(f"{path!r:.200}: not a path of a repo")
    try:
        return quote(path, safe="/")
    except UnicodeEncodeError:  # a lone surrogate
        raise EntryNotFound(f"{path!r:.200}: not a path of a repo") from None
