"""What an application is told: every error of ours, and every other, as an errno."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

import trio
from pyfuse3 import FUSEError

from xetfs import errors

ERRNO: Final[Mapping[type[BaseException], int]] = {
    errors.RepoNotFound: errno.ENOENT,
    errors.RevisionNotFound: errno.ENOENT,
    errors.EntryNotFound: errno.ENOENT,
    errors.AuthRequired: errno.EACCES,
    errors.AccessDenied: errno.EACCES,
    errors.RateLimited: errno.EIO,
    errors.Unavailable: errno.EIO,
    errors.TimedOut: errno.ETIMEDOUT,
    errors.ProxyRefused: errno.ENETUNREACH,
    errors.Offline: errno.ENETUNREACH,
    errors.CorruptData: errno.EIO,
    errors.Evicted: errno.EIO,
    errors.ProtocolViolation: errno.EIO,
    # A read past the end is answered with no bytes before anything is asked; a 416 that comes as far as here is about bytes that
    # the file has, and must not look like its end.
    errors.RangeNotSatisfiable: errno.EIO,
    errors.SignedUrlExpired: errno.EIO,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.BadHandle: errno.EBADF,
    errors.ReadOnly: errno.EROFS,
    # The last three do not come from a handler in a running mount; a row each, so that none is taken for a bug.
    errors.StoreFailed: errno.EIO,
    errors.InvalidArgument: errno.EINVAL,
    errors.MountpointUnusable: errno.EIO,
    errors.MachineUnfit: errno.EIO,
    trio.TooSlowError: errno.ETIMEDOUT,
}


def known_errno(exc: BaseException) -> int | None:
    """The errno for `exc`, or None if nobody foresaw it, which makes it a bug.

    A group counts as what it holds: a bug if it holds one, otherwise its first error.
    """
    found = [_errno_of_leaf(leaf) for leaf in errors.leaves(exc)]
    return None if None in found else found[0]


def errno_of(exc: BaseException) -> int:
    """The errno for any exception; EIO for a bug."""
    number = known_errno(exc)
    return errno.EIO if number is None else number


def _errno_of_leaf(exc: BaseException) -> int | None:
    if isinstance(exc, FUSEError):
        return int(exc.errno)
    for kind in type(exc).__mro__:
        if kind in ERRNO:
            return ERRNO[kind]
    return None
