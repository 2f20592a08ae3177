"""The socket of a mount: for its owner, one document for each connection, in bounded time."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
import trio.testing

from xetfs.control import client, peer, server
from xetfs.control.client import ask
from xetfs.control.server import open_control
from xetfs.errors import ProtocolViolation, Unavailable


async def ask_in_thread(path: Path, timeout_s: float = 20) -> dict[str, object]:
    return await trio.to_thread.run_sync(lambda: ask(path, timeout_s=timeout_s))


async def answer() -> Mapping[str, object]:
    await trio.lowlevel.checkpoint()
    return {"pid": 5, "mountpoint": os.fsdecode(b"/mnt/\xff")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "boot-1.sock"


async def test_each_connection_gets_one_document(path: Path) -> None:
    async with open_control(path, answer):
        for _ in range(3):
            assert await ask_in_thread(path) == {"pid": 5, "mountpoint": "/mnt/\udcff"}
    assert os.listdir(path.parent) == []


async def test_it_is_for_its_owner_only(path: Path) -> None:
    async with open_control(path, answer):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_another_user_is_told_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "is_trusted", lambda uid: False)
    async with open_control(path, answer):
        with pytest.raises(Unavailable, match="without an answer"):
            await ask_in_thread(path)
    assert "another user" in caplog.text


async def test_another_user_is_not_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_control(path, answer):
        monkeypatch.setattr(client, "is_trusted", lambda uid: False)
        with pytest.raises(Unavailable, match="somebody else's"):
            await ask_in_thread(path)


def test_the_same_user_and_root_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert [uid for uid in (0, 1, 999, 1000, 1001, -1) if peer.is_trusted(uid)] == [0, 1000]


async def test_a_directory_that_others_can_write_is_not_used(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="by others"):
        async with open_control(path, answer):
            pass
    assert os.listdir(path.parent) == []


async def test_a_path_longer_than_an_address(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 50) / "1.sock"
    async with open_control(path, answer):
        assert (await ask_in_thread(path))["pid"] == 5


async def test_what_killed_processes_left_is_removed(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    left, elsewhere = path.parent / "boot-left.sock", path.parent / "other-left.sock"
    for place in (left, elsewhere):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place))
            listening.listen()
    (path.parent / "notes.txt").touch()
    async with open_control(path.with_name("boot-new.sock"), answer):
        # Of a socket of another kernel, on a file system that both share, nobody here can tell.
        assert sorted(os.listdir(path.parent)) == ["boot-new.sock", "notes.txt", "other-left.sock"]


async def test_the_socket_of_another_pid_namespace_is_left(path: Path) -> None:
    """Whoever listens is asked by connecting: its number means nothing here."""
    first, second = path.with_name("boot-1.sock"), path.with_name("boot-2.sock")
    async with open_control(first, answer), open_control(second, answer):
        assert (await ask_in_thread(first))["pid"] == 5
        assert (await ask_in_thread(second))["pid"] == 5


async def is_answered(path: Path) -> bool:
    try:
        return bool(await ask_in_thread(path))
    except Unavailable:
        return False


@pytest.mark.root
async def test_the_socket_of_a_real_container_is_left(path: Path) -> None:
    program = """
import sys, trio
from pathlib import Path
from xetfs.control.server import open_control

async def answer():
    return {"pid": 1}

async def main():
    async with open_control(Path(sys.argv[1]), answer):
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
    first, second = path.with_name("boot-1.sock"), path.with_name("boot-2.sock")
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", program, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as container:
        assert container.stdout is not None
        assert await trio.to_thread.run_sync(container.stdout.readline) == b"ready\n"
        async with open_control(second, answer):
            assert (await ask_in_thread(first))["pid"] == 1
        container.kill()
    while await is_answered(first):  # until its process has noticed
        pass
    async with open_control(second, answer):
        assert os.listdir(path.parent) == ["boot-2.sock"]


async def test_an_error_is_told_as_one_and_hurts_nothing_else(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        raise ValueError("a secret detail")

    async with open_control(path, failing):
        for _ in range(2):
            assert "see the log" in str((await ask_in_thread(path))["error"])
    assert "a secret detail" in caplog.text


async def test_a_connection_has_a_limit_and_so_has_their_number(path: Path, autojump_clock: object) -> None:
    async def never() -> Mapping[str, object]:
        await trio.sleep_forever()
        raise AssertionError

    async with open_control(path, never):
        connections = [await trio.open_unix_socket(path) for _ in range(server.CONNECTIONS_MAX + 1)]
        begin = trio.current_time()
        assert await connections[-1].receive_some() == b""
        assert trio.current_time() == begin  # one too many: closed at once
        for connection in connections[:-1]:
            assert await connection.receive_some() == b""
        assert trio.current_time() - begin == pytest.approx(server.ANSWER_S)
        for connection in connections:
            await connection.aclose()


async def test_who_leaves_before_the_answer_hurts_nobody(path: Path) -> None:
    entered, leave = trio.Event(), trio.Event()

    async def slow() -> Mapping[str, object]:
        entered.set()
        await leave.wait()
        return {"pid": 5, "padding": "x" * 1_000_000}

    async with open_control(path, slow):
        connection = await trio.open_unix_socket(path)
        await entered.wait()
        await connection.aclose()
        leave.set()
        assert (await ask_in_thread(path))["pid"] == 5


# The side that asks


def serve_once(path: Path, body: bytes | None) -> socket.socket:
    """A socket whose first connection gets `body`; None for no connection at all."""
    path.parent.mkdir(mode=0o700)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    if body is not None:
        listening.listen()
    return listening


@pytest.mark.parametrize("body", [b"[]", b"nonsense\n", b"\xff", b"5"])
async def test_what_is_no_document(path: Path, body: bytes) -> None:
    async def lie(stream: trio.SocketStream) -> None:
        await stream.send_all(body)
        await stream.aclose()

    listening = serve_once(path, body)
    listening.setblocking(False)
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        nursery.start_soon(trio.serve_listeners, lie, [listener])
        with pytest.raises(ProtocolViolation, match="as a mount does"):
            await ask_in_thread(path)
        nursery.cancel_scope.cancel()


async def test_an_answer_that_does_not_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DOCUMENT_BYTES_MAX", 1000)

    async def long() -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return {"padding": "x" * 2000}

    async with open_control(path, long):
        with pytest.raises(ProtocolViolation, match="does not end"):
            await ask_in_thread(path)


async def test_nobody_there(path: Path) -> None:
    with pytest.raises(Unavailable):
        ask(path)
    with serve_once(path, None), pytest.raises(Unavailable, match="refused"):
        ask(path)


async def test_one_that_hangs_is_given_up(path: Path) -> None:
    with serve_once(path, b""), pytest.raises(Unavailable, match="does not answer: timed out"):
        ask(path, timeout_s=0.05)
