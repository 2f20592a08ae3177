"""Tokens that change while they are used: from a file that is replaced, at the first 401 or within seconds."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import trio
import trio.testing
from loopback import CANARY, Asked, answer, client_of, serving

from xetfs.credentials import LOOK_INTERVAL_S, LOOK_TIMEOUT_S, FixedToken, TokenFile, open_token_file
from xetfs.net.origins import Bearer, Origin
from xetfs.secret import Secret

OLD, NEW = f"{CANARY}old", f"{CANARY}new"


class WatchedPath(type(Path())):  # type: ignore[misc]
    """A path that counts how often somebody looks whether its file has changed."""

    looks = 0
    hanging: threading.Event | None = None
    """A stat waits for it, as one of a file on a dead server does."""
    entered = threading.Event()

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        type(self).looks += 1
        if self.hanging is not None:
            self.entered.set()
            self.hanging.wait()
        return os.stat(self, follow_symlinks=follow_symlinks)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = WatchedPath(tmp_path / "token")
    path.write_text(OLD)
    WatchedPath.looks = 0
    return path


def replace(path: Path, text: str) -> None:
    """As those do who write with care: a new file in the place of the old one."""
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


async def revealed(source: object) -> str:
    assert isinstance(source, TokenFile)
    token = await source.token()
    assert token is not None
    return token.reveal()


async def test_a_file_that_changes_is_noticed_without_a_refusal(path: Path, mock_clock: trio.testing.MockClock) -> None:
    source = open_token_file(path, "the file")
    assert await revealed(source) == OLD
    replace(path, NEW)
    assert await revealed(source) == OLD
    mock_clock.jump(LOOK_INTERVAL_S)
    assert await revealed(source) == NEW
    assert LOOK_INTERVAL_S <= 60


async def test_a_refusal_is_reason_enough_to_look_at_once(path: Path) -> None:
    source = open_token_file(path, "the file")
    assert await revealed(source) == OLD
    replace(path, f"{NEW}\n")
    assert isinstance(source, TokenFile)
    source.refused(Secret(OLD))
    assert await revealed(source) == NEW


async def test_many_who_were_refused_cause_one_look(path: Path) -> None:
    source = open_token_file(path, "the file")
    assert isinstance(source, TokenFile)
    await source.token()
    WatchedPath.looks = 0
    replace(path, NEW)
    found: list[str] = []

    async def ask() -> None:
        source.refused(Secret(OLD))
        found.append(await revealed(source))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert found == [NEW] * 50
    assert WatchedPath.looks == 1


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two words", b"\xff\xfe", b"x" * 20_000])
async def test_a_file_that_is_gone_or_half_written_leaves_the_token_in_use(path: Path, content: bytes | None) -> None:
    source = open_token_file(path, "the file")
    assert isinstance(source, TokenFile)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert await revealed(source) == OLD
    replace(path, NEW)
    source.refused(Secret(OLD))
    assert await revealed(source) == NEW


async def test_a_link_that_is_turned_to_another_file_is_noticed(tmp_path: Path, path: Path) -> None:
    """As Kubernetes renews a secret."""
    (tmp_path / "renewed").write_text(NEW)
    link = tmp_path / "link"
    link.symlink_to(path)
    source = open_token_file(link, "the file")
    assert isinstance(source, TokenFile)
    assert await revealed(source) == OLD
    (tmp_path / "turned").symlink_to(tmp_path / "renewed")
    (tmp_path / "turned").replace(link)
    source.refused(Secret(OLD))
    assert await revealed(source) == NEW


async def test_a_pipe_is_read_once_and_one_that_takes_the_files_place_not_at_all(tmp_path: Path, path: Path) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb", buffering=0) as pipe:
        pipe.write(OLD.encode())
        pipe.close()
        assert open_token_file(Path(f"/dev/fd/{reader}"), "the pipe") == FixedToken(Secret(OLD))
    source = open_token_file(path, "the file")
    path.unlink()
    os.mkfifo(path)
    with trio.fail_after(10):
        assert await revealed(source) == OLD


async def test_a_file_on_a_server_that_hangs_holds_up_one_request_for_a_moment(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    source = open_token_file(path, "the file")
    assert isinstance(path, WatchedPath)
    path.hanging = threading.Event()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(revealed, source)
            await trio.to_thread.run_sync(path.entered.wait)
            mock_clock.jump(LOOK_TIMEOUT_S)
        for _ in range(20):
            mock_clock.jump(LOOK_INTERVAL_S)
            assert await revealed(source) == OLD  # at once: this clock stands still
        assert WatchedPath.looks == 1
    finally:
        path.hanging.set()


def test_nothing_shows_the_token(path: Path) -> None:
    assert CANARY not in f"{open_token_file(path, 'x')!r} {FixedToken(Secret(OLD))!r}"


# With requests


class Hub:
    """Accepts one token."""

    def __init__(self, accepted: str) -> None:
        self.accepted = accepted

    async def __call__(self, asked: Asked, stream: trio.abc.Stream) -> bytes:
        await trio.lowlevel.checkpoint()
        return answer(200, b"ok") if asked.headers.get("authorization") == f"Bearer {self.accepted}" else answer(401)


async def test_a_token_that_was_renewed_is_used_at_the_first_401(path: Path) -> None:
    hub = Hub(OLD)
    async with serving(hub) as server, client_of(server.url) as client:
        source = open_token_file(path, "the file")
        assert source is not None
        bearer = Bearer(Origin.of(server.url), source)
        assert (await client.request(f"{server.url}/a", "x", credentials=bearer)).status == 200
        hub.accepted = NEW
        assert (await client.request(f"{server.url}/b", "x", credentials=bearer)).status == 401  # not written yet
        replace(path, NEW)
        assert (await client.request(f"{server.url}/c", "x", credentials=bearer)).body == b"ok"
        assert (await client.request(f"{server.url}/d", "x", credentials=bearer)).body == b"ok"
        assert server.paths == ["/a", "/b", "/c", "/c", "/d"]


async def test_a_token_that_cannot_change_is_sent_once() -> None:
    async with serving(Hub(NEW)) as server, client_of(server.url) as client:
        bearer = Bearer(Origin.of(server.url), FixedToken(Secret(OLD)))
        assert (await client.request(f"{server.url}/x", "x", credentials=bearer)).status == 401
        assert len(server.asked) == 1


async def test_another_servers_401_is_no_refusal_of_the_token(path: Path) -> None:
    async def storage(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(401)

    async def hub(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(302, location=f"{other.url}/signed")

    async with serving(storage) as other, serving(hub) as server, client_of(server.url) as client:
        source = open_token_file(path, "the file")
        assert source is not None
        await source.token()
        WatchedPath.looks = 0
        bearer = Bearer(Origin.of(server.url), source)
        assert (await client.request(f"{server.url}/x", "x", credentials=bearer)).status == 401
        assert WatchedPath.looks == 0
        assert len(other.asked) == 1
        assert CANARY not in repr(other.asked)
