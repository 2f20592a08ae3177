"""Standard streams that may be closed, full or abandoned: writing to them never fails.

A mount is worth more than the line that announces it, and a traceback helps nobody who has closed the stream. So a write that
fails is remembered and otherwise dropped; a command whose product is its output asks for `lost` at the end.

A descriptor that was closed (`>&-`) is opened on /dev/null first of all: the next file that is opened would get its number, and
whatever is printed would go there.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Final, TextIO

_READER_LEFT: Final = errno.EPIPE


class _Output(io.RawIOBase):
    """A descriptor of output; each write succeeds. lost: the first error that was dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.lost: OSError | None = None

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        try:
            return os.write(self._fd, view)
        except OSError as exc:
            self.lost = self.lost or exc
            return view.nbytes


_outputs: Final[dict[int, _Output]] = {}


def open_streams() -> None:
    """Open closed descriptors on /dev/null, and replace the interpreter's output streams. A stream that somebody else has put in
    their place, as tests do, is left alone."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    if sys.stdout is sys.__stdout__ and 1 not in _outputs:
        sys.stdout = _wrap(1, sys.stdout)
    if sys.stderr is sys.__stderr__ and 2 not in _outputs:
        sys.stderr = _wrap(2, sys.stderr)


def lost_output() -> str:
    """Return why output is missing, or "" if all was written. That a reader has read enough (`| head`) is no loss."""
    sys.stdout.flush()
    lost = _outputs[1].lost if 1 in _outputs else None
    return "" if lost is None or lost.errno == _READER_LEFT else os.strerror(lost.errno or errno.EIO)


def _wrap(fd: int, former: TextIO | None) -> TextIO:
    output = _outputs[fd] = _Output(fd)
    encoding = former.encoding if former is not None else "utf-8"
    # backslashreplace: names of files are bytes, and not all of them are text in the encoding of the terminal.
    return io.TextIOWrapper(
        io.BufferedWriter(output), encoding=encoding, errors="backslashreplace", line_buffering=fd == 2 or output.isatty()
    )
