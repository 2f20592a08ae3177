"""Every exception that xetfs raises, as one tree.

A class says what happened, to what, and whether trying again may help. Two tables turn the leaves into what a caller of
another kind understands: fs/errno.py into an errno, cli/exits.py into an exit code. Foreign exceptions (httpx, sqlite3,
OSError, json) are translated once, by the room at whose door they appear, and go no further.

Messages are one line, name the repo, path or range concerned, and carry no token and no query of a signed URL. `hint` says
what the reader of the message can do; it is empty when there is nothing to do but to report it.
"""

from __future__ import annotations

from collections.abc import Iterator


class XetfsError(Exception):
    """The root of the tree; never raised itself."""

    retryable = False
    """Whether the same request, sent again a little later, may succeed."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class NotFound(XetfsError):
    """Something that was named does not exist, or must look as if it did not. Raised as one of its leaves."""


class RepoNotFound(NotFound):
    """No such repo, or a private one that these credentials may not see (the Hub does not tell which)."""


class RevisionNotFound(NotFound):
    """The repo exists, the branch, tag, commit or pull request does not."""


class EntryNotFound(NotFound):
    """No such path in this commit, or no such file in the CAS."""


class AuthRequired(XetfsError):
    """Credentials are missing or were refused (401), after one refresh of those that can be refreshed."""


class AccessDenied(XetfsError):
    """The credentials are good but do not reach this far (403): gated, disabled, out of scope."""


class RateLimited(XetfsError):
    """429. `retry_after_s` is what the server asked for, or None."""

    retryable = True

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Unavailable(XetfsError):
    """The other side cannot be reached, answers 5xx, or broke off: may work again in a moment.

    `retry_after_s` is what the server asked for (a 503 may), or None. `unconnected`: there was no connection, and the next
    attempt waits by itself until there may be one (net/reachability.py).
    """

    retryable = True
    unconnected = False

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class TimedOut(Unavailable):
    """The other side said nothing, or next to nothing, for too long."""


class ProxyRefused(Unavailable):
    """The proxy on the way refuses: it wants a password, or does not let the connection through."""

    retryable = False


class Offline(XetfsError):
    """Offline by choice or known to be, and the thing asked for is not in the store."""


class CorruptData(XetfsError):
    """Bytes that are not what their hash, length or framing says. They are never stored and never handed on."""


class ProtocolViolation(XetfsError):
    """An answer that the protocol does not allow. Trying again brings the same, unless raised as `retryable`: a body of the wrong
    length or under a wrong label is often the work of something in between, which another connection may not meet.

    `refused`: the answer was a status that says no, and not content that cannot be right.
    """

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False, refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable
        self.refused = refused


class RangeNotSatisfiable(XetfsError):
    """The range begins at or past the end of the file (416)."""


class SignedUrlExpired(XetfsError):
    """A transfer URL was refused: ask for the reconstruction again and go on. Handled inside the reader.

    `certain`: the server or the URL itself says that it expired. Otherwise only the refusal speaks for that, and when a fresh
    URL is refused as well, there is another reason. `server`: scheme, host and port of the one that refused.
    """

    def __init__(self, message: str, *, certain: bool = True, server: str = "") -> None:
        super().__init__(message)
        self.certain = certain
        self.server = server


class NotADirectory(XetfsError):
    """A path leads through something that is a file."""


class IsADirectory(XetfsError):
    """A directory was used as if it were a file."""


class BadHandle(XetfsError):
    """A file or directory handle that is not open."""


class ReadOnly(XetfsError):
    """Something tried to write."""


class StoreFailed(XetfsError):
    """The local store is full, broken or not usable. While reading it counts as a miss; at start it is told to the user."""


class Evicted(XetfsError):
    """What was fetched was dropped from the store before it could be read, again and again. Nothing is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="a larger cache holds more of what is read at the same time (--cache-size)")


class InvalidArgument(XetfsError):
    """What the user typed or configured cannot be: a repo name, a revision, a size, an endpoint."""


class MountpointUnusable(XetfsError):
    """The directory to mount on is missing, not a directory, not empty, already a mount, or not mounted when it should be."""


class MachineUnfit(XetfsError):
    """This machine lacks something that is needed: /dev/fuse, fusermount3, a library, a right."""


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions that a group holds, at any depth, or the exception itself."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from leaves(inner)
    else:
        yield exc
