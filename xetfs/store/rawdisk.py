"""diskcache's Disk without any way to pickle, and the value files.

diskcache unpickles whatever a row of its database says is a pickle, so whoever can write the database can run code
(CVE-2025-69872). Here keys are text, values are bytes or files that were written before, and rows that ask for anything else are
corrupt. File names in rows are taken only in the form that this module gives them, so none leads out of the directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

from xetfs.errors import CorruptData
from xetfs.store.writing import Writer

VALUE_NAME: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}\.val", re.ASCII)
"""256 folders: 2,000 files in each with 500,000 blocks. They are made as needed and never removed."""

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A value that is a file already; `name` is relative to the directory."""

    name: str
    size: int


class RawDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Text keys; values of bytes, kept in the row, or of files written by `write_file`."""

    def __init__(self, directory: object, *args: object, **kwargs: object) -> None:
        super().__init__(directory, *args, **kwargs)
        self._writer = Writer()

    def put(self, key: object) -> tuple[str, bool]:
        if type(key) is not str:
            raise TypeError(f"keys of the store are text, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        if type(key) is not str or not raw:
            raise CorruptData("a key in the index is not text")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, str | None, memoryview | None]:
        """(size, mode, file name, value) as the row has them."""
        if type(value) is StoredFile:
            return value.size, MODE_BINARY, value.name, None
        if type(value) is bytes:
            return 0, MODE_RAW, None, sqlite3.Binary(value)
        raise TypeError(f"values of the store are bytes or files, not {type(value).__name__}")

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes | StoredFile:
        """The value of a row. A file is not opened. Raises CorruptData for a row that `store` cannot have made."""
        if mode == MODE_RAW and filename is None and type(value) is bytes:
            return value
        if mode == MODE_BINARY and value is None and type(filename) is str and VALUE_NAME.fullmatch(filename):
            return StoredFile(filename, -1)
        raise CorruptData(f"a row of the index is of no kind that the store writes: mode={mode!r:.20} file={filename!r:.80}")

    def filename(self, key: object = None, value: object = None) -> tuple[str, str]:
        digits = secrets.token_hex(16)
        name = f"{digits[:2]}/{digits[2:]}.val"
        return name, os.path.join(self._directory, name)

    def write_file(self, name: str, parts: Sequence[bytes | memoryview]) -> StoredFile:
        """Write a new value file, of a name that `filename` made, from buffers that follow each other.

        No file is left behind when it fails. Raises OSError.
        """
        folder, file = name.split("/")
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(self._directory, folder), 0o700)
        folder_fd = os.open(os.path.join(self._directory, folder), _FOLDER)
        try:
            fd = os.open(file, _CREATE, 0o600, dir_fd=folder_fd)
            try:
                return StoredFile(name, self._writer.write(fd, parts))
            except BaseException:
                os.unlink(file, dir_fd=folder_fd)
                raise
            finally:
                os.close(fd)
        finally:
            os.close(folder_fd)

    def open_file(self, name: str) -> int:
        """Open a value file for reading. Raises OSError; for what is not a plain file CorruptData."""
        fd = os.open(os.path.join(self._directory, name), _OPEN)
        if not _is_regular(fd):
            os.close(fd)
            raise CorruptData(f"{name} is not a plain file")
        return fd

    def remove(self, file_path: object) -> None:
        """Remove a value file. One that is gone already or cannot be removed is left to the sweep."""
        if type(file_path) is str and VALUE_NAME.fullmatch(file_path):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._directory, file_path))

    def folders(self) -> list[Path]:
        """The folders that value files are in."""
        return [Path(self._directory, f"{number:02x}") for number in range(256)]

    def __reduce__(self) -> Any:
        raise TypeError("a RawDisk cannot be pickled")


def _is_regular(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o100000
