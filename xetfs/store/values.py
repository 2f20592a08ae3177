"""What a row of the index has as its value, and the value files.

Values are bytes in the row or files that were written before; rows that say anything else, that they are a pickle for one, are
corrupt. File names in rows are taken only in the form that this module gives them, so none leads out of the directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xetfs.errors import CorruptData
from xetfs.store.writing import Writer

VALUE_NAME: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}\.val", re.ASCII)
"""256 folders: 2,000 files in each with 500,000 blocks. They are made as needed and never removed."""

_IN_ROW: Final = 1
_IN_FILE: Final = 2
"""Modes of rows, as diskcache numbers them."""
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A value that is a file already; `name` is relative to the directory."""

    name: str
    size: int


def row_of(value: StoredFile | bytes) -> tuple[int, int, str | None, bytes | None]:
    """(size, mode, file name, value) as a row has them."""
    match value:
        case StoredFile(name, size):
            return size, _IN_FILE, name, None
        case bytes():
            return 0, _IN_ROW, None, value
    raise TypeError(f"values of the store are bytes or files, not {type(value).__name__}")


def value_of(mode: object, filename: object, value: object) -> bytes | str:
    """The value of a row, or the name of its file. Raises CorruptData for a row that `row_of` cannot have made."""
    if mode == _IN_ROW and filename is None and type(value) is bytes:
        return value
    if mode == _IN_FILE and value is None and type(filename) is str and VALUE_NAME.fullmatch(filename):
        return filename
    raise CorruptData(f"a row of the index is of no kind that the store writes: mode={mode!r:.20} file={filename!r:.80}")


def new_name() -> str:
    """A name for a value file that none has yet."""
    digits = secrets.token_hex(16)
    return f"{digits[:2]}/{digits[2:]}.val"


class ValueFiles:
    """The value files of one directory; their names are relative to it."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._writer = Writer()

    def write_file(self, name: str, parts: Sequence[bytes | memoryview]) -> StoredFile:
        """Write a new value file, of a name that `new_name` made, from buffers that follow each other.

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


def _is_regular(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o100000
