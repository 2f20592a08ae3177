"""A slow network on request: latency before each answer, bandwidth per connection and for all together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

SLICE_BYTES: Final = 64 * 1024
"""What is sent at a time when bandwidth is limited."""
_SLACK_S = 0.002  # sleeps shorter than this cost more than they shape
LATE_S: Final = 0.005
"""How late a sender may wake up without a loss: a real line has a queue that it works off in the meantime."""


@dataclass(frozen=True, slots=True)
class Shape:
    """latency_s before each answer, up to jitter_s more (uniform); bandwidths in bytes per second, None is unlimited."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    connection_bytes_s: float | None = None
    total_bytes_s: float | None = None


class Line:
    """A line that carries `bytes_s`: whoever sends takes the next free stretch of time on it."""

    def __init__(self, bytes_s: float) -> None:
        self.bytes_s = bytes_s
        self._free_at = 0.0

    def reserve(self, length: int) -> float:
        """When the last of `length` bytes, sent now, would be through (trio's clock)."""
        self._free_at = max(self._free_at, trio.current_time() - LATE_S) + length / self.bytes_s
        return self._free_at


async def pass_through(lines: list[Line], length: int) -> None:
    """Wait until `length` bytes are through all the lines."""
    until = max(line.reserve(length) for line in lines)
    if until - trio.current_time() > _SLACK_S:
        await trio.sleep_until(until)
