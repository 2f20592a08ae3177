"""Going into the background, and reporting from there.

The process forks before anything but the standard library is loaded, so that there are no threads and nothing half open to copy.
The child leaves the terminal, does everything, and writes one line of JSON into a pipe: what to say when it is ready, or how it
failed. The parent waits for that line, for a limited time, says it, and ends; whatever goes wrong, it leaves no child behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from xetfs.cli.exits import Exit, cause_of, exit_of
from xetfs.cli.redact import redact
from xetfs.errors import XetfsError

REPORT_BYTES_MAX: Final = 64 * 1024
END_S: Final = 5.0
"""How long a child may take to end when it is told to, before it is killed."""


@dataclass(frozen=True, slots=True)
class Started:
    """What a process says when it is ready: one line, and what the user should know beside it."""

    message: str
    warnings: tuple[str, ...] = ()


Ready = Callable[[Started], None]


class Failed(Exception):
    """The child's report of a failure: what it would have printed and returned itself."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def run_in_background(serve: Callable[[Ready], None], *, log: Path, wait_s: float) -> Started:
    """Run `serve` in a process of its own until it says that it is ready; what it says.

    serve: takes the function to call when ready. What it prints goes to the end of `log`.
    Raises Failed with what the child reported, or when it was not ready in time; it has ended then.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # An interruption waits until it is certain to end the child too: in the hooks of a fork, Python would only print it.
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(serve, writer, log, signals)
    os.close(writer)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        report = _read_report(reader, wait_s)
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(reader)
    if report is None:
        _end(child)
        raise Failed(Exit.UNREACHABLE, f"not mounted within {wait_s:g} s; see {log}")
    if "ready" in report:
        warnings = report.get("warnings")
        return Started(str(report["ready"]), tuple(map(str, warnings)) if isinstance(warnings, list) else ())
    if "exit" in report:
        _end(child)
        raise Failed(int(str(report["exit"])), str(report["message"]))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    raise Failed(Exit.BUG, f"the mount's process ended {how}; see {log}")


def _read_report(reader: int, wait_s: float) -> dict[str, object] | None:
    """The child's line; {} if it ended without one, None if the time is over."""
    deadline = time.monotonic() + wait_s
    text = b""
    while not text.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        piece = os.read(reader, REPORT_BYTES_MAX)
        if not piece:
            return {}
        text += piece
    report = json.loads(text)
    return report if isinstance(report, dict) else {}


def _end(child: int) -> None:
    """End the child, kindly first, and wait for it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child, number)
        deadline = time.monotonic() + END_S
        fd = os.pidfd_open(child)
        try:
            if select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                break
        finally:
            os.close(fd)
    os.waitpid(child, 0)


def _run_child(serve: Callable[[Ready], None], writer: int, log: Path, signals: Iterable[int]) -> NoReturn:
    """signals: those to block."""
    code: int = Exit.BUG
    listened_to = True
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        _leave_terminal(writer, log)

        def ready(started: Started) -> None:
            nonlocal listened_to
            _report(writer, {"ready": started.message, "warnings": started.warnings})
            os.close(writer)
            listened_to = False

        serve(ready)
        code = Exit.OK
    except BaseException as exc:
        code, message = describe(exc)
        if listened_to:
            with contextlib.suppress(OSError):
                _report(writer, {"exit": code, "message": message})
        else:
            print(f"xetfs: {message}", file=sys.stderr)
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _report(writer: int, report: dict[str, object]) -> None:
    """Raises OSError when the parent is gone."""
    os.write(writer, json.dumps(report).encode()[: REPORT_BYTES_MAX - 1] + b"\n")


def _leave_terminal(keep: int, log: Path) -> None:
    """Into /, with no input, output to the end of the log, and none of the descriptors that a shell may have handed down."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def describe(exc: BaseException) -> tuple[Exit, str]:
    """Exit code and one line for an exception; the traceback of a bug goes to stderr, which may be the log."""
    cause = cause_of(exc)
    if isinstance(cause, XetfsError):
        return exit_of(cause), _one_line(redact(str(cause)))
    shortage = _shortage(cause)
    if shortage:
        return Exit.MACHINE, f"{shortage}; raise the limit of this process or container, or end others"
    import traceback

    print(redact("".join(traceback.format_exception(exc))), file=sys.stderr, end="")
    return Exit.BUG, _one_line(f"a bug in xetfs: {type(cause).__name__}: {redact(str(cause))}"[:500])


def _shortage(exc: BaseException) -> str:
    """What the machine has too little of, if that is what an exception of Python's own says, else ""."""
    if isinstance(exc, MemoryError) or (isinstance(exc, OSError) and exc.errno == errno.ENOMEM):
        return "not enough memory"
    if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files"
    if isinstance(exc, RuntimeError) and str(exc) == "can't start new thread":
        return "not enough threads"
    return ""


def _one_line(text: str) -> str:
    """Names come from anywhere: nothing in a message may move the cursor or look like another line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
