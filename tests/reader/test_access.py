"""One content, read with several rights: what is fetched is shared, what is allowed is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from conftest_reader import Bench, FakeCas, FakeFile, open_bench

from xetfs.errors import AccessDenied, EntryNotFound, ProtocolViolation, Unavailable, XetfsError
from xetfs.protocol.hashes import FileId
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.reconstruction import Reconstruction
from xetfs.reader.access import RIGHT_S, SILENCE_S
from xetfs.reader.file import FileReader

MakeFile = Callable[..., FakeFile]
FIRST, LAST = ByteRange(0, 5000), ByteRange(3_000_000, 3_005_000)


@dataclass(eq=False)
class GuardedCas(FakeCas):
    """The same files with another right; `refusal` is what its token brings, once `may_answer` is set."""

    refusal: XetfsError | None = None
    may_answer: trio.Event | None = None

    async def reconstruction(self, file: FileId, span: ByteRange) -> Reconstruction:
        if self.may_answer is not None:
            await self.may_answer.wait()
        if self.refusal is not None:
            self.asked.append(("refused", span))
            raise self.refusal
        return await super().reconstruction(file, span)


@pytest.fixture
def file(make_file: MakeFile) -> FakeFile:
    return make_file(80)


def same_as(cas: FakeCas) -> GuardedCas:
    return GuardedCas(xorbs=cas.xorbs, files=cas.files)


def two_readers(bench: Bench, file: FakeFile, other: FakeCas) -> tuple[FileReader, FileReader]:
    reader = bench.reader(file)
    access = reader.content.accesses.of(other, bench.source(file, other))
    return reader, FileReader(reader.content, access)


async def test_what_one_right_has_fetched_another_need_not_fetch(cas: FakeCas, file: FakeFile) -> None:
    other = same_as(cas)
    async with open_bench(cas, ahead_bytes_max=0) as bench:
        one, two = two_readers(bench, file, other)
        assert await one.read(FIRST) == file.content[: FIRST.end]
        assert one.read_nowait(FIRST) is not None
        assert two.read_nowait(FIRST) is None, "nobody has said that it may"
        fetched = cas.fetched_bytes
        assert await two.read(FIRST) == file.content[: FIRST.end]
        assert (cas.fetched_bytes, other.fetched_bytes, len(other.asked)) == (fetched, 0, 1)
        assert two.read_nowait(FIRST) is not None
        assert await one.read(FIRST) == file.content[: FIRST.end]  # nobody else has fetched, so nobody is asked


@pytest.mark.parametrize("refusal", [AccessDenied("no"), EntryNotFound("no such file")])
async def test_without_the_right_nothing_is_given_that_another_has_fetched(
    cas: FakeCas, file: FakeFile, refusal: XetfsError
) -> None:
    other = same_as(cas)
    other.refusal = refusal
    async with open_bench(cas, ahead_bytes_max=0) as bench:
        one, two = two_readers(bench, file, other)
        await one.read(FIRST)
        for _ in range(2):
            assert two.read_nowait(FIRST) is None
            # Of a file that is listed nobody is told that there is none.
            with pytest.raises(ProtocolViolation if isinstance(refusal, EntryNotFound) else type(refusal)):
                await two.read(FIRST)
        assert one.read_nowait(FIRST) is not None


async def test_a_right_is_asked_for_again_after_its_time(
    cas: FakeCas, file: FakeFile, autojump_clock: trio.testing.MockClock
) -> None:
    other = same_as(cas)
    async with open_bench(cas, ahead_bytes_max=0) as bench:
        one, two = two_readers(bench, file, other)
        await one.read(FIRST)
        await two.read(FIRST)
        await trio.sleep(RIGHT_S + 1)
        assert two.read_nowait(FIRST) is None
        other.refusal = Unavailable("nobody there")  # then what was said last counts, for a while
        assert await two.read(FIRST) == file.content[: FIRST.end]
        await trio.sleep(SILENCE_S + 1)
        other.refusal = AccessDenied("no more")
        with pytest.raises(AccessDenied):
            await two.read(FIRST)


async def test_a_silent_server_grants_nothing_that_it_never_did(cas: FakeCas, file: FakeFile) -> None:
    other = same_as(cas)
    other.refusal = Unavailable("nobody there")
    async with open_bench(cas, ahead_bytes_max=0) as bench:
        one, two = two_readers(bench, file, other)
        await one.read(FIRST)
        with pytest.raises(Unavailable):
            await two.read(FIRST)


async def test_the_failure_of_one_right_is_not_that_of_another(cas: FakeCas, file: FakeFile) -> None:
    """A window under way is joined; when it fails for want of a right, the one who waits fetches with their own."""
    revoked = same_as(cas)
    revoked.may_answer = trio.Event()
    revoked.refusal = AccessDenied("revoked")
    async with open_bench(cas, ahead_bytes_max=0, verify="off") as bench:
        one, two = two_readers(bench, file, revoked)
        given: list[object] = []

        async def read(reader: FileReader) -> None:
            try:
                given.append(bytes(await reader.read(LAST)))
            except AccessDenied as exc:
                given.append(type(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, two)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read, one)
            await trio.testing.wait_all_tasks_blocked()
            revoked.may_answer.set()
        content = file.content[LAST.start : LAST.end]
        assert sorted(given, key=str) == sorted([content, AccessDenied], key=str)
        # Nor is it given again to the other at once, and what is fetched meanwhile changes nothing for the one that is refused.
        assert bytes(await one.read(LAST)) == content
        with pytest.raises(AccessDenied):
            await two.read(LAST)


async def test_windows_that_are_brought_for_one_right_fall_back_on_another(cas: FakeCas, file: FakeFile) -> None:
    revoked = same_as(cas)
    revoked.may_answer = trio.Event()
    revoked.refusal = AccessDenied("revoked")
    async with open_bench(cas, ahead_bytes_max=0, verify="off") as bench:
        one, two = two_readers(bench, file, revoked)
        covered: list[int] = []

        async def read() -> None:
            with pytest.raises(AccessDenied):
                await two.read(LAST)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(one.bring, ByteRange(LAST.start - 100_000, LAST.end), covered.append)
            await trio.testing.wait_all_tasks_blocked()
            revoked.may_answer.set()
        assert len(covered) == 1
        assert one.read_nowait(LAST) == file.content[LAST.start : LAST.end]
