"""How far to load, for a reader and ahead of it. Pure: it sees the reads, and says which bytes it would like to have.

A file may be read by several programs or threads at once, so a few streams are followed side by side. A read that begins near the
place that a stream has reached belongs to it, before or behind: the kernel sends many requests at once and they
arrive in any order. How far to look ahead of a stream grows with what its program has surely read, a multiple of it up to the
limit; the windows that are to bring this are half as long each, so that the line is full after a few round trips. A read that
belongs to no stream starts one, and gets exactly what it asks for, unless it is at the beginning of the file, where a window of
the smallest size is asked at once. A file that is read through from its beginning, over a fast link, is loaded to its end, or for
the next megabytes: the more was read, the more of them. A stream may go backward as well: the C library copies a mapping from
its end to its beginning when that and the target lie unfavourably to each other.

Threads that read blocks of one length anywhere in a file leave streams of that length behind. A read that begins another one then
wants the block, as one stretch, and nothing past it until the stream has gone on for several blocks.

Where the layout of the file is known (protocol/formats), its units decide where that ends. A read that begins a stream near the
beginning of a unit wants the unit whole, one further inside it as much as one window; a jump from unit to unit is what a program
does that loads some of them. Nothing is loaded past the end of the unit that a stream is in, nor past the end of a header, until
the stream has gone on from one unit to the next: then the more of those that follow, the more it has read of whole units, so
that a program that reads all of a file in order soon has all of it loaded ahead, and one that stops has not moved much more than
it read. A program that looks into many units and does not read on there gets no more than it asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from xetfs.protocol.formats import Layout
from xetfs.protocol.ranges import ByteRange
from xetfs.units import KIB, MIB

STREAMS_MAX: Final = 8
"""Streams followed in one file: eight ranks that load a shared file each read one."""
BLOCK_STREAMS_MAX: Final = 24
"""The same where no layout is known: those of sixteen threads that read blocks, and some that have ended."""
BLOCKS_ALIKE: Final = 3
"""Streams that are equally long: then the file is read in blocks of this length, and the next stream will be one."""
BLOCKS_IN_A_ROW: Final = 4
"""Blocks one after the other before such a stream is taken to go on; two or three may be chance."""
NEAR_BYTES: Final = 2 * MIB
NEAR_REQUESTS: Final = 16
"""How far from a stream's end a read may begin and still belong to it: the kernel reads ahead up to 1 MiB, out of order. A
program that reads small pieces itself is not said to read on when one of them happens to be near another."""
AHEAD_PER_READ: Final = 8
"""Bytes wanted ahead of a stream for each that its program has surely read. At 40 ms and 250 MB/s it takes 3 MiB, which come in
one round trip, to be far enough ahead for the next."""
AHEAD_PER_ASKED: Final = 2
"""Bytes wanted ahead for each that the kernel has asked for, which its program may never read."""
WHOLE_BEGUN_BYTES: Final = 512 * KIB
"""A program that has asked for so much from the beginning of a file reads it through. For one that only looks at the first
128 KiB the kernel asks for 256 KiB."""
WHOLE_PER_ASKED: Final = 32
"""Bytes wanted ahead of such a program for each that was asked for. With 1 MiB, a file of 32 MiB comes in two windows, the second
of which is planned while the first is fetched: three round trips, whatever its size."""
WHOLE_BYTES_MAX: Final = 2 * MIB
"""Such a file comes in one window."""
REQUESTS_UNSURE: Final = 2
"""Requests that the kernel makes ahead of what a program reads."""
AHEAD_WINDOWS: Final = 2
"""Windows that what is wanted ahead is loaded in. Each begins a round trip after the one before it, as only the answer to that
says where: with more, the line would wait for them."""
UNIT_WINDOWS: Final = 2
"""Windows that a unit is loaded in at the least, side by side. Each begins a round trip after the one before it, so with more a
unit of a few MiB would come later."""
PAGE_BYTES: Final = 4 * KIB
"""What a program touches at the least."""
UNREAD_UNITS_MAX: Final = 3
"""Units loaded ahead one after the other that nobody reads on in: by then a program is taken to look here and there, until it
does read on somewhere."""
OVERSHOOT_BYTES: Final = 2 * MIB
"""How far past what the program reads the kernel may ask: it has up to two requests of 1 MiB under way. That a stream has reached
a place does not show that the program has come closer to it than this."""
PAST_PER_READ: Final = 2
"""Bytes to load past the end of a unit for each of whole units that a program has read from the first one on: it loads the model,
and a line of 250 MB/s that carries 25 MB/s on each connection is full with a hundred of them under way. One that began elsewhere
may end soon: the inverse of that. Only units that fit in whole: one that is longer than what was read is not begun."""
MEANT_BYTES: Final = 512 * KIB
"""What the kernel asks for at the least when a page of a model is touched through a mapping, where it was told its read-ahead."""
ENDS_KEPT_MAX: Final = 1024
"""Ends of reads that are remembered: what begins at one of them is what the kernel reads on of its own accord."""


class Want(NamedTuple):  # made at every read, which a frozen dataclass is slower at
    """demand: what to load if the read finds something missing; begins where the read begins and includes it.
    ahead_until: up to where to load in the background, in windows of `step` bytes; 0 if there is nothing new to say.
    limit: what nothing loaded in the background goes past; a step that begins before `ahead_until` may otherwise end behind it.
    stream: which stream the read belongs to; the same number as long as it is followed.
    down_to: the same as ahead_until for a stream that goes backward, from the read downward; -1 if there is nothing new to say.
    """

    demand: ByteRange
    ahead_until: int
    limit: int
    step: int
    stream: int
    down_to: int = -1


@dataclass(slots=True, eq=False)
class _Stream:
    """first: where its first read began. low: where those began that went on backward from there. began, reached: where its
    program began, and how far it has come. asked: bytes of all its reads; less than the way from the one to the other when places
    were left out. unit: which one the program has come to. block: how long it will be if it is a block, or 0.
    alone: no second read has followed. gone_back: bytes below the first read that were read in order, downward; down_to: how far
    they are loaded."""

    number: int
    first: int
    low: int
    began: int
    reached: int
    asked: int
    ahead_until: int
    step: int
    unit: int | None
    block: int = 0
    alone: bool = True
    gone_back: int = 0
    down_to: int = -1


class Prefetcher:
    def __init__(
        self,
        size: int,
        *,
        window_bytes_min: int,
        window_bytes_max: int,
        ahead_bytes_max: int,
        awaits_layout: bool = False,
        is_fast: Callable[[], bool] = lambda: True,
    ) -> None:
        """size of the file; the next three as in Settings, in bytes. awaits_layout: `learn` will be called.

        is_fast: tells whether the link brings megabytes in a moment.

        Until the layout is learnt a stream looks no further ahead than it has read, as it may be in a header.
        """
        self._size = size
        self._step_min = window_bytes_min
        self._step_max = window_bytes_max
        self._ahead_max = ahead_bytes_max
        self._awaits_layout = awaits_layout
        self._layout: Layout | None = None
        self._is_fast = is_fast
        self._streams: list[_Stream] = []  # the most recently used last
        self._begun = 0
        self._ends: dict[int, None] = {}  # of the latest reads
        self._request_max = 0
        self._unread_units = 0  # touched, and loaded ahead, since a stream last had a second read
        self._goes_back = False  # the stream that last went on
        self._backward = ByteRange(0, 0)  # units one after the other, of which each was begun at its end
        self._backward_units = 0
        self._backward_until = 0  # how far ahead of them is loaded

    def learn(self, layout: Layout | None) -> None:
        """Go by this layout from now on; None: there will be none."""
        self._layout = layout
        self._awaits_layout = False

    def observe(self, span: ByteRange) -> Want:
        """Take note of a read of `span` (clipped to the file, not empty) and say what it makes worth loading."""
        streams = self._streams
        start = span.start
        # Between units, a program that leaves out more than a request has jumped.
        behind = min(NEAR_REQUESTS * len(span), NEAR_BYTES)
        near = behind if self._layout is None else min(len(span), NEAR_BYTES)
        found = next((stream for stream in reversed(streams) if -behind <= start - stream.reached <= near), None)
        if self._layout is not None or found is None:
            below = next((stream for stream in reversed(streams) if start < stream.low <= span.end), None)
            if below is not None and (found is None or below.low < below.first):
                found = below
        if found is None:
            want = self._begin(span)
        else:
            if found is not streams[-1]:
                streams.remove(found)
                streams.append(found)
            want = self._follow(found, span)
        self._remember(span)
        return want

    def _remember(self, span: ByteRange) -> None:
        self._request_max = max(self._request_max, len(span))
        self._ends[span.end] = None
        if len(self._ends) > ENDS_KEPT_MAX:
            del self._ends[next(iter(self._ends))]

    def _begin(self, span: ByteRange) -> Want:
        began, unit, is_sure = self._touched(span)
        is_meant = is_sure and self._unread_units < UNREAD_UNITS_MAX and self._shows_what_was_touched(span)
        until = self._unit_until(span, began) if is_meant else 0
        down_to = -1
        if until and self._goes_back and unit is not None and self._is_at_the_end(began, unit):
            down_to, until = self._units_from_the_end(span, began)
        block = self._block_of(span)
        if len(self._streams) >= (STREAMS_MAX if self._layout is not None else BLOCK_STREAMS_MAX):
            del self._streams[0]
        self._begun += 1
        reached, ahead_until = span.end, max(span.end, until)
        stream = _Stream(self._begun, span.start, span.start, began, reached, len(span), ahead_until, self._step_min, unit)
        self._streams.append(stream)
        if block is not None:
            stream.block, stream.ahead_until = len(block), block.end
            return Want(block, 0, block.end, stream.step, stream.number)
        if down_to >= 0:
            self._unread_units += 1
            stream.down_to = down_to
            further = max(until - span.end, 0)
            stream.step = min(
                max((span.start - down_to) // UNIT_WINDOWS, further // AHEAD_WINDOWS, self._step_min), self._step_max
            )
            return Want(span, until if further else 0, until or self._size, stream.step, stream.number, down_to)
        if self._reads_whole(stream):
            return self._begin_whole(stream, span)
        if until > span.end:
            self._unread_units += 1
            stream.step = min(max((until - span.start) // UNIT_WINDOWS, self._step_min), self._step_max)
        if span.start == 0 or until:
            span = ByteRange(span.start, max(span.end, min(span.start + self._step_min, until or self._size)))
        return Want(span, until if until > span.end else 0, until or self._size, stream.step, stream.number)

    def _block_of(self, span: ByteRange) -> ByteRange | None:
        """The block that begins with a read, if the file is read in blocks, each by several requests. None where the layout
        is known: a unit copied through a mapping looks alike."""
        if len(span) < MEANT_BYTES or self._layout is not None or self._awaits_layout:
            return None
        lengths = [stream.reached - stream.first for stream in self._streams if stream.reached - stream.first > len(span)]
        length = max(lengths, key=lengths.count, default=0)
        if length > self._step_max or lengths.count(length) < BLOCKS_ALIKE:
            return None
        return ByteRange(span.start, min(span.start + length, self._size))

    def _reads_whole(self, stream: _Stream) -> bool:
        """Whether a stream reads the file through from its beginning, over a link that brings it soon. Where the layout is known,
        its units decide instead."""
        has_units = self._layout is not None or self._awaits_layout
        begun = stream.first == 0 and stream.asked >= max(WHOLE_BEGUN_BYTES, stream.reached // 2)
        return begun and not has_units and self._is_fast()

    def _begin_whole(self, stream: _Stream, span: ByteRange) -> Want:
        if self._size <= WHOLE_BYTES_MAX:
            span = ByteRange(0, self._size)
        stream.ahead_until = until = max(span.end, min(WHOLE_PER_ASKED * len(span), self._ahead_max, self._size))
        stream.step = min(max(until - span.end, self._step_min), self._step_max)
        return Want(span, until if until > span.end else 0, self._size, stream.step, stream.number)

    def _touched(self, span: ByteRange) -> tuple[int, int | None, bool]:
        """Where a program has begun that makes the kernel ask for `span`, the number of the unit there, and whether that is sure.

        That is in the middle, as the kernel reads on both sides of a page that is touched through a mapping. The page may hold
        the end of one unit and the beginning of the next. A copy of memory touches the first page, the last one, then those
        between: so it is the end of a unit that has been touched before, and the beginning of the next one otherwise; unless
        units are copied one after the other, when the page cache has the first page of each, with the end of the one before it.
        Whether they are shows only with the second one; after the first, the next request will say which of the two it was.
        """
        middle = (span.start + span.end) // 2
        layout = self._layout
        if layout is None:
            return middle, None, True
        page = middle - middle % PAGE_BYTES
        unit = layout.index_at(page)
        if unit == layout.index_at(page + PAGE_BYTES - 1):
            return middle, unit, True
        if unit >= 0 and any(stream.unit == unit for stream in self._streams):
            return page, unit, True
        if self._goes_back and unit >= 0 and self._follows_backward(layout.starts[unit]):
            in_a_row = self._backward_units > 1
            return page, unit if in_a_row else unit + 1, in_a_row
        return layout.starts[unit + 1], unit + 1, True

    def _shows_what_was_touched(self, span: ByteRange) -> bool:
        """Whether a read that begins a stream says which unit its program wants.

        It does not if it is what the kernel reads on of its own accord, or shorter than others: the page cache has a part of what
        was to be read, which may have been touched anywhere, or a program looks at the beginning of each unit, as PyTorch does.
        """
        return span.start not in self._ends and len(span) >= min(self._request_max, MEANT_BYTES)

    def _unit_until(self, span: ByteRange, touched: int) -> int:
        """Up to where to load the unit that holds the byte at `touched`; 0 if there is none."""
        unit = self._layout.unit_at(touched) if self._layout is not None else None
        if unit is None:
            return 0
        from_its_beginning = touched - unit.start <= NEAR_BYTES
        return min(unit.end, span.start + (self._ahead_max if from_its_beginning else self._step_max))

    def _units_from_the_end(self, span: ByteRange, touched: int) -> tuple[int, int]:
        """Down to and up to where to load for a program that copies units from their ends: the one that was touched, and the more
        of those that follow, the more it has copied of those before."""
        assert self._layout is not None
        unit = self._layout.unit_at(touched)
        assert unit is not None
        whole_units = self._note_backward(unit)
        until = self._layout.last_end(unit.end + min(self._past(whole_units, self._backward.start), self._ahead_max))
        if until - self._backward_until < self._step_max and until != self._layout.ends[-1]:
            until = 0  # it is said a step at a time
        else:
            self._backward_until = until
        return max(unit.start, span.start - self._ahead_max), until

    def _note_backward(self, unit: ByteRange) -> int:
        """A unit is read from its end. Returns how many bytes of units before it were, one after the other."""
        if unit.end != self._backward.end:
            follows = self._follows_backward(unit.start)
            self._backward_units = self._backward_units + 1 if follows else 1
            if not follows:
                self._backward_until = 0
            self._backward = ByteRange(self._backward.start if follows else unit.start, unit.end)
        return max(unit.start - self._backward.start, 0)

    def _follows_backward(self, start: int) -> bool:
        """Whether a unit that begins there is the next one after those that were copied from their ends."""
        return len(self._backward) > 0 and 0 <= start - self._backward.end <= NEAR_BYTES

    def _is_at_the_end(self, touched: int, unit: int) -> bool:
        assert self._layout is not None
        return unit >= 0 and self._layout.ends[unit] - touched <= PAGE_BYTES

    def _past(self, whole_units: int, began: int) -> int:
        """Bytes past the end of a unit that are worth loading for whole units read from `began` on."""
        assert self._layout is not None
        from_the_beginning = began <= self._layout.starts[0] + NEAR_BYTES
        return PAST_PER_READ * whole_units if from_the_beginning else whole_units // PAST_PER_READ

    def _follow(self, stream: _Stream, span: ByteRange) -> Want:
        stream.asked += len(span)
        if span.end <= stream.reached:
            down_to = self._go_back(stream, span) if span.start < stream.low <= span.end else -1
            return Want(span, 0, self._size, stream.step, stream.number, down_to)
        self._note_second(stream)
        stream.reached = span.end
        if stream.block and span.end <= stream.first + BLOCKS_IN_A_ROW * stream.block:
            past = (stream.first - span.end) % stream.block
            block = ByteRange(span.start, min(span.end + past, self._size))
            return Want(block, 0, block.end, stream.step, stream.number)
        if self._layout is not None:
            self._hand_over(stream, span)
        limit = self._limit(stream)
        ahead = max(self._ahead_of(stream, len(span)), self._rest_of_unit(stream))
        stream.step = max(stream.step, min(ahead // AHEAD_WINDOWS, self._step_max))
        demand = ByteRange(span.start, max(span.end, min(span.start + stream.step, limit)))
        return Want(demand, self._look_ahead(stream, ahead, limit), limit, stream.step, stream.number)

    def _note_second(self, stream: _Stream) -> None:
        if stream.alone:
            stream.alone = False
            self._unread_units = 0

    def _go_back(self, stream: _Stream, span: ByteRange) -> int:
        """A copy of memory may go backward, from the last page of a unit to the first, which it has touched before. What the
        stream there has read was read before this one too. Returns down to where to load now, -1 if that has been said."""
        stream.gone_back += stream.low - span.start
        stream.low = span.start
        for other in self._streams:
            if span.start <= other.reached < span.end and other is not stream:
                stream.began = min(stream.began, other.began)
                stream.asked += other.asked
        unit = self._layout.unit_at(span.start) if self._layout is not None else ByteRange(0, self._size)
        if unit is None or self._awaits_layout:
            return -1
        from_its_end = self._layout is not None and stream.first < unit.end <= stream.reached
        surely_read = stream.gone_back - (0 if from_its_end else REQUESTS_UNSURE * len(span))
        if surely_read <= 0:
            return -1
        self._note_second(stream)
        self._goes_back = True
        if self._layout is not None:
            stream.unit = self._layout.index_at(span.start)  # which is not the one that it seemed to have touched
            self._note_backward(unit)
        ahead = self._ahead_max if from_its_end else min(AHEAD_PER_READ * surely_read, self._ahead_max)
        down_to = max(span.start - ahead, unit.start)
        stream.step = max(stream.step, min(ahead // AHEAD_WINDOWS, self._step_max))
        if 0 <= stream.down_to < down_to + (stream.step if down_to > unit.start else 1):
            return -1
        stream.down_to = down_to
        return down_to

    def _hand_over(self, stream: _Stream, span: ByteRange) -> None:
        """Let the stream that began where this one arrives know what has been read up to there: it began with the last page of a
        unit, which a copy of memory touches early, and is what goes on from here."""
        for other in self._streams:
            if span.start < other.first <= span.end and other is not stream:
                other.began = min(other.began, stream.began)
                other.asked += stream.asked

    def _ahead_of(self, stream: _Stream, request: int) -> int:
        """How many bytes ahead of a stream to load, when the kernel has come forward with a request of `request` bytes."""
        asked = min(max(stream.reached - stream.began, 0), stream.asked)
        if self._awaits_layout:
            return min(asked, self._ahead_max)
        if self._reads_whole(stream):
            return min(WHOLE_PER_ASKED * asked, self._ahead_max)
        surely_read = max(asked - REQUESTS_UNSURE * request, 0)
        self._goes_back = self._goes_back and not surely_read
        return min(AHEAD_PER_ASKED * asked + AHEAD_PER_READ * surely_read, self._ahead_max)

    def _limit(self, stream: _Stream) -> int:
        """Where to stop loading ahead of a stream, whatever its step."""
        layout = self._layout
        if layout is None:
            return self._size
        is_at = max(self._surely_at(stream), stream.began)
        unit = stream.unit = layout.index_at(is_at)
        whole_units = max(layout.starts[unit] - stream.began, 0) if unit >= 0 else 0
        further = self._past(whole_units, stream.began) if unit >= 0 else 0
        end = layout.end_from(is_at)
        return min(max(layout.last_end(end + further), end), self._size)

    def _surely_at(self, stream: _Stream) -> int:
        """How far the program of a stream has surely come, if it has not begun behind that."""
        return stream.reached - min(REQUESTS_UNSURE * self._request_max, OVERSHOOT_BYTES) - 1

    def _rest_of_unit(self, stream: _Stream) -> int:
        """Bytes left of the unit that a stream has come to from its beginning, or from before it: it is wanted whole, as one that
        is touched there; 0 if there is none."""
        layout, unit = self._layout, stream.unit
        if layout is None or unit is None or unit < 0:
            return 0
        start, end = layout.starts[unit], layout.ends[unit]
        if stream.began > start + NEAR_BYTES or not start < self._surely_at(stream) < end:
            return 0
        return min(max(end - stream.reached, 0), self._ahead_max)

    def _look_ahead(self, stream: _Stream, ahead: int, limit: int) -> int:
        """Up to where to load now; said a step at a time, so that nobody has to look again at each read."""
        until = min(stream.reached + ahead, limit)
        if until - stream.ahead_until < stream.step and (until < limit or until <= stream.ahead_until):
            return 0
        stream.ahead_until = until
        return until
