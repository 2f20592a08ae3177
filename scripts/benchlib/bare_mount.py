"""A file system of one file, as little of one as pyfuse3 allows: `python -m benchlib.bare_mount FILE DIR`.

What it reaches is what the kernel, libfuse, pyfuse3 and trio leave of this machine to a file system in Python. It knows the bytes
of its file and nothing else: each request is one `pread`, answered on the event loop.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

NAME = "file"
_FILE = pyfuse3.InodeT(pyfuse3.ROOT_INODE + 1)


class OneFile(pyfuse3.Operations):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._fd).st_size

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o444 if inode == _FILE else stat.S_IFDIR | 0o555)
        entry.st_size = self._size if inode == _FILE else 0
        entry.st_nlink = 1
        return entry

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name != NAME.encode():
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(_FILE)

    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(inode)

    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return os.pread(self._fd, size, off)


def main() -> None:
    file, directory = sys.argv[1:]
    pyfuse3.init(OneFile(file), directory, {*pyfuse3.default_options, "fsname=bare"})
    print("mounted", flush=True)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
