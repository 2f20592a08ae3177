"""Which connection a request gets.

httpcore looks at all connections of a pool for each request that begins or ends, some of that once for every other one, and asks
the kernel about each that is idle: with thirty connections that cost more than the request itself. Here a request takes the first
idle connection that is still good, and only those looked at on the way are asked about. Idle ones that nobody comes to are closed
by a sweep now and then.
"""

from __future__ import annotations

import httpcore
import trio
from httpcore._async.interfaces import AsyncConnectionInterface

SWEEP_S = 5.0
"""How often idle connections are looked through for those that are dead or have been idle for too long."""


class Reuse:
    """Takes the place of `_assign_requests_to_connections` of one pool, whose caller sees to it that no more requests are made at
    a time than the pool may have connections."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool
        self._swept_at = trio.current_time()

    def __call__(self) -> list[AsyncConnectionInterface]:
        """Give a connection to each request that has none; returns the connections that are to be closed."""
        pool = self._pool
        closing: list[AsyncConnectionInterface] = []
        for request in pool._requests:
            if request.is_queued():
                origin = request.request.url.origin
                request.assign_to_connection(self._usable(closing) or self._new(origin))
        if trio.current_time() - self._swept_at > SWEEP_S:
            self._swept_at = trio.current_time()
            closing.extend(connection for connection in pool._connections if connection.is_idle() and connection.has_expired())
        if closing:
            pool._connections = [connection for connection in pool._connections if connection not in closing]
        return closing

    def _usable(self, closing: list[AsyncConnectionInterface]) -> AsyncConnectionInterface | None:
        """The first connection that waits for a request; those that turn out to be dead go to `closing`."""
        pool = self._pool
        pool._connections = [connection for connection in pool._connections if not connection.is_closed()]
        given = {request.connection for request in pool._requests}  # to a request that has not got round to it
        for connection in pool._connections:
            if connection.is_available() and connection not in given and connection not in closing:
                if not connection.has_expired():
                    return connection
                closing.append(connection)
        return None

    def _new(self, origin: httpcore.Origin) -> AsyncConnectionInterface:
        connection = self._pool.create_connection(origin)
        self._pool._connections.append(connection)
        return connection
