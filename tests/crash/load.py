"""Readers of a mount in threads, which check every byte and remember how they ended."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stage import KIB, Contents

STEP_S: Final = 30.0
"""Longest that a single read may take."""


class Load:
    """`with Load(...)`: readers at work. Each ends with its first error that is not tolerated, or when it is told to stop.

    errors: what the readers ended with, and when (monotonic). wrong: descriptions of wrong bytes, for ever empty. done: reads
    made, those that failed included. failed: how many did.
    """

    def __init__(self, root: Path, contents: Contents, *, readers: int, seed: int, tolerated: Container[int | None] = ()) -> None:
        self.errors: list[tuple[OSError, float]] = []
        self.wrong: list[str] = []
        self._root = root
        self._contents = {path: content for path, content in contents.items() if content}
        self.done = 0
        self.failed = 0
        self._tolerated = tolerated
        self._moved = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._read, args=(random.Random(f"{seed} {number}"),), daemon=True)
            for number in range(readers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._stopping = True
        self.join(STEP_S)

    def wait_done(self, count: int) -> None:
        """Until so many reads were made since the beginning."""
        with self._moved:
            assert self._moved.wait_for(lambda: self.done >= count or self.errors or self.wrong, STEP_S), "no reads are made"
        assert self.errors == []
        assert self.wrong == []

    def join(self, timeout_s: float) -> None:
        """Until all readers have ended. Fails if one has not in time."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a reader hangs"

    def _read(self, choose: random.Random) -> None:
        fds: dict[str, int] = {}
        try:
            while not self._stopping:
                try:
                    self._read_once(choose, fds)
                except OSError as exc:
                    if exc.errno not in self._tolerated:
                        raise
                    self._count_failed()
        except OSError as exc:
            with self._moved:
                self.errors.append((exc, time.monotonic()))
                self._moved.notify_all()
        finally:
            for fd in fds.values():
                with suppress(OSError):  # a mount that died says so here, too
                    os.close(fd)

    def _count_failed(self) -> None:
        with self._moved:
            self.done += 1
            self.failed += 1
            self._moved.notify_all()

    def _read_once(self, choose: random.Random, fds: dict[str, int]) -> None:
        path = choose.choice(sorted(self._contents))
        content = self._contents[path]
        if path not in fds:
            fds[path] = os.open(self._root / path, os.O_RDONLY)
        at = choose.randrange(len(content))
        size = choose.choice((1, 4 * KIB, 100 * KIB, 1024 * KIB))
        got = os.pread(fds[path], size, at)
        if choose.random() < 0.3:
            os.posix_fadvise(fds[path], 0, 0, os.POSIX_FADV_DONTNEED)
        with self._moved:
            self.done += 1
            # A read that an error ends in the middle gives what came before it.
            if not content.startswith(got, at) or not got:
                self.wrong.append(f"{path} at {at}: {len(got)} bytes {got[:20].hex()}")
                self._stopping = True
            self._moved.notify_all()


def check_whole(root: Path, contents: Contents, wanted: Callable[[str], bool] = lambda path: True) -> None:
    """Every byte of every wanted file is right."""
    for path, content in contents.items():
        if wanted(path):
            same = (root / path).read_bytes() == content
            assert same, path
