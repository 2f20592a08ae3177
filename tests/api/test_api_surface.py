"""The public interface is pinned: a change here is a change for programs, and has a line in CHANGELOG.md."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import xetfs
from xetfs import api
from xetfs.api import blocking

SIGNATURES = {
    "ByteRange": "(start: int, end: int) -> None",
    "ByteRange.clip": "(self, size: int) -> ByteRange",
    "ByteRange.to_http": "(self) -> HttpRange",
    "Credentials.token": "(self) -> Secret | None",
    "Credentials.refused": "(self, token: Secret) -> None",
    "Engine.open_repo": "(self, ref: RepoRef, hub: Hub) -> RepoView",
    "Engine.open_path": "(self, ref: RepoRef, hub: Hub) -> tuple[RepoView, Node]",
    "Engine.statistics": "(self) -> EngineStatistics",
    "FileDetails": "(repo: RepoId, commit: CommitId, path: str, is_directory: bool, size: int, oid: str = , "
    "file_id: FileId | None = None, sha256: bytes | None = None, level: Level | None = None) -> None",
    "FileReader.read_nowait": "(self, span: ByteRange) -> Buffer | None",
    "FileReader.read": "(self, span: ByteRange) -> Buffer",
    "FileReader.stream": "(self, span: ByteRange, *, chunk_bytes: int = 1048576) -> AsyncGenerator[memoryview, None]",
    "FileReader.evict": "(self) -> None",
    "FileReader.bring": "(self, span: ByteRange, on_covered: Callable[[int], None]) -> None",
    "FileReader.close": "(self) -> None",
    "FixedToken": "(value: Secret) -> None",
    "FixedToken.token": "(self) -> Secret | None",
    "FixedToken.refused": "(self, token: Secret) -> None",
    "HostPolicy": "(allow_private: bool = False) -> None",
    "Hub": "(endpoint: str = https://huggingface.co, credentials: Credentials | None = None, "
    "hosts: HostPolicy = HostPolicy(allow_private=False)) -> None",
    "Node.is_directory": "property",
    "Node.size": "property",
    "Node.mtime_s": "property",
    "Node.path": "property",
    "RepoId": "(kind: RepoKind, name: str) -> None",
    "RepoRef": "(repo: RepoId, subfolder: str = , revision: str = main, others: tuple[RepoRef, ...] = ()) -> None",
    "RepoRef.parse": "(text: str) -> RepoRef",
    "RepoView.lookup_nowait": "(self, directory: Node, name: str) -> Node | None",
    "RepoView.lookup": "(self, directory: Node, name: str) -> Node",
    "RepoView.find": "(self, path: str) -> Node",
    "RepoView.children": "(self, directory: Node) -> Sequence[Node]",
    "RepoView.walk": "(self, node: Node) -> AsyncIterator[Node]",
    "RepoView.open_file": "(self, node: Node) -> FileReader",
    "RepoView.verify": "(self, node: Node, *, deep: bool = False) -> Verdict",
    "RepoView.describe": "(self, node: Node) -> FileDetails",
    "Secret": "(value: str) -> None",
    "Secret.reveal": "(self) -> str",
    "Verdict.kind": "property",
    "hub_from_env": "() -> Hub",
    "open_engine": "(settings: Settings) -> AsyncIterator[Engine]",
    "open_token_file": "(path: Path, what: str) -> Credentials | None",
    "settings_from_env": "() -> Settings",
    "blocking.use": "(settings: Settings) -> None",
    "blocking.close": "() -> None",
    "blocking.open": "(name: str, hub: Hub | None = None) -> io.BufferedReader",
    "blocking.open_repo": "(name: str, hub: Hub | None = None) -> Repo",
    "blocking.Repo.ref": "property",
    "blocking.Repo.commit": "property",
    "blocking.Repo.describe": "(self, path: str = ) -> FileDetails",
    "blocking.Repo.listdir": "(self, path: str = ) -> list[FileDetails]",
    "blocking.Repo.open_raw": "(self, path: str) -> File",
    "blocking.Repo.open": "(self, path: str) -> io.BufferedReader",
    "blocking.File.pread": "(self, start: int, length: int) -> bytes | bytearray | memoryview",
    "blocking.File.readinto": "(self, buffer: object, /) -> int",
    "blocking.File.readall": "(self) -> bytes",
    "blocking.File.seek": "(self, offset: int, whence: int = 0, /) -> int",
    "blocking.File.tell": "(self) -> int",
    "blocking.File.readable": "(self) -> bool",
    "blocking.File.seekable": "(self) -> bool",
    "blocking.File.close": "(self) -> None",
}
"""What may be called, and how. Values that are made by an engine, and settings, whose limits come and go, are named in
`__all__` only."""

MADE_BY_AN_ENGINE = {"Engine", "EngineStatistics", "FileReader", "Node", "RepoView", "Verdict"}
SETTINGS = {"NetSettings", "ReaderSettings", "Settings", "StoreSettings"}
OTHERS = {"CommitId", "Credentials", "Level", "errors", "telemetry"}


def signature(name: str) -> str:
    value: object = api
    for part in name.split("."):
        value = blocking if part == "blocking" else inspect.getattr_static(value, part)
    if isinstance(value, property):
        return "property"
    if isinstance(value, classmethod):
        value = value.__get__(None, object)
    return str(inspect.signature(value)).replace("'", "").replace("xetfs.", "")  # type: ignore[arg-type]


def test_names() -> None:
    assert list(api.__all__) == sorted(api.__all__)
    assert all(hasattr(api, name) for name in api.__all__)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    assert signature(name) == SIGNATURES[name]


def test_every_name_is_pinned_or_known_not_to_be() -> None:
    assert {name.partition(".")[0] for name in SIGNATURES} | MADE_BY_AN_ENGINE | SETTINGS | OTHERS == {*api.__all__, "blocking"}


def test_everything_public_is_documented() -> None:
    for name in api.__all__:
        assert name == "CommitId" or inspect.getdoc(getattr(api, name)), name


def test_importing_the_package_loads_nothing() -> None:
    program = "import sys, xetfs; print(*[name for name in sys.modules if name.startswith('xetfs') or name in ('trio', 'httpx')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["xetfs"]


def test_the_package_gives_out_the_names_of_the_interface() -> None:
    assert xetfs.open_engine is api.open_engine
    assert xetfs.open is blocking.open
    assert set(xetfs.__all__) - {"open", "__version__"} <= set(api.__all__)
    assert set(xetfs.__all__) <= set(dir(xetfs))
    with pytest.raises(AttributeError):
        xetfs.no_such_name  # type: ignore[attr-defined]  # noqa: B018
