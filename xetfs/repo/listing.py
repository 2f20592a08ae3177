"""Directory listings: from the store when this commit's was read before, else from the Hub, page by page.

A commit never changes, so a listing is kept without an expiry. What a server lists is not trusted: an entry that does not lie
directly in the directory, or whose name a file system cannot carry, is left out and counted; of two entries with one name the
first stays.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator

from xetfs.errors import CorruptData
from xetfs.hub.client import HubClient
from xetfs.protocol.hashes import FileId, MerkleHash
from xetfs.protocol.names import PATH_BYTES_MAX, CommitId, RepoId, is_servable_name
from xetfs.protocol.tree import TreeEntry
from xetfs.reader.shelf import Shelf

log = logging.getLogger(__name__)

TREE_RECORD = "tree"
"""Kind of the store's records that hold listings."""


class Lister:
    """Lists the directories of one repo at one commit."""

    def __init__(self, hub: HubClient, shelf: Shelf, endpoint: str, repo: RepoId, commit: CommitId) -> None:
        self._hub = hub
        self._shelf = shelf
        self._repo = repo
        self._commit = commit
        self._key = f"{endpoint} {repo}@{commit}"

    async def list(self, path: str) -> tuple[TreeEntry, ...]:
        """The entries of the directory at `path` ("" for the root of the repo) that can be served, sorted by name.

        Raises EntryNotFound if there is no such directory, and the errors of HubClient.tree_pages.
        """
        key = f"{self._key}/{path}"
        [record] = await self._shelf.records(TREE_RECORD, [key])
        if record is not None:
            try:
                return tuple(_decode(record, path))
            except CorruptData as exc:
                log.warning("a listing in the store is not usable repo=%s path=%r: %s", self._repo, path, exc)
        entries = await self._ask(path)
        await self._shelf.put_record(TREE_RECORD, key, _encode(entries))
        return entries

    async def _ask(self, path: str) -> tuple[TreeEntry, ...]:
        kept: dict[str, TreeEntry] = {}
        refused = 0
        async for page in self._hub.tree_pages(self._repo, self._commit, path):
            for entry in page:
                name = _name_in(entry.path, path)
                if name is None or name in kept:
                    refused += 1
                    log.info("an entry cannot be served, left out repo=%s path=%r", self._repo, entry.path[:300])
                else:
                    kept[name] = entry
        if refused:
            log.warning(
                "entries with names that cannot be served are left out repo=%s path=%r count=%d", self._repo, path, refused
            )
        return tuple(kept[name] for name in sorted(kept))


def _name_in(path: str, directory: str) -> str | None:
    """The name of the entry at `path` within `directory`; None if it is not directly in it or cannot be served."""
    folder, _, name = path.rpartition("/")
    if folder != directory or not is_servable_name(name) or path.startswith("/"):
        return None
    return name if len(path.encode()) < PATH_BYTES_MAX else None


def _encode(entries: Iterable[TreeEntry]) -> bytes:
    rows = [
        [
            entry.path.rpartition("/")[2],
            entry.kind == "directory",
            entry.size,
            entry.oid,
            entry.file_id.hex() if entry.file_id is not None else None,
            entry.sha256.hex() if entry.sha256 is not None else None,
            entry.mtime_s,
        ]
        for entry in entries
    ]
    return json.dumps(rows, separators=(",", ":")).encode()


def _decode(record: bytes, directory: str) -> Iterator[TreeEntry]:
    """The entries of a record. The store vouches that it is as it was written; raises CorruptData if another version wrote it."""
    prefix = f"{directory}/" if directory else ""
    try:
        for name, is_directory, size, oid, file_id, sha256, mtime_s in json.loads(record):
            yield TreeEntry(
                path=prefix + name,
                kind="directory" if is_directory else "file",
                size=size,
                oid=oid,
                file_id=FileId(MerkleHash.from_hex(file_id)) if file_id is not None else None,
                sha256=bytes.fromhex(sha256) if sha256 is not None else None,
                mtime_s=mtime_s,
            )
    except (ValueError, TypeError) as exc:
        raise CorruptData(f"not a listing: {exc}") from None
