"""Each block is fetched once, however many windows wait for it.

A fetch belongs to the engine: a window that needs a block which is on its way joins that flight, and the last to leave
cancels it. Blocks that one URL serves are asked for together. They are decoded and hashed as they arrive (incoming.py), in worker
threads, all that has come in one hop: a hop costs 0.1 ms, as much as two chunks.

Bytes on the wire are counted in the budget from before the request until they are decoded; the decoded ones by the shelf.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Final

import trio

from xetfs.cas.client import CasClient
from xetfs.errors import XetfsError
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.reconstruction import SignedUrl
from xetfs.protocol.xorb import XorbBlock
from xetfs.reader.budget import Urgency
from xetfs.reader.flights import Flight
from xetfs.reader.incoming import SEGMENT_BYTES, IncomingBlock, Segment, SegmentWriter
from xetfs.reader.planner import BlockFetch
from xetfs.reader.shelf import Shelf
from xetfs.settings import ReaderSettings
from xetfs.units import MIB

log = logging.getLogger(__name__)

_Key = tuple[XorbHash, ChunkRange]
_REQUEST_BYTES_MAX: Final = 16 * MIB
"""Longest multi-range request; what one URL lists beyond that is asked for by another, side by side."""


class Fetcher:
    def __init__(self, nursery: trio.Nursery, shelf: Shelf, settings: ReaderSettings) -> None:
        self._nursery = nursery
        self._shelf = shelf
        self._flights: dict[_Key, Flight[None]] = {}
        self._threads = trio.CapacityLimiter(settings.worker_threads)

    async def fetch(self, cas: CasClient, plan: dict[SignedUrl, list[BlockFetch]], urgency: Urgency) -> None:
        """Bring the blocks of a plan onto the shelf.

        Raises what the fetch raised: SignedUrlExpired when the plan must be made anew, CorruptData for a block that does not
        decode. Cancellation leaves a flight to those who still wait for it.
        """
        flights: dict[Flight[None], None] = {}
        with ExitStack() as joined:
            for url, blocks in plan.items():
                for flight in self._flights_for(cas, url, blocks, urgency):
                    if flight not in flights:
                        flights[flight] = None
                        flight.join()
                        joined.callback(flight.leave)
            for flight in flights:
                await flight.wait()

    def _flights_for(self, cas: CasClient, url: SignedUrl, blocks: Iterable[BlockFetch], urgency: Urgency) -> list[Flight[None]]:
        """The flights that bring these blocks: those under way, and new ones for the rest."""
        found = []
        fresh: list[BlockFetch] = []
        for block in blocks:
            flight = self._flights.get((block.xorb, block.info.chunks))
            if flight is not None and not flight.ended:
                found.append(flight)
            else:
                fresh.append(block)
        found.extend(self._depart(cas, url, group, urgency) for group in _groups(fresh))
        return found

    def _depart(self, cas: CasClient, url: SignedUrl, group: Sequence[BlockFetch], urgency: Urgency) -> Flight[None]:
        keys = [(block.xorb, block.info.chunks) for block in group]

        def forget() -> None:
            for key in keys:
                if self._flights.get(key) is flight:
                    del self._flights[key]

        flight = Flight(self._nursery, partial(self._fly, cas, url, group, urgency), on_end=forget)
        self._flights.update(dict.fromkeys(keys, flight))
        return flight

    async def _fly(self, cas: CasClient, url: SignedUrl, group: Sequence[BlockFetch], urgency: Urgency) -> None:
        budget = self._shelf.budget
        left = size = sum(len(block.info.bytes) for block in group)
        await budget.acquire(size, urgency)
        failures: list[XetfsError] = []
        try:
            send, arrived = trio.open_memory_channel[Segment](len(group) + size // SEGMENT_BYTES)
            blocks = [IncomingBlock(block, send.send_nowait) for block in group]
            parts = [(block.info.bytes, partial(SegmentWriter, incoming)) for block, incoming in zip(group, blocks, strict=True)]
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope

                async def receive() -> None:
                    with send, _noted(failures, scope), budget.line.transfer(size):
                        await cas.fetch(url, parts)

                nursery.start_soon(receive)
                with _noted(failures, scope):
                    async for segment in arrived:
                        segments = _with_more(segment, arrived)
                        for decoded in await trio.to_thread.run_sync(_decode, segments, limiter=self._threads):
                            self._shelf.add(decoded)
                        done = sum(segment.end - segment.start for segment in segments)
                        left -= done
                        budget.release(done)
        finally:
            budget.release(left)
        if failures:
            raise failures[0]


@contextmanager
def _noted(failures: list[XetfsError], scope: trio.CancelScope) -> Iterator[None]:
    """Note an error, and end the tasks of `scope`: raised in one of them, it would come out of its nursery in a group."""
    try:
        yield
    except XetfsError as exc:
        failures.append(exc)
        scope.cancel()


def _with_more(segment: Segment, arrived: trio.MemoryReceiveChannel[Segment]) -> list[Segment]:
    """`segment`, and those that have arrived meanwhile if they are short."""
    segments = [segment]
    with suppress(trio.WouldBlock, trio.EndOfChannel):
        while sum(len(each.buffer) for each in segments) < SEGMENT_BYTES:
            segments.append(arrived.receive_nowait())
    return segments


def _decode(segments: Sequence[Segment]) -> list[XorbBlock]:
    decoded = [segment.block.decode(segment) for segment in segments]
    return [block for block in decoded if block is not None]


def _groups(blocks: Sequence[BlockFetch]) -> list[list[BlockFetch]]:
    """Blocks of one URL, split so that no request grows past _REQUEST_BYTES_MAX (one block may)."""
    groups: list[list[BlockFetch]] = []
    held = 0
    for block in blocks:
        size = len(block.info.bytes)
        if not groups or held + size > _REQUEST_BYTES_MAX:
            groups.append([])
            held = 0
        groups[-1].append(block)
        held += size
    return groups
