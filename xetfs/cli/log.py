"""The log: one line of text per record, `key=value` where there is something to look for, and nothing that is secret."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Final

from xetfs.cli.redact import redact
from xetfs.errors import InvalidArgument

LOG_BYTES_MAX: Final = 10 * 1024 * 1024
LOG_FILES_OLD: Final = 2
"""Former log files that are kept; with the current one at most 30 MiB for each mount."""


class RedactingFormatter(logging.Formatter):
    """Cuts secrets out of the finished text, so that arguments and tracebacks are covered too."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def open_log(path: Path) -> None:
    """Create the file of a log, for its owner only. Raises InvalidArgument when it cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
    except OSError as exc:
        raise InvalidArgument(
            f"the log {path} cannot be written: {exc.strerror}", hint="choose another with --log-file"
        ) from None


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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of others; httpx would log every URL
    logging.getLogger("xetfs").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
