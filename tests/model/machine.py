"""The model: a mount does what plain files do. Every rule is something that a program, a user or the world may do to it.

The files are bytes in memory. While a fault is on, and for a moment after, an operation may fail, with an errno of the documented
set, or be cut short; a byte that it gives is right in any case.

The rare ones are due when enough others have passed, which keeps their share whatever Hypothesis draws. What was done is kept in
a journal of our own: the mount outlives the run of a machine, so that a run which fails need not fail again when it is repeated.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from faulting import PageFaulter
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model_faults import FAULTS
from stage import KIB, MIB, REPO, UNDER_FAULTS, Stage, Staged, block_files

JOURNAL_LINES: Final = 300
HANDLES_MAX: Final = 40
GRACE_S: Final = 2.0
"""How long after a fault an error may still be told: a failed place answers so for a second."""
FAULT_OPERATIONS: Final = 12
"""Operations for which a fault stays on."""
FAILURES: Final = frozenset({errno.EIO, errno.ETIMEDOUT, errno.EACCES, errno.ENETUNREACH})
"""What may be told while the network is being spoilt."""

AT_ANY_TIME: Final = ("is not where it was a moment ago",)
"""What the log may say without a fault: blocks are lost under the daemon."""
FOUND_OUT: Final = (*AT_ANY_TIME, "does not hold what this file has there", "do not belong to the file")
"""What it may say, too, while the cache has something from the time of a fault: what was fetched ahead then, and never proven as
nobody came to read it, is found out when somebody does."""

SPAN = st.tuples(st.integers(0, 13 * MIB), st.integers(0, 9 * KIB) | st.integers(0, 300 * KIB) | st.just(MIB))
PICK = st.integers(0, 2**20)


class Wrong(BaseException):
    """The mount did not do as plain files do. Ends everything: Hypothesis would repeat the run, on another mount."""


@contextlib.contextmanager
def all_is_right() -> Iterator[None]:
    try:
        yield
    except (AssertionError, OSError, subprocess.SubprocessError) as exc:
        raise Wrong(str(exc)) from exc


@dataclass
class Handle:
    path: str
    fd: int
    position: int = 0


@dataclass
class Session:
    """What outlives one run of the machine: the mount, and how much was done to it."""

    staged: Staged
    stage: Stage
    operations: int = 0
    failures: int = 0
    done: dict[str, int] = field(default_factory=dict)
    fault: str = ""
    fault_until: int = 0
    journal: deque[str] = field(default_factory=lambda: deque(maxlen=JOURNAL_LINES))
    grace_until_s: float = 0.0
    was_spoilt: bool = False
    has_spoilt_cache: bool = False
    faulter: PageFaulter = field(default_factory=PageFaulter)

    def count(self, name: str) -> None:
        self.operations += 1
        self.done[name] = self.done.get(name, 0) + 1

    def note(self, line: str) -> None:
        self.journal.append(f"{time.monotonic():.3f} {self.fault and '!'} {line}")

    @property
    def spoilt(self) -> bool:
        return bool(self.fault) or time.monotonic() < self.grace_until_s

    def judge_log(self) -> None:
        """Fail if the daemon's log says, since it was last judged, what it should not. What was written in the grace after a
        fault may stand beside what came later: only from the next judgement on is the log that of a network in order."""
        allowed = FOUND_OUT if self.has_spoilt_cache else AT_ANY_TIME
        self.stage.judge(UNDER_FAULTS if self.was_spoilt or self.spoilt else allowed)
        self.was_spoilt = self.spoilt

    @all_is_right()
    def end_grace(self) -> None:
        """Judge what was written under a fault and in the grace after it, once that is over."""
        if self.was_spoilt and not self.spoilt:
            self.judge_log()

    @all_is_right()
    def set_fault(self, name: str) -> None:
        self.judge_log()
        self.staged.hub.control("DELETE", "faults", {})
        if name:
            self.staged.hub.control("POST", "faults", FAULTS[name])
            self.fault_until = self.operations + FAULT_OPERATIONS
            self.has_spoilt_cache = True
        else:
            self.grace_until_s = time.monotonic() + GRACE_S
        self.fault = name
        self.was_spoilt = True
        self.note(f"fault: {name or 'none'}")

    @all_is_right()
    def remount(self, *, empty: bool) -> None:
        """Mount again, perhaps with an empty cache: what is asked for then comes over the network, which faults can spoil."""
        self.faulter.close()
        self.stage.stop()
        if empty:
            shutil.rmtree(self.stage.cache_dir)
        self.judge_log()
        self.has_spoilt_cache = self.has_spoilt_cache and not empty
        self.stage.start()

    def close(self) -> None:
        self.faulter.close()
        self.staged.hub.reset()
        self.stage.stop()
        self.judge_log()


class MountModel(RuleBasedStateMachine):
    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.contents = session.staged.contents
        self.root = session.stage.path
        self.paths = sorted(self.contents)
        self.large = [path for path in self.paths if len(self.contents[path]) > 64 * KIB and "shards/" not in path]
        self.handles: list[Handle] = []
        self.steps = 0
        self.due_at: dict[str, int] = {}

    def teardown(self) -> None:
        self.close_all()
        if self.session.fault:
            self.session.set_fault("")

    @invariant()
    def count_step(self) -> None:
        self.steps += 1
        self.session.end_grace()

    def is_due(self, name: str, interval: int) -> bool:
        return self.steps >= self.due_at.setdefault(name, self.steps + interval)

    def do_rarely(self, name: str, interval: int) -> None:
        self.due_at[name] = self.steps + interval
        self.session.count(name)
        self.session.note(name)

    # What the rules are made of

    @all_is_right()
    def attempt(self, name: str, act: Callable[[], Any], expected: Any) -> None:
        """Do it, and compare. Bytes may be cut short where they may fail: what is there already is given out first."""
        session = self.session
        session.count(name)
        session.note(name)
        failure = None
        try:
            got = act()
        except OSError as exc:
            failure = exc
        may_fail = session.spoilt
        if session.fault and session.operations >= session.fault_until:
            session.set_fault("")
        if failure is not None:
            session.note(f"  {failure}")
            assert may_fail, f"{name} failed: {failure}"
            assert failure.errno in FAILURES, f"{name} failed: {failure}"
            session.failures += 1
            return
        session.note(f"  {_shown(got)}")
        if isinstance(expected, bytes) and may_fail and 0 < len(got) < len(expected):
            session.failures += 1
            expected = expected[: len(got)]
        same = got == expected
        assert same, f"{name}: {_shown(got)} in place of {_shown(expected)}"

    def a_path(self, pick: int) -> str:
        """Any file; every second time one of those that are worth seeking in."""
        choices = self.large if pick % 2 else self.paths
        path = choices[pick // 2 % len(choices)]
        self.session.note(f"  {path}")
        return path

    def a_handle(self, pick: int) -> Handle | None:
        """One that is open; one more is opened when there are few."""
        if len(self.handles) < 3 or pick % 16 == 0:
            self.open(pick // 16)
        if not self.handles:
            return None
        handle = self.handles[pick // 16 % len(self.handles)]
        self.session.note(f"  {handle.path} at {handle.position}")
        return handle

    def close_all(self) -> None:
        while self.handles:
            os.close(self.handles.pop().fd)

    # What programs do

    @rule(pick=PICK)
    def open(self, pick: int) -> None:
        path = self.a_path(pick)
        if len(self.handles) >= HANDLES_MAX:
            os.close(self.handles.pop(pick % HANDLES_MAX).fd)

        def act() -> int:
            fd = os.open(self.root / path, os.O_RDONLY)
            self.handles.append(Handle(path, fd))
            return os.fstat(fd).st_size

        self.attempt("open", act, len(self.contents[path]))

    @rule(pick=PICK)
    def close(self, pick: int) -> None:
        if self.handles:
            self.session.count("close")
            os.close(self.handles.pop(pick % len(self.handles)).fd)

    @rule(pick=PICK, span=SPAN)
    def pread(self, pick: int, span: tuple[int, int]) -> None:
        if handle := self.a_handle(pick):
            content = self.contents[handle.path]
            offset = span[0] % (len(content) + 4096)
            expected = content[offset : offset + span[1]]
            self.attempt("pread", lambda: os.pread(handle.fd, span[1], offset), expected)

    @rule(pick=PICK, span=SPAN, cuts=st.lists(st.integers(1, 70 * KIB), min_size=1, max_size=6))
    def preadv(self, pick: int, span: tuple[int, int], cuts: list[int]) -> None:
        if handle := self.a_handle(pick):
            content = self.contents[handle.path]
            offset = span[0] % (len(content) + 1)
            buffers = [bytearray(cut) for cut in cuts]

            def act() -> bytes:
                got = os.preadv(handle.fd, buffers, offset)
                return b"".join(buffers)[:got]

            self.attempt("preadv", act, content[offset : offset + sum(cuts)])

    @rule(pick=PICK, span=SPAN, whence=st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]))
    def seek_and_read(self, pick: int, span: tuple[int, int], whence: int) -> None:
        if handle := self.a_handle(pick):
            content = self.contents[handle.path]
            target = span[0] % (len(content) + 100)
            base = {os.SEEK_SET: 0, os.SEEK_CUR: handle.position, os.SEEK_END: len(content)}[whence]

            def act() -> bytes:
                handle.position = os.lseek(handle.fd, target - base, whence)
                assert handle.position == target
                data = os.read(handle.fd, span[1])
                handle.position += len(data)
                return data

            self.attempt("seek+read", act, content[target : target + span[1]])

    @rule(pick=PICK, count=st.integers(1, 64 * KIB))
    def read_on(self, pick: int, count: int) -> None:
        if handle := self.a_handle(pick):
            content = self.contents[handle.path]

            def act() -> bytes:
                data = os.read(handle.fd, count)
                handle.position += len(data)
                return data

            self.attempt("read", act, content[handle.position : handle.position + count])

    @rule(pick=PICK, span=SPAN)
    def map(self, pick: int, span: tuple[int, int]) -> None:
        path = self.a_path(pick)
        content = self.contents[path]
        if content:
            start = span[0] % len(content)
            end = min(start + span[1], len(content))
            self.attempt("mmap", lambda: self.session.faulter.read(self.root / path, start, end), content[start:end])

    @rule(pick=PICK)
    def read_whole(self, pick: int) -> None:
        path = self.paths[pick % len(self.paths)]
        self.session.note(f"  {path}")

        def act() -> bytes:
            data = (self.root / path).read_bytes()  # which ends at the first short read
            if self.session.spoilt and len(data) < len(self.contents[path]):
                raise OSError(errno.EIO, "cut short")
            return data

        self.attempt("whole", act, self.contents[path])

    @rule(pick=PICK)
    def list(self, pick: int) -> None:
        directories = self.session.staged.directories
        directory = directories[pick % len(directories)]
        expected = self.session.staged.listing(directory)

        def act() -> dict[str, bool]:
            with os.scandir(self.root / directory) as entries:
                return {entry.name: entry.is_dir() for entry in entries}

        self.attempt("readdir", act, expected)

    @rule(pick=PICK)
    def stat(self, pick: int) -> None:
        path = self.a_path(pick)

        def act() -> tuple[int, int, int]:
            status = os.stat(self.root / path)
            return status.st_size, status.st_mode & 0o777, status.st_nlink

        self.attempt("stat", act, (len(self.contents[path]), 0o644, 1))

    @rule(pick=PICK)
    def look_for_nothing(self, pick: int) -> None:
        path = self.root / self.a_path(pick)
        name = path.with_name(f"{path.name}.absent")

        def act() -> int | None:
            try:
                os.stat(name)
            except FileNotFoundError as exc:
                return exc.errno
            return None

        self.attempt("stat of nothing", act, errno.ENOENT)

    @rule(pick=PICK)
    def ask_attributes(self, pick: int) -> None:
        path = self.a_path(pick)
        place = self.root / path

        def act() -> tuple[bytes, bool]:
            names = os.listxattr(place)
            if "user.xetfs.sha256" in names:
                digest = hashlib.sha256(self.contents[path]).hexdigest()
                assert os.getxattr(place, "user.xetfs.sha256").decode() == digest
            return os.getxattr(place, "user.xetfs.repo"), "user.xetfs.commit" in names

        self.attempt("xattr", act, (REPO.encode(), True))

    @rule(pick=PICK, what=st.sampled_from(["write", "unlink", "mkdir", "rename", "chmod", "truncate"]))
    def try_to_change(self, pick: int, what: str) -> None:
        path = self.root / self.a_path(pick)
        acts: dict[str, Callable[[], Any]] = {
            "write": lambda: os.open(path, os.O_WRONLY),
            "unlink": lambda: os.unlink(path),
            "mkdir": lambda: os.mkdir(path.with_name("new")),
            "rename": lambda: os.rename(path, path.with_name("new")),
            "chmod": lambda: os.chmod(path, 0o777),
            "truncate": lambda: os.truncate(path, 0),
        }

        def act() -> int | None:
            try:
                acts[what]()
            except OSError as exc:
                if exc.errno != errno.EROFS:
                    raise
                return exc.errno
            return None

        self.attempt("write", act, errno.EROFS)

    # What the world does

    @rule(pick=PICK)
    def drop_pages(self, pick: int) -> None:
        """The kernel forgets what it has of a file."""
        path = self.a_path(pick)
        self.session.count("drop pages")
        with contextlib.suppress(OSError):
            fd = os.open(self.root / path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)

    @precondition(lambda self: self.is_due("evict", 60))
    @rule(seed=PICK)
    def lose_blocks(self, seed: int) -> None:
        """Half of the blocks on disk are gone, as after an eviction by others."""
        self.do_rarely("evict", 60)
        for block in block_files(self.session.stage.cache_dir):
            if random.Random(f"{seed}{block.name}").random() < 0.5:
                block.unlink(missing_ok=True)

    @precondition(lambda self: self.is_due("fault", 25))
    @rule(name=st.sampled_from(sorted(FAULTS)))
    def spoil(self, name: str) -> None:
        self.do_rarely("fault", 25)
        self.session.set_fault(name)

    @precondition(lambda self: self.is_due("remount", 100))
    @rule(die=st.integers(1, 3))
    def remount(self, die: int) -> None:
        if die != 2:
            return
        self.do_rarely("remount", 100)
        self.close_all()
        self.session.set_fault("")
        self.session.remount(empty=die == 1)


def _shown(value: object) -> str:
    if isinstance(value, bytes) and len(value) > 40:
        return f"{len(value)} bytes {value[:20].hex()}…"
    return repr(value)
