"""IPv4 and IPv6: a family that is missing or dead costs a moment, and no error."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import trio
from loopback import Asked, Names, answer, client_of, serving

from xetfs.telemetry import NET_REQUESTS, NET_RETRIES

NOBODYS_4, NOBODYS_6 = "192.0.2.1", "2001:db8::1"
"""Addresses that no machine has (RFC 5737, RFC 3849)."""


async def ok(asked: Asked, stream: trio.abc.Stream) -> bytes:
    return answer(200, b"ok")


@contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """Whoever connects there gets no answer: a full queue of a socket that accepts nobody drops what comes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(family))
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield


@pytest.mark.parametrize("addresses", [["::1"], [NOBODYS_4, "::1"], ["::1", NOBODYS_4]])
async def test_a_server_that_has_only_ipv6_is_reached(names: Names, addresses: list[str]) -> None:
    names.known |= {"hub.example": addresses, "::1": ["::1"]}
    async with serving(ok, host="::1") as server:
        port = server.url.rpartition(":")[2]
        url = f"http://hub.example:{port}"
        async with client_of(url) as client:
            assert (await client.request(f"{url}/x", "x")).body == b"ok"
            assert client.counters[NET_RETRIES] == 0
        async with client_of(server.url) as client:  # by its address
            assert (await client.request(f"{server.url}/x", "x")).body == b"ok"
    assert server.asked[-1].headers["host"] == f"[::1]:{port}"


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ["::1", "127.0.0.1"]),
        ("127.0.0.1", ["::1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]),
        ("::1", ["127.0.0.2", "::1"]),
        ("127.0.0.1", [NOBODYS_6, "127.0.0.1"]),
    ],
    ids=["dead IPv6 first", "much that is dead first", "dead IPv4 first", "an IPv6 address that nobody has first"],
)
async def test_an_address_that_does_not_answer_is_overtaken(names: Names, host: str, addresses: list[str]) -> None:
    """It has a minute to answer; the request is not kept waiting for it."""
    async with serving(ok, host=host) as server:
        port = int(server.url.rpartition(":")[2])
        names.known["hub.example"] = addresses
        url = f"http://hub.example:{port}"
        with ExitStack() as stack:
            for address in addresses:
                if address not in (host, NOBODYS_6):
                    stack.enter_context(silent(address, port))
            async with client_of(url, connect_timeout_s=60.0) as client:
                with trio.fail_after(30):
                    assert (await client.request(f"{url}/x", "x")).body == b"ok"
                assert (client.counters[NET_REQUESTS], client.counters[NET_RETRIES]) == (1, 0)
