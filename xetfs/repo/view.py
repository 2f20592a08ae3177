"""One repo at one commit as a tree of nodes.

Directories are listed on first use, one level at a time, once for all who ask; then nothing about them changes. A node is made
when it is asked for, stays as long as the view, and is the same object each time it is looked up. Event loop only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, overload

import trio

from xetfs.detached import run_detached
from xetfs.errors import EntryNotFound, IsADirectory, NotADirectory, NotFound, ProtocolViolation
from xetfs.hub.endpoint import Hub
from xetfs.hub.quota import Quotas
from xetfs.protocol.formats.shards import is_shard_index
from xetfs.protocol.hashes import FileId
from xetfs.protocol.names import CommitId, RepoId, RepoRef
from xetfs.protocol.tree import RepoInfo, TreeEntry
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import Level
from xetfs.reader.flights import Flight
from xetfs.reader.shelf import Shelf
from xetfs.repo.entries import Entries
from xetfs.repo.listing import Lister
from xetfs.repo.shards import fetch_headers
from xetfs.repo.verify import Verdict, verify_file

log = logging.getLogger(__name__)

PAGES_BELOW_MAX: Final = 100
"""Requests for all below a directory, before it is asked for in parts: 100,000 entries take some 40 MiB."""


class Node:
    """A place in the tree: a file or a directory. Its parent's listing says what it is; the root has none."""

    __slots__ = ("_index", "_listing", "_nodes", "entries", "name", "parent")

    def __init__(self, name: str, parent: Node | None, listing: Entries | None, index: int) -> None:
        """listing, index: where the parent's listing tells of it; None for the root."""
        self.name = name
        self.parent = parent
        self._listing = listing
        self._index = index
        self.entries: Entries | None = None
        """Of a directory, once it is listed, what is in it."""
        self._nodes: list[Node | None] | None = None
        """By the index of their entries, those in it that somebody has asked for."""

    @property
    def entry(self) -> TreeEntry | None:
        """What the listing says of it; None only for the root."""
        return self._listing.entry(self._index) if self._listing is not None else None

    @property
    def is_directory(self) -> bool:
        return self._listing is None or self._listing.is_directory(self._index)

    @property
    def size(self) -> int:
        """Bytes of a file; 0 for a directory."""
        return self._listing.size(self._index) if self._listing is not None else 0

    @property
    def mtime_s(self) -> int | None:
        """When it last changed, if the listing says so."""
        return self._listing.mtime_s(self._index) if self._listing is not None else None

    @property
    def path(self) -> str:
        """Path within the repo; "" for its root."""
        return self._listing.path(self._index) if self._listing is not None else ""

    def child(self, index: int) -> Node:
        """The node of an entry, the same each time. The directory is listed."""
        if self.entries is None:
            raise RuntimeError("the directory is not listed")
        if self._nodes is None:
            self._nodes = [None] * len(self.entries)
        node = self._nodes[index]
        if node is None:
            node = self._nodes[index] = Node(self.entries.name(index), self, self.entries, index)
        return node

    def child_called(self, name: str) -> Node | None:
        """The node of this name, if there is one. The directory is listed."""
        index = self.entries.find(name) if self.entries is not None else None
        return self.child(index) if index is not None else None

    def __repr__(self) -> str:
        return f"Node({self.path!r})"


@dataclass(frozen=True, slots=True)
class FileDetails:
    """What is known of one file or directory.

    size: in bytes, 0 for a directory. oid: git id, 40 hex digits, or "" if the listing has none. file_id: of files in Xet only.
    sha256: 32 raw bytes, of LFS and Xet files only. level: lowest verification level of the bytes that this process can serve,
    or None if it has read nothing.
    """

    repo: RepoId
    commit: CommitId
    path: str
    is_directory: bool
    size: int
    oid: str = ""
    file_id: FileId | None = None
    sha256: bytes | None = None
    level: Level | None = None


class Children(Sequence[Node]):
    """The nodes in a listed directory, sorted by name; each is made when it is asked for."""

    def __init__(self, directory: Node, entries: Entries) -> None:
        self._directory = directory
        self._count = len(entries)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Node: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Node]: ...

    def __getitem__(self, index: int | slice) -> Node | Sequence[Node]:
        if isinstance(index, slice):
            return [self._directory.child(at) for at in range(self._count)[index]]
        return self._directory.child(index if 0 <= index < self._count else range(self._count)[index])


class RepoView:
    """One repo at one commit, or a folder of it, as a tree. Made by Engine.open_repo. Event loop only."""

    def __init__(
        self,
        ref: RepoRef,
        info: RepoInfo,
        *,
        hub: Hub,
        quotas: Quotas,
        lister: Lister,
        shelf: Shelf,
        open_reader: Callable[[TreeEntry], FileReader],
        level_of: Callable[[TreeEntry], Level | None],
        nursery: trio.Nursery,
    ) -> None:
        """quotas: what is left of the Hub's, for work in the background to leave some to others."""
        self.ref = ref
        self.hub = hub
        self.quotas = quotas
        self.repo: RepoId = info.repo
        self.commit: CommitId = info.commit
        self.modified_s = int(time.time()) if info.modified_s is None else info.modified_s  # then it is the time of the mount
        self._lister = lister
        self._shelf = shelf
        self._open_reader = open_reader
        self._level_of = level_of
        self._nursery = nursery
        self._listings: dict[Node, Flight[None]] = {}
        self._indexes_opened: set[Node] = set()
        self.root = Node("", None, None, 0)
        self.entries_listed = 0
        """Entries of the directories that were listed: what the view takes in memory."""

    def lookup_nowait(self, directory: Node, name: str) -> Node | None:
        """The node `name` in `directory`; None when the directory is not listed yet. Raises EntryNotFound, NotADirectory."""
        if directory.entries is None:
            if not directory.is_directory:
                raise NotADirectory(f"{self.ref}: {directory.path!r} is a file")
            return None
        node = directory.child_called(name)
        if node is None:
            raise self._not_found(directory, name)
        return node

    async def lookup(self, directory: Node, name: str) -> Node:
        """The node `name` in `directory`. Raises EntryNotFound, NotADirectory, and the errors of listing it."""
        node = self.lookup_nowait(directory, name)
        if node is None:
            await self._list(directory)
            node = directory.child_called(name)
        if node is None:
            raise self._not_found(directory, name)
        return node

    def _not_found(self, directory: Node, name: str) -> EntryNotFound:
        return EntryNotFound(f"{self.ref} has no {f'{directory.path}/{name}'.lstrip('/')!r:.200}")

    async def find(self, path: str) -> Node:
        """The node at a path below the root of the view. Raises EntryNotFound, NotADirectory, and the errors of listing."""
        node = self.root
        for name in filter(None, path.split("/")):
            node = await self.lookup(node, name)
        return node

    async def children(self, directory: Node) -> Sequence[Node]:
        """The nodes in `directory`, sorted by name. Raises NotADirectory, and the errors of listing it."""
        if not directory.is_directory:
            raise NotADirectory(f"{self.ref}: {directory.path!r} is a file")
        return Children(directory, await self._list(directory))

    async def _list(self, directory: Node) -> Entries:
        """List a directory, or wait for whoever does. It goes on when nobody waits any more: the next who asks finds it done."""
        if directory.entries is None:
            flight = self._listings.get(directory)
            if flight is None or flight.ended:
                flight = Flight(self._nursery, partial(self._load_entries, directory))
                flight.join()  # for as long as it takes
                self._listings[directory] = flight
            flight.join()
            try:
                await flight.wait()
            finally:
                flight.leave()
        if directory.entries is None:
            raise RuntimeError("a listing ended without a result")
        return directory.entries

    async def _load_entries(self, directory: Node) -> None:
        try:
            folder = self._folder(directory)
            try:
                directory.entries = await self._lister.list(folder)
                self.entries_listed += len(directory.entries)
            except NotFound as exc:
                if directory is self.root:
                    raise
                # Its parent lists it: a program that mirrors the mount must not be told that it was deleted.
                raise ProtocolViolation(f"a directory is listed, and its content is not there: {exc}") from exc
        finally:
            self._listings.pop(directory, None)

    async def walk(self, node: Node) -> AsyncIterator[Node]:
        """The files under a node, or the file itself, in the order of their paths. For work in the background.

        Where a directory is not known yet, the Hub is asked for all below at once: a request for a thousand entries, and not one
        for each directory. Raises the errors of listing them.
        """
        top, asked, in_parts = node, False, False
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if not node.is_directory:
                yield node
                continue
            if node.entries is None and not await self._lister.knows(self._folder(node)):
                if not asked:
                    asked, in_parts = True, not await self._list_below(top)
                if in_parts and node is not top and not await self._lister.knows(self._folder(node)):
                    await self._list_below(node)
            waiting.extend(reversed(await self.children(node)))

    async def _list_below(self, directory: Node) -> bool:
        """False if there is too much below for one question."""
        path = self._folder(directory)
        try:
            return await self._lister.list_below(path, PAGES_BELOW_MAX)
        except (NotFound, ProtocolViolation) as exc:  # not every mirror answers that; each is listed alone then
            log.debug("not to be listed at once repo=%s path=%r: %s", self.ref, path, exc)
            return True

    def _folder(self, directory: Node) -> str:
        return directory.path if directory is not self.root else self.ref.subfolder

    def open_file(self, node: Node) -> FileReader:
        """A reader of the file's bytes, opened; the caller closes it. Raises IsADirectory."""
        if node.entry is None or node.is_directory:
            raise IsADirectory(f"{self.ref}: {node.path!r} is a directory")
        reader = self._open_reader(node.entry)
        reader.open()
        return reader

    async def verify(self, node: Node, *, deep: bool = False) -> Verdict:
        """Read all of a file, from the store where it is held, and compare it with the hashes that the listing gives it.

        deep: compute the SHA-256 of a file in Xet too. What was wrong in the store is replaced. Errors are in the verdict.
        """
        return await verify_file(self, self._shelf, node, deep=deep, on_bytes=lambda count: None)

    def on_opened(self, node: Node) -> None:
        """Note that a program has opened a file, and start to fetch what it is likely to read next of other files."""
        if is_shard_index(node.name) and node not in self._indexes_opened:
            self._indexes_opened.add(node)
            run_detached(self._nursery, partial(fetch_headers, self, node), f"fetching headers of shards index={node.path!r}")

    def describe(self, node: Node) -> FileDetails:
        """Return what the listing says of a node, and how far its content has been verified."""
        entry = node.entry
        if entry is None:
            return FileDetails(self.repo, self.commit, node.path, True, 0)
        level = None if node.is_directory else self._level_of(entry)
        return FileDetails(
            self.repo, self.commit, entry.path, node.is_directory, node.size, entry.oid, entry.file_id, entry.sha256, level
        )
