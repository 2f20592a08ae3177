"""A small repo of every kind of file in a hub of its own process, and mounts of it: for tests that spoil things.

Nothing here uses the real client: files are put into the hub by its storage, in chunks of our choosing, within a second.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from mount_hub import HubProcess
from mount_user import UNEXPECTED, XETFS, Mount, is_mounted, sweep

from xetfs.testhub import HubOptions, TestHub

KIB: Final = 1024
MIB: Final = 1024 * KIB
REPO: Final = "stage/demo"
PRIVATE: Final = "stage/private"
OWNER, GUEST = "hf_stageownerstageowner", "hf_stagegueststageguest"
SHARDS: Final = 64
SHARD_BYTES: Final = 512 * KIB
MANY: Final = 200

UNDER_FAULTS: Final = (
    "corrupt data, fetching again",
    "dropped a bad block",
    "operation=",
    "loading ahead failed",
    "read through the Hub instead",
    "range proofs fail",
    "a server offers no proofs",
)
"""What a daemon's log may say while its network is being spoilt."""

Contents = Mapping[str, bytes]


@dataclass(frozen=True)
class Staged:
    """A running hub and what it holds: the content of every file of REPO, by path."""

    hub: HubProcess
    contents: Contents
    base: Path

    def listing(self, directory: str) -> dict[str, bool]:
        """Names directly in a directory, and whether each is a directory itself."""
        prefix = f"{directory}/" if directory else ""
        rests = [path.removeprefix(prefix) for path in self.contents if path.startswith(prefix)]
        return {rest.partition("/")[0]: "/" in rest for rest in rests}

    @property
    def directories(self) -> list[str]:
        found = {""}
        for path in self.contents:
            parts = path.split("/")[:-1]
            found |= {"/".join(parts[: i + 1]) for i in range(len(parts))}
        return sorted(found)


@contextmanager
def staging(name: str) -> Iterator[Path]:
    """A directory to mount and keep files in. What earlier runs left is taken down first; nothing may be left at the end."""
    prefix = f"xetfs-tests-{name}-"
    temporary = Path(tempfile.gettempdir())
    for left in temporary.glob(f"{prefix}*"):
        if not Path(f"/proc/{left.name.removeprefix(prefix).partition('-')[0]}").exists():
            sweep(left)
            shutil.rmtree(left, ignore_errors=True)
    base = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    left_over: list[str] = []
    try:
        yield base
    finally:
        left_over = sweep(base)
        shutil.rmtree(base)
    assert left_over == []


@contextmanager
def staged(base: Path) -> Iterator[Staged]:
    """The repo, served. base is made if it is not there."""
    base.mkdir(exist_ok=True)
    hub = TestHub(base / "hub", HubOptions(), seed=0)
    try:
        contents = _fill(hub, base)
    finally:
        hub.storage.close()
    running = HubProcess(base / "hub")
    try:
        yield Staged(running, contents, base)
    finally:
        running.stop()


class Stage(Mount):
    """A mount of the staged repo, in the foreground so that its process is known, and mounted again as often as wanted."""

    def __init__(self, staged: Staged, name: str, *, ref: str = REPO, token: str = "") -> None:
        here = staged.base / name
        self.env = {"HF_ENDPOINT": staged.hub.endpoint, "HF_TOKEN": token, "XDG_STATE_HOME": str(here / "state")}
        super().__init__(here, here / "cache", self.env)
        self._ref = ref
        self._judged = 0

    def start(self, *arguments: str) -> None:
        self.mount_in_foreground(self._ref, arguments)

    def kill(self) -> None:
        super().kill()
        self._reap()

    def begin(self) -> subprocess.Popen[bytes]:
        """Begin to mount, without waiting for it."""
        command = [*XETFS, "mount", self._ref, str(self.path), "--foreground", *self.options]
        return subprocess.Popen(command, env={**os.environ, **self.env}, stdout=subprocess.DEVNULL, start_new_session=True)

    @property
    def options(self) -> list[str]:
        return ["--log-file", str(self.log_file), "--cache-dir", str(self.cache_dir)]

    def stop(self) -> None:
        if is_mounted(self.path):
            self.umount()

    def judge(self, allowed: Sequence[str] = ()) -> None:
        """Fail if the log says, since this was last called, anything unusual that is not among `allowed`."""
        log = self.log()
        if len(log) < self._judged:  # a new file was begun
            self._judged = 0
        fresh, self._judged = log[self._judged :], len(log)
        lines = [line for line in fresh.splitlines() if UNEXPECTED.search(line)]
        unexpected = [line for line in lines if not any(word in line for word in allowed)]
        assert not unexpected, "the log says:\n" + "\n".join(unexpected)


@contextmanager
def mounted(staged: Staged, name: str, *arguments: str, ref: str = REPO, token: str = "") -> Iterator[Stage]:
    """A mount, taken down at the end, with nothing unexpected in its log."""
    stage = Stage(staged, name, ref=ref, token=token)
    try:
        stage.start(*arguments)
        yield stage
        stage.stop()
        stage.judge(stage.expected)
    except BaseException:
        print(stage.log()[-5000:])
        raise
    finally:
        stage.clean_up()


def block_files(cache: Path) -> list[Path]:
    """The files of a store that hold blocks or long records."""
    return sorted(cache.glob("[0-9a-f][0-9a-f]/*.val"))


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


# --- the content


def _fill(hub: TestHub, base: Path) -> Contents:
    chance = np.random.default_rng(4)
    pieces = [chance.bytes(int(size)) for size in chance.integers(9 * KIB, 128 * KIB, 200)]
    text = b"".join(b"line %d of a text that can be packed\n" % number for number in range(60_000))
    small = [chance.bytes(int(size)) for size in chance.integers(500, 9_000, 200)]
    xet = {
        "weights/first.bin": pieces[:120],
        "weights/second.bin": [*pieces[60:100], *pieces[120:], *pieces[:20]],
        "weights/text.bin": [text[at : at + 90_000] for at in range(0, len(text), 90_000)],
        "weights/zeros.bin": [bytes(128 * KIB)] * 24,
        "scattered.bin": [small[int(number)] for number in chance.integers(0, 200, 900)],
        "one.bin": [b"\x01"],
        "chunk.bin": [pieces[0]],
        **{f"shards/{number:03}.bin": _cut(chance.bytes(SHARD_BYTES)) for number in range(SHARDS)},
    }
    contents = {path: b"".join(chunks) for path, chunks in xet.items()}
    lfs = {"lfs/old.bin": chance.bytes(3 * MIB + 17)}
    plain = {
        "README.md": b"# Demo\n",
        "empty.txt": b"",
        "plain.txt": text[: 300 * KIB],
        "deep/er/and/deeper/still.txt": b"bottom",
        **{f"many/{number:03}.txt": b"%d" % number for number in range(MANY)},
    }
    stored = {path: hub.xet.add_file_from_chunks(chunks, xorb_chunks=50)[1] for path, chunks in xet.items()}
    for path, content in lfs.items():
        place = base / "lfs"
        place.write_bytes(content)
        stored[path] = hub.storage.add_lfs(hashlib.sha256(content).hexdigest(), len(content), place)
    contents |= lfs | plain
    hub.accounts.add_token(OWNER, "stage")
    hub.accounts.add_token(GUEST, "guest", "read")
    hub.storage.commit_files(hub.storage.create_repo("model", REPO, author="stage"), {**stored, **plain})
    private = hub.storage.create_repo("model", PRIVATE, private=True, author="stage")
    hub.storage.commit_files(private, {"first.bin": stored["weights/first.bin"], "README.md": b"# Private\n"})
    return contents


def _cut(content: bytes) -> list[bytes]:
    return [content[at : at + 64 * KIB] for at in range(0, len(content), 64 * KIB)]
