"""An engine and a hub in one process, and the operations that a fault may meet; errors arrive as errnos, through the guard."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio
from flat_settings import flat_settings, open_engine
from pyfuse3 import FUSEError

from xetfs.credentials import FixedToken
from xetfs.errors import XetfsError
from xetfs.fs.errno import errno_of
from xetfs.fs.operations import Operations
from xetfs.protocol.names import RepoId, RepoRef
from xetfs.protocol.xorb import Scheme
from xetfs.repo import Engine, RepoView
from xetfs.secret import Secret
from xetfs.settings import Settings
from xetfs.testhub import Fault, HubOptions, RequestRecord, TestHub, open_test_hub
from xetfs.units import MIB

REPO: Final = "local/faulty"
OTHER: Final = "local/other"
TOKEN: Final = "hf_CANARYcanaryCANARYcanary"
PLAIN: Final = b"# Plain text, as git holds it\n" * 100
WARM: Final = b"Read before anything fails\n"
CHUNK_COUNT: Final = 40

# As docs/faults.md says.
DEADLINE_S: Final = 3.0
ATTEMPTS: Final = 3
STALL_S: Final = 0.7
CONNECT_S: Final = 0.5
OUTAGE_S: Final = 0.3
PROOF_S: Final = 0.3


@dataclass(frozen=True)
class Place:
    """Where a fault strikes: the requests concerned, and what a program does that makes them."""

    origin: str
    path: str
    operation: str
    before: str = ""
    """What the program has done before, at peace."""


PLACES: Final = {
    "first mount": Place("hub", r"^/api/models/local/other/revision/", "first mount"),
    "mount": Place("hub", r"^/api/models/local/faulty/revision/", "mount"),
    "listing": Place("hub", r"/tree/[0-9a-f]{40}/dir$", "list"),
    "CAS token": Place("hub", r"/xet-read-token/", "read"),
    "reconstruction": Place("cas", r"^/v[12]/reconstructions/", "read"),
    "proof": Place("cas", r"^/v2/file-chunk-hashes/", "read"),
    "data": Place("transfer", r"^/xorbs/", "read"),
    "plain file": Place("hub", r"^/api/resolve-cache/", "read plain"),
    "LFS file": Place("transfer", r"^/lfs/", "read lfs"),
    "more of an LFS file": Place("transfer", r"^/lfs/", "read more lfs", before="read lfs"),
}


class _FreshTokens(HubOptions):
    """No two tokens for the CAS are the same, as they would be if they were given in the same second."""

    __slots__ = ("given",)

    def token_expiry_s(self) -> int:
        self.given = getattr(self, "given", 0) + 1
        return HubOptions.token_expiry_s(self) + self.given


class Bench:
    """A repo with one file of each kind, at a hub that may be told to fail.

    content, lfs: of `f.bin` (in Xet, 40 chunks) and `old.bin` (LFS). more_ports: of loopback that may be connected to as well.
    """

    def __init__(self, hub: TestHub) -> None:
        self.hub = hub
        self.more_ports: set[int] = set()
        chance = random.Random(11)
        chunks = [chance.randbytes(chance.randrange(20_000, 60_000)) for _ in range(CHUNK_COUNT)]
        _, stored = hub.xet.add_file_from_chunks(chunks, scheme=Scheme.NONE)
        self.content = b"".join(chunks)
        self.lfs = chance.randbytes(3_000_000)
        path = hub.storage.temporary / "old"
        path.write_bytes(self.lfs)
        old = hub.storage.add_lfs(hashlib.sha256(self.lfs).hexdigest(), len(self.lfs), path)
        files = {"f.bin": stored, "old.bin": old, "plain.txt": PLAIN, "warm.txt": WARM, "dir/a.txt": b"a"}
        hub.storage.commit_files(hub.storage.create_repo("model", REPO), files)
        hub.storage.commit_files(hub.storage.create_repo("model", OTHER), {"a.txt": b"a"})
        hub.accounts.add_user("user")
        hub.accounts.add_token(TOKEN, "user", "read")

    @property
    def ports(self) -> set[int]:
        return {server.port for server in self.hub.servers.values()} | self.more_ports

    def heal(self) -> None:
        """End every fault; the log stays."""
        self.hub.faults.clear()
        self.hub.options.proof_status = 200
        self.hub.options.range_answers = "labelled"
        for server in self.hub.servers.values():
            server.refuse()
            server.listen()

    @property
    def ref(self) -> RepoRef:
        return RepoRef(RepoId("model", REPO))

    def settings(self, cache: Path, **choices: Any) -> Settings:
        usual: dict[str, Any] = {
            "endpoint": self.hub.endpoint,
            "credentials": FixedToken(Secret(TOKEN)),
            "cache_dir": cache,
            "memory_bytes_max": 64 * MIB,
            "connect_timeout_s": CONNECT_S,
            "outage_patience_s": OUTAGE_S,
            "stall_timeout_s": STALL_S,
            "stall_timeout_first_s": STALL_S / 2,
            "stall_timeout_min_s": STALL_S / 2,
            "answer_timeout_min_s": STALL_S / 2,
            "attempts_max": ATTEMPTS,
            "proof_timeout_s": PROOF_S,
            "operation_deadline_s": DEADLINE_S,
        }
        return flat_settings(**{**usual, **choices})

    def asked(self, place: Place) -> list[RequestRecord]:
        """The requests of a place since the log was reset."""
        return [record for record in self.hub.requests() if record.origin == place.origin and re.search(place.path, record.path)]

    def fault(self, place: Place, action: str, count: int | None, **choices: Any) -> Fault:
        return self.hub.faults.add(Fault(action, origin=place.origin, path=place.path, count=count, **choices))  # type: ignore[arg-type]


@asynccontextmanager
async def open_bench(directory: Path) -> AsyncIterator[Bench]:
    async with open_test_hub(directory / "hub", options=_FreshTokens()) as hub:
        yield Bench(hub)


class User:
    """What programs do with a mount, without the kernel: through the handlers and their guard."""

    def __init__(self, engine: Engine, view: RepoView) -> None:
        self.engine = engine
        self.view = view
        self.operations = Operations(view, deadline_s=engine.settings.operation_deadline_s, counters=engine.counters)

    async def list(self, name: str) -> list[str]:
        directory = await self._number(name)
        handle = await self.operations.opendir(directory, None)
        await self.operations.releasedir(handle)
        return sorted(node.name for node in await self.view.children(self.operations.inodes.node(directory)))

    async def read(self, name: str, offset: int, length: int) -> bytes:
        handle = (await self.operations.open(await self._number(name), os.O_RDONLY, None)).fh
        try:
            return bytes(await self.operations.read(handle, offset, length))
        finally:
            await self.operations.release(handle)

    async def _number(self, name: str) -> int:
        return int((await self.operations.lookup(1, name.encode(), None)).st_ino)


OFFSET: Final = 800_000
MORE: Final = 2_500_000
LENGTH: Final = 4096


async def perform(bench: Bench, user: User | None, engine: Engine, operation: str) -> str:
    """Do it; "data" if that brought what is right, the name of the errno if it failed."""
    right: dict[str, tuple[Callable[[User], Awaitable[object]], object]] = {
        "list": (lambda user: user.list("dir"), ["a.txt"]),
        "read": (lambda user: user.read("f.bin", OFFSET, LENGTH), bench.content[OFFSET : OFFSET + LENGTH]),
        "read plain": (lambda user: user.read("plain.txt", 0, 10_000), PLAIN),
        "read lfs": (lambda user: user.read("old.bin", 0, LENGTH), bench.lfs[:LENGTH]),
        "read more lfs": (lambda user: user.read("old.bin", MORE, LENGTH), bench.lfs[MORE : MORE + LENGTH]),
    }
    if operation.endswith("mount"):
        try:
            await engine.open_repo(bench.ref if operation == "mount" else RepoRef(RepoId("model", OTHER)))
        except (XetfsError, trio.TooSlowError) as exc:
            return errno.errorcode[errno_of(exc)]
        return "data"
    do, expected = right[operation]
    assert user is not None
    try:
        found = await do(user)
    except FUSEError as exc:
        return errno.errorcode[exc.errno]
    return "data" if found == expected else "wrong data"


@asynccontextmanager
async def open_user(bench: Bench, cache: Path, **choices: Any) -> AsyncIterator[User]:
    """An engine with the repo open, its root listed, and the log of the hub empty."""
    async with open_engine(bench.settings(cache, **choices)) as engine:
        view = await engine.open_repo(bench.ref)
        bench.hub.log.reset()
        yield User(engine, view)
