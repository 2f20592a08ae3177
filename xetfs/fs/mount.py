"""A mount from beginning to end: mount, say when it is ready, serve, unmount.

Ready means that a thread of ours has listed the directory through the kernel: mount(2) returns before the kernel and we have
spoken. It ends when somebody unmounts it, at SIGTERM, SIGINT or SIGHUP, or when the caller is cancelled, and nothing is left
mounted then. After a failure of our own in a mount that was ready the directory stays, dead: a program that mirrors it must see
errors rather than an empty directory; the next mount replaces it.

Everything runs on the event loop but what may wait for a daemon, which is a thread's: were the loop to touch the mount, it would
wait for itself.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyfuse3
import trio

from xetfs.errors import MachineUnfit, MountpointUnusable
from xetfs.fs import mountpoint as outside
from xetfs.fs.operations import Operations
from xetfs.fs.tuning import tune
from xetfs.fs.turns import quick_turns
from xetfs.settings import Settings
from xetfs.telemetry import Counters

if TYPE_CHECKING:
    from xetfs.repo import RepoView

log = logging.getLogger(__name__)

READY_S: Final = 10.0
"""Limit for the kernel to list the root directory, which is loaded before: it takes milliseconds."""
PREPARE_S: Final = 10.0
"""Limit for judging the directory to mount on; only another file system that hangs reaches it."""
END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve_mount(
    view: RepoView,
    mountpoint: Path,
    settings: Settings,
    *,
    counters: Counters,
    allow_other: bool,
    on_ready: Callable[[str], None],
) -> None:
    """Mount `view` on an empty directory and serve it until it is unmounted.

    on_ready: called once, when the directory can be listed, with the `major:minor` of the mount.
    Raises MountpointUnusable and MachineUnfit before it is ready, with nothing left mounted; the errors of listing the root
    directory; trio.TooSlowError when that takes longer than an operation may.
    """
    choices = settings.mount
    with trio.fail_after(settings.operation_deadline_s):
        await view.children(view.root)
    operations = Operations(view, deadline_s=settings.operation_deadline_s, counters=counters)
    with trio.open_signal_receiver(*END_SIGNALS) as signals:
        async with _claimed(mountpoint) as path:
            session = _Session(operations, path, mount_options(view, allow_other=allow_other))
            session.mount()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_on_signal, signals, nursery.cancel_scope, path)
                nursery.start_soon(session.serve, choices.tasks_max, nursery.cancel_scope)
                device = await _wait_listed(path)
                operations.read_ahead = await trio.to_thread.run_sync(
                    partial(
                        tune,
                        device,
                        read_ahead_kb=choices.read_ahead_kb,
                        read_ahead_units_kb=choices.read_ahead_units_kb,
                    )
                )
                log.info("mounted path=%s repo=%s commit=%s", path, view.repo, view.commit)
                on_ready(device)
                session.ready = True
        except BaseExceptionGroup as group:
            cancelled, others = group.split(trio.Cancelled)
            session.failed = others is not None
            raise _sole(others or cancelled or group) from None
        finally:
            session.close()
    log.info("unmounted path=%s", path)


def mount_options(view: RepoView, *, allow_other: bool) -> set[str]:
    """Options for libfuse. None can carry a comma, which would begin another: repo names and commits have none."""
    options = {f"fsname=xetfs:{view.repo}@{view.commit[:12]}", "subtype=xetfs", "ro", "nosuid", "nodev", "default_permissions"}
    if allow_other:
        options.add("allow_other")
    return options


class _Session:
    """The pyfuse3 session of this process, from mount to close.

    ready: from here on a failure leaves the dead mount in place. failed: it ends by an error of ours.
    """

    def __init__(self, operations: Operations, path: Path, options: set[str]) -> None:
        self.ready = False
        self.failed = False
        self._operations = operations
        self._path = path
        self._options = options

    def mount(self) -> None:
        """Raises MountpointUnusable."""
        try:
            pyfuse3.init(self._operations, str(self._path), self._options)
        except RuntimeError as exc:
            if "mount failed" not in str(exc):
                raise MachineUnfit(f"libfuse does not start: {exc}", hint="check that libfuse3 is installed whole") from None
            pyfuse3.close(unmount=False)  # what there is of the session
            raise MountpointUnusable(
                f"{self._path} could not be mounted on", hint="the reason is in the log; 'xetfs mount --foreground' shows it"
            ) from None

    async def serve(self, tasks_max: int, scope: trio.CancelScope) -> None:
        """Answer the kernel until the mount is gone; then end the others."""
        with quick_turns():
            await pyfuse3.main(max_tasks=tasks_max)
        if not self.ready:
            raise MountpointUnusable(f"{self._path} was unmounted before it was ready")
        scope.cancel()

    def close(self) -> None:
        pyfuse3.close(unmount=not (self.ready and self.failed))
        self._operations.close()


@asynccontextmanager
async def _claimed(mountpoint: Path) -> AsyncIterator[Path]:
    """`outside.claimed`, whose beginning may wait for a foreign file system. Raises MountpointUnusable, MachineUnfit."""
    outside.check_machine()
    claim = outside.claimed(mountpoint)
    with trio.move_on_after(PREPARE_S) as scope:
        path = await trio.to_thread.run_sync(claim.__enter__, abandon_on_cancel=True)
    if scope.cancelled_caught:
        raise outside.does_not_answer(mountpoint)
    try:
        yield path
    finally:
        claim.__exit__(None, None, None)


async def _wait_listed(path: Path) -> str:
    """Wait until the kernel lists the mount; its `major:minor`. Raises MountpointUnusable."""

    def list_directory() -> str:
        os.statvfs(path)
        os.listdir(path)
        device = os.stat(path).st_dev
        return f"{os.major(device)}:{os.minor(device)}"

    try:
        with trio.move_on_after(READY_S):
            return await trio.to_thread.run_sync(list_directory, abandon_on_cancel=True)
    except OSError as exc:
        raise MountpointUnusable(f"{path} is mounted but cannot be listed: {exc.strerror}") from exc
    raise MountpointUnusable(f"{path} is mounted but was not listed within {READY_S:g} s")


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope, path: Path) -> None:
    async for number in signals:
        log.info("unmounting signal=%s path=%s", signal.Signals(number).name, path)
        scope.cancel()
        return


def _sole(exc: BaseException) -> BaseException:
    """What a group holds, if that is one exception: a nursery wraps even the only one."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
