"""A token and a signature that must be nowhere: every place that a mount writes to or shows is searched for them."""

from __future__ import annotations

import os
import random
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from fault_bench import TOKEN, Bench, User, open_bench, open_user
from mount_user import XETFS, Mount, is_mounted
from stage import staging

from xetfs.net import client
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.xorb import Scheme
from xetfs.testhub import Fault

SECRET_REPO = "local/secrets"
SIGNATURE = "SIGNATUREcanarySIGNATUREcanary"
COOKIE = "COOKIEcanaryCOOKIEcanary"
SECRETS = [secret.encode() for secret in (TOKEN, SIGNATURE, COOKIE)]
CAS_TOKEN = re.compile(rb"xet_[A-Za-z0-9]{12,}")
"""What the test hub's tokens for the CAS begin with."""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def base() -> Iterator[Path]:
    with staging("secrets") as base:
        yield base


def _sign(value: Any) -> Any:
    """Every signed URL gets a part that is known here."""
    for entries in value["xorbs"].values():
        for fetch in entries:
            fetch["url"] += f"&X-Canary={SIGNATURE}"
    return value


def _faults() -> list[list[Fault]]:
    """One after the other; each fails reads in another way, and so is written of in another."""
    data = {"origin": "transfer", "path": "^/xorbs/"}
    elsewhere = f"http://10.0.0.1/x?X-Canary={SIGNATURE}"
    cookie = {"Set-Cookie": f"session={COOKIE}"}
    return [
        [],
        [Fault("flip", offset=1000, **data)],
        [Fault("expire", **data)],
        [Fault("reset", after_bytes=100, count=1, **data)],
        [Fault("answer", status=500, headers=cookie, body=f"internal error at /x?Signature={SIGNATURE}", count=2, **data)],
        [Fault("answer", status=400, body=f"<Error><Signature>{SIGNATURE}</Signature></Error>", **data)],
        [Fault("redirect", location=elsewhere, **data)],
        [Fault("content_range", body=f"bytes 0-1/{SIGNATURE}", **data)],
        [Fault("answer", status=200, headers={"Content-Encoding": SIGNATURE[:10]}, body="x", **data)],
        [Fault("answer", origin="cas", status=200, body=f'{{"terms": "{SIGNATURE}"}}', headers=cookie)],
        [Fault("answer", origin="cas", status=401, headers={"WWW-Authenticate": f"Bearer realm={SIGNATURE}"})],
        [Fault("redirect", origin="cas", location=elsewhere)],
        [Fault("redirect", origin="cas", location=f"http://user:{SIGNATURE}@127.0.0.1/")],
        [Fault("answer", origin="hub", status=403, headers={"X-Error-Message": f"token {TOKEN} is not good"})],
        [Fault("answer", origin="hub", status=200, body=f'{{"accessToken": "{SIGNATURE}", "casUrl": 1, "exp": 1}}')],
    ]


def _fill(bench: Bench) -> None:
    """A repo with files of each kind for each fault, so that none is held before it is asked for."""
    files: dict[str, Any] = {}
    for number in range(len(_faults())):
        content = random.Random(number).randbytes(50_000)
        files[f"xet{number}.bin"] = bench.hub.xet.add_file_from_chunks([content, content[:20_000]], scheme=Scheme.NONE)[1]
        files[f"{number}.txt"] = b"%d" % number
        files[f"dir{number}/a.txt"] = b"a"
    bench.hub.storage.commit_files(bench.hub.storage.create_repo("model", SECRET_REPO), files)


def _use(mount: Mount, number: int) -> list[bytes]:
    """Read, list and ask for everything that shows something; what was shown."""
    shown = []
    for name in (f"xet{number}.bin", f"{number}.txt", f"dir{number}/a.txt"):
        path = mount.path / name
        try:
            shown += [os.getxattr(path, attribute) for attribute in os.listxattr(path)]
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # its directory could not be listed under this fault
        try:
            os.pread(fd, 4096, 0)
        except OSError as error:
            shown.append(str(error).encode())
        finally:
            os.close(fd)
    return shown


async def test_secrets_are_nowhere(bench: Bench, base: Path) -> None:
    _fill(bench)
    env = {"HF_ENDPOINT": bench.hub.endpoint, "HF_TOKEN": TOKEN, "XDG_STATE_HOME": str(base / "state")}
    mount = Mount(base, base / "cache", env)
    seen: dict[str, bytes] = {}
    bench.hub.faults.add(Fault("rewrite", origin="cas", path="/reconstructions/", rewrite=_sign))
    in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)
    try:
        await in_thread(partial(mount.mount_in_foreground, SECRET_REPO, ["--verbose"]))
        for number, faults in enumerate(_faults()):
            bench.hub.faults.clear()
            for fault in [*faults, Fault("rewrite", origin="cas", path="/reconstructions/", rewrite=_sign)]:
                bench.hub.faults.add(fault)
            seen[f"shown under fault {number}"] = b"\n".join(await in_thread(_use, mount, number))
        assert len(bench.hub.requests("transfer")) > len(_faults()) / 2, "the signatures were hardly used"
        for process in (mount.pid, *_children(mount.pid)):
            seen[f"command line of {process}"] = Path(f"/proc/{process}/cmdline").read_bytes()
        seen["mounts"] = Path("/proc/self/mountinfo").read_bytes()
        status = await trio.run_process(
            [*XETFS, "status", "--json"], capture_stdout=True, capture_stderr=True, check=False, env={**os.environ, **env}
        )
        seen["status"] = status.stdout + status.stderr
        assert status.returncode == 0
        await in_thread(mount.umount)
    finally:
        bench.hub.faults.clear()
        if is_mounted(mount.path):
            await in_thread(mount.clean_up)
    for path in sorted(base.rglob("*")):
        seen[f"name {path}"] = os.fsencode(path)
        if path.is_file():
            seen[f"file {path.relative_to(base)}"] = path.read_bytes()
    assert any(name.startswith("file cache/") for name in seen)
    log = seen["file log"]
    assert b" DEBUG " in log
    assert b"Traceback" not in log
    assert {name for name, text in seen.items() if CAS_TOKEN.search(text) or any(secret in text for secret in SECRETS)} == set()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _fail(*_: object) -> None:
    raise ValueError("a bug in the middle of a request")


async def _list(user: User) -> object:
    return await user.view.children(await user.view.lookup(user.view.root, "dir"))


async def _read(user: User, name: str) -> object:
    return await user.view.open_file(await user.view.lookup(user.view.root, name)).read(ByteRange(0, 10))


@pytest.mark.parametrize("use", [_list, partial(_read, name="f.bin"), partial(_read, name="old.bin")])
async def test_a_traceback_of_a_bug_holds_no_secret(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[User], Awaitable[object]]
) -> None:
    """An error that nobody foresaw, deep under a request that carries secrets: what the log would say of it."""
    bench.hub.faults.add(Fault("rewrite", origin="cas", path="/reconstructions/", rewrite=_sign))
    async with open_user(bench, tmp_path / "cache") as user:
        monkeypatch.setattr(client, "_check_encoding", _fail)
        with pytest.raises((ValueError, ExceptionGroup)) as caught:
            await use(user)
    text = "".join(traceback.format_exception(caught.value))
    assert "a bug in the middle" in text
    assert not any(secret.decode() in text for secret in SECRETS)
