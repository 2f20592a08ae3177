"""The one guard around every handler.

pyfuse3 turns a FUSEError into a reply and lets everything else through, which ends the mount; a FUSEError inside an exception
group is not recognised either. And a program that waits for `stat` cannot be killed. So every handler is a plain function that
either answers at once or returns a coroutine for what must be waited for, and `guarded` makes of it the coroutine function that
pyfuse3 expects: the answer at once costs no cancel scope, the wait runs under the deadline, and what comes out is a value, a
FUSEError, or trio.Cancelled when the whole mount ends.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import trio
from pyfuse3 import FUSEError

from xetfs.fs.errno import errno_of, known_errno
from xetfs.telemetry import FS_ERRORS, FS_OPERATIONS, Counters

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Answer: TypeAlias = T | Coroutine[Any, Any, T]
"""What a handler returns: the value, or the coroutine that will bring it."""

_IO_ERRORS: Final = frozenset({errno.EIO, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EACCES})
"""Those that mean that something is wrong, rather than that a program asked for what is not there."""


class Guard:
    """Deadline, counters and log of one mount's handlers.

    describe: names what a handler was asked about, given the handler's name and first argument.
    """

    __slots__ = ("counters", "deadline_s", "describe")

    def __init__(self, *, deadline_s: float, counters: Counters, describe: Callable[[str, object], str]) -> None:
        self.deadline_s = deadline_s
        self.counters = counters
        self.describe = describe

    def errno_after(self, operation: str, subject: object, exc: BaseException) -> int:
        """Count and log a failed handler; the errno to answer with."""
        self.counters.add(FS_ERRORS)
        number = errno_of(exc)
        name = errno.errorcode.get(number, str(number))
        if known_errno(exc) is None:
            log.error("a bug: operation=%s path=%r errno=%s", operation, self.describe(operation, subject), name, exc_info=exc)
        elif number in _IO_ERRORS:
            reason = f"no answer within {self.deadline_s:g} s" if isinstance(exc, trio.TooSlowError) else exc
            log.error("operation=%s path=%r errno=%s: %s", operation, self.describe(operation, subject), name, reason)
        else:
            log.debug("operation=%s path=%r errno=%s", operation, self.describe(operation, subject), name)
        return number


class Guarded(Protocol):
    guard: Guard


S = TypeVar("S", bound=Guarded)


def guarded(handler: Callable[Concatenate[S, P], Answer[T]]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a pyfuse3 handler of a function that answers, or returns a coroutine that will."""
    operation = handler.__name__

    @functools.wraps(handler)
    async def answer(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        guard = self.guard
        guard.counters.add(FS_OPERATIONS)
        try:
            value = handler(self, *args, **kwargs)
            if not isinstance(value, CoroutineType):
                return cast(T, value)
            with trio.fail_after(guard.deadline_s):
                return cast(T, await value)
        except BaseExceptionGroup as group:
            # Out of a nursery. If the mount is being ended, that goes on alone: an error beside it would make the end a failure.
            cancelled, others = group.split(trio.Cancelled)
            number = guard.errno_after(operation, args[0], others) if others is not None else 0
            if cancelled is not None:
                raise cancelled from None
        except (Exception, KeyboardInterrupt, SystemExit) as exc:
            # The last two come from a thread that a handler used: signals have their own receiver in a mount.
            number = guard.errno_after(operation, args[0], exc)
        raise FUSEError(number)

    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, T]], answer)
