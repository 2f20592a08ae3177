"""Large bodies received where they belong, past the parser.

h11 and httpcore copy a body four times on its way from the socket. For one of known length nothing in it needs parsing: once
the headers are read, the bytes may go from the socket straight to their place, and h11 only needs to be told how many went by.
That takes names that neither library publishes (their versions are pinned for it, in pyproject.toml); where one of them is not
as expected, the body takes the ordinary way, and a test notices.
"""

from __future__ import annotations

from typing import Any, Final

import httpx
import trio

from xetfs.net.backend import PlainStream, TlsStream

TURN_S: Final = 0.02
"""How often the event loop is woken for a body, about: what has arrived by then is taken in one turn."""
TURN_BYTES_FIRST: Final = 64 * 1024
TURN_BYTES_MAX: Final = 512 * 1024
"""More than that the kernel may not keep for a connection."""


class DirectBody:
    """The way past the parser for one response. h11 has given out all that it had of the body when this is made."""

    def __init__(self, stream: PlainStream | TlsStream, reader: Any) -> None:
        self._stream = stream
        self._reader = reader
        self._turn = TURN_BYTES_FIRST

    @property
    def remaining(self) -> int:
        """Bytes of the body that are still to come."""
        remaining: int = self._reader._remaining
        return remaining

    async def receive_into(self, target: memoryview, timeout: float) -> int:
        """Some of the next bytes of the body, put at the start of `target`, which is no longer than what remains; 0 if it broke
        off.

        Raises the errors of httpcore's streams.
        """
        self._stream.wait_for_at_least(min(len(target), self._turn))
        began = trio.current_time()
        try:
            count = await self._stream.receive_into(target, timeout)
        finally:
            self._stream.wait_for_at_least(1)  # whoever uses the connection next may wait for less
        if trio.current_time() - began < TURN_S:
            self._turn = min(2 * self._turn, TURN_BYTES_MAX)
        elif trio.current_time() - began > 2 * TURN_S:
            self._turn = max(self._turn // 2, 1)
        self._reader._remaining -= count
        return count


def direct_body(response: httpx.Response) -> DirectBody | None:
    """The way past the parser for what h11 has not received yet of a body; None if there is none."""
    stream = response.extensions.get("network_stream")
    body: Any = response.stream
    try:
        connection = body._httpcore_stream._stream._connection._h11_state
        reader, buffered = connection._reader, connection._receive_buffer
    except AttributeError:
        return None
    if not isinstance(stream, PlainStream | TlsStream) or type(reader).__name__ != "ContentLengthReader" or len(buffered):
        return None
    return DirectBody(stream, reader)
