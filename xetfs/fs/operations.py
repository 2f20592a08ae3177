"""The kernel's requests, answered from a RepoView.

A handler answers at once when it can: attributes, names in directories already listed, reads whose bytes are at hand. Otherwise
it returns a coroutine (see guard.py). Everything that would write is refused with EROFS; the mount is read-only, so that the
kernel mostly refuses it first.

pyfuse3 always asks for readdirplus: a listing brings the attributes of every entry, so that `ls -l` asks nothing more.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Never

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    StatvfsData,
    XAttrNameT,
)

from xetfs.errors import BadHandle, EntryNotFound, NotADirectory, ReadOnly
from xetfs.fs.guard import Answer, Guard, guarded
from xetfs.fs.inodes import BLOCK_BYTES, AttributeMaker, HandleTable, InodeTable, name_from_kernel, name_to_kernel
from xetfs.fs.tuning import ReadAhead
from xetfs.fs.xattrs import listed_xattrs, xattr
from xetfs.protocol.names import NAME_BYTES_MAX
from xetfs.protocol.ranges import ByteRange
from xetfs.telemetry import Counters

if TYPE_CHECKING:
    from xetfs.reader.file import FileReader
    from xetfs.repo import Node, RepoView

Buffer = bytes | bytearray | memoryview

_BY_HANDLE = frozenset({"read", "release", "readdir", "releasedir"})


class Operations(pyfuse3.Operations):
    """Handlers for one mount of one view. Call `close` when the mount has ended. read_ahead: set when the mount is there, if it
    may be chosen."""

    supports_dot_lookup = True
    """Look-ups of `.` and `..` are answered for every inode. The kernel then finds the inode of a file handle again after it has
    dropped it from its cache (open_by_handle_at, an export by NFS)."""
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, view: RepoView, *, deadline_s: float, counters: Counters) -> None:
        super().__init__()
        self.read_ahead: ReadAhead | None = None
        self.guard = Guard(deadline_s=deadline_s, counters=counters, describe=self._path)
        self._view = view
        self.inodes = InodeTable(view.root, view.commit)
        self._attributes = AttributeMaker(self.inodes, view.modified_s)
        self._files: HandleTable[tuple[Node, FileReader]] = HandleTable()
        self._directories: HandleTable[tuple[Node, Sequence[Node]]] = HandleTable()

    def close(self) -> None:
        """Close what programs had open when the mount ended."""
        for _, reader in self._files.drain():
            reader.close()
        self._directories.drain()

    def _path(self, operation: str, number: object) -> str:
        """For messages: the path that an inode number or a handle stands for."""
        if not isinstance(number, int):
            return ""
        if operation not in _BY_HANDLE:
            found = self.inodes.find(number)
            return found.path if found is not None else f"#{number}"
        table: HandleTable[Any] = self._directories if operation.endswith("dir") else self._files
        try:
            node: Node = table.get(number)[0]
        except BadHandle:
            return f"#{number}"
        return node.path

    # Names and attributes

    @guarded
    def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> Answer[EntryAttributes]:
        directory = self.inodes.node(parent_inode)
        if name in (b".", b".."):  # of a file handle, so that the inode may be a file's
            return self._attributes.of(directory if name == b"." else directory.parent or directory)
        text = name_from_kernel(name)
        try:
            node = self._view.lookup_nowait(directory, text)
        except EntryNotFound:
            # Known from the listing itself, so the kernel may keep it. Where the listing fails, nothing is said about the name.
            return self._attributes.of_nothing()
        return self._look_up(directory, text) if node is None else self._attributes.of(node)

    async def _look_up(self, directory: Node, name: str) -> EntryAttributes:
        return self._attributes.of(await self._view.lookup(directory, name))

    @guarded
    def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes.of(self.inodes.node(inode))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Nothing to do, and no guard: nodes stay as long as the view, and pyfuse3 takes no error here."""

    @guarded
    def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        raise FUSEError(errno.EINVAL)  # a link in a repo is shown as the file that git stores: its target as text

    @guarded
    def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        """Whether the access is allowed; asked only where the kernel does not decide by the modes itself."""
        node = self.inodes.node(inode)
        return not mode & os.W_OK and (node.is_directory or not mode & os.X_OK)

    @guarded
    def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        if not name.startswith(b"user."):
            # There are no ACLs, labels or capabilities here at all. Told that, ls and others ask once instead of for every file.
            raise FUSEError(errno.EOPNOTSUPP)
        value = xattr(self._view.describe(self.inodes.node(inode)), name_from_kernel(name))
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return value

    @guarded
    def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [name_to_kernel(name) for name in listed_xattrs(self._view.describe(self.inodes.node(inode)))]

    @guarded
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        """No free space, as nothing can be written. No total either: what there is in all is unknown until all is listed, and
        `df` leaves a file system of no blocks out of its table."""
        answer = StatvfsData()
        answer.f_bsize = BLOCK_BYTES
        answer.f_frsize = BLOCK_BYTES
        answer.f_blocks = answer.f_bfree = answer.f_bavail = 0
        answer.f_files = answer.f_ffree = answer.f_favail = 0
        answer.f_namemax = NAME_BYTES_MAX
        return answer

    # Directories

    @guarded
    def opendir(self, inode: InodeT, ctx: RequestContext) -> Answer[FileHandleT]:
        directory = self.inodes.node(inode)
        if not directory.is_directory:
            raise NotADirectory(f"{directory.path!r} is a file")
        return self._open_directory(directory)

    async def _open_directory(self, directory: Node) -> FileHandleT:
        return self._directories.add((directory, await self._view.children(directory)))

    @guarded
    def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Entries from `start_id` on, as many as the kernel's buffer takes: that bounds the time without giving way to others.

        Positions: 0 and 1 are `.` and `..`, the rest the children in their order, which never changes.
        """
        directory, children = self._directories.get(fh)
        reply, attributes = pyfuse3.readdir_reply, self._attributes.of
        if start_id < 1 and not reply(token, b".", attributes(directory), 1):
            return
        if start_id < 2 and not reply(token, b"..", attributes(directory.parent or directory), 2):
            return
        for position in range(max(start_id - 2, 0), len(children)):
            node = children[position]
            if not reply(token, name_to_kernel(node.name), attributes(node), position + 3):
                return

    @guarded
    def releasedir(self, fh: FileHandleT) -> None:
        self._directories.remove(fh)

    # Files

    @guarded
    def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        node = self.inodes.node(inode)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise ReadOnly(f"{node.path!r} cannot be written")
        if self.read_ahead is not None:
            self.read_ahead.choose(node.name)
        self._view.on_opened(node)
        # What the page cache holds of a file stays right for ever, so opening keeps it.
        return FileInfo(fh=self._files.add((node, self._view.open_file(node))), keep_cache=True)

    @guarded
    def read(self, fh: FileHandleT, off: int, size: int) -> Answer[Buffer]:  # type: ignore[override]  # any buffer will do
        reader = self._files.get(fh)[1]
        span = ByteRange(off, off + size)
        data = reader.read_nowait(span)
        return reader.read(span) if data is None else data

    @guarded
    def release(self, fh: FileHandleT) -> None:
        self._files.remove(fh)[1].close()

    # Nothing is ever unwritten. ENOSYS is success to programs, and tells the kernel not to ask again: it would at every close(2).

    async def flush(self, fh: FileHandleT) -> None:
        raise FUSEError(errno.ENOSYS)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        raise FUSEError(errno.ENOSYS)

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        raise FUSEError(errno.ENOSYS)

    # Whatever would change something

    @guarded
    def refuse(self, *args: object) -> Never:
        raise ReadOnly("the file system is read-only")

    _refused: Any = refuse  # one signature for all of them, which no type can say
    create = link = mkdir = mknod = removexattr = rename = rmdir = setattr = setxattr = symlink = unlink = write = _refused
