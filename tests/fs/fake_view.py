"""A small repo without a Hub: the interface of RepoView, Node and FileReader, with switches to make it wait or fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from xetfs.errors import EntryNotFound, IsADirectory, NotADirectory
from xetfs.protocol.names import CommitId, RepoId, RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.filemap import Level

if TYPE_CHECKING:
    from xetfs.repo import FileDetails

MODIFIED_S = 1_700_000_000
COMMIT = CommitId("0123456789abcdef0123456789abcdef01234567")


@dataclass(eq=False)
class FakeNode:
    name: str
    parent: FakeNode | None
    is_directory: bool
    content: bytes = b""
    size: int = 0
    mtime_s: int | None = None
    entry: None = None
    children: dict[str, FakeNode] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.name}".lstrip("/") if self.parent else ""


class FakeReader:
    """Answers at once while `at_hand`; otherwise awaits `view.waiting`, which may raise."""

    def __init__(self, view: FakeRepoView, node: FakeNode) -> None:
        self.view = view
        self.node = node
        self.size = node.size
        self.closed = False

    def read_nowait(self, span: ByteRange) -> bytes | None:
        if self.view.raising is not None:
            raise self.view.raising
        return self._bytes(span) if self.view.at_hand else None

    async def read(self, span: ByteRange) -> bytes:
        await self.view.wait()
        return self._bytes(span)

    def _bytes(self, span: ByteRange) -> bytes:
        span = span.clip(self.size)
        return self.node.content[span.start : span.end]

    def close(self) -> None:
        self.closed = True


class FakeRepoView:
    """A view over `{path: content}`. Directories are known after their first `children` or `lookup`."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.ref = RepoRef.parse("owner/repo")
        self.repo = RepoId("model", "owner/repo")
        self.commit = COMMIT
        self.modified_s = MODIFIED_S
        self.at_hand = True
        self.raising: BaseException | None = None
        self.waiting: Callable[[], object] | None = None
        self.readers: list[FakeReader] = []
        self.root = FakeNode("", None, True)
        self._listed: set[FakeNode] = set()
        for path, content in files.items():
            self.add(path, content)

    def add(self, path: str, content: bytes) -> FakeNode:
        *folders, name = path.split("/")
        node = self.root
        for folder in folders:
            node = node.children.get(folder) or self._new(folder, node, is_directory=True)
        return self._new(name, node, is_directory=False, content=content, size=len(content))

    def _new(self, name: str, parent: FakeNode, **fields: object) -> FakeNode:
        node = FakeNode(name, parent, **fields)  # type: ignore[arg-type]
        parent.children[name] = node
        return node

    def at(self, path: str) -> FakeNode:
        node = self.root
        for name in path.split("/"):
            node = node.children[name]
        return node

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.waiting is not None:
            result = self.waiting()
            if result is not None:
                await result  # type: ignore[misc]

    def lookup_nowait(self, directory: FakeNode, name: str) -> FakeNode | None:
        if not directory.is_directory:
            raise NotADirectory(directory.path)
        if directory not in self._listed:
            return None
        if name not in directory.children:
            raise EntryNotFound(name)
        return directory.children[name]

    async def lookup(self, directory: FakeNode, name: str) -> FakeNode:
        await self.children(directory)
        node = self.lookup_nowait(directory, name)
        assert node is not None
        return node

    async def children(self, directory: FakeNode) -> Sequence[FakeNode]:
        if directory not in self._listed:
            await self.wait()
            self._listed.add(directory)
        return tuple(sorted(directory.children.values(), key=lambda node: node.name))

    def open_file(self, node: FakeNode) -> FakeReader:
        if node.is_directory:
            raise IsADirectory(node.path)
        reader = FakeReader(self, node)
        self.readers.append(reader)
        return reader

    def on_opened(self, node: FakeNode) -> None:
        """Nothing: it has no shards."""

    def describe(self, node: FakeNode) -> FileDetails:
        from xetfs.repo import FileDetails  # which tests of the command line replace

        level = Level.PROOF if node.content else None
        return FileDetails(self.repo, self.commit, node.path, node.is_directory, node.size, level=level)
