"""Files that become known whole: their names are computed, and what follows from the answer."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
import trio.testing
from conftest_reader import Bench, FakeCas, FakeFile, open_bench, reader_of

from xetfs import telemetry
from xetfs.errors import ProtocolViolation
from xetfs.protocol.hashes import FileId, MerkleHash
from xetfs.protocol.names import CommitId, RepoId
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.tree import TreeEntry
from xetfs.reader.content import FileContent
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import Level
from xetfs.reader.sources import Names, PlainSource, key_of
from xetfs.reader.whole import Digest, WholeChecker
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import Counters

MakeFile = Callable[..., FakeFile]
REPO, COMMIT = RepoId("model", "owner/name"), CommitId("0" * 40)


def checker(bench: Bench) -> WholeChecker:
    return WholeChecker(bench.shelf, bench.nursery, bench.counters)


async def read_all(reader: FileReader, size: int) -> bytes:
    return b"".join([bytes(await reader.read(ByteRange(at, min(at + 300_000, size)))) for at in range(0, size, 300_000)])


@pytest.fixture
def file(cas: FakeCas, make_file: MakeFile) -> FakeFile:
    cas.proofless = True
    return make_file(120)


# Files in Xet


async def test_a_file_read_whole_without_proofs_is_raised(cas: FakeCas, file: FakeFile) -> None:
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        assert reader.map.level is None
        await reader.read(ByteRange(0, 10))
        assert reader.map.level == Level.FRAMING
        assert await read_all(reader, reader.size) == file.content
        assert await checker(bench).check(reader.content) is True
        assert reader.map.level == Level.FILE
        assert reader.map.is_complete(Level.FILE)
        assert bench.counters[telemetry.READER_WHOLE_RIGHT] == 1
        await reader.content.flush()
        again = bench.reader(file)
        await again.read(ByteRange(0, 10))
        assert again.map.level == Level.FILE


async def test_it_is_considered_when_the_last_part_is_known_and_then_no_more(cas: FakeCas, file: FakeFile) -> None:
    async with open_bench(cas) as bench:
        reader, whole = bench.reader(file), checker(bench)
        for at in reversed(range(0, reader.size, 1 << 20)):  # what is read through from its beginning is loaded to its end
            assert reader.map.level in (None, Level.FRAMING)
            whole.consider(reader.content)
            await trio.testing.wait_all_tasks_blocked()
            await reader.read(ByteRange(at, at + (1 << 20)))
        for _ in range(3):
            whole.consider(reader.content)
            await trio.testing.wait_all_tasks_blocked()
        assert reader.map.level == Level.FILE
        assert bench.counters[telemetry.READER_WHOLE_RIGHT] == 1


async def test_what_is_proven_stays_so(cas: FakeCas, make_file: MakeFile) -> None:
    file = make_file(120)
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        await reader.read(ByteRange(0, 1000))
        assert reader.map.level == Level.PROOF
        cas.proofless = True
        await read_all(reader, reader.size)
        assert reader.map.level == Level.FRAMING
        assert await checker(bench).check(reader.content) is True
        assert {run.level for run in reader.map.runs()} == {Level.FILE, Level.PROOF}


async def test_a_false_file_is_forgotten_and_fetched_again(
    cas: FakeCas, make_file: MakeFile, caplog: pytest.LogCaptureFixture
) -> None:
    cas.proofless = True
    true = make_file(60)
    size = len(true.content)
    # The server answers with a file of the same length whose last chunk is another.
    length = true.leaves[-1][1]
    swapped = cas.add_file([(0, 0, 59), (cas.add_xorb([bytes(length)]), 0, 1)])
    assert len(swapped.content) == size
    cas.files[true.id] = swapped
    store = MemoryStore(Counters())
    async with open_bench(cas, store) as bench:
        reader = bench.reader(true)
        assert await read_all(reader, size) == swapped.content
        await bench.shelf.drain()
        await reader.content.flush()
        assert await checker(bench).check(reader.content) is False
        [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "not what its name says" in record.message
        assert bench.counters[telemetry.READER_WHOLE_WRONG] == 1
        assert reader.map.runs() == []
        # As the server says the truth again, so do we: nothing of the lie is held, in memory, in the store or in its records.
        cas.files[true.id] = true
        assert await read_all(reader, size) == true.content
        assert await checker(bench).check(reader.content) is True
        await reader.content.flush()
    async with open_bench(cas, store) as bench:
        before = len(cas.asked)
        again = bench.reader(true)
        assert await read_all(again, size) == true.content
        assert len(cas.asked) == before
        assert again.map.level == Level.FILE


async def test_the_record_of_a_false_file_does_not_come_back(cas: FakeCas, file: FakeFile) -> None:
    async with open_bench(cas) as bench:
        reader = bench.reader(file)
        await read_all(reader, reader.size)
        await reader.content.flush()
        fresh = bench.reader(file)
        fresh.content.disown()
        await fresh.content.flush()
        third = bench.reader(file)
        asked = len(cas.asked)
        await third.read(ByteRange(0, 10))
        assert len(cas.asked) > asked


# Files that are not in Xet


class FakeHub:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked = 0

    async def fetch_file(
        self, repo: RepoId, commit: CommitId, path: str, ranges: ByteRange | None, size: int, into: memoryview
    ) -> None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        assert ranges is not None
        into[:] = self.content[ranges.start : ranges.end]


CONTENT = bytes(range(256)) * 9000


def lfs_entry(content: bytes = CONTENT) -> TreeEntry:
    return TreeEntry("old.bin", "file", len(content), "1" * 40, None, hashlib.sha256(content).digest(), None)


def lfs_reader(bench: Bench, hub: FakeHub, entry: TreeEntry) -> FileReader:
    source = PlainSource(entry, hub, REPO, COMMIT, bench.shelf, bench.counters, verify=bench.settings.reader.verify)  # type: ignore[arg-type]
    content = FileContent(
        source, entry.size, shelf=bench.shelf, nursery=bench.nursery, settings=bench.settings, counters=bench.counters
    )
    return reader_of(content)


async def test_an_lfs_file_is_raised_by_its_sha256(cas: FakeCas) -> None:
    async with open_bench(cas) as bench:
        hub = FakeHub(CONTENT)
        reader = lfs_reader(bench, hub, lfs_entry())
        assert await read_all(reader, reader.size) == CONTENT
        assert reader.map.level == Level.FRAMING
        asked = hub.asked
        assert await checker(bench).check(reader.content) is True
        assert (reader.map.level, hub.asked) == (Level.FILE, asked)


async def test_a_false_lfs_file_is_dropped(cas: FakeCas) -> None:
    async with open_bench(cas) as bench:
        hub = FakeHub(CONTENT[:-1] + b"!")
        reader = lfs_reader(bench, hub, lfs_entry())
        await read_all(reader, reader.size)
        assert await checker(bench).check(reader.content) is False
        hub.content = CONTENT
        assert await read_all(reader, reader.size) == CONTENT


async def test_an_lfs_file_that_is_not_all_held_is_left_as_it_is(cas: FakeCas) -> None:
    store = MemoryStore(Counters(), bytes_max=1_000_000)
    async with open_bench(cas, store, memory_bytes_max=1_000_000) as bench:
        hub = FakeHub(CONTENT)
        reader = lfs_reader(bench, hub, lfs_entry())
        assert await read_all(reader, reader.size) == CONTENT
        asked = hub.asked
        assert await checker(bench).check(reader.content) is None
        assert (reader.map.level, hub.asked) == (Level.FRAMING, asked)


async def test_a_part_of_an_lfs_file_is_refused_where_proof_is_insisted_on_until_it_was_checked(cas: FakeCas) -> None:
    store = MemoryStore(Counters())
    async with open_bench(cas, store, verify="proof") as bench:
        hub = FakeHub(CONTENT)
        with pytest.raises(ProtocolViolation, match="xetfs verify"):
            await lfs_reader(bench, hub, lfs_entry()).read(ByteRange(0, 10))
        assert hub.asked == 0
    async with open_bench(cas, store) as bench:
        reader = lfs_reader(bench, FakeHub(CONTENT), lfs_entry())
        await read_all(reader, reader.size)
        assert await checker(bench).check(reader.content) is True
        await reader.content.flush()
        await bench.shelf.drain()
    async with open_bench(cas, store, verify="proof") as bench:
        assert await read_all(lfs_reader(bench, hub, lfs_entry()), len(CONTENT)) == CONTENT
        assert hub.asked == 0


async def test_plain_git_files_are_checked_from_the_start(cas: FakeCas) -> None:
    oid = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    async with open_bench(cas) as bench:
        entry = TreeEntry("config.json", "file", len(CONTENT), oid, None, None, None)
        reader = lfs_reader(bench, FakeHub(CONTENT), entry)
        await reader.read(ByteRange(0, 10))
        assert reader.map.level == Level.FILE


async def test_what_has_no_name_is_not_judged(cas: FakeCas) -> None:
    async with open_bench(cas) as bench:
        reader = lfs_reader(bench, FakeHub(CONTENT), replace(lfs_entry(), oid="", sha256=None))
        await read_all(reader, reader.size)
        assert await checker(bench).check(reader.content) is None


# Names


def test_names_of_an_entry() -> None:
    file, sha256 = FileId(MerkleHash(b"f" * 32)), b"s" * 32
    entry = TreeEntry("a/b", "file", 5, "2" * 40, None, None, None)
    assert Names.of(entry) == Names(None, None, "2" * 40)
    assert Names.of(replace(entry, sha256=sha256)) == Names(None, sha256, "")
    assert Names.of(replace(entry, sha256=sha256, file_id=file)) == Names(file, sha256, "")
    assert key_of(entry, REPO, COMMIT) == f"git-{'2' * 40}"
    assert key_of(replace(entry, oid=""), REPO, COMMIT) == f"git-owner/name@{COMMIT}/a/b"
    assert key_of(replace(entry, sha256=sha256), REPO, COMMIT) == f"lfs-{sha256.hex()}"
    assert key_of(replace(entry, sha256=sha256, file_id=file), REPO, COMMIT) == f"xet-{file.hex()}"


def test_each_name_has_its_verdict() -> None:
    sha256, oid = hashlib.sha256(b"abc").digest(), hashlib.sha1(b"blob 3\0abc").hexdigest()
    digest = Digest(Names(None, sha256, oid), 3, sha256=False)
    digest.add_bytes(b"ab")
    digest.add_bytes(b"c")
    assert digest.verdicts() == {"sha256": True, "git_oid": True}
    digest = Digest(Names(FileId(MerkleHash(b"f" * 32)), sha256), 3, sha256=False)
    assert not digest.needs_bytes
    assert digest.verdicts() == {"file_id": False}
