"""How far to load, for a reader and ahead of it. Pure: it sees the reads, and says which bytes it would like to have.

A file may be read by several programs or threads at once, so a few streams are followed side by side. A read that begins near the
place that a stream has reached belongs to it, before or behind: the kernel sends many requests at once and they
arrive in any order. A stream's step doubles each time it has read through one, from the smallest window to the
largest; it looks ahead a few steps. A read that belongs to no stream starts one, and gets exactly what it asks for, unless it is
at the beginning of the file, where a window of the smallest size is asked at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xetfs.protocol.ranges import ByteRange
from xetfs.settings import MIB

STREAMS_MAX: Final = 8
"""Streams followed in one file: eight ranks that load a shared file each read one."""
NEAR_BYTES: Final = 2 * MIB
"""How far from a stream's end a read may begin and still belong to it: the kernel reads ahead up to 1 MiB, out of order."""
STEPS_AHEAD: Final = 8
"""Windows wanted ahead of a stream, once it has grown: at 8 MiB each they keep eight connections busy."""


@dataclass(frozen=True, slots=True)
class Want:
    """demand: what to load if the read finds something missing; begins where the read begins and includes it.
    ahead_until: up to where to load in the background, in windows of `step` bytes; 0 if there is nothing new to say.
    stream: which stream the read belongs to; the same number as long as it is followed.
    """

    demand: ByteRange
    ahead_until: int
    step: int
    stream: int


@dataclass(slots=True, eq=False)
class _Stream:
    number: int
    reached: int
    grown_at: int
    ahead_until: int
    step: int


class Prefetcher:
    def __init__(self, size: int, *, window_bytes_min: int, window_bytes_max: int, ahead_bytes_max: int) -> None:
        """size of the file; the other three as in Settings, in bytes."""
        self._size = size
        self._step_min = window_bytes_min
        self._step_max = window_bytes_max
        self._ahead_max = ahead_bytes_max
        self._streams: list[_Stream] = []  # the most recently used last
        self._begun = 0

    def observe(self, span: ByteRange) -> Want:
        """Take note of a read of `span` (clipped to the file, not empty) and say what it makes worth loading."""
        streams = self._streams
        start = span.start
        for stream in reversed(streams):
            if -NEAR_BYTES <= start - stream.reached <= NEAR_BYTES:
                if stream is not streams[-1]:
                    streams.remove(stream)
                    streams.append(stream)
                return self._follow(stream, span)
        return self._begin(span)

    def _begin(self, span: ByteRange) -> Want:
        if len(self._streams) >= STREAMS_MAX:
            del self._streams[0]
        self._begun += 1
        stream = _Stream(self._begun, span.end, span.end, span.end, self._step_min)
        self._streams.append(stream)
        if span.start == 0:
            span = ByteRange(0, max(span.end, min(self._step_min, self._size)))
        return Want(span, 0, stream.step, stream.number)

    def _follow(self, stream: _Stream, span: ByteRange) -> Want:
        forward = span.end > stream.reached
        if not forward:
            return Want(span, 0, stream.step, stream.number)
        stream.reached = span.end
        if stream.reached - stream.grown_at >= stream.step and stream.step < self._step_max:
            stream.grown_at = stream.reached
            stream.step = min(2 * stream.step, self._step_max)
        demand = ByteRange(span.start, min(max(span.end, span.start + stream.step), self._size))
        return Want(demand, self._look_ahead(stream), stream.step, stream.number)

    def _look_ahead(self, stream: _Stream) -> int:
        """Up to where to load now; said a step at a time, so that nobody has to look again at each read."""
        until = min(stream.reached + min(STEPS_AHEAD * stream.step, self._ahead_max), self._size)
        if until - stream.ahead_until < stream.step and (until < self._size or until <= stream.ahead_until):
            return 0
        stream.ahead_until = until
        return until
