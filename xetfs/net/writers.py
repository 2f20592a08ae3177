"""Where the bytes of a body go as they arrive."""

from __future__ import annotations

from typing import Protocol


class Writer(Protocol):
    """Memory for a body of known length, filled from its first byte to its last by one attempt at a request."""

    def __len__(self) -> int:
        """Bytes of the whole body."""
        ...

    def room(self) -> memoryview:
        """Where the next bytes belong; not empty until all have come, and not longer than what is missing."""
        ...

    def took(self, count: int) -> None:
        """Note that the first `count` bytes of `room()` are filled."""
        ...


class BufferWriter:
    """Fills a buffer that is as long as the body."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._filled = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def room(self) -> memoryview:
        return self._buffer[self._filled :]

    def took(self, count: int) -> None:
        self._filled += count


def write(writer: Writer, data: memoryview) -> None:
    """Copy `data`, which is no longer than what the writer misses."""
    while data:
        room = writer.room()[: len(data)]
        room[:] = data[: len(room)]
        writer.took(len(room))
        data = data[len(room) :]
