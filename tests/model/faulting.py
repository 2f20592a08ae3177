"""The other side of page_faulter.py: a process that reads through mappings, begun anew when a page fault has ended it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

_PROGRAM = Path(__file__).with_name("page_faulter.py")


class PageFaulter:
    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, path: Path, start: int, end: int) -> bytes:
        """The bytes [start, end) of a file, read through a mapping. Raises OSError: EIO for a SIGBUS."""
        process = self._process or subprocess.Popen([sys.executable, _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([str(path), start, end]).encode() + b"\n")
        process.stdin.flush()
        head = process.stdout.readline()
        if head:
            return process.stdout.read(int(head))
        self.close()
        assert process.returncode == -signal.SIGBUS, process.returncode
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def close(self) -> None:
        """End the process; the next read begins another."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()
