"""A body under TLS that arrives in pieces: its reader is woken rarely, and never waits for more than will come."""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trio.testing
from loopback import Asked, Authority, answer, serving

from xetfs.net import http1
from xetfs.net.connector import Connector
from xetfs.net.http1 import Body
from xetfs.net.transport import Transport

BODY = random.Random(3).randbytes(400_000)
RECORD = 16_384 + 22
"""Longest record on the wire under TLS 1.3: its plaintext, header, content type and tag."""


@asynccontextmanager
async def in_pieces(port: int, piece: int) -> AsyncIterator[int]:
    """A port whose connections lead to another, and hand on what comes back in pieces, each when nobody has anything to do."""

    async def serve(near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", port)
        async with near, far, trio.open_nursery() as both:
            both.start_soon(ask, near, far)
            try:
                while data := await far.receive_some(piece):
                    await trio.testing.wait_all_tasks_blocked(0.002)
                    await near.send_all(data)
            except trio.BrokenResourceError:
                pass
            both.cancel_scope.cancel()

    async def ask(near: trio.SocketStream, far: trio.SocketStream) -> None:
        while data := await near.receive_some():
            await far.send_all(data)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("length", [1, RECORD, 65_536 + 3, len(BODY)])
@pytest.mark.parametrize("piece", [700, RECORD - 1, RECORD + 1, 40_000])
async def test_a_body_in_pieces(authority: Authority, monkeypatch: pytest.MonkeyPatch, piece: int, length: int) -> None:
    monkeypatch.setattr(http1, "WAKE_S", math.inf)  # every wait is short, so that the reader asks to be woken ever less often

    async def handler(asked: Asked, stream: trio.abc.Stream) -> bytes:
        return answer(200, BODY[:length])

    transport = Transport(
        Connector(lambda _host, _port, _addresses: None),
        ssl.create_default_context(cafile=str(authority.ca_file)),
        memoryview(bytearray(512 * 1024)),
    )
    received, turns = bytearray(length), 0
    async with (
        serving(handler, authority.server) as server,
        in_pieces(int(server.url.rpartition(":")[2]), piece) as port,
    ):
        for _ in range(2):  # on the same connection, whose next head is shorter than what was waited for before
            request = httpx.Request("GET", f"https://127.0.0.1:{port}/x", extensions={"timeout": {"connect": 20, "read": 20}})
            response = await transport.handle_async_request(request)
            body, filled, turns = response.stream, 0, 0
            assert isinstance(body, Body)
            while not body.ended:
                filled += await body.receive_into(memoryview(received)[filled:])
                turns += 1
            assert received == BODY[:length]
        assert server.connections == 1
        await transport.aclose()
    assert turns <= 3 + 2 * length / 48_000, "of 64 KiB and more, less a record"
