"""Directory listings: from the store when this commit's was read before, else from the Hub, page by page.

A commit never changes, so a listing is kept without an expiry. What a server lists is not trusted: an entry that makes no
sense, does not lie directly in the directory, or has a name that a file system cannot carry, is left out; of two entries with one
name the first stays. One line in the log tells how many there were and shows the first.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing

from xetfs.errors import CorruptData, ProtocolViolation
from xetfs.hub.client import HubClient
from xetfs.protocol.names import PATH_BYTES_MAX, CommitId, RepoId, is_servable_name
from xetfs.protocol.tree import ParsedPage, TreeEntry, parse_tree_page
from xetfs.reader.shelf import Shelf

log = logging.getLogger(__name__)

TREE_RECORD = "tree"
"""Kind of the store's records that hold listings."""


class Lister:
    """Lists the directories of one repo at one commit."""

    def __init__(
        self, hub: HubClient, shelf: Shelf, endpoint: str, repo: RepoId, commit: CommitId, *, on_new: Callable[[], None]
    ) -> None:
        """on_new: called when a listing that had to be asked for has files in Xet, of which nothing can have been read yet."""
        self._hub = hub
        self._on_new = on_new
        self._shelf = shelf
        self._repo = repo
        self._commit = commit
        self._key = f"{endpoint} {commit}"  # by whatever name the repo goes

    async def list(self, path: str) -> tuple[TreeEntry, ...]:
        """The entries of the directory at `path` ("" for the root of the repo) that can be served, sorted by name.

        Raises EntryNotFound if there is no such directory, and the errors of HubClient.tree_pages.
        """
        key = f"{self._key}/{path}"
        [record] = await self._shelf.records(TREE_RECORD, [key])
        if record is not None:
            try:
                return self._choose([parse_tree_page(body) for body in _split(record)], path)
            except (CorruptData, ProtocolViolation) as exc:  # written by another version
                log.warning("a listing in the store is not usable repo=%s path=%r: %s", self._repo, path, exc)
        async with aclosing(self._hub.tree_pages(self._repo, self._commit, path)) as asked:
            pages, kept = [], []
            async for page in asked:
                pages.append(ParsedPage(page.entries, page.odd))
                kept.append(zlib.compress(page.body, 1))  # a tenth of the memory while the others come
        entries = self._choose(pages, path)
        if any(entry.file_id is not None for entry in entries):
            self._on_new()
        await self._shelf.put_record(TREE_RECORD, key, _join(kept))
        return entries

    def _choose(self, pages: Iterable[ParsedPage], path: str) -> tuple[TreeEntry, ...]:
        """The entries that can be served."""
        kept: dict[str, TreeEntry] = {}
        odd: list[str] = []
        for page in pages:
            odd += page.odd
            for entry in page.entries:
                name = _name_in(entry.path, path)
                if name is None or name in kept:
                    odd.append(f"tree entry {entry.path!r:.200}: its name cannot be served")
                else:
                    kept[name] = entry
        if odd:
            log.warning(
                "odd entries of a listing are left out, or read in part repo=%s path=%r count=%d first=%s",
                self._repo, path, len(odd), odd[0],
            )  # fmt: skip
            for what in odd:
                log.debug("an odd entry repo=%s %s", self._repo, what)
        return tuple(kept[name] for name in sorted(kept))


def _name_in(path: str, directory: str) -> str | None:
    """The name of the entry at `path` within `directory`; None if it is not directly in it or cannot be served."""
    folder, _, name = path.rpartition("/")
    if folder != directory or not is_servable_name(name) or path.startswith("/"):
        return None
    # No character takes more than four bytes, so most paths need not be measured.
    return name if 4 * len(path) < PATH_BYTES_MAX or len(path.encode()) < PATH_BYTES_MAX else None


def _join(pages: Iterable[bytes]) -> bytes:
    """Compressed pages as one record: the length of each as u32, little-endian, then the page."""
    return b"".join(len(page).to_bytes(4, "little") + page for page in pages)


def _split(record: bytes) -> Iterator[bytes]:
    """The pages of a record, as the Hub sent them. Raises CorruptData."""
    at = 0
    while at < len(record):
        end = at + 4 + int.from_bytes(record[at : at + 4], "little")
        if end > len(record):
            raise CorruptData("not a listing")
        try:
            yield zlib.decompress(record[at + 4 : end])
        except zlib.error:
            raise CorruptData("not a listing") from None
        at = end
