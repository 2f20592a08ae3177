"""The control socket: for its owner, requests and answers, all of it bounded."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from xetfs.control import client, messages, peer, server
from xetfs.control.client import ask
from xetfs.control.server import Operation, Report, open_control
from xetfs.errors import (
    EntryNotFound,
    Evicted,
    InvalidArgument,
    ProtocolViolation,
    RateLimited,
    SignedUrlExpired,
    TimedOut,
    Unavailable,
    XetfsError,
)


async def ask_in_thread(path: Path, timeout_s: float = 20) -> dict[str, object]:
    return await trio.to_thread.run_sync(lambda: ask(path, "status", timeout_s=timeout_s))


async def answer(report: Report) -> Mapping[str, object]:
    await trio.lowlevel.checkpoint()
    return {"pid": 5, "mountpoint": os.fsdecode(b"/mnt/\xff")}


def status(run: Callable[[Report], Awaitable[Mapping[str, object]]]) -> dict[str, Operation]:
    return {"status": Operation(run)}


STATUS = status(answer)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "boot-1.sock"


async def test_a_request_is_answered(path: Path) -> None:
    async with open_control(path, STATUS):
        for _ in range(3):
            assert await ask_in_thread(path) == {"pid": 5, "mountpoint": "/mnt/\udcff"}
    assert os.listdir(path.parent) == []


async def test_it_is_for_its_owner_only(path: Path) -> None:
    async with open_control(path, STATUS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_another_user_is_told_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "is_trusted", lambda uid: False)
    async with open_control(path, STATUS):
        with pytest.raises(Unavailable, match=r"does not answer|without an answer"):
            await ask_in_thread(path)
    assert "another user" in caplog.text


async def test_another_user_is_not_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_control(path, STATUS):
        monkeypatch.setattr(client, "is_trusted", lambda uid: False)
        with pytest.raises(Unavailable, match="another user"):
            await ask_in_thread(path)


def test_the_same_user_and_root_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert [uid for uid in (0, 1, 999, 1000, 1001, -1) if peer.is_trusted(uid)] == [0, 1000]


async def test_a_directory_that_others_can_write_is_not_used(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="by others"):
        async with open_control(path, STATUS):
            pass
    assert os.listdir(path.parent) == []


async def test_a_path_longer_than_an_address(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 50) / "1.sock"
    async with open_control(path, STATUS):
        assert (await ask_in_thread(path))["pid"] == 5


async def test_what_killed_processes_left_is_removed(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    left, elsewhere = path.parent / "boot-left.sock", path.parent / "other-left.sock"
    for place in (left, elsewhere):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place))
            listening.listen()
    (path.parent / "notes.txt").touch()
    async with open_control(path.with_name("boot-new.sock"), STATUS):
        # Of a socket of another kernel, on a file system that both share, nobody here can tell.
        assert sorted(os.listdir(path.parent)) == ["boot-new.sock", "notes.txt", "other-left.sock"]


async def test_the_socket_of_another_pid_namespace_is_left(path: Path) -> None:
    """Whoever listens is asked by connecting: its number means nothing here."""
    first, second = path.with_name("boot-1.sock"), path.with_name("boot-2.sock")
    async with open_control(first, STATUS), open_control(second, STATUS):
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
from xetfs.control.server import Operation, open_control

async def answer(report):
    return {"pid": 1}

async def main():
    async with open_control(Path(sys.argv[1]), {"status": Operation(answer)}):
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
    first, second = path.with_name("boot-1.sock"), path.with_name("boot-2.sock")
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", program, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as container:
        assert container.stdout is not None
        assert await trio.to_thread.run_sync(container.stdout.readline) == b"ready\n"
        async with open_control(second, STATUS):
            assert (await ask_in_thread(first))["pid"] == 1
        container.kill()
    while await is_answered(first):  # until its process has noticed
        pass
    async with open_control(second, STATUS):
        assert os.listdir(path.parent) == ["boot-2.sock"]


async def test_a_bug_is_an_answer_and_hurts_nothing_else(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def failing(report: Report) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        raise ValueError("a secret detail")

    async with open_control(path, status(failing)):
        for _ in range(2):
            with pytest.raises(ProtocolViolation, match="a bug in xetfs; see its log"):
                await ask_in_thread(path)
    assert "a secret detail" in caplog.text


async def test_an_operation_that_takes_too_long_is_told_from_a_connection_that_does(path: Path) -> None:
    async def late(report: Report) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        raise trio.TooSlowError

    async with open_control(path, status(late)):
        with pytest.raises(TimedOut, match="no answer in time"):
            await ask_in_thread(path)


@pytest.mark.parametrize(
    "error",
    [
        EntryNotFound("no such file", hint="look elsewhere"),
        Evicted("gone"),
        RateLimited("too often", retry_after_s=5),
        SignedUrlExpired("over"),
        InvalidArgument("wrong"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_of_an_operation_come_as_they_are(path: Path, error: XetfsError) -> None:
    async def failing(report: Report) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        raise error

    async with open_control(path, status(failing)):
        with pytest.raises(type(error)) as caught:
            await ask_in_thread(path)
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)


async def test_connections_are_bounded_in_number_and_silence(path: Path, autojump_clock: object) -> None:
    async with open_control(path, STATUS):
        connections = [await trio.open_unix_socket(path) for _ in range(server.CONNECTIONS_MAX + 1)]
        begin = trio.current_time()
        assert await connections[-1].receive_some() == b""
        assert trio.current_time() == begin  # one too many: closed at once
        for connection in connections[:-1]:
            assert await connection.receive_some() == b""
        assert trio.current_time() - begin == pytest.approx(server.SEND_S)
        for connection in connections:
            await connection.aclose()


async def test_who_leaves_before_the_answer_hurts_nobody(path: Path) -> None:
    entered, leave = trio.Event(), trio.Event()

    async def slow(report: Report) -> Mapping[str, object]:
        entered.set()
        await leave.wait()
        return {"pid": 5, "padding": "x" * 1_000_000}

    async with open_control(path, status(slow)):
        connection = await trio.open_unix_socket(path)
        await connection.send_all(b'{"v": 1, "op": "status"}\n')
        await entered.wait()
        await connection.aclose()
        leave.set()
        assert (await ask_in_thread(path))["pid"] == 5


async def test_a_long_operation_shows_how_far_it_is_and_ends_with_who_asked(path: Path, autojump_clock: object) -> None:
    cancelled = trio.Event()

    async def long(report: Report) -> Mapping[str, object]:
        try:
            for number in range(100):
                report({"done": number})
                await trio.sleep(server.PROGRESS_INTERVAL_S)
        finally:
            cancelled.set()
        return {}

    async with open_control(path, status(long)):
        connection = await trio.open_unix_socket(path)
        await connection.send_all(b'{"v": 1, "op": "status"}\n')
        shown = b""
        while shown.count(b"\n") < 3:
            shown += await connection.receive_some()
        lines = [json.loads(line) for line in shown.splitlines()]
        assert all(set(line) == {"v", "progress"} for line in lines)
        assert [line["progress"]["done"] for line in lines] == sorted(line["progress"]["done"] for line in lines)
        assert not cancelled.is_set()
        await connection.aclose()
        await cancelled.wait()
        assert trio.current_time() < 20


async def test_who_takes_no_answer_is_left(path: Path, autojump_clock: object) -> None:
    async def large(report: Report) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return {"padding": "x" * 3_000_000}

    async with open_control(path, status(large)):
        connection = await trio.open_unix_socket(path)
        await connection.send_all(b'{"v": 1, "op": "status"}\n')
        await trio.sleep(server.SEND_S + 1)
        received = 0
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await connection.receive_some(1_000_000):
                received += len(data)
        assert received < 3_000_000
        await connection.aclose()


async def converse(path: Path, sent: bytes) -> list[dict[str, Any]]:
    """Send all, then read what is answered until the end."""
    connection = await trio.open_unix_socket(path)
    received = b""
    async with connection, trio.open_nursery() as nursery:

        async def send() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await connection.send_all(sent)
                await connection.send_eof()

        nursery.start_soon(send)
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await connection.receive_some(1_000_000):
                received += data
    return [json.loads(line) for line in received.splitlines()]


async def echo(report: Report, *, text: str, flag: bool, names: tuple[str, ...]) -> Mapping[str, object]:
    await trio.lowlevel.checkpoint()
    return {"text": text, "flag": flag, "names": list(names)}


ECHO = {"echo": Operation(echo, {"text": "", "flag": False, "names": ()})}


async def test_a_connection_carries_several_requests(path: Path) -> None:
    requests = [
        {"v": 1, "op": "echo"},
        {"v": 1, "op": "echo", "text": "a", "flag": True, "names": ["b", "c"]},
        {"v": 1, "op": "no"},
    ]
    async with open_control(path, ECHO):
        answers = await converse(path, b"".join(json.dumps(request).encode() + b"\n" for request in requests))
    assert [answer.get("result") for answer in answers] == [
        {"text": "", "flag": False, "names": []},
        {"text": "a", "flag": True, "names": ["b", "c"]},
        None,
    ]
    assert answers[2]["error"] == {"kind": "InvalidArgument", "message": "unknown operation 'no'", "hint": "there are echo"}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"nonsense", "one line with a JSON object"),
        (b"[]", "one line with a JSON object"),
        (b"\xff\xfe", "one line with a JSON object"),
        (b"[" * 60_000, "one line with a JSON object"),
        (b"", "one line with a JSON object"),
        (b'{"op": "echo"}', "version None is not supported"),
        (b'{"v": 2, "op": "echo"}', "version 2 is not supported"),
        (b'{"v": "1", "op": "echo"}', "version '1' is not supported"),
        (b'{"v": 1}', "names an operation"),
        (b'{"v": 1, "op": 5}', "names an operation"),
        (b'{"v": 1, "op": "echo", "other": 1}', "unknown argument 'other'"),
        (b'{"v": 1, "op": "echo", "text": 5}', "text is of the wrong type"),
        (b'{"v": 1, "op": "echo", "text": null}', "text is of the wrong type"),
        (b'{"v": 1, "op": "echo", "flag": 1}', "flag is of the wrong type"),
        (b'{"v": 1, "op": "echo", "names": "ab"}', "names is of the wrong type"),
        (b'{"v": 1, "op": "echo", "names": ["a", 5]}', "names is of the wrong type"),
    ],
)
async def test_a_bad_request_is_refused_and_the_next_is_answered(path: Path, request_: bytes, message: str) -> None:
    async with open_control(path, ECHO):
        refused, answered = await converse(path, request_ + b'\n{"v": 1, "op": "echo"}\n')
    assert refused["ok"] is False
    assert refused["error"]["kind"] == "InvalidArgument"
    assert message in refused["error"]["message"]
    assert answered["ok"] is True


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_request_that_is_too_long_is_refused(path: Path, end: bytes) -> None:
    async with open_control(path, ECHO):
        [refused] = await converse(path, b"x" * (messages.REQUEST_BYTES_MAX + 1) + end)
    assert refused["error"]["message"] == "the request is too long"


# The side that asks


def serve_once(path: Path, body: bytes | None) -> socket.socket:
    """A socket whose first connection gets `body`; None for no connection at all."""
    path.parent.mkdir(mode=0o700)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    if body is not None:
        listening.listen()
    return listening


@pytest.mark.parametrize(
    "body", [b"[]", b"nonsense\n", b"\xff", b"5", b'{"v": 1, "ok": true}\n', b'{"v": 2, "ok": true, "result": {}}\n']
)
async def test_what_is_no_document(path: Path, body: bytes) -> None:
    async def lie(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(body)
        await stream.aclose()

    listening = serve_once(path, body)
    listening.setblocking(False)
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        nursery.start_soon(trio.serve_listeners, lie, [listener])
        with pytest.raises(ProtocolViolation, match="as xetfs does"):
            await ask_in_thread(path)
        nursery.cancel_scope.cancel()


async def test_a_mount_of_an_older_version_is_told_as_such(path: Path) -> None:
    async def older(stream: trio.SocketStream) -> None:
        await stream.send_all(b'{"version": 1, "xetfs": "0.7.0", "pid": 5}\n')  # at once, and without reading
        await stream.aclose()

    listening = serve_once(path, b"")
    listening.setblocking(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, older, [trio.SocketListener(trio.socket.from_stdlib_socket(listening))])
        with pytest.raises(ProtocolViolation, match="older version of xetfs; unmount and mount it again"):
            await ask_in_thread(path)
        nursery.cancel_scope.cancel()


async def test_an_answer_that_does_not_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_BYTES_MAX", 1000)

    async def long(report: Report) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return {"padding": "x" * 2000}

    async with open_control(path, status(long)):
        with pytest.raises(ProtocolViolation, match="does not end"):
            await ask_in_thread(path)


async def test_nobody_there(path: Path) -> None:
    with pytest.raises(Unavailable):
        ask(path, "status")
    with serve_once(path, None), pytest.raises(Unavailable, match="refused"):
        ask(path, "status")


async def test_one_that_hangs_is_given_up(path: Path) -> None:
    with serve_once(path, b""), pytest.raises(Unavailable, match="does not answer: timed out"):
        ask(path, "status", timeout_s=0.05)
