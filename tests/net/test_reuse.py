"""Which connection a request gets, and how many are looked at for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import httpcore
import trio.testing

from xetfs.net.reuse import SWEEP_S, Reuse


@dataclass(eq=False)
class Connection:
    state: str = "idle"
    dead: bool = False
    asked: int = 0

    def is_available(self) -> bool:
        return self.state == "idle"

    is_idle = is_available

    def is_closed(self) -> bool:
        return self.state == "closed"

    def has_expired(self) -> bool:
        self.asked += 1
        return self.dead


@dataclass(eq=False)
class Request:
    connection: Connection | None = None
    request: httpcore.Request = field(default_factory=lambda: httpcore.Request("GET", "http://hub.test/"))

    def is_queued(self) -> bool:
        return self.connection is None

    def assign_to_connection(self, connection: Connection) -> None:
        self.connection = connection


class Pool:
    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections
        self._requests: list[Request] = []

    def create_connection(self, origin: httpcore.Origin) -> Connection:
        return Connection("new")


def make(count: int, **kwargs: Any) -> tuple[Pool, list[Connection], Reuse]:
    connections = [Connection(**kwargs) for _ in range(count)]
    pool = Pool(list(connections))
    return pool, connections, Reuse(cast(httpcore.AsyncConnectionPool, pool))


async def test_a_request_takes_the_first_good_connection_and_asks_about_no_other() -> None:
    pool, connections, reuse = make(30)
    connections[0].state, connections[1].state, connections[2].dead = "closed", "active", True
    pool._requests = [Request(connections[1]), Request()]
    assert reuse() == [connections[2]]
    assert pool._requests[1].connection is connections[3]
    assert [connection.asked for connection in connections] == [0, 0, 1, 1] + 26 * [0]
    assert pool._connections == [connections[1], *connections[3:]]


async def test_requests_that_begin_together_get_connections_of_their_own() -> None:
    pool, connections, reuse = make(2)
    pool._requests = [Request(), Request(), Request()]
    assert reuse() == []
    assert [request.connection for request in pool._requests] == pool._connections
    assert pool._connections[:2] == connections
    assert len(pool._connections) == 3


async def test_idle_connections_that_died_are_closed_by_and_by(autojump_clock: trio.testing.MockClock) -> None:
    pool, connections, reuse = make(4, dead=True)
    connections[0].state = "active"
    assert reuse() == []
    await trio.sleep(SWEEP_S + 0.1)
    assert reuse() == connections[1:]
    assert pool._connections == connections[:1]
