"""What leaves the cache before it can be read: an error of its own, which calls nothing corrupt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest
import trio
from conftest_reader import FakeCas, FakeFile, open_bench

from xetfs.errors import Evicted
from xetfs.protocol.hashes import XorbHash
from xetfs.protocol.ranges import ByteRange, ChunkRange
from xetfs.protocol.xorb import XORB_CHUNKS_MAX
from xetfs.reader.shelf import Shelf
from xetfs.store.api import Block
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import READER_CORRUPT_WINDOWS, Counters


class ListingStore(MemoryStore):
    """Lists everything, and has nothing of it any more when it is asked for."""

    def held(self, xorb: XorbHash) -> Sequence[ChunkRange]:
        return [ChunkRange(0, XORB_CHUNKS_MAX)]


@pytest.mark.parametrize("verify", ["auto", "proof", "off"])
async def test_what_is_listed_and_gone_again_and_again(
    cas: FakeCas, make_file: Callable[..., FakeFile], verify: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = make_file(20)
    async with open_bench(cas, ListingStore(Counters()), verify=verify) as bench:
        with pytest.raises(Evicted, match="were evicted"):
            await bench.reader(file).read(ByteRange(0, 10))
        assert bench.counters[READER_CORRUPT_WINDOWS] == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_what_is_gone_whenever_a_reader_comes_for_it(
    cas: FakeCas, make_file: Callable[..., FakeFile], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def find(shelf: Shelf, xorb: XorbHash, chunk: int) -> Block | None:
        await trio.lowlevel.checkpoint()
        return None

    file = make_file(20)
    async with open_bench(cas) as bench:
        monkeypatch.setattr(Shelf, "find", find)
        with pytest.raises(Evicted, match="were evicted"):
            await bench.reader(file).read(ByteRange(0, 10))
        assert bench.counters[READER_CORRUPT_WINDOWS] == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
