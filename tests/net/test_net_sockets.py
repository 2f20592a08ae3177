"""Whether there is a way to an address, and what becomes of connections to which there is none."""

from __future__ import annotations

import pytest
from loopback import answer, client_of, serving

from xetfs.net import streams
from xetfs.net.sockets import has_way

NOT_OURS = "192.0.2.1"
"""No machine has this address (RFC 5737)."""


@pytest.mark.parametrize(
    ("local", "peer", "expected"),
    [
        (("127.0.0.1", 50_000), ("127.0.0.1", 443), True),
        (("127.0.0.1", 50_000), ("127.0.0.2", 443), True),
        ((NOT_OURS, 50_000), ("127.0.0.1", 443), False),
        (("::1", 50_000, 0, 0), ("::1", 443, 0, 0), True),
    ],
)
def test_there_is_a_way_between_addresses_that_this_machine_has(
    local: tuple[object, ...], peer: tuple[object, ...], expected: bool
) -> None:
    assert has_way(local, peer) is expected


@pytest.mark.parametrize("way", [True, False])
async def test_an_idle_connection_is_used_again_only_while_there_is_a_way(monkeypatch: pytest.MonkeyPatch, way: bool) -> None:
    monkeypatch.setattr(streams, "ROUTE_CHECK_AFTER_S", 0.0)
    monkeypatch.setattr(streams, "has_way", lambda _local, _peer: way)

    async def handler(*_: object) -> bytes:
        return answer(200, b"ok")

    async with serving(handler) as server, client_of(server.url) as client:
        for _ in range(3):
            assert (await client.request(f"{server.url}/x", "x")).body == b"ok"
        assert server.connections == (1 if way else 3)
