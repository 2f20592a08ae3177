"""Files in Xet through the resolve route: when, for how long, and what is right of files that came both ways."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from conftest_reader import Bench, FakeCas, FakeFile, open_bench, reader_of

from xetfs import telemetry
from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    CorruptData,
    EntryNotFound,
    Offline,
    ProtocolViolation,
    RateLimited,
    TimedOut,
    Unavailable,
    XetfsError,
)
from xetfs.protocol.hashes import FileId
from xetfs.protocol.names import CommitId, RepoId
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.reconstruction import Reconstruction
from xetfs.protocol.tree import TreeEntry
from xetfs.reader.content import FileContent
from xetfs.reader.fallback import DETOUR_S, TRIAL_S, Detours, FallbackSource, Places
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import Level
from xetfs.reader.sources import PIECE_BYTES, Names, PlainSource
from xetfs.reader.whole import WholeChecker
from xetfs.reader.xet_source import XetSource
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import Counters

MakeFile = Callable[..., FakeFile]
REPO, COMMIT = RepoId("model", "owner/name"), CommitId("0" * 40)
CAS = "https://cas.example:443"
PLACES = Places("xet-file", str(REPO), CAS)


class FailingCas(FakeCas):
    """Fails with `error` while it is set."""

    error: XetfsError | None = None
    questions = 0

    async def reconstruction(self, file: FileId, span: ByteRange) -> Reconstruction:
        self.questions += 1
        if self.error is not None:
            await trio.lowlevel.checkpoint()
            raise self.error
        return await super().reconstruction(file, span)


@dataclass
class FakeHub:
    content: bytes
    error: XetfsError | None = None
    asked: list[ByteRange] = field(default_factory=list)

    async def fetch_file(
        self, repo: RepoId, commit: CommitId, path: str, ranges: ByteRange | None, size: int, into: memoryview
    ) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        assert ranges is not None
        self.asked.append(ranges)
        into[:] = self.content[ranges.start : ranges.end]


@dataclass
class Ways:
    """One file, both ways to it, and the detours."""

    bench: Bench
    file: FakeFile
    hub: FakeHub
    detours: Detours = field(default_factory=Detours)

    def reader(self, *, sha256: bool = True) -> FileReader:
        content, settings, bench = self.file.content, self.bench.settings, self.bench
        digest = hashlib.sha256(content).digest() if sha256 else None
        entry = TreeEntry("big.bin", "file", len(content), "1" * 40, self.file.id, digest)
        plain = PlainSource(entry, self.hub, REPO, COMMIT, bench.shelf, bench.counters, verify=settings.reader.verify)  # type: ignore[arg-type]
        xet = XetSource(
            self.file.id,
            entry.size,
            cas=bench.cas,  # type: ignore[arg-type]
            fetcher=bench.fetcher,
            shelf=bench.shelf,
            nursery=bench.nursery,
            verify=settings.reader.verify,
            policy=bench.policy,
            counters=bench.counters,
            names=Names.of(entry),
        )
        source = FallbackSource(
            xet, plain, self.detours, lambda: PLACES, bench.counters, size=entry.size, verify=settings.reader.verify
        )
        shared = FileContent(
            source, entry.size, shelf=bench.shelf, nursery=bench.nursery, settings=settings, counters=bench.counters
        )
        return reader_of(shared)


@pytest.fixture
def cas() -> FailingCas:
    return FailingCas()


@pytest.fixture
def file(make_file: MakeFile) -> FakeFile:
    return make_file(120)


async def read(reader: FileReader, start: int, end: int) -> bytes:
    return bytes(await reader.read(ByteRange(start, end)))


async def read_all(reader: FileReader) -> bytes:
    return b"".join([await read(reader, at, at + 700_001) for at in range(0, reader.size, 700_001)])


async def test_a_server_that_is_too_busy_is_waited_for_by_what_nobody_waits_for(cas: FailingCas, file: FakeFile) -> None:
    cas.error = RateLimited("429", retry_after_s=90)
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content))
        reader = ways.reader()
        with pytest.raises(RateLimited):
            await reader.bring(ByteRange(0, 1_000_000), lambda until: None)
        assert ways.hub.asked == []
        assert await read(reader, 2_000_000, 2_000_010) == file.content[2_000_000:2_000_010]


REFUSALS = [
    EntryNotFound("no such file"),
    AccessDenied("403"),
    AuthRequired("401"),
    Offline("no route to the CAS"),
    Unavailable("500"),
    TimedOut("silent"),
    RateLimited("429"),
    ProtocolViolation("refused (451)", refused=True),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
async def test_what_is_refused_or_absent_comes_through_the_hub(
    cas: FailingCas, file: FakeFile, error: XetfsError, caplog: pytest.LogCaptureFixture
) -> None:
    cas.error = error
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content))
        reader = ways.reader()
        assert await read(reader, 1_000_003, 1_200_000) == file.content[1_000_003:1_200_000]
        assert reader.map.level == Level.FRAMING
        assert bench.counters[telemetry.READER_FALLBACK_WINDOWS] >= 1
        questions = cas.questions
        assert await read(ways.reader(), 3_000_000, 3_000_100) == file.content[3_000_000:3_000_100]
        assert cas.questions == questions  # nobody waits for it again
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert error.message in warnings[0].getMessage()
    assert list(ways.detours.reasons().values()) == [str(error)]


@pytest.mark.parametrize("error", [CorruptData("a wrong hash"), ProtocolViolation("a plan that cannot be")], ids=repr)
async def test_what_is_wrong_does_not(cas: FailingCas, file: FakeFile, error: XetfsError) -> None:
    cas.error = error
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content))
        with pytest.raises(type(error)):
            await read(ways.reader(), 0, 10)
        assert ways.hub.asked == []
        assert ways.detours.reasons() == {}


async def test_where_proof_is_insisted_on_there_is_no_fallback(cas: FailingCas, file: FakeFile) -> None:
    cas.error = Unavailable("500")
    async with open_bench(cas, verify="proof") as bench:
        ways = Ways(bench, file, FakeHub(file.content))
        with pytest.raises(Unavailable, match="500"):
            await read(ways.reader(), 0, 10)
        assert ways.hub.asked == []


async def test_a_file_that_came_through_the_hub_and_was_checked_whole_is_given_out_where_proof_is_insisted_on(
    cas: FailingCas, file: FakeFile
) -> None:
    store = MemoryStore(Counters())
    cas.error = Unavailable("500")
    async with open_bench(cas, store) as bench:
        reader = Ways(bench, file, FakeHub(file.content)).reader()
        await read_all(reader)
        assert await WholeChecker(bench.shelf, bench.nursery, bench.counters).check(reader.content) is True
        await reader.content.flush()
        await bench.shelf.drain()
    async with open_bench(cas, store, verify="proof") as bench:
        assert await read_all(Ways(bench, file, FakeHub(b"")).reader()) == file.content


async def test_both_errors_are_told_when_both_ways_fail_and_the_cas_is_asked_again(
    cas: FailingCas, file: FakeFile, autojump_clock: trio.testing.MockClock
) -> None:
    cas.error = Unavailable("500", hint="ask its owner")
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content, Offline("the Hub is gone", hint="check the network")))
        reader = ways.reader()
        with pytest.raises(Unavailable) as caught:
            await read(reader, 0, 10)
        assert str(caught.value) == "500; ask its owner; and through the Hub: the Hub is gone; check the network"
        assert str(cas.error) == "500; ask its owner", "an error that others may be told too is left alone"
        assert ways.detours.reasons() == {}
        cas.error = None
        await trio.sleep(2)  # an error is kept for a moment
        assert await read(reader, 0, 10) == file.content[:10]
        assert reader.map.level == Level.PROOF


async def test_after_a_while_one_window_tries_the_cas_and_the_others_follow(
    cas: FailingCas, file: FakeFile, autojump_clock: trio.testing.MockClock
) -> None:
    cas.error = Offline("blocked")
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content))
        await read(ways.reader(), 0, 10)
        assert cas.questions >= 1
        await trio.sleep(DETOUR_S + 1)
        assert not ways.detours.take(PLACES)  # a window that is trying
        questions = cas.questions
        await read(ways.reader(), 2_000_000, 2_000_010)
        assert cas.questions == questions
        await trio.sleep(TRIAL_S + 1)
        cas.error = None
        reader = ways.reader()
        asked = len(ways.hub.asked)
        await read(reader, 4_000_000, 4_000_010)
        await read(reader, 5_000_000, 5_000_010)
        assert reader.map.level == Level.PROOF
        assert len(ways.hub.asked) == asked
        assert ways.detours.reasons() == {}


def test_a_server_that_asks_for_longer_is_left_alone_for_longer(autojump_clock: trio.testing.MockClock) -> None:
    async def main() -> None:
        detours = Detours()
        detours.note_failure(PLACES, RateLimited("429", retry_after_s=3600))
        await trio.sleep(3599)
        assert detours.take(PLACES)
        await trio.sleep(2)
        assert not detours.take(PLACES)

    trio.run(main, clock=autojump_clock)


async def test_what_fails_for_a_file_says_nothing_of_others_and_what_fails_for_a_server_does() -> None:
    other = Places("xet-other", "owner/other", CAS)
    elsewhere = Places("xet-far", "owner/far", "https://cas.far:443")
    tokenless = Places("xet-file", str(REPO), None)
    detours = Detours()
    detours.note_failure(PLACES, EntryNotFound("no such file"))
    assert (detours.on(PLACES), detours.on(other), detours.on(elsewhere)) == (True, False, False)
    detours.note_failure(PLACES, Unavailable("500"))
    assert (detours.on(other), detours.on(elsewhere)) == (True, False)
    detours = Detours()
    detours.note_failure(tokenless, EntryNotFound("no token: the Hub knows no Xet"))
    assert (detours.on(PLACES), detours.on(other)) == (True, False)


async def test_without_xet_the_cas_is_never_asked(cas: FailingCas, file: FakeFile, caplog: pytest.LogCaptureFixture) -> None:
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content), Detours(xet=False))
        reader = ways.reader()
        reader.open()
        assert await read_all(reader) == file.content
        assert (cas.questions, cas.prepared, cas.requests) == (0, 0, 0)
        assert "HF_HUB_DISABLE_XET" in ways.detours.reasons()["all"]
        reader.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_file_read_both_ways_whole_is_checked_by_its_sha256(cas: FailingCas, file: FakeFile) -> None:
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content))
        reader = ways.reader()
        await read(reader, 0, 1_500_000)
        cas.error = Unavailable("500")
        assert await read_all(reader) == file.content
        assert {run.level for run in reader.map.runs()} == {Level.PROOF, Level.FRAMING}
        assert await WholeChecker(bench.shelf, bench.nursery, bench.counters).check(reader.content) is True
        assert reader.map.is_complete(Level.FILE)


async def test_wrong_bytes_that_came_through_the_hub_are_found_when_the_file_is_whole(cas: FailingCas, file: FakeFile) -> None:
    cas.error = Unavailable("500")
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content[:-1] + b"!"))
        reader = ways.reader()
        await read_all(reader)
        assert await WholeChecker(bench.shelf, bench.nursery, bench.counters).check(reader.content) is False
        ways.hub.content = file.content
        assert await read_all(reader) == file.content


async def test_without_a_sha256_a_file_that_came_through_the_hub_has_no_name(cas: FailingCas, file: FakeFile) -> None:
    cas.error = Unavailable("500")
    async with open_bench(cas) as bench:
        reader = Ways(bench, file, FakeHub(file.content)).reader(sha256=False)
        assert await read_all(reader) == file.content
        assert await WholeChecker(bench.shelf, bench.nursery, bench.counters).check(reader.content) is None


@pytest.mark.parametrize("proofless", [False, True], ids=["proofs", "no proofs"])
@pytest.mark.parametrize("seed", range(12))
async def test_reads_are_right_however_the_ways_change(
    cas: FailingCas, make_file: MakeFile, seed: int, proofless: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """In random order, with the cache smaller than the file now and then, and through remounts."""
    cas.proofless = proofless
    file = make_file(150, seed=seed)
    chance = random.Random(seed)
    store = MemoryStore(Counters(), bytes_max=3_000_000 if seed % 3 == 0 else 1 << 30)
    for _ in range(3):
        cas.error = None
        async with open_bench(cas, store) as bench:
            ways = Ways(bench, file, FakeHub(file.content))
            reader = ways.reader()
            reader.open()
            for _ in range(25):
                if chance.random() < 0.4:
                    cas.error = None if cas.error else Unavailable("500")
                    await trio.sleep(DETOUR_S + TRIAL_S + 1)
                start = chance.randrange(reader.size)
                end = min(start + chance.choice([1, 5_000, 300_000, 2_000_000]), reader.size)
                assert await read(reader, start, end) == file.content[start:end]
            await reader.content.flush()
            await bench.shelf.drain()
            assert bench.counters[telemetry.READER_CORRUPT_WINDOWS] == 0
            reader.close()


async def test_windows_of_both_ways_at_the_same_time(
    cas: FailingCas, file: FakeFile, autojump_clock: trio.testing.MockClock
) -> None:
    """One is still on its way from the CAS when its neighbours come through the Hub."""
    cas.delay_s = 1.0
    middle = len(file.content) // 2
    got: dict[int, bytes] = {}
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content))
        reader = ways.reader()

        async def take(start: int, end: int) -> None:
            got[start] = await read(reader, start, end)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, middle, middle + 300_000)
            await trio.sleep(0.5)
            ways.detours.note_failure(PLACES, Offline("blocked"))
            nursery.start_soon(take, middle - 400_000, middle - 10)
            nursery.start_soon(take, middle + 900_000, middle + 1_200_000)
        assert all(file.content[start : start + len(data)] == data for start, data in got.items())
        assert await read_all(reader) == file.content


async def test_what_an_earlier_mount_left_without_proof_is_served_during_a_detour(cas: FailingCas, file: FakeFile) -> None:
    store = MemoryStore(Counters())
    cas.proofless = True
    async with open_bench(cas, store) as bench:
        reader = Ways(bench, file, FakeHub(file.content)).reader()
        await read_all(reader)
        await reader.content.flush()
        await bench.shelf.drain()
    cas.error = Offline("blocked")
    async with open_bench(cas, store) as bench:
        ways = Ways(bench, file, FakeHub(file.content), Detours(xet=False))
        assert await read_all(ways.reader()) == file.content
        assert ways.hub.asked == []


async def test_pieces_end_where_chunks_are_known(cas: FailingCas, file: FakeFile) -> None:
    async with open_bench(cas) as bench:
        ways = Ways(bench, file, FakeHub(file.content))
        reader = ways.reader()
        await read(reader, 1_000_000, 1_000_010)
        known = reader.map.gaps(ByteRange(0, reader.size))
        cas.error = Unavailable("500")
        await read_all(reader)
        fetched = sum(len(span) for span in ways.hub.asked)
        assert fetched <= sum(map(len, known))
        assert all(span.start % PIECE_BYTES == 0 or span.start in {gap.start for gap in known} for span in ways.hub.asked)
        assert isinstance(reader.source, FallbackSource)
