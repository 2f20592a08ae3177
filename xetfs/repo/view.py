"""One repo at one commit as a tree of nodes.

Directories are listed on first use, one level at a time, once for all who ask; then nothing about them changes. Nodes stay as
long as the view, and are the same objects each time they are looked up. Event loop only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import trio

from xetfs.errors import EntryNotFound, IsADirectory, NotADirectory, NotFound, ProtocolViolation
from xetfs.protocol.formats.shards import is_shard_index
from xetfs.protocol.names import CommitId, RepoId, RepoRef
from xetfs.protocol.tree import RepoInfo, TreeEntry
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import Level
from xetfs.reader.flights import Flight
from xetfs.repo.listing import Lister
from xetfs.repo.shards import fetch_headers


class Node:
    """A place in the tree: a file or a directory. entry: what the listing says of it; None only for the root."""

    __slots__ = ("children", "entry", "name", "parent")

    def __init__(self, name: str, parent: Node | None, entry: TreeEntry | None) -> None:
        self.name = name
        self.parent = parent
        self.entry = entry
        self.children: dict[str, Node] | None = None

    @property
    def is_directory(self) -> bool:
        return self.entry is None or self.entry.kind == "directory"

    @property
    def size(self) -> int:
        return self.entry.size if self.entry is not None and self.entry.kind == "file" else 0

    @property
    def mtime_s(self) -> int | None:
        """When it last changed, if the listing says so."""
        return self.entry.mtime_s if self.entry is not None else None

    @property
    def path(self) -> str:
        """Path within the repo; "" for its root."""
        return self.entry.path if self.entry is not None else ""

    def __repr__(self) -> str:
        return f"Node({self.path!r})"


class RepoView:
    def __init__(
        self,
        ref: RepoRef,
        info: RepoInfo,
        *,
        lister: Lister,
        open_reader: Callable[[TreeEntry], FileReader],
        level_of: Callable[[TreeEntry], Level | None],
        nursery: trio.Nursery,
    ) -> None:
        self.ref = ref
        self.repo: RepoId = info.repo
        self.commit: CommitId = info.commit
        self.modified_s = int(time.time()) if info.modified_s is None else info.modified_s  # then it is the time of the mount
        self.private = info.private or info.gated
        self._lister = lister
        self._open_reader = open_reader
        self._level_of = level_of
        self._nursery = nursery
        self._listings: dict[Node, Flight[None]] = {}
        self._foreseen: set[Node] = set()
        self.root = Node("", None, None)

    def lookup_nowait(self, directory: Node, name: str) -> Node | None:
        """The node `name` in `directory`; None when the directory is not listed yet. Raises EntryNotFound, NotADirectory."""
        if directory.children is None:
            if not directory.is_directory:
                raise NotADirectory(f"{self.ref}: {directory.path!r} is a file")
            return None
        node = directory.children.get(name)
        if node is None:
            raise EntryNotFound(f"{self.ref}: no {name!r} in {directory.path!r}")
        return node

    async def lookup(self, directory: Node, name: str) -> Node:
        """The node `name` in `directory`. Raises EntryNotFound, NotADirectory, and the errors of listing it."""
        node = self.lookup_nowait(directory, name)
        if node is None:
            children = await self._list(directory)
            if name not in children:
                raise EntryNotFound(f"{self.ref}: no {name!r} in {directory.path!r}")
            node = children[name]
        return node

    async def children(self, directory: Node) -> Sequence[Node]:
        """The nodes in `directory`, sorted by name. Raises NotADirectory, and the errors of listing it."""
        if not directory.is_directory:
            raise NotADirectory(f"{self.ref}: {directory.path!r} is a file")
        return tuple((await self._list(directory)).values())

    async def _list(self, directory: Node) -> dict[str, Node]:
        if directory.children is None:
            flight = self._listings.get(directory)
            if flight is None or flight.ended:
                flight = Flight(self._nursery, partial(self._load_children, directory))
                self._listings[directory] = flight
            flight.join()
            try:
                await flight.wait()
            finally:
                flight.leave()
        if directory.children is None:
            raise RuntimeError("a listing ended without a result")
        return directory.children

    async def _load_children(self, directory: Node) -> None:
        try:
            folder = directory.path if directory is not self.root else self.ref.subfolder
            try:
                entries = await self._lister.list(folder)
            except NotFound as exc:
                if directory is self.root:
                    raise
                # Its parent lists it: a program that mirrors the mount must not be told that it was deleted.
                raise ProtocolViolation(f"a directory is listed, and its content is not there: {exc}") from exc
            children: dict[str, Node] = {}
            for entry in entries:
                name = entry.path.rpartition("/")[2]
                children[name] = Node(name, directory, entry)
            directory.children = children
        finally:
            self._listings.pop(directory, None)

    def open_file(self, node: Node) -> FileReader:
        """A reader of the file's bytes, opened; the caller closes it. Raises IsADirectory."""
        if node.entry is None or node.is_directory:
            raise IsADirectory(f"{self.ref}: {node.path!r} is a directory")
        reader = self._open_reader(node.entry)
        reader.open()
        return reader

    def foresee(self, node: Node) -> None:
        """Take note that a program has opened a file: what it is likely to read next of others begins to come."""
        if is_shard_index(node.name) and node not in self._foreseen:
            self._foreseen.add(node)
            self._nursery.start_soon(fetch_headers, self, node)

    def level_of(self, node: Node) -> Level | None:
        """Lowest verification level of what this process knows of a file, or None if that is nothing. Raises IsADirectory."""
        if node.entry is None or node.is_directory:
            raise IsADirectory(f"{self.ref}: {node.path!r} is a directory")
        return self._level_of(node.entry)
