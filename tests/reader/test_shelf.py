"""Blocks that turn out to be bad while they are on their way into the store."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio

from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.xorb import XorbBlock, decode_block, encode_xorb
from xetfs.reader.shelf import Shelf
from xetfs.store.api import Block
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import Counters
from xetfs.units import MIB


@pytest.fixture
def block() -> XorbBlock:
    xorb = encode_xorb([random.Random(1).randbytes(10_000)])
    return decode_block(xorb.xorb, ChunkRange(0, 1), memoryview(xorb.wire)[: xorb.wire_ends[-1]])


async def shelved(shelf: Shelf, block: XorbBlock) -> Block:
    """The block as a reader finds it."""
    shelf.add(block)
    found = await shelf.find(block.xorb, 0)
    assert found is not None
    return found


async def written(shelf: Shelf) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shelf.run_writer)
        await shelf.drain()
        nursery.cancel_scope.cancel()


async def test_what_is_dropped_before_it_is_written_is_not_written(block: XorbBlock) -> None:
    shelf = Shelf(MemoryStore(Counters()), MIB, patience_s=30)
    await shelf.drop(await shelved(shelf, block))
    await written(shelf)
    assert await shelf.find(block.xorb, 0) is None


class SlowStore(MemoryStore):
    """Has something happen while it takes a block."""

    meanwhile: Callable[[], None]

    def put(self, block: XorbBlock) -> None:
        self.meanwhile()
        super().put(block)


async def test_what_is_dropped_while_it_is_written_does_not_stay(block: XorbBlock) -> None:
    store = SlowStore(Counters())
    shelf = Shelf(store, MIB, patience_s=30)
    bad = await shelved(shelf, block)

    def meanwhile() -> None:
        coroutine = shelf.drop(bad)
        coroutine.send(None)  # as far as its first wait, for a thread
        coroutine.close()

    store.meanwhile = meanwhile
    await written(shelf)
    assert await shelf.find(block.xorb, 0) is None


async def test_what_is_not_dropped_is_written(block: XorbBlock) -> None:
    shelf = Shelf(MemoryStore(Counters()), MIB, patience_s=30)
    shelf.add(block)
    await written(shelf)
    shelf.release_idle()
    found = await shelf.find(block.xorb, 0)
    assert found is not None
    assert found.read(0, 10_000) == block.data
