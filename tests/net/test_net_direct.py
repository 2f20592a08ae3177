"""Large bodies go past the parser, and come out the same; where the way past is not to be had, they take the ordinary one."""

from __future__ import annotations

import random

import pytest
import trio
from loopback import Asked, Authority, answer, client_of, ranged, serving

from xetfs.errors import Unavailable
from xetfs.net import download as download_module
from xetfs.net.direct import DirectBody
from xetfs.settings import MIB

DATA = random.Random(11).randbytes(4 * MIB)


@pytest.fixture
def past_parser(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts what went past the parser."""
    counts: list[int] = []
    original = DirectBody.receive_into

    async def counted(self: DirectBody, target: memoryview, timeout: float) -> int:
        counts.append(await original(self, target, timeout))
        return counts[-1]

    monkeypatch.setattr(DirectBody, "receive_into", counted)
    return counts


@pytest.mark.parametrize("secure", [False, True], ids=["http", "tls"])
async def test_nearly_all_of_a_body_goes_past_the_parser(authority: Authority, secure: bool, past_parser: list[int]) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, DATA)

    async with (
        serving(handler, authority.server if secure else None) as server,
        client_of(server.url, ca_file=authority.ca_file) as client,
    ):
        for _ in range(3):
            into = bytearray(len(DATA))
            async with client.stream(f"{server.url}/d", "d") as download:
                await download.fill(memoryview(into))
            assert into == DATA
        assert server.connections == 1
    assert sum(past_parser) >= 3 * (len(DATA) - 64 * 1024)


async def test_a_body_that_breaks_off_past_the_parser_is_an_error(past_parser: list[int]) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(answer(200, DATA)[: 2 * MIB])

    async with serving(handler) as server, client_of(server.url) as client:
        with pytest.raises(Unavailable):
            async with client.stream(f"{server.url}/d", "d") as download:
                await download.fill(memoryview(bytearray(len(DATA))))
    assert past_parser


async def test_a_silent_server_is_given_up_past_the_parser(past_parser: list[int]) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> None:
        await stream.send_all(answer(200, DATA)[: 2 * MIB])
        await trio.sleep_forever()

    async with serving(handler) as server, client_of(server.url, stall_timeout_s=0.2) as client:
        with pytest.raises(Unavailable):
            async with client.stream(f"{server.url}/d", "d") as download:
                await download.fill(memoryview(bytearray(len(DATA))))
    assert past_parser


async def test_a_cancelled_body_leaves_a_client_that_works(past_parser: list[int]) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes | None:
        if asked.path == "/slow":
            await stream.send_all(answer(200, DATA)[: 2 * MIB])
            await trio.sleep_forever()
        return answer(200, b"ok")

    async with serving(handler) as server, client_of(server.url) as client:
        for _ in range(40):
            with trio.move_on_after(0.01):
                async with client.stream(f"{server.url}/slow", "d") as download:
                    await download.fill(memoryview(bytearray(len(DATA))))
        assert (await client.request(f"{server.url}/ok", "ok")).body == b"ok"


async def test_the_ordinary_way_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return ranged(DATA, asked)

    monkeypatch.setattr(download_module, "direct_body", lambda response: None)
    async with serving(handler) as server, client_of(server.url) as client:
        into = bytearray(MIB)
        async with client.stream(f"{server.url}/d", "d", headers={"range": f"bytes={MIB}-{2 * MIB - 1}"}) as download:
            await download.fill(memoryview(into))
        assert into == DATA[MIB : 2 * MIB]
