"""The log: one line of text per record, `key=value` where there is something to look for, and nothing that is secret."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import stat
import sys
from pathlib import Path
from typing import Final

from xetfs.cli.redact import redact
from xetfs.errors import InvalidArgument
from xetfs.store.directory import make_directories

LOG_BYTES_MAX: Final = 10 * 1024 * 1024
LEVELS: Final = ("debug", "info", "warning", "error")
LOG_HINT: Final = "choose another with --log-file"
_TOO_LATE: Final = f"fuse_reply_* failed with {os.strerror(errno.ENOENT)}"
LOG_FILES_OLD: Final = 2
"""Former log files that are kept; with the current one at most 30 MiB for each mount."""


class RedactingFormatter(logging.Formatter):
    """Cuts secrets out of the finished text, so that arguments and tracebacks are covered too."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def open_log(path: Path) -> None:
    """Create the file of a log, for its owner only. A file or device that is there already is left as it is.

    Raises InvalidArgument when it cannot be written, or could make the mount wait: a FIFO, a socket.
    """
    try:
        make_directories(path.parent)
        # Not blocking: opening a FIFO would wait for its reader.
        fd = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600
        )
        try:
            mode = os.fstat(fd).st_mode
        finally:
            os.close(fd)
    except OSError as exc:
        if exc.errno != errno.ENXIO:  # a FIFO that nobody reads, or a socket
            raise InvalidArgument(f"the log {path} cannot be written: {exc.strerror}", hint=LOG_HINT) from None
        mode = 0
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
        raise InvalidArgument(f"the log {path} is neither a file nor a character device", hint=LOG_HINT)


def is_news(record: logging.LogRecord) -> bool:
    """False for errors of pyfuse3 about replies to requests that the kernel has given up, as it does at an unmount."""
    return record.name.partition(".")[0] != "pyfuse3" or _TOO_LATE not in record.getMessage()


def configure(path: Path | None, *, verbose: bool) -> None:
    """Log to a file that `open_log` made, or to stderr."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_OLD, encoding="utf-8", errors="backslashreplace"
        )
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(is_news)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of others; httpx would log every URL
    logging.getLogger("xetfs").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)


def set_level(name: str) -> str:
    """Log from this level on; the level before. Raises InvalidArgument."""
    log = logging.getLogger("xetfs")
    before = logging.getLevelName(log.level).lower()
    if name not in LEVELS:
        raise InvalidArgument(f"no such log level: {name!r:.40}", hint=f"there are {', '.join(LEVELS)}")
    log.setLevel(name.upper())
    return before
