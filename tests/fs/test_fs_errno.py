"""The table of errors, and the guard that uses it."""

from __future__ import annotations

import errno
import logging
import sqlite3

import pytest
import trio
from pyfuse3 import FUSEError

from xetfs import errors
from xetfs.fs.errno import ERRNO, errno_of, known_errno
from xetfs.fs.guard import Answer, Guard, guarded
from xetfs.telemetry import FS_ERRORS, FS_OPERATIONS, Counters


def leaves(kind: type[BaseException]) -> list[type[BaseException]]:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [kind]


@pytest.mark.parametrize("kind", leaves(errors.XetfsError), ids=lambda kind: kind.__name__)
def test_every_error_has_its_own_row(kind: type[errors.XetfsError]) -> None:
    assert kind in ERRNO
    assert errno_of(kind("what happened")) == ERRNO[kind]


def test_only_errors_of_ours_and_the_deadline_have_rows() -> None:
    assert set(ERRNO) == {*leaves(errors.XetfsError), errors.Unavailable, trio.TooSlowError}


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (errors.RepoNotFound(""), errno.ENOENT),
        (errors.AuthRequired(""), errno.EACCES),
        (errors.AccessDenied(""), errno.EACCES),
        (errors.RateLimited(""), errno.EIO),
        (errors.Unavailable(""), errno.EIO),
        (errors.TimedOut(""), errno.ETIMEDOUT),
        (trio.TooSlowError(), errno.ETIMEDOUT),
        (errors.Offline(""), errno.ENETUNREACH),
        (errors.CorruptData(""), errno.EIO),
        (errors.NotADirectory(""), errno.ENOTDIR),
        (errors.IsADirectory(""), errno.EISDIR),
        (errors.BadHandle(""), errno.EBADF),
        (errors.ReadOnly(""), errno.EROFS),
        (FUSEError(errno.EINVAL), errno.EINVAL),
        (ExceptionGroup("", [FUSEError(errno.ENOTDIR)]), errno.ENOTDIR),
        (ExceptionGroup("", [ExceptionGroup("", [errors.Offline("")]), errors.CorruptData("")]), errno.ENETUNREACH),
        (ValueError(), errno.EIO),
        (OSError(errno.ENOENT, "a file of ours"), errno.EIO),
        (ExceptionGroup("", [errors.EntryNotFound(""), KeyError()]), errno.EIO),
    ],
    ids=repr,
)
def test_errno_of(exc: BaseException, expected: int) -> None:
    assert errno_of(exc) == expected


def test_a_bug_is_what_nobody_foresaw_also_inside_a_group() -> None:
    assert known_errno(KeyError()) is None
    assert known_errno(ExceptionGroup("", [errors.EntryNotFound(""), KeyError()])) is None
    assert known_errno(ExceptionGroup("", [errors.EntryNotFound("")])) == errno.ENOENT


class Handlers:
    def __init__(self, exc: BaseException | None = None) -> None:
        self.counters = Counters()
        self.guard = Guard(deadline_s=5, counters=self.counters, describe=lambda operation, subject: f"file{subject}")
        self.exc = exc

    @guarded
    def at_once(self, number: int) -> int:
        if self.exc is not None:
            raise self.exc
        return number

    @guarded
    def later(self, number: int) -> Answer[int]:
        return self._wait(number)

    async def _wait(self, number: int) -> int:
        await trio.lowlevel.checkpoint()
        if self.exc is not None:
            raise self.exc
        return number

    @guarded
    def in_nursery(self, number: int) -> Answer[int]:
        return self._open_nursery(number)

    async def _open_nursery(self, number: int) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait, number)
        return number

    @guarded
    def never(self, number: int) -> Answer[int]:
        return self._sleep()

    async def _sleep(self) -> int:
        await trio.sleep_forever()
        raise AssertionError


HANDLERS = [Handlers.at_once, Handlers.later, Handlers.in_nursery]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
async def test_an_answer_comes_through(handler) -> None:
    handlers = Handlers()
    assert await handler(handlers, 7) == 7
    assert handlers.counters.snapshot() == {FS_OPERATIONS: 1}


ANY_FAILURE = [
    (errors.EntryNotFound("x"), errno.ENOENT),
    (errors.CorruptData("x"), errno.EIO),
    (FUSEError(errno.EROFS), errno.EROFS),
    (ExceptionGroup("x", [FUSEError(errno.EROFS)]), errno.EROFS),
    (ValueError("x"), errno.EIO),
    (MemoryError(), errno.EIO),
    (RecursionError(), errno.EIO),
    (sqlite3.OperationalError("x"), errno.EIO),
    (StopIteration(), errno.EIO),
    (KeyboardInterrupt(), errno.EIO),
    (SystemExit(1), errno.EIO),
    (BaseExceptionGroup("x", [KeyboardInterrupt()]), errno.EIO),
]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
@pytest.mark.parametrize(("exc", "expected"), ANY_FAILURE, ids=lambda value: repr(value)[:40])
async def test_whatever_is_raised_costs_one_errno(handler, exc: BaseException, expected: int) -> None:
    handlers = Handlers(exc)
    with pytest.raises(FUSEError) as caught:
        await handler(handlers, 7)
    assert caught.value.errno == expected
    assert handlers.counters[FS_ERRORS] == 1


async def test_a_wait_ends_at_the_deadline(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers()
    started = trio.current_time()
    with pytest.raises(FUSEError) as caught:
        await handlers.never(7)
    assert caught.value.errno == errno.ETIMEDOUT
    assert trio.current_time() - started == 5
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "operation=never path='file7' errno=ETIMEDOUT: no answer within 5 s"
    ]


async def test_the_end_of_the_mount_passes_through() -> None:
    handlers = Handlers()
    with trio.CancelScope() as scope:
        scope.cancel()
        await handlers.never(7)
    assert scope.cancelled_caught
    assert handlers.counters[FS_ERRORS] == 0


async def test_the_end_of_the_mount_goes_before_an_error_beside_it() -> None:
    class Both(Handlers):
        async def _sleep(self) -> int:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("while ending")

    handlers = Both()
    with trio.CancelScope() as scope:
        scope.cancel()
        await handlers.never(7)
    assert scope.cancelled_caught
    assert handlers.counters[FS_ERRORS] == 1


async def test_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FUSEError):
        await Handlers(ValueError("a slip")).at_once(7)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "a bug: operation=at_once path='file7' errno=EIO"
    assert "a slip" in caplog.text
    assert "Traceback" in caplog.text


async def test_what_a_program_may_expect_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(FUSEError):
        await Handlers(errors.EntryNotFound("no such name")).at_once(7)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


async def test_an_io_error_is_logged_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FUSEError):
        await Handlers(errors.CorruptData("chunk 3 of xorb abc")).at_once(7)
    assert "errno=EIO: chunk 3 of xorb abc" in caplog.text
    assert "Traceback" not in caplog.text
