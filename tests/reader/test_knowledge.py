"""What is known of a file, on its way into the store."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from conftest_reader import FakeCas, FakeFile, open_bench

from xetfs.protocol.ranges import ByteRange
from xetfs.reader.filemap import Level, decode_runs
from xetfs.reader.knowledge import MAP_RECORD
from xetfs.reader.shelf import Shelf


async def test_a_flush_waits_for_the_one_before(
    cas: FakeCas, make_file: Callable[..., FakeFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first record takes its time, and the second is written while it does: what is kept in the end is the second."""
    file = make_file(120)
    may_write = trio.Event()
    real = Shelf.put_record

    async def put_record(shelf: Shelf, kind: str, key: str, value: bytes) -> None:
        if not written:
            written.append(key)
            await may_write.wait()
        await real(shelf, kind, key, value)

    written: list[str] = []
    monkeypatch.setattr(Shelf, "put_record", put_record)
    async with open_bench(cas, ahead_bytes_max=0) as bench:
        reader = bench.reader(file)
        await reader.read(ByteRange(0, 10))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.content.flush)
            await trio.testing.wait_all_tasks_blocked()
            await reader.read(ByteRange(reader.size // 2, reader.size // 2 + 10))
            nursery.start_soon(reader.content.flush)
            await trio.testing.wait_all_tasks_blocked()
            may_write.set()
        [record] = await bench.shelf.records(MAP_RECORD, written)
        assert record is not None
        kept = decode_runs(record, reader.size)
    proven = [run for run in kept if run.level == Level.PROOF]
    assert any(run.start <= 0 < run.end for run in proven)
    assert any(run.start <= reader.size // 2 < run.end for run in proven)
