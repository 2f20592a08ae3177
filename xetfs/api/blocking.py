"""Repos and files for programs that do not run trio.

Each process has one engine, in a trio thread of its own, which starts with the first call and ends with the process. Calls may
come from any thread; each waits until the engine has done it. After a fork the child starts an engine of its own when it first
needs one: repos and files that were opened before go on there, at the same commit and position. A call costs two changes of
threads (some 0.1 ms), so files are read through a buffer.
"""

from __future__ import annotations

import atexit
import io
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, TypeVar, TypeVarTuple

import trio

from xetfs.api.environment import hub_from_env, settings_from_env
from xetfs.errors import InvalidArgument, IsADirectory, TimedOut
from xetfs.hub.endpoint import Hub
from xetfs.protocol.names import CommitId, RepoRef
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.file import FileReader
from xetfs.repo.engine import Engine, open_engine
from xetfs.repo.view import FileDetails, RepoView
from xetfs.settings import Settings
from xetfs.units import MIB

BUFFER_BYTES: Final = 1 * MIB
"""Buffer of a file: small reads one after the other cost one call of the engine for each of these."""
CLOSE_S: Final = 30.0
"""Longest wait for the engine to end: what was learnt about files is written until then."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Loop:
    """An engine in a thread of its own."""

    engine: Engine

    def __init__(self, settings: Settings) -> None:
        """Return when the engine is there. Raises the errors of open_engine."""
        self._started: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(settings,), name="xetfs-engine", daemon=True)
        self._thread.start()
        failure = self._started.get()
        if failure is not None:
            raise failure

    def _run(self, settings: Settings) -> None:
        try:
            trio.run(self._serve, settings)
        except BaseException as exc:
            self._started.put(exc)  # for whoever starts it; nobody looks later

    async def _serve(self, settings: Settings) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        async with open_engine(settings) as self.engine:
            self._started.put(None)
            await self._ended.wait()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def call(self, work: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Return what `work` returns in the engine's thread, or raise what it raises."""
        try:
            return trio.from_thread.run(work, *args, trio_token=self._token)
        except trio.TooSlowError:
            raise TimedOut("no answer in time") from None

    def call_soon(self, work: Callable[[], object]) -> None:
        """Have `work`, which cannot fail, done in the engine's thread. Never waits: the garbage collector may be the caller."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(work)

    def close(self) -> None:
        if self.alive:
            trio.from_thread.run_sync(self._ended.set, trio_token=self._token)
            self._thread.join(CLOSE_S)


class _Process:
    """What belongs to this process."""

    def __init__(self, settings: Settings | None, hub: Hub | None) -> None:
        self._lock = threading.Lock()
        self._loop: _Loop | None = None
        self._settings = settings
        self._hub = hub

    def loop(self) -> _Loop:
        with self._lock:
            if self._loop is None or not self._loop.alive:
                self._loop = _Loop(self._settings or settings_from_env())
            return self._loop

    def runs(self, loop: _Loop) -> bool:
        return self._loop is loop and loop.alive

    def hub(self) -> Hub:
        """The Hub of the environment, the same value each time."""
        with self._lock:
            self._hub = self._hub or hub_from_env()
            return self._hub

    def use(self, settings: Settings) -> None:
        with self._lock:
            if self._loop is not None and self._loop.alive and settings != self._settings:
                raise InvalidArgument("the engine of this process runs with other settings", hint="call use() first")
            self._settings = settings

    def close(self) -> None:
        with self._lock:
            if self._loop is not None:
                self._loop.close()
                self._loop = None

    def in_child(self) -> _Process:
        return _Process(self._settings, self._hub)


_process = _Process(None, None)
_of_parents: list[_Process] = []
"""Engines that a fork has copied without their threads: never touched, and never freed, as that would close what the parent
uses."""


def _after_fork() -> None:
    global _process
    _of_parents.append(_process)
    _process = _process.in_child()


os.register_at_fork(after_in_child=_after_fork)


def use(settings: Settings) -> None:
    """Choose the settings of this process's engine. By default they are those of the environment.

    Raises InvalidArgument if the engine runs already, with others.
    """
    _process.use(settings)


def close() -> None:
    """End the engine of this process, which is done at its end in any case. The next call starts another one."""
    _process.close()


atexit.register(close)


class File(io.RawIOBase):
    """A file of a repo, unbuffered. Threads may share it if they use `pread`."""

    def __init__(self, repo: Repo, path: str) -> None:
        """Made by Repo.open_raw. Raises EntryNotFound, IsADirectory, and what listing it raises."""
        super().__init__()
        self.name = path
        self._repo = repo
        self._position = 0
        self._loop, self._reader = self._open()
        self.size = self._reader.size

    def _open(self) -> tuple[_Loop, FileReader]:
        loop, view = self._repo._in_this_process()
        return loop, loop.call(_open_file, view, self.name)

    def pread(self, start: int, length: int) -> bytes | bytearray | memoryview:
        """Return the bytes from `start` on, `length` of them or as many as the file has there; the position does not change."""
        if self.closed:
            raise ValueError("the file is closed")
        if _process.loop() is not self._loop:
            self._loop, self._reader = self._open()
        return self._loop.call(_read, self._reader, ByteRange(start, start + length))

    def readinto(self, buffer: object, /) -> int:
        into = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # io takes whatever has the buffer protocol
        data = self.pread(self._position, len(into))
        into[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = bytes(self.pread(self._position, max(self.size - self._position, 0)))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError("a place before the file's beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            loop: _Loop | None = getattr(self, "_loop", None)  # none if it could not be opened
            if loop is not None and _process.runs(loop):
                loop.call_soon(self._reader.close)


class Repo:
    """One repo at one commit, or a folder of it. Made by open_repo.

    Paths are counted from what was opened; those in FileDetails from the root of the repo.
    """

    def __init__(self, loop: _Loop, view: RepoView) -> None:
        self._loop, self._view = loop, view
        self._ref = RepoRef(view.repo, view.ref.subfolder, view.commit)

    @property
    def ref(self) -> RepoRef:
        """The repo, and the commit as its revision."""
        return self._ref

    @property
    def commit(self) -> CommitId:
        return self._view.commit

    def _in_this_process(self) -> tuple[_Loop, RepoView]:
        """Return the loop of this process, and this repo in its engine, opened anew if it is another one."""
        loop = _process.loop()
        if loop is not self._loop:
            self._view, self._loop = loop.call(loop.engine.open_repo, self._ref, self._view.hub), loop
        return loop, self._view

    def describe(self, path: str = "") -> FileDetails:
        """Return what is known of a file or directory. Raises EntryNotFound, NotADirectory, and what listing it raises."""
        loop, view = self._in_this_process()
        return loop.call(_describe, view, path)

    def listdir(self, path: str = "") -> list[FileDetails]:
        """Return what is in a directory, sorted by name. Raises as `describe`."""
        loop, view = self._in_this_process()
        return loop.call(_list, view, path)

    def open_raw(self, path: str) -> File:
        """Open a file without a buffer, for reads that are large or anywhere. Raises IsADirectory, and as `describe`."""
        return File(self, path)

    def open(self, path: str) -> io.BufferedReader:
        """Open a file for reading, in binary. Raises IsADirectory, and as `describe`."""
        return io.BufferedReader(self.open_raw(path), BUFFER_BYTES)

    def __repr__(self) -> str:
        return f"Repo({self._ref})"


def open_repo(name: str, hub: Hub | None = None) -> Repo:
    """Open a repo: `[datasets/|spaces/]owner/name[/subfolder][@revision]`. hub: by default that of the environment.

    Raises InvalidArgument, and the errors of Engine.open_repo.
    """
    loop = _process.loop()
    return Repo(loop, loop.call(loop.engine.open_repo, RepoRef.parse(name), hub or _process.hub()))


def open(name: str, hub: Hub | None = None) -> io.BufferedReader:
    """Open a file of a repo for reading, in binary: `[datasets/|spaces/]owner/name/path[@revision]`.

    Raises InvalidArgument, IsADirectory, EntryNotFound, and the errors of Engine.open_repo.
    """
    ref = RepoRef.parse(name)
    if not any(reading.subfolder for reading in ref.readings):
        raise IsADirectory(f"{ref} is a repo, not a file in one", hint="write owner/name/path")
    loop = _process.loop()
    view, node = loop.call(loop.engine.open_path, ref, hub or _process.hub())
    return Repo(loop, view).open(node.path)


async def _open_file(view: RepoView, path: str) -> FileReader:
    node = await view.find(path)
    reader = view.open_file(node)
    view.on_opened(node)
    return reader


async def _read(reader: FileReader, span: ByteRange) -> bytes | bytearray | memoryview:
    data = reader.read_nowait(span)
    return await reader.read(span) if data is None else data


async def _describe(view: RepoView, path: str) -> FileDetails:
    return view.describe(await view.find(path))


async def _list(view: RepoView, path: str) -> list[FileDetails]:
    return [view.describe(node) for node in await view.children(await view.find(path))]
