"""Between what the kernel holds (inode numbers, handle numbers, names in bytes, stat fields) and nodes.

An inode number is a hash of commit and path, so a path has the same number in every mount of its commit: programs that remember
files by number (backup tools, file handles, editors) find them again. Numbers stay valid as long as the mount: nothing is ever
forgotten or used again, so the kernel's lookup counts need no book-keeping. All of it runs on the event loop.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pyfuse3 import ROOT_INODE, EntryAttributes, FileHandleT, FUSEError, InodeT, ModeT

from xetfs.errors import BadHandle

if TYPE_CHECKING:
    from xetfs.repo import Node

CACHED_S: Final = 24 * 3600.0
"""How long the kernel may keep names and attributes. A commit never changes, so only memory pressure should end it; a day, so
that its clock arithmetic is nowhere near a limit."""
BLOCK_BYTES: Final = 128 * 1024
"""Preferred size of a read. Python's open() and others make their first read this large: no more than the least that is fetched
anyway (the chunks of a proof window), and the most that one chunk holds."""
SECTOR_BYTES: Final = 512
"""Unit of st_blocks."""
DIRECTORY_MODE: Final = ModeT(stat.S_IFDIR | 0o755)
FILE_MODE: Final = ModeT(stat.S_IFREG | 0o644)
"""What git gives a plain file. The mount itself is read-only; without the owner's write bits, a copy made with `cp -r` could not
be deleted by the user who made it."""
_INODE_MASK: Final = 2**63 - 1
"""Numbers fit a signed 64-bit integer: databases and languages without unsigned ones keep them."""

T = TypeVar("T")


def name_from_kernel(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def name_to_kernel(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


class HandleTable(Generic[T]):
    """What is open, by the numbers that the kernel holds. A number is not given out twice, so a stale one is recognised."""

    def __init__(self) -> None:
        self._open: dict[int, T] = {}
        self._next = 1

    def add(self, value: T) -> FileHandleT:
        number = self._next
        self._next += 1
        self._open[number] = value
        return FileHandleT(number)

    def get(self, number: int) -> T:
        """Raises BadHandle."""
        try:
            return self._open[number]
        except KeyError:
            raise BadHandle(f"handle {number} is not open") from None

    def remove(self, number: int) -> T:
        """Raises BadHandle."""
        value = self.get(number)
        del self._open[number]
        return value

    def drain(self) -> list[T]:
        """Take out everything that is still open."""
        values = list(self._open.values())
        self._open.clear()
        return values

    def __len__(self) -> int:
        return len(self._open)


class InodeTable:
    """The inode numbers of one view's nodes, and the nodes that the kernel was told of by their numbers."""

    def __init__(self, root: Node, commit: str) -> None:
        self._root = root
        self._keyed = hashlib.blake2b(digest_size=8, key=commit.encode())
        self._nodes: dict[int, Node] = {ROOT_INODE: root}

    def number(self, node: Node) -> InodeT:
        """Return the inode number of a node: at least 2, and 1 for the root.

        Of two paths whose hashes are equal the one that is asked for second gets another number (which of them that is depends on
        the order; at 100,000 files it happens once in a billion commits).
        """
        if node is self._root:
            return ROOT_INODE
        path, attempt = name_to_kernel(node.path), 0
        while True:
            number = inode_hash(self._keyed, path, attempt)
            if number > ROOT_INODE and self._nodes.setdefault(number, node) is node:
                return InodeT(number)
            attempt += 1

    def node(self, number: int) -> Node:
        """Return the node with this number. Raises FUSEError (ESTALE) if the kernel has not been told of it by this mount."""
        node = self._nodes.get(number)
        if node is None:
            raise FUSEError(errno.ESTALE)
        return node

    def find(self, number: int) -> Node | None:
        return self._nodes.get(number)


def inode_hash(keyed: hashlib.blake2b, path: bytes, attempt: int) -> int:
    """Return 63 bits of a hash over commit and path.

    keyed: the hash that has the commit for its key, not changed; a copy of it costs half of a new one. attempt: how many numbers
    of this path are taken by others; a path has no zero byte, so that none looks like another's second attempt.
    """
    digest = keyed.copy()
    digest.update(path if not attempt else b"%s\0%d" % (path, attempt))
    return int.from_bytes(digest.digest(), "little") & _INODE_MASK


class AttributeMaker:
    """stat fields of the nodes of one view, for the user who mounted it."""

    def __init__(self, inodes: InodeTable, modified_s: int) -> None:
        self._inodes = inodes
        self._modified_s = modified_s
        self._uid = os.getuid()
        self._gid = os.getgid()

    def of(self, node: Node) -> EntryAttributes:
        attributes = EntryAttributes()
        attributes.st_ino = self._inodes.number(node)
        attributes.generation = 0
        attributes.entry_timeout = CACHED_S
        attributes.attr_timeout = CACHED_S
        attributes.st_uid = self._uid
        attributes.st_gid = self._gid
        attributes.st_rdev = 0
        attributes.st_blksize = BLOCK_BYTES
        if node.is_directory:
            # Itself and its entry; to count the subdirectories would mean to list it. Tools that once took 2 for "no
            # subdirectories" go by the types in the listing, which are always there.
            attributes.st_mode = DIRECTORY_MODE
            attributes.st_nlink = 2
            attributes.st_size = 0
            attributes.st_blocks = 0
        else:
            attributes.st_mode = FILE_MODE
            attributes.st_nlink = 1
            attributes.st_size = node.size
            attributes.st_blocks = -(-node.size // SECTOR_BYTES)
        modified_ns = (self._modified_s if node.mtime_s is None else node.mtime_s) * 1_000_000_000
        attributes.st_atime_ns = modified_ns
        attributes.st_mtime_ns = modified_ns
        attributes.st_ctime_ns = modified_ns
        return attributes

    def of_nothing(self) -> EntryAttributes:
        """The answer "there is no such name", which the kernel may keep like any other."""
        attributes = EntryAttributes()
        attributes.st_ino = InodeT(0)
        attributes.entry_timeout = CACHED_S
        return attributes
