"""How the command ends: every error of ours as an exit code. The table is shown by `xetfs --help`.

All codes are below 126, where the shell's own begin. Interrupted by Ctrl-C it is the shell's 130.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from xetfs import errors


class Exit(IntEnum):
    OK = 0
    BUG = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    MOUNTPOINT = 6
    MACHINE = 7
    DATA = 8
    INTERRUPTED = 130


MEANING: Final[Mapping[Exit, str]] = {
    Exit.OK: "done",
    Exit.BUG: "a bug in xetfs",
    Exit.USAGE: "wrong arguments or settings",
    Exit.NOT_FOUND: "no such repo, revision or folder (or a private one that your token may not see)",
    Exit.REFUSED: "refused: no token, a wrong one, or a gated repo it has no access to",
    Exit.UNREACHABLE: "the Hub cannot be reached, is too busy, or --offline and not in the cache",
    Exit.MOUNTPOINT: "the directory cannot be mounted on or unmounted",
    Exit.MACHINE: "this machine lacks something: /dev/fuse, libfuse3, a usable cache directory",
    Exit.DATA: "the Hub sent data or answers that cannot be right",
}

EXIT: Final[Mapping[type[errors.XetfsError], Exit]] = {
    errors.RepoNotFound: Exit.NOT_FOUND,
    errors.RevisionNotFound: Exit.NOT_FOUND,
    errors.EntryNotFound: Exit.NOT_FOUND,
    errors.NotADirectory: Exit.NOT_FOUND,
    errors.IsADirectory: Exit.NOT_FOUND,
    errors.AuthRequired: Exit.REFUSED,
    errors.AccessDenied: Exit.REFUSED,
    errors.RateLimited: Exit.UNREACHABLE,
    errors.Unavailable: Exit.UNREACHABLE,
    errors.TimedOut: Exit.UNREACHABLE,
    errors.ProxyRefused: Exit.UNREACHABLE,
    errors.Offline: Exit.UNREACHABLE,
    errors.CorruptData: Exit.DATA,
    errors.ProtocolViolation: Exit.DATA,
    errors.RangeNotSatisfiable: Exit.DATA,
    errors.SignedUrlExpired: Exit.DATA,
    errors.StoreFailed: Exit.MACHINE,
    errors.Evicted: Exit.MACHINE,
    errors.MachineUnfit: Exit.MACHINE,
    errors.MountpointUnusable: Exit.MOUNTPOINT,
    errors.InvalidArgument: Exit.USAGE,
    # These two answer a program that reads or writes a mount; no command meets them.
    errors.BadHandle: Exit.BUG,
    errors.ReadOnly: Exit.BUG,
}


def exit_of(exc: BaseException) -> Exit:
    """The exit code for any exception."""
    for kind in type(exc).__mro__:
        if kind in EXIT:
            return EXIT[kind]
    return Exit.BUG


def cause_of(exc: BaseException) -> BaseException:
    """What to tell of an exception that may be a group: a bug in it, if there is one, otherwise its first error."""
    causes = list(errors.leaves(exc))
    return next((cause for cause in causes if not isinstance(cause, errors.XetfsError)), causes[0])


def table() -> str:
    """The exit codes as lines of text."""
    return "\n".join(f"  {code:<4}{meaning}" for code, meaning in MEANING.items())
